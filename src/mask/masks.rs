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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use aho_corasick::automaton::Automaton;
use aho_corasick::{Anchored, dfa, nfa::contiguous};
use parking_lot::RwLock;

use super::escapes::{PlainText, escapes};
use super::forms;
use super::names::InNames;
use super::parts::{LEAST_BYTES, LEAST_IN_ANSWERS, SecretParts, Unmasked};

/// The text in place of a value.
const MASK: &[u8] = b"***";
/// The most bytes of forms for a table, which takes up to 1 KiB for each byte.
const MOST_IN_A_TABLE: usize = 8 * 1024;
/// The bytes of text from which a table pays for its making, which takes a millisecond or two.
const LONG: usize = 1024 * 1024;

/// The most bytes of forms for an answer: exchanges have masks of their own, in memory that steps cause.
const MOST_IN_ANSWERS: usize = 256 * 1024;

/// There are more values, or larger ones, than can be masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

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
            let patterns = Patterns::new(&all)?;
            let is_for_answers = self.is_for_answers;
            *self.patterns.write() = Arc::new(Patterns { is_for_answers, ..patterns });
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

/// The forms of all values.
#[derive(Default)]
pub struct Patterns {
    search: Option<Box<dyn FormSearch>>,
    /// A table, which is faster and larger, once much text has been searched. `None` if the forms are too many.
    table: OnceLock<Option<Box<dyn FormSearch>>>,
    /// The bytes that have been searched.
    searched: AtomicUsize,
    texts: Vec<Vec<u8>>,
    longest: usize,
    is_for_answers: bool,
    in_names: OnceLock<InNames>,
}

/// An automaton that finds all forms.
trait FormSearch: Send + Sync {
    /// The longest form that ends at each position, as start and end, in the order of the ends. A shorter form that
    /// ends there is within it.
    fn longest(&self, text: &[u8]) -> Vec<(usize, usize)>;

    /// The length of the longest end of a text that a form begins with, or is.
    fn begun(&self, text: &[u8]) -> usize;
}

impl<A: Automaton + Send + Sync> FormSearch for A {
    fn longest(&self, text: &[u8]) -> Vec<(usize, usize)> {
        let Ok(mut state) = self.start_state(Anchored::No) else { return Vec::new() };
        let mut end_at = |(index, byte): (usize, &u8)| {
            state = self.next_state(Anchored::No, state, *byte);
            // The automaton has the longest form that ends in a state first.
            let is_match = self.is_special(state) && self.is_match(state);
            let length = is_match.then(|| self.pattern_len(self.match_pattern(state, 0)))?;
            Some(((index + 1).saturating_sub(length), index + 1))
        };
        text.iter().enumerate().filter_map(&mut end_at).collect()
    }

    // A state stands for the longest end of the read text that a form begins with. So every end of the text that is at
    // least as long leads to the same state, and a shorter one does not.
    fn begun(&self, text: &[u8]) -> usize {
        let Ok(start) = self.start_state(Anchored::No) else { return 0 };
        let after = |text: &[u8]| {
            text.iter().fold(start, |state, byte| self.next_state(Anchored::No, state, *byte))
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

impl Patterns {
    fn new(forms: &BTreeSet<Vec<u8>>) -> Result<Self, TooLarge> {
        let texts: Vec<Vec<u8>> = forms.iter().cloned().collect();
        let search = contiguous::NFA::new(&texts).map_err(|_| TooLarge)?;
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        Ok(Self { search: Some(Box::new(search)), texts, longest, ..Self::default() })
    }

    /// True if the name of a header has a value in it.
    pub fn are_in_name(&self, name: &str) -> bool {
        self.in_names.get_or_init(|| InNames::of(&self.texts)).are_in(name)
    }

    /// True if nothing is masked.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The text without escape sequences; `None` if there are none, or they are bytes like any other.
    fn plain(&self, text: &[u8]) -> Option<PlainText> {
        if self.is_for_answers { None } else { PlainText::of(text) }
    }

    /// The escape sequences of a text, which a mask keeps.
    fn escapes(&self, text: &[u8]) -> Vec<u8> {
        if self.is_for_answers { Vec::new() } else { escapes(text) }
    }

    /// The start of the end that may be the beginning of a form.
    fn open_end(&self, text: &[u8]) -> usize {
        let plain = self.plain(text);
        let in_plain = plain.map(|plain| {
            let end = self.open_end_of(&plain.text);
            plain.positions.get(end).copied().unwrap_or(text.len())
        });
        self.open_end_of(text).min(in_plain.unwrap_or(text.len()))
    }

    fn open_end_of(&self, text: &[u8]) -> usize {
        let mut start = text.len().saturating_sub(self.longest.saturating_sub(1));
        // A form in pieces usually begins the text.
        if start == 0 && self.begun_by(text).next().is_some() {
            return 0;
        }
        while let Some(rest) = text.get(start..).filter(|rest| !rest.is_empty()) {
            let length = self.search.as_ref().map_or(0, |search| search.begun(rest));
            start = text.len().saturating_sub(length);
            let begun = text.get(start..).unwrap_or_default();
            if begun.is_empty() || self.begun_by(begun).next().is_some() {
                return start;
            }
            // A whole form, with which no other form begins.
            start += 1;
        }
        text.len()
    }

    /// The forms that begin with a text and are longer.
    fn begun_by<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = &'a Vec<u8>> {
        // The forms are sorted, so these follow the text directly.
        let behind = self.texts.partition_point(|form| form.as_slice() <= text);
        let behind = self.texts.get(behind..).unwrap_or_default();
        behind.iter().take_while(|form| form.starts_with(text))
    }

    /// The ranges that forms cover, in order. Overlapping ranges are joined.
    fn covered(&self, text: &[u8]) -> Vec<(usize, usize)> {
        let mut found = self.found(text);
        if let Some(plain) = self.plain(text) {
            let position = |at: usize| plain.positions.get(at).copied().unwrap_or(text.len());
            let in_plain = self.found(&plain.text);
            found.extend(
                in_plain.iter().map(|(start, end)| (position(*start), position(end - 1) + 1)),
            );
            found.sort_unstable();
        }
        let mut covered: Vec<(usize, usize)> = Vec::new();
        for (mut start, mut end) in found {
            while let Some((before, stop)) = covered.pop_if(|(_, stop)| *stop > start) {
                (start, end) = (start.min(before), end.max(stop));
            }
            covered.push((start, end));
        }
        covered
    }

    fn found(&self, text: &[u8]) -> Vec<(usize, usize)> {
        let before = self.searched.fetch_add(text.len(), Ordering::Relaxed);
        let table = (before >= LONG).then(|| self.table.get_or_init(|| self.new_table()).as_ref());
        let search = table.flatten().or(self.search.as_ref());
        search.map(|search| search.longest(text)).unwrap_or_default()
    }

    fn new_table(&self) -> Option<Box<dyn FormSearch>> {
        let is_small = self.texts.iter().map(Vec::len).sum::<usize>() <= MOST_IN_A_TABLE;
        let table = is_small.then(|| dfa::DFA::new(&self.texts).ok()).flatten()?;
        Some(Box::new(table))
    }
}

/// One stream of output.
#[derive(Default)]
pub struct StreamMask {
    /// Output that may be the beginning of a form.
    held: Vec<u8>,
    /// The bytes of it that are written already, as they are or masked.
    written: usize,
    /// The bytes of it that a written mask covers.
    covered: usize,
}

impl StreamMask {
    /// Takes a piece, and returns the output that can be written.
    pub fn feed(&mut self, patterns: &Patterns, piece: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(piece);
        match patterns.open_end(&self.held) {
            0 => Vec::new(),
            open_end => self.write(patterns, open_end),
        }
    }

    /// Returns the rest of the output.
    pub fn finish(&mut self, patterns: &Patterns) -> Vec<u8> {
        self.write(patterns, self.held.len())
    }

    /// Whether output is held back.
    pub fn is_holding(&self) -> bool {
        self.written < self.held.len()
    }

    /// Returns the output to write if no more comes in time. A beginning that reveals little is written as it is, a
    /// longer one as a mask. The rest of the value is masked when it comes.
    pub fn release(&mut self, patterns: &Patterns) -> Vec<u8> {
        let plain =
            patterns.plain(&self.held).map_or_else(|| self.held.clone(), |plain| plain.text);
        let form = patterns.begun_by(&plain).map(Vec::len).min();
        let gives_away =
            plain.len() >= LEAST_BYTES || form.is_some_and(|form| plain.len() > form / 2);
        let held = self.held.get(self.written..).unwrap_or_default();
        let written = match (gives_away, self.covered < self.written || self.covered == 0) {
            (false, _) => held.to_vec(),
            (true, true) => [MASK.to_vec(), patterns.escapes(held)].concat(),
            (true, false) => patterns.escapes(held),
        };
        self.written = self.held.len();
        if gives_away {
            self.covered = self.written;
        }
        written
    }

    /// Writes the held output up to `end`. More output decides about a value that begins after it.
    fn write(&mut self, patterns: &Patterns, end: usize) -> Vec<u8> {
        let mut written = Vec::with_capacity(end);
        let (mut position, mut covered) = (self.written, self.covered);
        for (start, stop) in patterns.covered(&self.held) {
            if start >= end {
                break;
            }
            written.extend_from_slice(self.held.get(position..start).unwrap_or_default());
            let is_part_of_a_mask = start < self.covered;
            if !is_part_of_a_mask && stop > position {
                written.extend_from_slice(MASK);
            }
            // Escape sequences within a value are kept, so that a terminal gets both the change of a colour and its
            // end.
            let within = self.held.get(position.max(start)..stop).unwrap_or_default();
            written.extend(patterns.escapes(within));
            (position, covered) = (position.max(stop), covered.max(stop));
        }
        written.extend_from_slice(self.held.get(position..end).unwrap_or_default());
        self.written = position.saturating_sub(end);
        self.covered = covered.saturating_sub(end);
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
    fn overlapping_values_are_masked_whole() {
        let values = ["abcde4gh", "e4ghijkl", "abcde4", "ghijkl-more"];
        assert_eq!(masked(&values, &[b"xabcde4ghijkl-more."]), b"x***.");
        assert_eq!(masked(&values, &[b"xabcd", b"e4gh", b"ijkl", b"-mor", b"e."]), b"x***.");
        assert_eq!(masked(&values, &[b"xabcde4", b"gzz"]), b"x***gzz");
    }

    #[test]
    fn values_within_values_cost_no_more_than_one() {
        let lines: Vec<String> = (3..250).map(|count| "ab".repeat(count)).collect();
        let masks = Masks::default();
        masks.add(lines.join("\n").as_bytes()).unwrap();
        let (patterns, output) = (masks.patterns(), "ab".repeat(50_000));
        assert!(patterns.found(output.as_bytes()).len() <= output.len());
        assert_eq!(patterns.covered(output.as_bytes()), [(0, output.len())]);
        assert_eq!(masks.masked(&format!("x{output}x")), "x***x");
    }

    #[test]
    fn an_open_end_begins_where_a_form_could() {
        let patterns = |values: &[&str]| {
            let forms: BTreeSet<_> = values.iter().map(|value| value.as_bytes().to_vec()).collect();
            Patterns::new(&forms).unwrap()
        };
        let three = patterns(&["abcdef", "bcdx", "efgh"]);
        for (text, open_end) in
            [("", 0), ("a", 0), ("xyz", 3), ("xabcd", 1), ("xbcd", 1), ("abcdef", 4), ("bcdx", 4)]
        {
            assert_eq!(three.open_end_of(text.as_bytes()), open_end, "{text}");
        }
        // The same as a search at every position, also for a repetitive value.
        let repeated = patterns(&["aaaaaaaab", "aaaac", "ba"]);
        for number in 0..1u32 << 10 {
            let text: Vec<u8> =
                (0..10).map(|bit| b"ab"[usize::from((number >> bit) & 1 == 1)]).collect();
            let begins = |start: &usize| repeated.begun_by(&text[*start..]).next().is_some();
            let expected = (0..text.len()).find(begins).unwrap_or(text.len());
            assert_eq!(repeated.open_end_of(&text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_large_repetitive_value_is_held_back() {
        let value = format!("{}b", "a".repeat(60_000));
        let masks = Masks::default();
        masks.add(value.as_bytes()).unwrap();
        let patterns = masks.patterns();
        let output = format!("{}c", "a".repeat(59_999));
        assert_eq!(patterns.open_end_of(output.as_bytes()), output.len());
        let mut stream = StreamMask::default();
        let mut written = Vec::new();
        for byte in value.as_bytes().chunks(1).take(4_000) {
            written.extend(stream.feed(&patterns, byte));
        }
        assert!(written.is_empty() && stream.is_holding());
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
    fn a_long_stream_is_masked_to_its_end() {
        let masks = Masks::for_answers();
        masks.add(b"hunter22").unwrap();
        let (patterns, mut stream) = (masks.patterns(), StreamMask::default());
        let filler = vec![b'.'; 64 * 1024 - 4];
        for _ in 0..2 * LONG / filler.len() {
            let mut written = stream.feed(&patterns, &[&filler[..], b"hunt"].concat());
            written.extend(stream.feed(&patterns, b"er22"));
            assert!(written == [&filler[..], b"***"].concat());
        }
        assert!(patterns.table.get().is_some_and(Option::is_some));
    }

    #[test]
    fn an_answer_has_no_more_forms_than_memory_allows() {
        let large = "x1Y2".repeat(16 * 1024);
        let values = [large.as_bytes(); 1];
        assert_eq!(Masks::for_answers().add_all(values), Err(TooLarge));
        assert!(Masks::default().add_all(values).is_ok());
    }

    #[test]
    fn a_released_beginning_has_its_rest_masked() {
        let masks = Masks::default();
        masks.add(b"hunter22-and-more").unwrap();
        let (patterns, mut stream) = (masks.patterns(), StreamMask::default());
        assert_eq!(stream.feed(&patterns, b"an h"), b"an ");
        assert!(stream.is_holding());
        assert_eq!(stream.release(&patterns), b"h");
        assert!(!stream.is_holding());
        assert_eq!(stream.feed(&patterns, b"unt"), b"");
        assert_eq!(stream.release(&patterns), b"unt");
        assert_eq!(stream.feed(&patterns, b"er22"), b"");
        assert_eq!(stream.release(&patterns), b"***");
        assert_eq!(stream.feed(&patterns, b"-and-more; bye"), b"; bye");
        // Output that is no value after all keeps its masks.
        assert_eq!(stream.feed(&patterns, b"hunter22"), b"");
        assert_eq!(stream.release(&patterns), b"***");
        assert_eq!(stream.feed(&patterns, b" hunter22-and-more"), b" ***");
        assert_eq!(stream.finish(&patterns), b"");
    }

    #[test]
    fn output_that_cannot_be_a_value_is_not_held_back() {
        let masks = Masks::default();
        masks.add(b"hunter22").unwrap();
        let (patterns, mut stream) = (masks.patterns(), StreamMask::default());
        assert_eq!(stream.feed(&patterns, b"Name? "), b"Name? ");
        assert_eq!(stream.feed(&patterns, b"the hunt"), b"the ");
        assert_eq!(stream.feed(&patterns, b"er is on"), b"hunter is on");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_pieces_of_output_do_not_matter(
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
