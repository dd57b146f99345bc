//! All forms in a text: a filter passes over what no form is in, and an automaton reads the rest.
//!
//! Three bytes next to each other are a gram. Every form has its grams in its first bytes, as many as the shortest form has. So a
//! form that is in a text has such a gram at one of the places that the filter looks at:
//!
//! ```text
//! shortest form: 8 bytes, so 6 grams        a look at every sixth place
//! ...|.....|.....|h..ter|22...              no gram of a form: go on
//!                  hunter22                 a gram of a form: the automaton reads from 5 bytes before it
//! ```

use aho_corasick::Anchored;
use aho_corasick::automaton::Automaton as _;
use aho_corasick::nfa::contiguous::NFA;

/// The bytes of a gram.
const GRAM: usize = 3;
/// The most bytes of a form whose grams count.
const MOST_BYTES: usize = 8;
/// The bits of a gram's place in the filter, whose size is 8 KiB.
const PLACE_BITS: u32 = 16;
const WORD_BITS: usize = u64::BITS as usize;

/// There are more values, or larger ones, than can be masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// The automaton and the filter of all forms.
pub(super) struct Search {
    automaton: NFA,
    /// `None` if a form is shorter than a gram.
    filter: Option<Filter>,
}

impl Search {
    /// # Errors
    /// If the forms are too many.
    pub(super) fn new(forms: &[Vec<u8>]) -> Result<Self, TooLarge> {
        let automaton = NFA::new(forms).map_err(|_| TooLarge)?;
        Ok(Self { automaton, filter: Filter::of(forms) })
    }

    /// The longest form that ends at each position, as start and end, in the order of the ends. A shorter form that
    /// ends there is within it.
    pub(super) fn longest(&self, text: &[u8]) -> Vec<(usize, usize)> {
        let (mut found, mut at) = (Vec::new(), 0);
        while let Some(start) = self.next_candidate(text, at) {
            at = self.read(text, start, &mut found);
        }
        found
    }

    /// The first position from `at` on at which a form may begin.
    fn next_candidate(&self, text: &[u8], at: usize) -> Option<usize> {
        match &self.filter {
            Some(filter) => filter.next_candidate(text, at),
            None => (at < text.len()).then_some(at),
        }
    }

    /// Reads from `start`, where a form may begin, until no form has begun. Returns the position after that.
    fn read(&self, text: &[u8], start: usize, found: &mut Vec<(usize, usize)>) -> usize {
        let Ok(beginning) = self.automaton.start_state(Anchored::No) else { return text.len() };
        let least = self.filter.as_ref().map_or(usize::MAX, |filter| start + filter.stride);
        let (mut state, mut at) = (beginning, start);
        for byte in text.get(start..).unwrap_or_default() {
            state = self.automaton.next_state(Anchored::No, state, *byte);
            at += 1;
            if state == beginning {
                if at >= least {
                    break;
                }
            } else if self.automaton.is_special(state) && self.automaton.is_match(state) {
                // The automaton has the longest form that ends in a state first.
                let length = self.automaton.pattern_len(self.automaton.match_pattern(state, 0));
                found.push((at.saturating_sub(length), at));
            }
        }
        at
    }

    /// The length of the longest end of a text that a form begins with, or is.
    // A state stands for the longest end of the read text that a form begins with. So every end of the text that is at
    // least as long leads to the same state, and a shorter one does not.
    pub(super) fn begun(&self, text: &[u8]) -> usize {
        let Ok(start) = self.automaton.start_state(Anchored::No) else { return 0 };
        let after = |text: &[u8]| {
            text.iter()
                .fold(start, |state, byte| self.automaton.next_state(Anchored::No, state, *byte))
        };
        let whole = after(text);
        if whole == start {
            return 0;
        }
        let is_enough = |length: usize| {
            text.get(text.len().saturating_sub(length)..).is_none_or(|end| after(end) == whole)
        };
        let mut enough = 1;
        while enough < text.len() && !is_enough(enough) {
            enough *= 2;
        }
        let (mut short, mut enough) = (enough / 2, enough.min(text.len()));
        while enough - short > 1 {
            let middle = short.midpoint(enough);
            match is_enough(middle) {
                true => enough = middle,
                false => short = middle,
            }
        }
        enough
    }
}

/// The grams of all forms, as bits at places that grams share.
struct Filter {
    grams: Vec<u64>,
    /// The grams of each form that count.
    stride: usize,
}

impl Filter {
    fn of(forms: &[Vec<u8>]) -> Option<Self> {
        let shortest = forms.iter().map(Vec::len).min()?.min(MOST_BYTES);
        let stride = (shortest + 1).checked_sub(GRAM).filter(|stride| *stride > 0)?;
        let mut filter = Self { grams: vec![0; (1 << PLACE_BITS) / WORD_BITS], stride };
        for gram in forms.iter().flat_map(|form| form.windows(GRAM).take(stride)) {
            let (word, bit) = place(gram);
            if let Some(word) = filter.grams.get_mut(word) {
                *word |= bit;
            }
        }
        Some(filter)
    }

    /// The first position from `at` on at which a form may begin. A form that begins there or later has a gram at one of the
    /// places that are looked at, or the text ends within the form.
    fn next_candidate(&self, text: &[u8], at: usize) -> Option<usize> {
        let last = self.stride - 1;
        let mut looks = text.get(at + last..)?.windows(GRAM).step_by(self.stride);
        let looked = looks.position(|gram| {
            let (word, bit) = place(gram);
            self.grams.get(word).is_some_and(|word| word & bit != 0)
        });
        looked.map(|count| at + count * self.stride)
    }
}

/// The word and the bit of a gram. The factor is 2^32 divided by the golden ratio, which spreads numbers that are close.
fn place(gram: &[u8]) -> (usize, u64) {
    let number = gram.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
    let place = (number.wrapping_mul(0x9e37_79b9) >> (u32::BITS - PLACE_BITS)) as usize;
    (place / WORD_BITS, 1 << (place % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_form_is_found_wherever_it_stands(
            forms in proptest::collection::btree_set("[ab]{1,3}|[a-d]{3,12}", 1..6),
            text in "[a-d]{0,80}|[ab]{0,80}",
        ) {
            let forms: Vec<Vec<u8>> = forms.into_iter().map(String::into_bytes).collect();
            let text = text.as_bytes();
            let longest_at = |end: usize| {
                let starts = (0..end).filter(|start| forms.iter().any(|form| form == &text[*start..end]));
                starts.min().map(|start| (start, end))
            };
            let expected: Vec<_> = (1..=text.len()).filter_map(longest_at).collect();
            prop_assert_eq!(Search::new(&forms).unwrap().longest(text), expected);
        }
    }

    #[test]
    fn a_text_without_a_form_is_passed_over() {
        let forms = ["hunter22".as_bytes().to_vec(), "s3cret-token".as_bytes().to_vec()];
        let search = Search::new(&forms).unwrap();
        assert_eq!(search.next_candidate(&[b'.'; 1000], 0), None);
        let text = [&[b'.'; 1000], "hunter22".as_bytes()].concat();
        assert!(search.next_candidate(&text, 0).is_some_and(|start| (995..=1000).contains(&start)));
        assert_eq!(search.longest(&text), [(1000, 1008)]);
        assert_eq!(search.longest(b"hunter2"), []);
    }
}
