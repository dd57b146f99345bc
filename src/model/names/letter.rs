//! Characters of any script, as far as a person can tell from what is shown that they are there.

use unicode_width::UnicodeWidthChar as _;

/// What takes no place on a screen or turns what stands beside it around: Unicode's
/// `Default_Ignorable_Code_Point` and what else only formats. Ranges, in order.
const UNSEEN: [(char, char); 21] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{16fe4}', '\u{16fe4}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
    ('\u{f0000}', '\u{10ffff}'),
];

/// Whether it is not to be seen: a control character, or one that only formats.
pub fn is_unseen(c: char) -> bool {
    let after = UNSEEN.partition_point(|(first, _)| *first <= c);
    let before = after.checked_sub(1).and_then(|place| UNSEEN.get(place));
    c.is_control() || before.is_some_and(|(_, last)| c <= *last)
}

/// Whether it is a letter or digit of some script.
pub(super) fn is_letter(c: char) -> bool {
    c.is_alphanumeric() && !is_unseen(c)
}

/// Whether it is a sign on the letter before it, such as an accent, a vowel or a tone.
pub(super) fn is_mark(c: char) -> bool {
    !c.is_ascii() && c.width() == Some(0) && !is_unseen(c)
}
