//! Checks before a step is opened: scope, limits, repeated requests.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::request::StepRequest;
use crate::access::Blocks;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::levers::refusal::LeverRefusal;
use crate::broker::registry::operators::Executor;
use crate::journal::{Live, LiveOpening};
use crate::model::limits::OPENED_LINE_BYTES;
use crate::model::{Id, NamedRequest, Opening, RunAs, StepKey, WorkflowPath};

impl Broker {
    /// The step that the same request has opened already.
    pub(super) fn opened_before(
        &self,
        executor: &Executor,
        request: &StepRequest,
    ) -> Result<Option<Arc<LiveOpening>>, Error> {
        self.journal.with_live(|live| opened_by(live, executor.uid, request.named.as_ref()))?
    }

    /// Takes a step to open from the executor's budget, before an older attempt is closed for it. A request with a long
    /// line counts as several.
    pub(crate) fn take_open(
        &self,
        executor: &Executor,
        request: &StepRequest,
    ) -> Result<(), Error> {
        let run_as = request.run_as.iter().map(|one| one.name.as_str().len());
        let targets = request.allowed_targets.iter().map(|one| one.to_string().len());
        let bytes = run_as.chain(targets).sum::<usize>() + request.mount_path.len();
        let count = 1 + u32::try_from(bytes / OPENED_LINE_BYTES).unwrap_or(u32::MAX - 1);
        let budget = self.sessions.executor(executor.uid, &executor.name);
        budget.take_open(self.now(), &self.limits, count).map_err(Error::TooManyRequests)
    }

    /// Checks that an executor is registered, for this workflow and to assert these principals.
    pub(super) fn check_scope(&self, key: &StepKey, run_as: &BTreeSet<RunAs>) -> Result<(), Error> {
        let snapshot = self.snapshot();
        let executor = snapshot.catalog.executor(&key.executor).ok_or(Error::Unregistered)?;
        if executor.uid != key.executor_uid {
            return Err(Error::Unregistered);
        }
        if !executor.scope.admits_workflow(&key.workflow) {
            return Err(Error::WorkflowNotPermitted(key.workflow.clone()));
        }
        match run_as.iter().find(|one| !executor.scope.admits_run_as(one)) {
            Some(one) => Err(Error::RunAsNotPermitted(one.clone())),
            None => Ok(()),
        }
    }

    pub(super) fn may_open(&self, live: &Live, opening: &Opening) -> Result<(), Error> {
        // Checked again under the chain lock: the executor may have been removed meanwhile.
        self.check_scope(&opening.key, &opening.run_as)?;
        check_blocks(live.blocks(), &opening.key)?;
        self.check_room(live, opening.key.executor_uid)?;
        opened_by(live, opening.key.executor_uid, opening.request.as_ref())?;
        match live.open_attempt(&opening.key) {
            Some(open) => Err(Error::StepExists(open.record().attempt)),
            None => Ok(()),
        }
    }

    /// Checks that one more step may be open. While other executors are registered, an executor has at most a quarter
    /// of all steps.
    fn check_room(&self, live: &Live, executor: Id) -> Result<(), Error> {
        let all = self.limits.open_steps;
        if live.open_count() >= all as usize {
            return Err(Error::TooManySteps(all));
        }
        let share = (all / 4).max(1);
        let is_full = live.open_count_of(executor) >= share as usize;
        match is_full && self.snapshot().catalog.has_other_executor(executor) {
            true => Err(Error::TooManyStepsOfOne { share, all }),
            false => Ok(()),
        }
    }
}

/// Checks that no block is on a step that is to be opened.
pub(super) fn check_blocks(blocks: &Blocks, key: &StepKey) -> Result<(), Error> {
    match blocks.over(&WorkflowPath::of_step(&key.workflow, &key.run, &key.step)) {
        Some(block) => Err(LeverRefusal::StepBlocked(block.target.to_string()).into()),
        None => Ok(()),
    }
}

/// The open step that a request has opened before; `None` if it is new.
///
/// # Errors
/// If the id belongs to another request, or the step is closed already.
fn opened_by(
    live: &Live,
    registration: Id,
    named: Option<&NamedRequest>,
) -> Result<Option<Arc<LiveOpening>>, Error> {
    let Some(NamedRequest { id, mac }) = named else { return Ok(None) };
    let Some(done) = live.open_request(registration, id) else { return Ok(None) };
    if done.mac != *mac {
        return Err(Error::RequestIdReused(id.clone()));
    }
    let open = done.opening.and_then(|opening| live.opening(opening));
    open.cloned().map(Some).ok_or_else(|| Error::OpenedBefore(id.clone()))
}
