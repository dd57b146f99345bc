//! How many lines of the journal one principal may cause that change nothing.
//!
//! A refusal costs a line, and asking costs nothing, so each principal has a budget of lines. Beyond it the principal
//! is refused in the same words, without a line. One line a second reports how many lines were suppressed.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::journal::Event;
use crate::model::{Id, Timestamp};
use crate::model::{Rate, RateLimit};

/// The budget of lines of one principal.
#[derive(Debug, Default)]
pub struct LineBudget {
    rate: Mutex<Rate>,
    suppressed: Mutex<Option<Suppressed>>,
}

/// The lines that were suppressed.
#[derive(Debug)]
struct Suppressed {
    since: Timestamp,
    requests: u64,
    /// How many of them are of which method, where the method is known.
    methods: BTreeMap<&'static str, u64>,
}

impl LineBudget {
    /// Takes a line.
    ///
    /// # Errors
    /// How long to wait, if no line is left. The line is counted as suppressed.
    pub fn take(
        &self,
        now: Timestamp,
        lines: RateLimit,
        method: &'static str,
    ) -> Result<(), Duration> {
        self.try_take(now, lines).inspect_err(|_| self.count_suppressed(now, method))
    }

    /// Takes a line, and counts nothing if no line is left.
    pub(super) fn try_take(&self, now: Timestamp, lines: RateLimit) -> Result<(), Duration> {
        self.rate.lock().take(now.millis(), lines)
    }

    /// Checks that a line is left, without taking it.
    ///
    /// # Errors
    /// How long to wait, if not. The line is counted as suppressed.
    pub fn check(&self, now: Timestamp, lines: RateLimit) -> Result<(), Duration> {
        let left = self.rate.lock().check(now.millis(), lines);
        left.inspect_err(|_| self.count_suppressed(now, ""))
    }

    /// Takes lines that are written even if they are not left.
    pub fn owe(&self, now: Timestamp, lines: RateLimit, count: u32) {
        self.rate.lock().owe(now.millis(), lines, count);
    }

    /// Counts a suppressed line of this method, or of an unknown method, which is "".
    pub fn count_suppressed(&self, now: Timestamp, method: &'static str) {
        let mut suppressed = self.suppressed.lock();
        let suppressed = suppressed.get_or_insert_with(|| Suppressed::new(now));
        suppressed.requests += 1;
        if !method.is_empty() {
            *suppressed.methods.entry(method).or_default() += 1;
        }
    }

    /// Journals how many lines were suppressed, if any were. `write` returns whether it wrote the line.
    pub fn journal_suppressed(
        &self,
        now: Timestamp,
        principal: &str,
        opening: Option<Id>,
        write: impl FnOnce(&Event) -> bool,
    ) {
        let Some(suppressed) = self.suppressed.lock().take() else { return };
        let methods = suppressed.methods.iter().map(|(name, count)| ((*name).to_owned(), *count));
        let event = Event::RateRefused {
            opening,
            principal: principal.to_owned(),
            requests: suppressed.requests,
            seconds: now.since(suppressed.since).as_secs(),
            methods: methods.collect(),
        };
        // Lines that could not be reported now are reported with later ones.
        if !write(&event) {
            self.suppressed
                .lock()
                .get_or_insert_with(|| Suppressed::new(suppressed.since))
                .add(suppressed);
        }
    }

    /// Whether there are suppressed lines that are not reported yet.
    pub(super) fn has_suppressed(&self) -> bool {
        self.suppressed.lock().is_some()
    }

    /// Moves the suppressed lines to `other`, which reports them.
    pub(super) fn leave_to(&self, other: &Self) {
        let Some(suppressed) = self.suppressed.lock().take() else { return };
        other
            .suppressed
            .lock()
            .get_or_insert_with(|| Suppressed::new(suppressed.since))
            .add(suppressed);
    }

    /// Whether the budget is as good as new.
    pub fn is_rested(&self, now: Timestamp) -> bool {
        self.rate.lock().is_rested(now.millis()) && !self.has_suppressed()
    }
}

impl Suppressed {
    fn new(since: Timestamp) -> Self {
        Self { since, requests: 0, methods: BTreeMap::new() }
    }

    fn add(&mut self, other: Self) {
        self.since = self.since.min(other.since);
        self.requests += other.requests;
        for (method, count) in other.methods {
            *self.methods.entry(method).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_could_not_be_written_are_reported_later() {
        let (budget, lines) = (LineBudget::default(), RateLimit { per_second: 1, burst: 2 });
        let at = Timestamp::from_millis;
        let taken = (0..5).filter(|_| budget.take(at(0), lines, "Get").is_ok()).count();
        assert_eq!(taken, 2);
        budget.journal_suppressed(at(1000), "operator:a", None, |_| false);
        budget.count_suppressed(at(2000), "List");
        let mut written = None;
        budget.journal_suppressed(at(7000), "operator:a", None, |event| {
            written = Some(serde_json::to_value(event).unwrap());
            true
        });
        let expected = serde_json::json!({
            "event": "rate_refused", "principal": "operator:a", "requests": 4, "seconds": 7,
            "methods": {"Get": 3, "List": 1},
        });
        assert_eq!(written, Some(expected));
        budget.journal_suppressed(at(8000), "operator:a", None, |_| panic!("nothing is left"));
        assert!(!budget.is_rested(at(1999)) && budget.is_rested(at(2000)));
    }
}
