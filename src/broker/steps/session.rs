//! The state of an open step that no log keeps: its rates, its heartbeat, its Watches and its Sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::executor_budget::ExecutorBudget;
use super::line_budget::LineBudget;
use crate::journal::{Event, LiveOpening};
use crate::model::Rate;
use crate::model::Timestamp;
use crate::model::limits::{Limits, MAX_SENDS, MAX_WATCHES};

/// A step is closed after so many heartbeats that did not come.
const MISSED_HEARTBEATS: u32 = 3;

/// One open step, as its connections hold it.
#[derive(Debug)]
pub struct StepSession {
    /// The opening in the journal.
    pub opening: Arc<LiveOpening>,
    rate: Mutex<Rate>,
    lines: LineBudget,
    executor: Arc<ExecutorBudget>,
    /// The decisions that the step has for itself.
    decisions: Mutex<Rate>,
    /// The time of the last heartbeat, in milliseconds.
    heartbeat: AtomicI64,
    watches: Arc<Semaphore>,
    sends: Arc<Semaphore>,
    signatures: Arc<Semaphore>,
}

impl StepSession {
    pub(super) fn new(
        opening: Arc<LiveOpening>,
        executor: Arc<ExecutorBudget>,
        now: Timestamp,
    ) -> Self {
        Self {
            decisions: Mutex::default(),
            heartbeat: AtomicI64::new(now.millis()),
            watches: Arc::new(Semaphore::new(MAX_WATCHES)),
            sends: Arc::new(Semaphore::new(MAX_SENDS)),
            signatures: Arc::new(Semaphore::new(1)),
            opening,
            rate: Mutex::default(),
            lines: LineBudget::default(),
            executor,
        }
    }

    /// Waits until no other request of the step works with a key.
    ///
    /// # Errors
    /// Never: the turns are not closed.
    pub async fn signing_turn(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.signatures).acquire_owned().await
    }

    /// Takes one request of the step's rate.
    ///
    /// # Errors
    /// How long to wait, if nothing is left. The refusal is counted.
    pub fn take_request(&self, now: Timestamp, limits: &Limits) -> Result<(), Duration> {
        let taken = self.rate.lock().take(now.millis(), limits.step_requests());
        taken.inspect_err(|_| self.lines.count_suppressed(now, ""))
    }

    /// Checks that the step may be refused with a line of its own. Otherwise it is refused without a decision, so that
    /// no step fills the journal's disk by asking for what it may not have.
    ///
    /// # Errors
    /// How long to wait, if no line is left. The refusal is counted.
    pub fn check_refusals(&self, now: Timestamp, limits: &Limits) -> Result<(), Duration> {
        self.lines.check(now, limits.step_lines())
    }

    /// Checks the same of its executor's lines. Only refusals need them: another step of the executor must not keep
    /// this step from what it may have.
    ///
    /// # Errors
    /// How long to wait, if no line is left. The refusal is counted.
    pub fn check_executor_refusals(&self, now: Timestamp, limits: &Limits) -> Result<(), Duration> {
        self.executor.check_refusals(now, limits)
    }

    /// Takes a decision that gives the step something, whose line is worth `lines`: of the step's own decisions, or
    /// else of its workflow's and executor's.
    ///
    /// # Errors
    /// How long to wait, if nothing is left. The refusal is counted.
    pub fn take_decision(
        &self,
        now: Timestamp,
        limits: &Limits,
        lines: u32,
    ) -> Result<(), Duration> {
        let (millis, own) = (now.millis(), limits.own_decisions_per_minute);
        if self.decisions.lock().take_of_minute(millis, own, lines).is_ok() {
            return Ok(());
        }
        let workflow = &self.opening.record().key.workflow;
        let taken = self.executor.take_decision(workflow, now, limits, lines);
        taken.inspect_err(|_| self.lines.count_suppressed(now, ""))
    }

    /// Counts a refusal whose line is worth `lines`, even beyond the limit: one batch may have several refusals.
    pub fn count_refusal(&self, now: Timestamp, limits: &Limits, lines: u32) {
        self.lines.owe(now, limits.step_lines(), lines);
        self.executor.count_refusal(now, limits, lines);
    }

    /// Journals how many requests were refused without a line, if any were. `write` returns whether it wrote the line.
    /// That takes a line of the executor's; if no line is left, the executor journals the count later.
    pub fn journal_suppressed(
        &self,
        now: Timestamp,
        limits: &Limits,
        write: impl FnOnce(&Event) -> bool,
    ) {
        if self.lines.has_suppressed() && self.executor.take_line_of(&self.lines, now, limits) {
            let principal = self.opening.principal().to_string();
            self.lines.journal_suppressed(now, &principal, Some(self.opening.record().id), write);
        }
    }

    /// A permit for one more Watch, until it is dropped; `None` if the step has as many Watches as it may.
    pub fn begin_watch(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.watches).try_acquire_owned().ok()
    }

    /// A permit for one more Send, until it is dropped; `None` if the step has as many as it may.
    pub fn begin_send(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.sends).try_acquire_owned().ok()
    }

    /// Takes a heartbeat: the executor says that the step runs.
    pub fn take_heartbeat(&self, now: Timestamp) {
        self.heartbeat.store(now.millis(), Ordering::Release);
    }

    /// Whether three heartbeats were missed.
    pub fn is_heartbeat_lost(&self, now: Timestamp) -> bool {
        let Some(seconds) = self.opening.record().heartbeat_seconds else { return false };
        let last = Timestamp::from_millis(self.heartbeat.load(Ordering::Acquire));
        now.since(last) > Duration::from_secs(u64::from(seconds)) * MISSED_HEARTBEATS
    }
}
