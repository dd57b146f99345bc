//! Runs: what each has received, and its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Broker;
use super::error::Error;
use super::openings::{ClosedStep, StepSelector};
use super::operators::{require_executor, seen_by};
use super::tail::unreadable;
use crate::access::Principal;
use crate::journal::{Body, CloseReason, Event, Outcome, RenewalOutcome, WhichRuns};
use crate::model::{FieldName, Id, Opening, RunName, Timestamp, WorkflowName};

/// One opening of a step of a run, open or closed.
pub struct RunStep {
    /// What was recorded.
    pub opening: Opening,
    /// When and why it was closed; none while it is open.
    pub closed: Option<(Timestamp, CloseReason)>,
    /// What it was given, in the order of issue.
    pub received: Vec<Received>,
}

/// One lease that a step was given.
pub struct Received {
    /// The lease.
    pub lease: Id,
    /// What was asked for.
    pub target: String,
    /// The full name of what was handed out.
    pub resource: String,
    /// The version.
    pub version: u64,
    /// The fields.
    pub fields: Vec<FieldName>,
    /// When it was handed out first.
    pub first: Timestamp,
    /// When last.
    pub last: Timestamp,
    /// How often.
    pub times: usize,
    /// When it ends, or ended at the latest.
    pub expire_time: Timestamp,
    /// How it stands.
    pub state: LeaseState,
}

/// How a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// Its time was over.
    Expired,
    /// It is live.
    Live,
    /// It ended before its time.
    Revoked,
}

impl Broker {
    /// What a run has received: an executor's own runs, everybody's for an operator.
    ///
    /// # Errors
    /// See `ExecutorService.GetRun`.
    pub async fn run(
        self: &Arc<Self>,
        caller: &Principal,
        workflow: Option<WorkflowName>,
        run: RunName,
    ) -> Result<Vec<RunStep>, Error> {
        let (broker, asking) = (Arc::clone(self), caller.clone());
        let read = move |is_cancelled: &dyn Fn() -> bool| {
            broker.read_run(&asking, workflow.as_ref(), &run, is_cancelled)
        };
        self.readers.look(caller, read).await?
    }

    fn read_run(
        &self,
        caller: &Principal,
        workflow: Option<&WorkflowName>,
        run: &RunName,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<RunStep>, Error> {
        let own = seen_by(caller)?;
        let executor = own.as_ref().map(|own| &own.name);
        let which = WhichRuns { run, workflow, executor };
        let lines =
            self.journal.run_lines(which, is_cancelled).map_err(|error| unreadable(&error))?;
        let mut steps = fold(lines);
        // Runs are found by name; those of another registration of the name are another's.
        let is_seen = |uid: Id| own.as_ref().is_none_or(|own| own.uid == uid);
        steps.retain(|step| is_seen(step.opening.key.executor_uid));
        if steps.is_empty() {
            return Err(Error::RunNotFound(run.clone()));
        }
        let now = self.now();
        self.journal.look(|live| {
            for received in steps.iter_mut().flat_map(|step| &mut step.received) {
                received.state = match live.leases().find(received.lease) {
                    Some(lease) if now < lease.expire_time => LeaseState::Live,
                    _ if now < received.expire_time => LeaseState::Revoked,
                    _ => LeaseState::Expired,
                };
            }
        })?;
        for step in &mut steps {
            // A lease ends with its step, and that is before its time, however long ago it was.
            let Some((closed, _)) = step.closed else { continue };
            for received in &mut step.received {
                if received.state == LeaseState::Expired && closed < received.expire_time {
                    received.state = LeaseState::Revoked;
                }
            }
        }
        Ok(steps)
    }

    /// Closes every open step of an executor's run.
    ///
    /// # Errors
    /// See `ExecutorService.CloseRun`.
    pub async fn close_run(
        &self,
        caller: &Principal,
        workflow: &WorkflowName,
        run: &RunName,
    ) -> Result<(usize, usize), Error> {
        let executor = require_executor(caller)?;
        let open: Vec<Id> = self.journal.look(|live| {
            let all = live.openings().map(|opening| opening.record());
            all.filter(|one| one.key.executor_uid == executor.uid)
                .filter(|one| one.key.workflow == *workflow && one.key.run == *run)
                .map(|one| one.id)
                .collect()
        })?;
        let (mut closed, mut revoked) = (0, 0);
        for id in open {
            let ClosedStep { closed: is_closed, revoked: of_step } =
                self.close_opening(id, CloseReason::Executor).await?;
            closed += usize::from(is_closed);
            revoked += of_step;
        }
        Ok((closed, revoked))
    }

    /// An executor says that its step still runs; when the step ends at the latest.
    ///
    /// # Errors
    /// See `ExecutorService.RenewStep`.
    pub fn renew_step(
        &self,
        caller: &Principal,
        selector: &StepSelector,
    ) -> Result<Timestamp, Error> {
        let executor = require_executor(caller)?;
        let found = self.find_own(&executor, selector)?;
        let opening = found.ok_or(Error::StepNotOpen)?;
        opening.heartbeat(self.now());
        Ok(opening.record().expire_time)
    }
}

/// Lines of runs, in order, as steps with what they received.
fn fold(lines: Vec<Body>) -> Vec<RunStep> {
    let mut steps: Vec<RunStep> = Vec::new();
    let mut places = BTreeMap::new();
    for Body { time, event, .. } in lines {
        match event {
            Event::Opened(opening) => {
                places.insert(opening.id, steps.len());
                steps.push(RunStep { opening: *opening, closed: None, received: Vec::new() });
            }
            Event::Closed { opening, reason, .. } => {
                if let Some(step) = step_of(&mut steps, &places, opening) {
                    step.closed = Some((time, reason));
                }
            }
            Event::ClockSetBack => close_all(&mut steps, time, CloseReason::ClockSetBack),
            Event::Restored { .. } => close_all(&mut steps, time, CloseReason::Restored),
            Event::LeaseRenewal(line) => {
                let found = step_of(&mut steps, &places, line.opening).and_then(|step| {
                    step.received.iter_mut().find(|received| received.lease == line.lease)
                });
                if let (Some(received), RenewalOutcome::Allow { expire_time, .. }) =
                    (found, line.outcome)
                {
                    received.expire_time = expire_time;
                }
            }
            Event::Resolve(line) => {
                if let Some(step) = step_of(&mut steps, &places, line.opening) {
                    receive(step, time, &line.ask.target, line.outcome);
                }
            }
            _ => {}
        }
    }
    steps
}

fn close_all(steps: &mut [RunStep], time: Timestamp, reason: CloseReason) {
    for step in steps.iter_mut().filter(|step| step.closed.is_none()) {
        step.closed = Some((time, reason));
    }
}

fn step_of<'a>(
    steps: &'a mut [RunStep],
    places: &BTreeMap<Id, usize>,
    opening: Id,
) -> Option<&'a mut RunStep> {
    steps.get_mut(*places.get(&opening)?)
}

/// A lease that is handed out once more is the same one.
fn receive(step: &mut RunStep, time: Timestamp, target: &str, outcome: Outcome) {
    let Outcome::Allow { resource, version, released, lease, expire_time, .. } = outcome else {
        return;
    };
    match step.received.iter_mut().find(|received| received.lease == lease) {
        Some(received) => {
            received.last = time;
            received.times += 1;
        }
        None => step.received.push(Received {
            lease,
            resource: resource.unwrap_or_else(|| target.to_owned()),
            target: target.to_owned(),
            version,
            fields: released,
            first: time,
            last: time,
            times: 1,
            expire_time,
            state: LeaseState::Live,
        }),
    }
}
