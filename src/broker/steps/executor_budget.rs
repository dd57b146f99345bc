//! What one executor's registration may use up, whatever it opens and closes.
//!
//! An opening has budgets of its own, and a new opening has new ones. An executor opens as many as it likes, one
//! after another, so what they cost the journal's disk is bounded here once more. Of what is given, a workflow has a
//! quarter at most: its steps must not keep those of others from what they may have.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::line_budget::LineBudget;
use crate::journal::Event;
use crate::model::limits::{Limits, Rate};
use crate::model::{ExecutorName, Id, Timestamp, WorkflowName};

/// The budget of one registration.
#[derive(Debug)]
pub struct ExecutorBudget {
    /// As lines name it.
    principal: String,
    opens: Mutex<Rate>,
    /// Of all its openings together.
    lines: LineBudget,
    /// Of what all its openings are given.
    decisions: Mutex<Rate>,
    workflows: Mutex<HashMap<WorkflowName, Arc<WorkflowBudget>>>,
}

/// What the openings of one workflow are given, of one executor.
type WorkflowBudget = Mutex<Rate>;

/// The decisions that give one opening something.
#[derive(Debug)]
pub(super) struct Decisions {
    /// Of those that it has for itself.
    own: Mutex<Rate>,
    workflow: Arc<WorkflowBudget>,
}

impl Decisions {
    pub(super) fn of(executor: &ExecutorBudget, workflow: &WorkflowName) -> Self {
        let workflow = Arc::clone(executor.workflows.lock().entry(workflow.clone()).or_default());
        Self { own: Mutex::default(), workflow }
    }

    /// Takes one of its own, or else one of its workflow's and executor's, that is worth so many lines.
    ///
    /// # Errors
    /// How long to wait, if there is none left.
    pub(super) fn take(
        &self,
        executor: &ExecutorBudget,
        now: Timestamp,
        limits: &Limits,
        lines: u32,
    ) -> Result<(), Duration> {
        let (millis, own) = (now.millis(), limits.own_decisions_per_minute);
        if self.own.lock().take_of_minute(millis, own, lines).is_ok() {
            return Ok(());
        }
        self.workflow.lock().take_some(millis, limits.workflow_decisions(), lines)?;
        executor.decisions.lock().take_some(millis, limits.executor_decisions(), lines)
    }
}

impl ExecutorBudget {
    fn new(name: &ExecutorName) -> Self {
        Self {
            principal: format!("executor:{name}"),
            opens: Mutex::default(),
            lines: LineBudget::default(),
            decisions: Mutex::default(),
            workflows: Mutex::default(),
        }
    }

    /// Takes a step to open, which counts as so many.
    ///
    /// # Errors
    /// How long to wait, if there is none left.
    pub fn take_open(&self, now: Timestamp, limits: &Limits, count: u32) -> Result<(), Duration> {
        self.opens.lock().take_some(now.millis(), limits.executor_opens(), count)
    }

    /// Whether one more refusal of its openings may be a line.
    ///
    /// # Errors
    /// How long to wait, if not. The refusal is counted.
    pub(super) fn check_refusals(&self, now: Timestamp, limits: &Limits) -> Result<(), Duration> {
        self.lines.check(now, limits.executor_lines())
    }

    /// Counts a refusal whose line is worth so many.
    pub(super) fn count_refusal(&self, now: Timestamp, limits: &Limits, lines: u32) {
        self.lines.owe(now, limits.executor_lines(), lines);
    }

    /// Takes the line that tells what one of its openings was refused without a line. If there is none left,
    /// that is told with the executor's own.
    pub(super) fn take_line_of(
        &self,
        opening: &LineBudget,
        now: Timestamp,
        limits: &Limits,
    ) -> bool {
        let is_taken = self.lines.try_take(now, limits.executor_lines()).is_ok();
        if !is_taken {
            opening.leave_to(&self.lines);
        }
        is_taken
    }

    /// Has `write` write down how often its openings were refused without a line, if they were; it says whether it
    /// did.
    pub fn journal_suppressed(&self, now: Timestamp, write: impl FnOnce(&Event) -> bool) {
        self.lines.journal_suppressed(now, &self.principal, None, write);
    }

    /// Forgets the workflows that nobody holds and nobody has used of late.
    fn forget_rested(&self, now: Timestamp) {
        self.workflows.lock().retain(|_, budget| {
            Arc::strong_count(budget) > 1 || !budget.lock().is_rested(now.millis())
        });
    }

    fn is_rested(&self, now: Timestamp) -> bool {
        self.lines.is_rested(now)
            && self.opens.lock().is_rested(now.millis())
            && self.decisions.lock().is_rested(now.millis())
            && self.workflows.lock().is_empty()
    }
}

/// The budgets, by registration.
#[derive(Debug, Default)]
pub(super) struct ExecutorBudgets(Mutex<HashMap<Id, Arc<ExecutorBudget>>>);

impl ExecutorBudgets {
    /// That of this registration.
    pub(super) fn of(&self, registration: Id, name: &ExecutorName) -> Arc<ExecutorBudget> {
        let mut budgets = self.0.lock();
        let budget = budgets.entry(registration);
        Arc::clone(budget.or_insert_with(|| Arc::new(ExecutorBudget::new(name))))
    }

    /// All there are; those that nobody holds and nobody has used of late are forgotten.
    pub(super) fn all(&self, now: Timestamp) -> Vec<Arc<ExecutorBudget>> {
        let mut budgets = self.0.lock();
        budgets.values().for_each(|budget| budget.forget_rested(now));
        budgets.retain(|_, budget| Arc::strong_count(budget) > 1 || !budget.is_rested(now));
        budgets.values().cloned().collect()
    }
}
