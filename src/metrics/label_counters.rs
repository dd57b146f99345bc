//! How often each of a few words has come.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many words are told apart: more than any method has reasons to refuse.
const MAX_WORDS: usize = 64;
/// Stands for all words beyond that.
const OTHER: &str = "OTHER";

/// Counts by words that stand in the program's own text, and so are few and nobody's secret. A word has its place
/// from the first time that it comes: there is no table that could lack one.
#[derive(Debug)]
pub struct LabelCounters {
    places: [Place; MAX_WORDS],
    other: AtomicU64,
}

#[derive(Debug)]
struct Place {
    word: OnceLock<&'static str>,
    count: AtomicU64,
}

impl Default for LabelCounters {
    fn default() -> Self {
        let place = |_| Place { word: OnceLock::new(), count: AtomicU64::new(0) };
        Self { places: std::array::from_fn(place), other: AtomicU64::new(0) }
    }
}

impl LabelCounters {
    /// Has words told before they are counted: an alert on their increase then sees the first of them.
    pub fn expect(&self, words: &[&'static str]) {
        for word in words {
            self.place(word);
        }
    }

    /// Counts a word once more.
    pub fn count(&self, word: &'static str) {
        self.place(word).fetch_add(1, Ordering::Relaxed);
    }

    fn place(&self, word: &'static str) -> &AtomicU64 {
        // Of two who come at once with words of their own the later one goes on to the next place.
        let is_its = |place: &&Place| *place.word.get_or_init(|| word) == word;
        self.places.iter().find(is_its).map_or(&self.other, |place| &place.count)
    }

    /// Every word that has come, with how often.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let counted =
            |place: &Place| Some((*place.word.get()?, place.count.load(Ordering::Relaxed)));
        let mut counts: Vec<_> = self.places.iter().map_while(counted).collect();
        let other = self.other.load(Ordering::Relaxed);
        counts.extend((other > 0).then_some((OTHER, other)));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_counted_from_however_many_threads_it_comes() {
        let counters = LabelCounters::default();
        counters.expect(&["OK"]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for word in ["A", "OK", "B"].repeat(1000) {
                        counters.count(word);
                    }
                });
            }
        });
        let mut counts = counters.counts();
        assert_eq!(counts.first(), Some(&("OK", 4000)));
        counts.sort_unstable();
        assert_eq!(counts, [("A", 4000), ("B", 4000), ("OK", 4000)]);
    }

    #[test]
    fn words_beyond_the_places_are_counted_together() {
        let counters = LabelCounters::default();
        for n in 0..MAX_WORDS + 10 {
            counters.count(Box::leak(n.to_string().into_boxed_str()));
        }
        let counts = counters.counts();
        assert_eq!((counts.len(), counts.last()), (MAX_WORDS + 1, Some(&(OTHER, 10))));
    }
}
