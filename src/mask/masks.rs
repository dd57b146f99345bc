//! Masks values in output.
//!
//! Every byte that a form of a value covers is masked, also if forms overlap, and across the pieces in which output
//! comes. An end that a form begins with is held back until more output shows what it is, or none comes in time.
//! Colours and carriage returns within a value do not hide it in output. Answers have no colours: there every byte counts.
//!
//! ```text
//! … the token is s3cr | et-token; bye       two pieces
//! … the token is                            written with the first piece; s3cr is held back
//!                ***; bye                   written with the second piece
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::RwLock;

use super::escapes::PlainText;
use super::forms;
use super::parts::{LEAST_BYTES, LEAST_IN_ANSWERS, SecretParts, Unmasked};
use super::patterns::Patterns;
use super::search::TooLarge;
use super::stream::StreamMask;

/// The most bytes of forms for an answer: exchanges have masks of their own, in memory that steps cause.
const MOST_IN_ANSWERS: usize = 256 * 1024;

/// The values to mask. Values can be added while output is written.
#[derive(Default)]
pub struct Masks {
    forms: RwLock<BTreeSet<Vec<u8>>>,
    /// The descriptions of values that are not masked.
    unmasked: RwLock<BTreeSet<String>>,
    patterns: RwLock<Arc<Patterns>>,
    /// True for answers, in which escape sequences are bytes like any other.
    is_for_answers: bool,
}

impl Masks {
    /// Masks for answers of upstreams, which are no output of a terminal.
    pub fn for_answers() -> Self {
        Self { is_for_answers: true, ..Self::default() }
    }

    /// Masks a value from now on. Returns why the value or parts of it are not masked. In answers the whole value is masked,
    /// also if it is a word or a short number; only fewer than [`LEAST_IN_ANSWERS`] bytes are `Unmasked::Short`.
    ///
    /// # Errors
    /// If there are more values than can be masked.
    pub fn add(&self, value: &[u8]) -> Result<Option<Unmasked>, TooLarge> {
        self.add_all([value]).map(|mut unmasked| unmasked.pop())
    }

    /// Masks values from now on, as [`Masks::add`] does each. Returns why some are not masked.
    ///
    /// # Errors
    /// If there are more values than can be masked.
    pub fn add_all<'a>(
        &self,
        values: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<Unmasked>, TooLarge> {
        let (mut new, mut unmasked) = (BTreeSet::new(), Vec::new());
        for value in values {
            unmasked.extend(self.forms_of(value, &mut new));
        }
        let mut all = self.forms.write();
        let before = all.len();
        all.extend(new);
        if all.len() > before {
            let most = if self.is_for_answers { MOST_IN_ANSWERS } else { usize::MAX };
            if all.iter().map(Vec::len).sum::<usize>() > most {
                return Err(TooLarge);
            }
            *self.patterns.write() = Arc::new(Patterns::new(&all, self.is_for_answers)?);
        }
        Ok(unmasked)
    }

    /// Adds the forms of a value to others.
    fn forms_of(&self, value: &[u8], all: &mut BTreeSet<Vec<u8>>) -> Option<Unmasked> {
        let mut parts = SecretParts::of(value);
        let mut new = forms::of(&parts);
        let whole = value.trim_ascii();
        if self.is_for_answers && !parts.secrets.contains(whole) {
            if whole.len() < LEAST_IN_ANSWERS {
                return (!whole.is_empty()).then_some(Unmasked::Short);
            }
            new.extend(forms::of_whole(whole));
            parts.unmasked = parts.unmasked.filter(|why| *why == Unmasked::Parts);
        }
        let of_output = new.iter().filter(|_| !self.is_for_answers);
        let plain: Vec<_> = of_output.filter_map(|form| PlainText::of(form)).collect();
        all.extend(new);
        all.extend(
            plain.into_iter().map(|plain| plain.text).filter(|text| text.len() >= LEAST_BYTES),
        );
        parts.unmasked
    }

    /// Records that a value is not masked. Returns false if that was recorded before.
    pub fn is_newly_unmasked(&self, what: String) -> bool {
        self.unmasked.write().insert(what)
    }

    /// Masks a text.
    pub fn masked(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.masked_pieces(&[text.as_bytes()])).into_owned()
    }

    /// Masks a text in pieces.
    pub fn masked_pieces(&self, pieces: &[&[u8]]) -> Vec<u8> {
        let (patterns, mut stream) = (self.patterns(), StreamMask::default());
        let mut written: Vec<u8> =
            pieces.iter().flat_map(|piece| stream.feed(&patterns, piece)).collect();
        written.extend(stream.finish(&patterns));
        written
    }

    /// The current patterns.
    pub fn patterns(&self) -> Arc<Patterns> {
        Arc::clone(&self.patterns.read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(values: &[&str], pieces: &[&[u8]]) -> Vec<u8> {
        let masks = Masks::default();
        for value in values {
            masks.add(value.as_bytes()).unwrap();
        }
        masks.masked_pieces(pieces)
    }

    #[test]
    fn values_are_masked_wherever_they_stand_and_nothing_else_is() {
        for (text, expected) in [
            ("", ""),
            ("nothing here", "nothing here"),
            ("hunter22", "***"),
            ("a hunter22 b hunter22", "a *** b ***"),
            ("hunter22hunter22", "******"),
            ("hunter2", "hunter2"),
            ("hunhunter22", "hun***"),
            ("aHVudGVyMjI=", "***="),
        ] {
            assert_eq!(masked(&["hunter22"], &[text.as_bytes()]), expected.as_bytes(), "{text}");
        }
    }

    #[test]
    fn overlapping_values_are_masked_whole() {
        let values = ["abcde4gh", "e4ghijkl", "abcde4", "ghijkl-more"];
        assert_eq!(masked(&values, &[b"xabcde4ghijkl-more."]), b"x***.");
        assert_eq!(masked(&values, &[b"xabcd", b"e4gh", b"ijkl", b"-mor", b"e."]), b"x***.");
        assert_eq!(masked(&values, &[b"xabcde4", b"gzz"]), b"x***gzz");
    }

    #[test]
    fn colours_within_a_value_do_not_hide_it() {
        let coloured: &[u8] = b"a hun\x1b[01;31m\x1b[Kter22\x1b[m\x1b[K b";
        let expected: &[u8] = b"a ***\x1b[01;31m\x1b[K\x1b[m\x1b[K b";
        assert_eq!(masked(&["hunter22"], &[coloured]), expected);
        let bytes: Vec<&[u8]> = coloured.chunks(1).collect();
        assert_eq!(masked(&["hunter22"], &bytes), expected);
        assert_eq!(masked(&["one-line\ntwo-line"], &[b"one-line\r\ntwo-line"]), b"***");
    }

    #[test]
    fn an_answer_keeps_every_byte_beside_a_value() {
        let masks = Masks::for_answers();
        masks.add(b"hunter22").unwrap();
        assert_eq!(masks.masked_pieces(&[b"a\r\x1b[m hun", b"ter22\r"]), b"a\r\x1b[m ***\r");
        assert_eq!(masks.masked_pieces(&[b"hun\x1b[mter22"]), b"hun\x1b[mter22");
    }

    #[test]
    fn an_answer_has_words_and_short_numbers_masked() {
        for (value, forms) in [
            ("abc", ["abc", "616263", "YWJj", "***"]),
            ("production", ["production", "70726F64756374696F6E", "cHJvZHVjdGlvbg", "***"]),
            ("123456\n", ["123456", "313233343536", "MTIzNDU2", "***"]),
            ("p:~", ["p:~", "p%3A~", "p%3a%7e", "p%3A%7E"]),
        ] {
            let masks = Masks::for_answers();
            assert_eq!(masks.add(value.as_bytes()).unwrap(), None, "{value}");
            for form in forms {
                assert_eq!(masks.masked(&format!("<{form}>")), "<***>", "{value}: {form}");
            }
        }
        let document = "{\"name\": \"main\", \"password\": \"foobar99\"}";
        let masks = Masks::for_answers();
        masks.add(document.as_bytes()).unwrap();
        assert_eq!(masks.masked(&format!("<{document}>main foobar99")), "<***>main ***");
        for (value, why) in [("", None), ("\n", None), ("12", Some(Unmasked::Short))] {
            assert_eq!(Masks::for_answers().add(value.as_bytes()), Ok(why), "{value}");
        }
    }

    #[test]
    fn an_answer_has_no_more_forms_than_memory_allows() {
        let large = "x1Y2".repeat(16 * 1024);
        let values = [large.as_bytes(); 1];
        assert_eq!(Masks::for_answers().add_all(values), Err(TooLarge));
        assert!(Masks::default().add_all(values).is_ok());
    }
}
