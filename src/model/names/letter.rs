//! Which characters of any script a reader can see.

use unicode_width::UnicodeWidthChar as _;

/// Characters that take no place on a screen or reorder the text beside them: Unicode's `Default_Ignorable_Code_Point` and
/// other characters that only format. Sorted ranges.
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

/// True for a control character, and for a character that only formats.
pub fn is_unseen(c: char) -> bool {
    let after = UNSEEN.partition_point(|(first, _)| *first <= c);
    let before = after.checked_sub(1).and_then(|place| UNSEEN.get(place));
    c.is_control() || before.is_some_and(|(_, last)| c <= *last)
}

/// True for a letter or digit of any script.
pub(super) fn is_letter(c: char) -> bool {
    c.is_alphanumeric() && !is_unseen(c)
}

/// True for a mark on the letter before it, such as an accent, a vowel or a tone.
pub(super) fn is_mark(c: char) -> bool {
    !c.is_ascii() && c.width() == Some(0) && !is_unseen(c)
}
