//! Counters by a label with few values.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many words have a counter of their own: more than any method has reasons.
const MAX_WORDS: usize = 64;
/// The label of all further words.
const OTHER: &str = "OTHER";

/// Counts words of the program's own text, which are few and not secret. A word gets its counter when it is first seen, so no
/// table can lack a word.
#[derive(Debug)]
pub struct LabelCounters {
    counters: [LabelCounter; MAX_WORDS],
    other: AtomicU64,
}

#[derive(Debug)]
struct LabelCounter {
    word: OnceLock<&'static str>,
    count: AtomicU64,
}

impl Default for LabelCounters {
    fn default() -> Self {
        let counter = |_| LabelCounter { word: OnceLock::new(), count: AtomicU64::new(0) };
        Self { counters: std::array::from_fn(counter), other: AtomicU64::new(0) }
    }
}

impl LabelCounters {
    /// Lists words with a count of zero: an alert on their increase then sees the first occurrence.
    pub fn expect(&self, words: &[&'static str]) {
        for word in words {
            self.counter(word);
        }
    }

    /// Counts a word once.
    pub fn count(&self, word: &'static str) {
        self.counter(word).fetch_add(1, Ordering::Relaxed);
    }

    fn counter(&self, word: &'static str) -> &AtomicU64 {
        // If two threads race for a free counter, the loser takes the next.
        let is_its = |counter: &&LabelCounter| *counter.word.get_or_init(|| word) == word;
        self.counters.iter().find(is_its).map_or(&self.other, |counter| &counter.count)
    }

    /// Every word that was listed or counted, with its count.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let counted = |counter: &LabelCounter| {
            Some((*counter.word.get()?, counter.count.load(Ordering::Relaxed)))
        };
        let mut counts: Vec<_> = self.counters.iter().map_while(counted).collect();
        let other = self.other.load(Ordering::Relaxed);
        counts.extend((other > 0).then_some((OTHER, other)));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_from_any_number_of_threads() {
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
    fn words_beyond_the_last_counter_are_counted_together() {
        let counters = LabelCounters::default();
        for n in 0..MAX_WORDS + 10 {
            counters.count(Box::leak(n.to_string().into_boxed_str()));
        }
        let counts = counters.counts();
        assert_eq!((counts.len(), counts.last()), (MAX_WORDS + 1, Some(&(OTHER, 10))));
    }
}
