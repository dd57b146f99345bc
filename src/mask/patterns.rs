//! The forms of all values, and where they are in a text.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use super::escapes::{PlainText, escapes};
use super::names::InNames;
use super::search::{Search, TooLarge};

/// The forms of all values.
#[derive(Default)]
pub struct Patterns {
    search: Option<Search>,
    texts: Vec<Vec<u8>>,
    longest: usize,
    is_for_answers: bool,
    in_names: OnceLock<InNames>,
}

impl Patterns {
    /// The patterns for output, or for answers, in which escape sequences are bytes like any other.
    ///
    /// # Errors
    /// If there are more than can be searched.
    pub(super) fn new(forms: &BTreeSet<Vec<u8>>, is_for_answers: bool) -> Result<Self, TooLarge> {
        let texts: Vec<Vec<u8>> = forms.iter().cloned().collect();
        let search = Search::new(&texts)?;
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let in_names = OnceLock::new();
        Ok(Self { search: Some(search), texts, longest, is_for_answers, in_names })
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
    pub(super) fn plain(&self, text: &[u8]) -> Option<PlainText> {
        if self.is_for_answers { None } else { PlainText::of(text) }
    }

    /// The escape sequences of a text, which a mask keeps.
    pub(super) fn escapes(&self, text: &[u8]) -> Vec<u8> {
        if self.is_for_answers { Vec::new() } else { escapes(text) }
    }

    /// The start of the end that may be the beginning of a form.
    pub(super) fn open_end(&self, text: &[u8]) -> usize {
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
    pub(super) fn begun_by<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = &'a Vec<u8>> {
        // The forms are sorted, so these follow the text directly.
        let behind = self.texts.partition_point(|form| form.as_slice() <= text);
        let behind = self.texts.get(behind..).unwrap_or_default();
        behind.iter().take_while(|form| form.starts_with(text))
    }

    /// The ranges that forms cover, in order. Overlapping ranges are joined.
    pub(super) fn covered(&self, text: &[u8]) -> Vec<(usize, usize)> {
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
        self.search.as_ref().map(|search| search.longest(text)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_within_values_cost_no_more_than_one() {
        let forms = (3..250).map(|count| "ab".repeat(count).into_bytes()).collect();
        let (patterns, output) = (Patterns::new(&forms, false).unwrap(), "ab".repeat(50_000));
        assert!(patterns.found(output.as_bytes()).len() <= output.len());
        assert_eq!(patterns.covered(output.as_bytes()), [(0, output.len())]);
    }

    #[test]
    fn an_open_end_begins_where_a_form_could() {
        let patterns = |values: &[&str]| {
            let forms: BTreeSet<_> = values.iter().map(|value| value.as_bytes().to_vec()).collect();
            Patterns::new(&forms, false).unwrap()
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
}
