//! The budget of one registered executor, however many steps it opens and closes.
//!
//! Each opening has budgets of its own, and an executor may open many steps, one after another. So this budget limits
//! again what they write to the journal's disk. A workflow gets at most a quarter of the decisions, so that its steps
//! do not keep those of other workflows from theirs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::line_budget::LineBudget;
use crate::broker::registry::rates::Rates;
use crate::journal::Event;
use crate::model::Rate;
use crate::model::limits::Limits;
use crate::model::{ExecutorName, Id, Timestamp, WorkflowName};

/// The budget of one registration.
#[derive(Debug)]
pub struct ExecutorBudget {
    /// The executor, as lines name it.
    principal: String,
    opens: Mutex<Rate>,
    /// The lines of refusals of all its openings together.
    lines: LineBudget,
    /// The decisions that give its openings something.
    decisions: Mutex<Rate>,
    /// The same of the openings of each workflow.
    workflows: Rates<WorkflowName>,
}

impl ExecutorBudget {
    fn new(name: &ExecutorName) -> Self {
        Self {
            principal: format!("executor:{name}"),
            opens: Mutex::default(),
            lines: LineBudget::default(),
            decisions: Mutex::default(),
            workflows: Rates::default(),
        }
    }

    /// Takes a step to open, which counts as `count` steps.
    ///
    /// # Errors
    /// How long to wait, if nothing is left.
    pub fn take_open(&self, now: Timestamp, limits: &Limits, count: u32) -> Result<(), Duration> {
        self.opens.lock().take_some(now.millis(), limits.executor_opens(), count)
    }

    /// Takes a decision that gives an opening of this workflow something, whose line is worth `lines`.
    ///
    /// # Errors
    /// How long to wait, if nothing is left.
    pub(super) fn take_decision(
        &self,
        workflow: &WorkflowName,
        now: Timestamp,
        limits: &Limits,
        lines: u32,
    ) -> Result<(), Duration> {
        let (millis, of_workflow) = (now.millis(), limits.workflow_decisions());
        self.workflows.ask(workflow, millis, |rate| rate.take_some(millis, of_workflow, lines))?;
        self.decisions.lock().take_some(millis, limits.executor_decisions(), lines)
    }

    /// Checks that one more refusal of its openings may have a line.
    ///
    /// # Errors
    /// How long to wait, if not. The refusal is counted.
    pub(super) fn check_refusals(&self, now: Timestamp, limits: &Limits) -> Result<(), Duration> {
        self.lines.check(now, limits.executor_lines())
    }

    /// Counts a refusal whose line is worth `lines`.
    pub(super) fn count_refusal(&self, now: Timestamp, limits: &Limits, lines: u32) {
        self.lines.owe(now, limits.executor_lines(), lines);
    }

    /// Takes the line that reports the suppressed lines of an opening. If no line is left, they are reported with the
    /// executor's own.
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

    /// Journals how many lines of its openings were suppressed, if any were. `write` returns whether it wrote the line.
    pub fn journal_suppressed(&self, now: Timestamp, write: impl FnOnce(&Event) -> bool) {
        self.lines.journal_suppressed(now, &self.principal, None, write);
    }

    fn is_rested(&self, now: Timestamp) -> bool {
        self.lines.is_rested(now)
            && self.opens.lock().is_rested(now.millis())
            && self.decisions.lock().is_rested(now.millis())
            && self.workflows.are_rested(now.millis())
    }
}

/// The budgets of all executors, by registration.
#[derive(Debug, Default)]
pub(super) struct ExecutorBudgets(Mutex<HashMap<Id, Arc<ExecutorBudget>>>);

impl ExecutorBudgets {
    /// The budget of this registration.
    pub(super) fn of(&self, registration: Id, name: &ExecutorName) -> Arc<ExecutorBudget> {
        let mut budgets = self.0.lock();
        let budget = budgets.entry(registration);
        Arc::clone(budget.or_insert_with(|| Arc::new(ExecutorBudget::new(name))))
    }

    /// All budgets. Budgets that no opening holds and that were not used of late are forgotten first.
    pub(super) fn all(&self, now: Timestamp) -> Vec<Arc<ExecutorBudget>> {
        let mut budgets = self.0.lock();
        budgets.retain(|_, budget| Arc::strong_count(budget) > 1 || !budget.is_rested(now));
        budgets.values().cloned().collect()
    }
}
