//! Administrators close steps and runs of any executor.

use std::sync::Arc;

use super::ended_by;
use super::refusal::LeverRefusal;
use crate::access::{Principal, Role};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::registry::operators::require_role;
use crate::broker::steps::openings::StepSelector;
use crate::journal::{Live, OperatorClose, WhichRuns};
use crate::model::{Because, Id, Opening, RunName, StepKey, WorkflowName, WorkflowPath};

/// What an administrator closes.
#[derive(Debug)]
pub enum CloseTarget {
    /// A step.
    Step(StepSelector),
    /// Every step of a run.
    Run(WorkflowName, RunName),
}

/// What the closing by an administrator has done.
#[derive(Debug, Default)]
pub struct ClosedByOperator {
    /// How many steps were closed.
    pub steps: usize,
    /// How many leases were revoked.
    pub revoked: usize,
    /// Whether the run or step is blocked.
    pub blocked: bool,
    /// The mints whose credentials are ended for it, those under way included.
    pub endings: Vec<Id>,
}

impl Broker {
    /// Closes steps of any executor, and blocks what was closed if `blocks`. Returns when the line is on disk.
    ///
    /// # Errors
    /// See `ExecutorService.CloseStep` and `CloseRun`.
    pub async fn close_as_operator(
        &self,
        caller: &Principal,
        target: &CloseTarget,
        reason: Option<Because>,
        blocks: bool,
    ) -> Result<ClosedByOperator, Error> {
        require_role(caller, Role::Administrator)?;
        let reason = reason.ok_or(LeverRefusal::Wordless)?;
        if let CloseTarget::Run(workflow, run) = target
            && self.journal.with_live(|live| opening_of_run(live, workflow, run).is_none())?
        {
            self.check_run(caller, workflow.clone(), run.clone()).await?;
        }
        let (now, by) = (self.now(), ended_by(caller, reason));
        let choose = |live: &Live| chosen(live, target, blocks);
        let (close, ended) = self.journal.close_by_operator(
            now,
            &by,
            choose,
            |openings, write| {
                for session in openings.iter().filter_map(|id| self.sessions.find(*id)) {
                    session.journal_suppressed(now, &self.limits, &mut *write);
                }
            },
            |live| self.publish_again(live),
        )?;
        let OperatorClose { blocks: blocked, openings, .. } = close;
        // All of this happens before the first await, as for every closing.
        openings.iter().for_each(|id| self.leave(*id));
        let steps = openings.len();
        let Some(ended) = ended else {
            self.journal.synced(self.journal.last()?).await?;
            return Ok(ClosedByOperator { blocked, ..ClosedByOperator::default() });
        };
        // The wait for the endings begins those that cannot begin now.
        let _ = self.endings.begin(&ended.mints);
        self.settle_ended(&ended).await?;
        Ok(ClosedByOperator { steps, revoked: ended.leases, blocked, endings: ended.mints })
    }

    /// Checks that the journal has lines of a run: a name that is mistyped must not look as if it were closed. Reads files.
    async fn check_run(
        &self,
        caller: &Principal,
        workflow: WorkflowName,
        run: RunName,
    ) -> Result<(), Error> {
        let (journal, turn) = (Arc::clone(&self.journal), self.reading_turn(caller).await?);
        let look = move |is_cancelled: &dyn Fn() -> bool| {
            let which = WhichRuns { run: &run, workflow: Some(&workflow), executor: None };
            let mut is_known = false;
            journal.run_lines::<Error>(which, is_cancelled, |_| {
                is_known = true;
                Ok(())
            })?;
            if is_known { Ok(()) } else { Err(Error::RunNotFound(run.clone())) }
        };
        turn.read(look).await?
    }
}

/// An open step of a run.
fn opening_of_run<'a>(
    live: &'a Live,
    workflow: &WorkflowName,
    run: &RunName,
) -> Option<&'a Opening> {
    let mut open = live.openings().map(|opening| opening.record());
    open.find(|one| one.key.workflow == *workflow && one.key.run == *run)
}

/// The openings that an administrator means, and how lines name them.
fn chosen(live: &Live, target: &CloseTarget, blocks: bool) -> Result<OperatorClose, Error> {
    let path = match target {
        CloseTarget::Step(StepSelector::Opening(id)) => {
            let opening = live.opening(*id).ok_or(LeverRefusal::NoSuchStep)?;
            let target = path_of(&opening.record().key);
            return Ok(OperatorClose { target, blocks, openings: vec![*id] });
        }
        CloseTarget::Step(StepSelector::Step(workflow, run, step)) => {
            WorkflowPath::of_step(workflow, run, step)
        }
        CloseTarget::Run(workflow, run) => {
            WorkflowPath { workflow: workflow.clone(), run: Some(run.clone()), step: None }
        }
    };
    let is_under = |opening: &&Opening| path.includes(&path_of(&opening.key));
    let open = live.openings().map(|opening| opening.record()).filter(is_under);
    let openings = open.map(|opening| opening.id).collect();
    Ok(OperatorClose { target: path, blocks, openings })
}

fn path_of(key: &StepKey) -> WorkflowPath {
    WorkflowPath::of_step(&key.workflow, &key.run, &key.step)
}
