//! Output in which values are masked.
//!
//! Whatever any form of a value covers is masked, also where forms overlap, and across the pieces in which
//! output comes: an end that a form begins with is held back until it is clear what it is.
//!
//! ```text
//! … the token is s3cr | et-token; bye       two pieces
//! … the token is                            written with the first; s3cr is held back
//!                ***; bye                   written with the second
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use parking_lot::RwLock;

use super::forms;
use crate::cli::failure::{Failure, exit};

/// What stands in a value's place.
const MASK: &[u8] = b"***";
/// A table of all forms takes up to 1 KiB a byte, and is the faster one. In bytes.
const MOST_IN_A_TABLE: usize = 8 * 1024;

/// The values to mask; more may come while output is being written.
#[derive(Default)]
pub struct Masks {
    forms: RwLock<BTreeSet<Vec<u8>>>,
    /// What was said to be too short.
    too_short: RwLock<BTreeSet<String>>,
    patterns: RwLock<Arc<Patterns>>,
}

impl Masks {
    /// Masks a value from now on. Says whether it is long enough to be.
    ///
    /// # Errors
    /// If there are more values than can be looked for.
    pub fn add(&self, value: &[u8]) -> Result<bool, Failure> {
        let new = forms::of(value);
        let is_masked = !new.is_empty();
        let mut all = self.forms.write();
        let before = all.len();
        all.extend(new);
        if all.len() > before {
            *self.patterns.write() = Arc::new(Patterns::new(&all)?);
        }
        Ok(is_masked)
    }

    /// Whether it is to be said that this is too short: it was not said before.
    pub fn is_newly_too_short(&self, what: String) -> bool {
        self.too_short.write().insert(what)
    }

    /// A text with the values masked.
    pub fn masked(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.masked_pieces(&[text.as_bytes()])).into_owned()
    }

    /// A text that comes in pieces with the values masked.
    pub fn masked_pieces(&self, pieces: &[&[u8]]) -> Vec<u8> {
        let (patterns, mut stream) = (self.patterns(), Masked::default());
        let mut written: Vec<u8> =
            pieces.iter().flat_map(|piece| stream.feed(&patterns, piece)).collect();
        written.extend(stream.finish(&patterns));
        written
    }

    /// What to look for now.
    pub fn patterns(&self) -> Arc<Patterns> {
        Arc::clone(&self.patterns.read())
    }
}

/// What to look for.
#[derive(Default)]
pub struct Patterns {
    search: Option<AhoCorasick>,
    texts: Vec<Vec<u8>>,
    longest: usize,
}

impl Patterns {
    fn new(forms: &BTreeSet<Vec<u8>>) -> Result<Self, Failure> {
        let texts: Vec<Vec<u8>> = forms.iter().cloned().collect();
        let total: usize = texts.iter().map(Vec::len).sum();
        let kind = match total <= MOST_IN_A_TABLE {
            true => AhoCorasickKind::DFA,
            false => AhoCorasickKind::ContiguousNFA,
        };
        let search = AhoCorasick::builder().kind(Some(kind)).build(&texts).map_err(|_| {
            let text =
                "the values are too large to be masked; say --no-mask to leave the output as it is";
            Failure::new("VALUE_UNFIT", text, exit::FAILED)
        })?;
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        Ok(Self { search: Some(search), texts, longest })
    }

    /// Where the end begins that a form could begin with.
    fn open_end(&self, text: &[u8]) -> usize {
        let earliest = text.len().saturating_sub(self.longest.saturating_sub(1));
        let begins = |start: &usize| {
            let end = text.get(*start..).unwrap_or_default();
            // They are sorted: what begins with it stands right behind it.
            let behind = self.texts.partition_point(|form| form.as_slice() <= end);
            self.texts.get(behind).is_some_and(|form| form.starts_with(end))
        };
        (earliest..text.len()).find(begins).unwrap_or(text.len())
    }

    /// What forms cover, in order, where they overlap as one.
    fn covered(&self, text: &[u8]) -> Vec<(usize, usize)> {
        let mut covered: Vec<(usize, usize)> = Vec::new();
        let Some(search) = &self.search else { return covered };
        // In the order of their ends.
        for found in search.find_overlapping_iter(text) {
            let (mut start, end) = (found.start(), found.end());
            while let Some((before, _)) = covered.pop_if(|(_, before_end)| *before_end > start) {
                start = start.min(before);
            }
            covered.push((start, end));
        }
        covered
    }
}

/// One stream of output.
#[derive(Default)]
pub struct Masked {
    /// What was not written yet.
    held: Vec<u8>,
    /// How much of it is covered by a mask that was written.
    covered: usize,
}

impl Masked {
    /// What can be written once this piece has come.
    pub fn feed(&mut self, patterns: &Patterns, piece: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(piece);
        let open_end = patterns.open_end(&self.held);
        self.write(patterns, open_end)
    }

    /// What is left to be written at the end.
    pub fn finish(&mut self, patterns: &Patterns) -> Vec<u8> {
        self.write(patterns, self.held.len())
    }

    /// Writes what is held up to `end`. A value that begins behind it is decided with what follows.
    fn write(&mut self, patterns: &Patterns, end: usize) -> Vec<u8> {
        let mut written = Vec::with_capacity(end);
        let mut position = self.covered;
        for (start, stop) in patterns.covered(&self.held) {
            if start >= end {
                break;
            }
            written.extend_from_slice(self.held.get(position..start).unwrap_or_default());
            let is_part_of_a_mask = start < position;
            if !is_part_of_a_mask {
                written.extend_from_slice(MASK);
            }
            position = position.max(stop);
        }
        written.extend_from_slice(self.held.get(position..end).unwrap_or_default());
        self.covered = position.saturating_sub(end);
        self.held.drain(..end);
        written
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn of_values_that_overlap_nothing_is_left() {
        let values = ["abcdefgh", "efghijkl", "abcdef", "ghijkl-more"];
        assert_eq!(masked(&values, &[b"xabcdefghijkl-more."]), b"x***.");
        assert_eq!(masked(&values, &[b"xabcd", b"efgh", b"ijkl", b"-mor", b"e."]), b"x***.");
        assert_eq!(masked(&values, &[b"xabcdef", b"gzz"]), b"x***gzz");
    }

    #[test]
    fn what_cannot_be_a_value_is_not_held_back() {
        let masks = Masks::default();
        masks.add(b"hunter22").unwrap();
        let (patterns, mut stream) = (masks.patterns(), Masked::default());
        assert_eq!(stream.feed(&patterns, b"Name? "), b"Name? ");
        assert_eq!(stream.feed(&patterns, b"the hunt"), b"the ");
        assert_eq!(stream.feed(&patterns, b"er is on"), b"hunter is on");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_does_not_matter_in_which_pieces_output_comes(
            text in "(hunter22|hunter23x|hunter22-and-more|h|u|\n|huntaHVudGVyMjI=){0,12}",
            cuts in proptest::collection::vec(0usize..200, 0..8),
        ) {
            let values = ["hunter22", "hunter22-and-more", "hunter23x"];
            let whole = masked(&values, &[text.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(masked(&values, &pieces), whole);
        }
    }
}
