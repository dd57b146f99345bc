//! GetRun, CloseRun and RenewStep: the steps of a run, and what they received.

use std::collections::HashMap;
use std::sync::Arc;

use super::openings::StepSelector;
use super::used::{UsedConnection, Uses};
use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::endings::story::{self, MintEnding};
use crate::broker::error::Error;
use crate::broker::levers::refusal::LeverRefusal;
use crate::broker::registry::operators::{require_executor, seen_by};
use crate::integration::Source;
use crate::journal::{
    Body, CloseReason, EndedLeases, Event, Leased, MintedLine, OperatorCloseLine, ResolveLine,
    Upstream, WhichRuns,
};
use crate::lease::MintedCredential;
use crate::model::limits::MAX_RUN_BYTES;
use crate::model::{FieldName, Id, Opening, RunName, StepKey, Timestamp, WorkflowName};

/// One opening of a step of a run, open or closed.
pub struct RunStep {
    /// The opening.
    pub opening: Opening,
    /// When and why it was closed; `None` while it is open.
    pub closed: Option<(Timestamp, CloseReason)>,
    /// The administrator who closed it; empty if none has.
    pub closed_by: String,
    /// The leases that it was given, in the order of issue.
    pub received: Vec<Received>,
    /// What the broker did for it with credentials that it did not get, in the order of the first time.
    pub used: Vec<UsedConnection>,
}

/// One lease that a step was given.
pub struct Received {
    /// The lease.
    pub lease: Id,
    /// The target that the step asked for.
    pub target: String,
    /// The full name of the resource that was handed out.
    pub resource: String,
    /// The version.
    pub version: u64,
    /// The names of the fields.
    pub fields: Vec<FieldName>,
    /// When it was handed out first.
    pub first: Timestamp,
    /// When it was handed out last.
    pub last: Timestamp,
    /// How often it was handed out.
    pub times: usize,
    /// When it expires or expired.
    pub expire_time: Timestamp,
    /// Its state.
    pub state: LeaseState,
    /// The credential, if an upstream has made it, and the protocol.
    pub mint: Option<(Source, Arc<MintedCredential>)>,
    /// How that credential ended, if it has, or is about to.
    pub ending: Option<MintEnding>,
}

/// The state of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// It has expired.
    Expired,
    /// It is live.
    Live,
    /// It ended before it expired.
    Revoked,
}

impl Broker {
    /// The steps of a run and what they received: an executor's own runs, or all runs for an operator. Reads files.
    ///
    /// # Errors
    /// See `ExecutorService.GetRun`.
    pub fn run(
        &self,
        caller: &Principal,
        workflow: Option<&WorkflowName>,
        run: &RunName,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<RunStep>, Error> {
        let own = seen_by(caller)?;
        let executor = own.as_ref().map(|own| &own.name);
        let which = WhichRuns { run, workflow, executor };
        // Runs are found by name. Runs of another registration of the same name belong to another executor.
        let mut fold = Fold { of: own.as_ref().map(|own| own.uid), ..Fold::default() };
        self.journal.run_lines(which, is_cancelled, |line| match fold.take(line) {
            bytes if bytes > MAX_RUN_BYTES => Err(Error::RunTooLarge(run.clone())),
            _ => Ok(()),
        })?;
        let Fold { mut steps, endings, .. } = fold;
        if steps.is_empty() {
            return Err(Error::RunNotFound(run.clone()));
        }
        for received in steps.iter_mut().flat_map(|step| &mut step.received) {
            let mint = received.mint.as_ref().map(|(_, credential)| credential.mint);
            received.ending = mint.and_then(|mint| endings.get(&mint).cloned());
        }
        let now = self.now();
        self.journal.with_live(|live| {
            for received in steps.iter_mut().flat_map(|step| &mut step.received) {
                received.state = match live.leases().find(received.lease) {
                    Some(lease) if now < lease.expire_time => LeaseState::Live,
                    _ if received.state == LeaseState::Revoked => LeaseState::Revoked,
                    _ if now < received.expire_time => LeaseState::Revoked,
                    _ => LeaseState::Expired,
                };
            }
        })?;
        for step in &mut steps {
            // A lease ends with its step. If the lease would have lasted longer, it was revoked.
            let Some((closed, _)) = step.closed else { continue };
            for received in &mut step.received {
                if received.state == LeaseState::Expired && closed < received.expire_time {
                    received.state = LeaseState::Revoked;
                }
            }
        }
        Ok(steps)
    }

    /// Closes every open step of an executor's run. Returns how many steps were closed, how many leases revoked, and the
    /// mints whose credentials are ended for it.
    ///
    /// # Errors
    /// See `ExecutorService.CloseRun`.
    pub async fn close_run(
        &self,
        caller: &Principal,
        workflow: &WorkflowName,
        run: &RunName,
    ) -> Result<(usize, usize, Vec<Id>), Error> {
        let executor = require_executor(caller)?;
        let open: Vec<Id> = self.journal.with_live(|live| {
            let all = live.openings().map(|opening| opening.record());
            all.filter(|one| one.key.executor_uid == executor.uid)
                .filter(|one| one.key.workflow == *workflow && one.key.run == *run)
                .map(|one| one.id)
                .collect()
        })?;
        let (mut closed, mut revoked, mut endings) = (0, 0, Vec::new());
        for id in open {
            let step = self.close_opening(id, CloseReason::Executor).await?;
            closed += usize::from(step.closed);
            revoked += step.revoked;
            endings.extend(step.endings);
        }
        Ok((closed, revoked, endings))
    }

    /// Takes a heartbeat: the executor says that its step runs. Returns when the step expires.
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
        let opening = match found {
            Some(opening) => opening,
            None if self.is_ended_by_operator(&executor, selector)? => {
                return Err(LeverRefusal::ClosedByOperator.into());
            }
            None => return Err(Error::StepNotOpen),
        };
        if let Some(session) = self.sessions.find(opening.record().id) {
            session.take_heartbeat(self.now());
        }
        Ok(opening.record().expire_time)
    }
}

/// The lines of a run, in order, folded into steps.
#[derive(Default)]
struct Fold {
    /// The registration whose steps count; `None` for all.
    of: Option<Id>,
    steps: Vec<RunStep>,
    openings: HashMap<Id, usize>,
    /// The index of each lease in its step.
    leases: HashMap<Id, usize>,
    /// The leases whose credentials are awaited: nothing was received yet. Each with its opening.
    awaited: HashMap<Id, (Id, Received)>,
    uses: Uses,
    /// How the credentials of mints ended.
    endings: HashMap<Id, MintEnding>,
    /// The most bytes that the reply has.
    bytes: usize,
}

/// The most bytes of a step, and of a lease, in a reply, beside its names.
const STEP_BYTES: usize = 160;
const RECEIVED_BYTES: usize = 288;

impl Fold {
    /// Takes a line in. Returns the most bytes that the reply has by now.
    fn take(&mut self, Body { time, event, .. }: Body) -> usize {
        match event {
            Event::Opened(opening) => self.open(*opening),
            Event::Closed { opening, reason, .. } => {
                if let Some(step) = self.step(opening) {
                    step.closed = Some((time, reason));
                }
            }
            Event::ClockSetBack => self.close_all(time, CloseReason::ClockSetBack),
            Event::Restored { .. } => self.close_all(time, CloseReason::Restored),
            Event::LeaseRenewal(line) => {
                let place = self.leases.get(&line.lease).copied();
                let step = self.step(line.opening);
                let received = step.zip(place).and_then(|(step, at)| step.received.get_mut(at));
                if let (Some(received), Some(renewed)) = (received, line.outcome.allowed()) {
                    received.expire_time = renewed.expire_time;
                }
            }
            Event::LeasesRevoked(line) => self.revoke(&line.revoked),
            Event::Blocked(line) => self.revoke(&line.revoked),
            Event::ClosedByOperator(line) => self.close_by_operator(time, &line),
            Event::MintFailed(line) => drop(self.awaited.remove(&line.lease)),
            Event::MintJoined(line) => self.receive_minted(time, &line),
            Event::Resolve(line) => self.receive(time, *line),
            Event::Send(line) => {
                if let Some((uses, of_step)) = self.uses_of(line.opening) {
                    let added = uses.take_request(time, *line, of_step);
                    self.bytes += added;
                }
            }
            Event::Sent(line) => {
                if let Some((uses, of_step)) = self.uses_of(line.opening) {
                    uses.end_request(*line, of_step);
                }
            }
            Event::Sign(line) => {
                if let Some((uses, of_step)) = self.uses_of(line.opening) {
                    let added = uses.take(time, *line, of_step);
                    self.bytes += added;
                }
            }
            Event::EndedUpstream(_)
            | Event::Ending(_)
            | Event::LeftDisabled(_)
            | Event::LeftToExpire(_) => self.take_ending(time, &event),
            _ => {}
        }
        self.bytes
    }

    fn close_by_operator(&mut self, time: Timestamp, line: &OperatorCloseLine) {
        for EndedLeases { opening, .. } in &line.closed {
            if let Some(step) = self.step(*opening) {
                step.closed = Some((time, CloseReason::Operator));
                step.closed_by.clone_from(&line.principal);
            }
        }
    }

    /// Leases that an operator has ended stay revoked also after they would have expired.
    fn revoke(&mut self, revoked: &[EndedLeases]) {
        for EndedLeases { opening, leases, .. } in revoked {
            for lease in leases {
                let place = self.leases.get(lease).copied();
                let step = self.step(*opening).zip(place);
                if let Some(received) = step.and_then(|(step, at)| step.received.get_mut(at)) {
                    received.state = LeaseState::Revoked;
                }
            }
        }
    }

    /// The uses of all steps, and those of the step of an opening.
    fn uses_of(&mut self, opening: Id) -> Option<(&mut Uses, &mut Vec<UsedConnection>)> {
        let at = self.openings.get(&opening).copied()?;
        let step = self.steps.get_mut(at)?;
        Some((&mut self.uses, &mut step.used))
    }

    fn open(&mut self, mut opening: Opening) {
        if self.of.is_some_and(|uid| uid != opening.key.executor_uid) {
            return;
        }
        // The reply has none of these, and they may be long.
        opening.allowed_targets = Vec::new();
        opening.certificates = Vec::new();
        opening.public_key = Vec::new();
        let run_as: usize = opening.run_as.iter().map(|one| one.to_string().len() + 3).sum();
        let StepKey { executor, workflow, run, step, .. } = &opening.key;
        let names = [executor.as_str(), workflow.as_str(), run.as_str(), step.as_str()];
        self.bytes += STEP_BYTES + run_as + names.map(str::len).iter().sum::<usize>();
        self.openings.insert(opening.id, self.steps.len());
        self.steps.push(RunStep {
            opening,
            closed: None,
            closed_by: String::new(),
            received: Vec::new(),
            used: Vec::new(),
        });
    }

    fn take_ending(&mut self, time: Timestamp, event: &Event) {
        let Some(mint) = story::mint_of(event) else { return };
        let ending = story::take(self.endings.remove(&mint), time, event);
        self.bytes += ending.as_ref().map_or(0, |ending| ending.detail.len());
        self.endings.extend(ending.map(|ending| (mint, ending)));
    }

    fn close_all(&mut self, time: Timestamp, reason: CloseReason) {
        for step in self.steps.iter_mut().filter(|step| step.closed.is_none()) {
            step.closed = Some((time, reason));
        }
    }

    fn step(&mut self, opening: Id) -> Option<&mut RunStep> {
        self.steps.get_mut(*self.openings.get(&opening)?)
    }

    /// A lease that is handed out again is the same lease.
    fn receive(&mut self, time: Timestamp, line: ResolveLine) {
        let ResolveLine { opening, ask, outcome, .. } = line;
        let Some(leased) = outcome.into_allowed() else { return };
        let Leased { resource, version, released, lease, expire_time, upstream, .. } = leased;
        let place = self.leases.get(&lease).copied();
        let Some(step) = self.step(opening) else { return };
        if let Some(received) = place.and_then(|at| step.received.get_mut(at)) {
            received.last = time;
            received.times += 1;
            return;
        }
        let received = Received {
            lease,
            resource: resource.unwrap_or_else(|| ask.target.to_text()),
            target: ask.target.to_text(),
            version,
            fields: released,
            first: time,
            last: time,
            times: 1,
            expire_time,
            state: LeaseState::Live,
            mint: None,
            ending: None,
        };
        match upstream {
            None => self.add(opening, received),
            Some(Upstream { source, credential: Some(credential) }) => {
                self.add(opening, Received { mint: Some((source, credential)), ..received });
            }
            Some(Upstream { credential: None, .. }) => {
                self.awaited.insert(lease, (opening, received));
            }
        }
    }

    /// A lease that awaited the credential is on it from then on.
    fn receive_minted(&mut self, time: Timestamp, line: &MintedLine) {
        let Some((opening, received)) = self.awaited.remove(&line.lease) else { return };
        let expire_time = received.expire_time.min(line.credential.credential_expire_time);
        let mint = Some((line.source, Arc::clone(&line.credential)));
        self.add(opening, Received { first: time, last: time, expire_time, mint, ..received });
    }

    fn add(&mut self, opening: Id, received: Received) {
        let Some(step) =
            self.steps.get_mut(self.openings.get(&opening).copied().unwrap_or(usize::MAX))
        else {
            return;
        };
        let handle = received.mint.as_ref().and_then(|(_, credential)| credential.handle.as_ref());
        let handle = handle.map_or(0, String::len);
        let fields: usize = received.fields.iter().map(|name| name.as_str().len() + 2).sum();
        let names = received.resource.len() + received.target.len() + handle;
        let (lease, bytes) = (received.lease, RECEIVED_BYTES + names + fields);
        let at = step.received.len();
        step.received.push(received);
        self.leases.insert(lease, at);
        self.bytes += bytes;
    }
}
