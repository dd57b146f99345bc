//! The budget of journal lines that each operator and executor has for requests that change nothing.
//!
//! | line | beyond the budget |
//! |---|---|
//! | a refusal | refused with the same error, without the line |
//! | a test of a connection, a backup, a request id for a change without effect | refused |
//!
//! Plans and failed Applies have [a rate of their own](crate::broker::changes::plan).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::steps::line_budget::LineBudget;
use crate::journal::Event;
use crate::model::RateLimit;
use crate::model::{LogLimit, Timestamp};

/// The budgets, by the principals' text.
pub(crate) struct Budgets {
    lines: RateLimit,
    of: Mutex<HashMap<String, Arc<LineBudget>>>,
}

impl Budgets {
    /// The same budget for each principal.
    pub(crate) fn new(lines: RateLimit) -> Self {
        Self { lines, of: Mutex::default() }
    }

    /// Takes one line.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`] if no line is left.
    pub(crate) fn take(
        &self,
        caller: &Principal,
        method: &'static str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let budget = self.of(caller);
        budget.take(now, self.lines, method).map_err(Error::TooManyRequests)
    }

    fn of(&self, caller: &Principal) -> Arc<LineBudget> {
        Arc::clone(self.of.lock().entry(caller.to_string()).or_default())
    }

    /// All budgets. A full budget that nobody holds is dropped first: it equals a new one.
    fn all(&self, now: Timestamp) -> Vec<(String, Arc<LineBudget>)> {
        let mut of = self.of.lock();
        of.retain(|_, budget| Arc::strong_count(budget) > 1 || !budget.is_rested(now));
        of.iter().map(|(who, budget)| (who.clone(), Arc::clone(budget))).collect()
    }
}

impl Broker {
    /// Journals the refusal of an operator or executor, while its budget of lines lasts.
    pub fn note_refusal(
        &self,
        caller: &Principal,
        method: &'static str,
        resource: &str,
        reason: &str,
    ) {
        static LIMIT: LogLimit = LogLimit::new(1);
        let now = self.now();
        if self.writer.budgets.take(caller, method, now).is_err() {
            return;
        }
        let event = Event::AdminRefused {
            principal: caller.to_string(),
            method: method.to_owned(),
            resource: resource.to_owned(),
            reason: reason.to_owned(),
        };
        if self.journal.append(now, &event).is_err() {
            self.writer.budgets.of(caller).count_suppressed(now, method);
            if let Some(suppressed) = LIMIT.allow() {
                tracing::error!(principal = %caller, method, reason, suppressed, "a refusal could not be journaled yet");
            }
        }
    }

    /// Journals how often each principal was refused without a line. Called about once a second.
    pub fn journal_counted_refusals(&self) {
        let now = self.now();
        let write = |event: &Event| self.journal.append(now, event).is_ok();
        for (principal, budget) in self.writer.budgets.all(now) {
            budget.journal_suppressed(now, &principal, None, write);
        }
        for session in self.sessions.all() {
            session.journal_suppressed(now, &self.limits, write);
        }
        for executor in self.sessions.executors(now) {
            executor.journal_suppressed(now, write);
        }
    }
}
