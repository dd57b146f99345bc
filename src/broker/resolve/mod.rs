//! Resolve: a step gets its credential.
//!
//! ```text
//! bindings(name) → decide → find → propose a lease → journal.commit → permit → open
//! ```
//!
//! All of it happens on one snapshot. If a newer snapshot is published before the journal has the line, the broker
//! decides again.

pub(super) mod authorize;
pub(super) mod batch;
pub(super) mod explain;
pub(super) mod fan_out;
pub(super) mod leases;
pub(super) mod mint_story;
pub(super) mod minted;
pub(super) mod refusal;
mod request;
mod shared;
mod upstream;
pub(super) mod watch;
pub(super) mod watcher_state;

pub use request::{ResolveRequest, Resolved, Room};

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::error::Error;
use super::steps::session::StepSession;
use crate::egress::MAX_REPLY_BYTES;
use crate::journal::{
    Allowed, CommitError, CommitGroup, Committed, DecisionId, Epoch, Granted, LiveOpening,
    NotAccepted, PermitError, Refused, Resolution, Unavailable,
};
use crate::lease::{Ask, Bounds, Lease, LeaseTarget, is_renewable, propose};
use crate::metrics::MintLookup;
use crate::model::limits::{LINE_BYTES, MAX_REQUESTED_FIELDS, MAX_TTL, MIN_TTL};
use crate::model::{FieldName, Id, LogLimit, Opening, Reference, Timestamp, Value};
use crate::seal::OpenedFields;
use authorize::{Grant, Refusal, authorize_step, is_executors};
use minted::Answer;

/// How many lines the line of a decision is worth. It contains the fields and the `run_as` principals, and so may be
/// long.
pub(super) fn lines_of(opening: &Opening, fields: &[String]) -> u32 {
    let run_as = opening.run_as.iter().map(|one| one.name.as_str().len());
    let bytes: usize = fields.iter().map(String::len).chain(run_as).sum();
    1 + u32::try_from(bytes / LINE_BYTES).unwrap_or(u32::MAX - 1)
}

/// The decision on a request by one snapshot.
pub(super) struct Authorization {
    pub(super) epoch: Epoch,
    pub(super) outcome: Result<Grant, Refusal>,
}

impl Authorization {
    /// The most bytes of values that it hands out. What an upstream is asked for has no size yet.
    pub(super) fn bytes(&self) -> usize {
        self.outcome.as_ref().map_or(0, Grant::bytes)
    }

    /// The same, with as much as an upstream may answer.
    pub(super) fn most_bytes(&self) -> usize {
        match &self.outcome {
            Ok(grant) if self.is_awaited() => {
                grant.values.sealed.as_bytes().len().saturating_add(MAX_REPLY_BYTES)
            }
            _ => self.bytes(),
        }
    }

    /// True if the upstream is to be asked for the next credential.
    fn is_to_be_replaced(&self, now: Timestamp) -> bool {
        let credential = self.outcome.as_ref().ok().and_then(Grant::credential);
        credential.is_some_and(|credential| credential.refresh <= now)
    }

    /// True if an upstream is to be asked for the credential.
    pub(super) fn is_awaited(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|grant| grant.handed_out().is_none())
    }
}

impl Broker {
    /// Resolves a credential for a step, if it has room. Its line has a write of its own.
    ///
    /// # Errors
    /// See `StepService.Resolve` in `proto/keyhatch/v1/step.proto`.
    pub fn resolve(
        &self,
        session: &StepSession,
        request: &ResolveRequest,
        room: &mut dyn Room,
    ) -> Result<Answer, Error> {
        let now = self.now();
        let decided = self.authorize_within_limits(session, request, now)?;
        let opening = &session.opening;
        let outcome = self.resolve_until_current(opening, request, None, decided, now, (room, 0));
        self.count_if_refused(session, request, now, outcome)
    }

    /// Resolves as [`Broker::resolve`] does. Its line is written together with others of the group.
    ///
    /// # Errors
    /// As [`Broker::resolve`].
    pub async fn resolve_in_group(
        &self,
        group: &CommitGroup,
        session: &StepSession,
        request: &ResolveRequest,
        room: &mut dyn Room,
    ) -> Result<Answer, Error> {
        let now = self.now();
        let decided = self.authorize_within_limits(session, request, now)?;
        let outcome = self.commit_in_group(group, session, request, decided, now, room).await;
        self.count_if_refused(session, request, now, outcome)
    }

    /// Commits a decision together with others. If it is out of date by then, the broker decides again, alone.
    async fn commit_in_group(
        &self,
        group: &CommitGroup,
        session: &StepSession,
        request: &ResolveRequest,
        decided: Authorization,
        now: Timestamp,
        room: &mut dyn Room,
    ) -> Result<Answer, Error> {
        let (opening, taken) = (&session.opening, decided.bytes());
        if !room.take(taken) {
            return Err(Error::Overloaded);
        }
        let resolution = self.resolution(opening, request, None, &decided, now);
        match group.commit(&self.journal, || self.now(), resolution).await {
            Ok(committed) => self.conclude(opening, request, decided, committed),
            Err(error) if self.is_outdated(error, opening, &decided) => {
                let (decided, room) = (self.authorize_now(opening, request)?, (room, taken));
                self.resolve_until_current(opening, request, None, decided, now, room)
            }
            Err(error) => Err(self.not_committed(error)),
        }
    }

    /// Decides on a request by the newest snapshot, if the request is well formed and its answer may have a line.
    pub(super) fn authorize_within_limits(
        &self,
        session: &StepSession,
        request: &ResolveRequest,
        now: Timestamp,
    ) -> Result<Authorization, Error> {
        check_form(request)?;
        session.check_refusals(now, &self.limits).map_err(Error::TooManyRequests)?;
        let decided = self.authorize_now(&session.opening, request)?;
        let checked = match decided.outcome {
            Ok(_) => {
                let lines = lines_of(session.opening.record(), &request.fields);
                session.take_decision(now, &self.limits, lines)
            }
            Err(_) => session.check_executor_refusals(now, &self.limits),
        };
        checked.map_err(Error::TooManyRequests)?;
        Ok(decided)
    }

    /// Commits one delivery of a Watch, in place of the delivery before. The Watch has [paid](watch) for it.
    pub(super) fn deliver(
        &self,
        session: &StepSession,
        request: &ResolveRequest,
        before: Option<Id>,
        decided: Authorization,
        now: Timestamp,
        room: &mut dyn Room,
    ) -> Result<Answer, Error> {
        session.check_refusals(now, &self.limits).map_err(Error::TooManyRequests)?;
        if decided.outcome.is_err() {
            let checked = session.check_executor_refusals(now, &self.limits);
            checked.map_err(Error::TooManyRequests)?;
        }
        let opening = &session.opening;
        let watch = Some(before);
        let outcome = self.resolve_until_current(opening, request, watch, decided, now, (room, 0));
        self.count_if_refused(session, request, now, outcome)
    }

    /// Decides on a request by the newest snapshot, within what its executor lets the step ask for.
    ///
    /// # Errors
    /// If the step's executor is no longer registered.
    pub(super) fn authorize_now(
        &self,
        opening: &LiveOpening,
        request: &ResolveRequest,
    ) -> Result<Authorization, Error> {
        let (snapshot, record) = (self.snapshot(), opening.record());
        if !is_executors(&snapshot.catalog, record) {
            return Err(Error::NotAccepted(NotAccepted::NotOpen));
        }
        let fields = Some(&*request.fields);
        let outcome =
            authorize_step(snapshot.in_force(), record, &request.target, request.purpose(), fields)
                .and_then(|grant| self.with_credential(grant, record, request));
        Ok(Authorization { epoch: snapshot.epoch, outcome })
    }

    /// Counts an outcome that is a refusal with a line.
    pub(super) fn count_if_refused<T>(
        &self,
        session: &StepSession,
        request: &ResolveRequest,
        now: Timestamp,
        outcome: Result<T, Error>,
    ) -> Result<T, Error> {
        if let Err(
            Error::Denied { .. }
            | Error::Disabled(_)
            | Error::FieldUnknown { .. }
            | Error::IdentifierUnknown(_)
            | Error::IdentifiersIncomplete(_)
            | Error::NoMember
            | Error::NotFound(_)
            | Error::SendNotAllowed
            | Error::SendUnsupported(_)
            | Error::TooManyLeases(_)
            | Error::Upstream { .. },
        ) = outcome
        {
            self.count_refusal(session, request, now);
        }
        outcome
    }

    /// Counts a refusal that has a line.
    pub(super) fn count_refusal(
        &self,
        session: &StepSession,
        request: &ResolveRequest,
        now: Timestamp,
    ) {
        let lines = lines_of(session.opening.record(), &request.fields);
        session.count_refusal(now, &self.limits, lines);
    }

    /// Commits a decision. It decides again as long as newer snapshots are published. It counts nothing. `taken` bytes of
    /// the room are for this decision already.
    pub(super) fn resolve_until_current(
        &self,
        opening: &Arc<LiveOpening>,
        request: &ResolveRequest,
        watch: Option<Option<Id>>,
        mut decided: Authorization,
        now: Timestamp,
        (room, mut taken): (&mut dyn Room, usize),
    ) -> Result<Answer, Error> {
        // The loop ends: each turn needs another published change, or another credential that has ended.
        loop {
            let bytes = decided.bytes();
            if bytes > taken && !room.take(bytes - taken) {
                return Err(Error::Overloaded);
            }
            taken = taken.max(bytes);
            let resolution = self.resolution(opening, request, watch, &decided, now);
            match self.journal.commit(now, resolution) {
                Ok(committed) => return self.conclude(opening, request, decided, committed),
                Err(error) if self.is_outdated(error, opening, &decided) => {
                    decided = self.authorize_now(opening, request)?;
                    if decided.outcome.is_ok() {
                        opening.check_watch(watch.flatten())?;
                    }
                }
                Err(error) => return Err(self.not_committed(error)),
            }
        }
    }

    /// The answer to a decision that is committed.
    fn conclude(
        &self,
        opening: &Arc<LiveOpening>,
        request: &ResolveRequest,
        decided: Authorization,
        Committed { decision_id, granted }: Committed,
    ) -> Result<Answer, Error> {
        match (decided.outcome, granted) {
            (Ok(grant), Some(Granted { lease, permit: Some(permit) })) => {
                self.count_hit(&grant);
                let sealed = grant.handed_out().map(|values| &values.sealed);
                let opened = sealed.ok_or(PermitError::OtherRecord);
                let opened = opened.and_then(|sealed| permit.open(sealed, &self.keyring));
                let given = (decision_id, lease);
                self.hand_out(opening, request, grant, opened.as_ref(), given).map(Answer::Resolved)
            }
            (Ok(grant), Some(Granted { lease, permit: None })) => {
                self.ask_upstream(opening, request, &grant, (decision_id, lease.id))
            }
            (outcome, _) => Err(self.not_granted(outcome.err(), decision_id)),
        }
    }

    /// The answer to a committed decision that hands out nothing.
    pub(super) fn not_granted(&self, refusal: Option<Refusal>, decision_id: DecisionId) -> Error {
        match refusal {
            Some(refusal) => {
                if let Refusal::Upstream { source, .. } = &refusal {
                    self.mints.count(*source, MintLookup::Negative);
                }
                refusal.into_error(decision_id.to_opaque(&self.keyring))
            }
            None => Error::TooManyLeases(self.limits.step_live_leases),
        }
    }

    /// Whether a decision that could not be committed is made again. A credential whose ending has begun is forgotten first, so
    /// that the next decision is another.
    pub(super) fn is_outdated(
        &self,
        error: CommitError,
        opening: &LiveOpening,
        decided: &Authorization,
    ) -> bool {
        match (error, &decided.outcome) {
            (CommitError::Stale, _) => true,
            (CommitError::CredentialEnding, Ok(grant)) => {
                self.forget_credential(grant, opening.record());
                true
            }
            _ => false,
        }
    }

    /// The answer to a decision that could not be committed, and is not made again.
    pub(super) fn not_committed(&self, error: CommitError) -> Error {
        match error {
            CommitError::Closed => Error::NotAccepted(NotAccepted::NotOpen),
            CommitError::Quarantined => Error::Quarantined,
            CommitError::Unavailable(Unavailable) => Error::JournalUnavailable,
            CommitError::CredentialEnding
            | CommitError::LeaseEnded
            | CommitError::Stale
            | CommitError::TooManyEndings(_) => Error::Internal(error.to_string()),
        }
    }

    /// The decision as the journal takes it.
    pub(super) fn resolution(
        &self,
        opening: &Arc<LiveOpening>,
        request: &ResolveRequest,
        watch: Option<Option<Id>>,
        decided: &Authorization,
        now: Timestamp,
    ) -> Resolution {
        let ask = Ask {
            target: LeaseTarget::of(&opening.record().key.workflow, &request.target),
            fields: request.fields.clone(),
            ttl_millis: request.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            action: request.action.clone(),
        };
        let allowed = |grant: &Grant| {
            let is_named =
                matches!(request.target, Reference::Connection(_) | Reference::Secret(_));
            let end = grant.credential().map(|credential| credential.end());
            let bounds = self.lease_bounds(opening, grant.max_ttl, end);
            Allowed {
                by: grant.rules(),
                record: grant.values.key,
                resource: (!is_named).then(|| grant.name.to_text()),
                version: grant.version,
                fields: grant.fields.iter().map(|(_, name)| name.clone()).collect(),
                terms: propose(request.ttl, &bounds, now),
                max_leases: self.limits.step_live_leases,
                upstream: grant.upstream(),
            }
        };
        let refused = |refusal: &Refusal| Refused {
            reason: refusal.reason().to_owned(),
            by: refusal.by().to_owned(),
            uid: refusal.too_low_on(),
            mint: refusal.mint(),
        };
        let outcome = decided.outcome.as_ref().map(allowed).map_err(refused);
        let opening = Arc::clone(opening);
        Resolution { epoch: decided.epoch, time: now, opening, ask, watch, outcome }
    }

    pub(super) fn lease_bounds(
        &self,
        opening: &LiveOpening,
        connection: Option<Duration>,
        credential_end: Option<Timestamp>,
    ) -> Bounds {
        Bounds {
            default: Duration::from_secs(self.limits.default_lease_seconds.into()),
            server: Duration::from_secs(self.limits.max_lease_seconds.into()),
            connection,
            step_end: opening.record().expire_time,
            credential_end,
        }
    }

    /// The credential, from the record that its permit has opened.
    pub(super) fn hand_out(
        &self,
        opening: &Arc<LiveOpening>,
        request: &ResolveRequest,
        grant: Grant,
        opened: Result<&OpenedFields, &PermitError>,
        (decision, lease): (DecisionId, Lease),
    ) -> Result<Resolved, Error> {
        let opened = opened.map_err(|error| corrupt(&grant, error))?;
        let refresh = grant.credential().map(|credential| credential.refresh);
        if refresh.is_some() {
            // Nobody waits for it.
            let _ = self.replace_early(opening, request, &grant, (decision, lease.id));
        }
        let bounds = self.lease_bounds(opening, grant.max_ttl, lease.credential_expire_time());
        let is_renewable = is_renewable(lease.issue_time, lease.expire_time, &bounds);
        // Values are copied, because one field may be asked for by two of its names.
        let copy = |(asked, name): (String, FieldName)| {
            let value = opened.get(&name).ok_or(Error::Corrupt)?;
            Ok((asked, Value::new(value.to_vec())))
        };
        let fields = grant.fields.into_iter().map(copy).collect::<Result<_, Error>>()?;
        Ok(Resolved {
            name: grant.name,
            kind: grant.kind,
            version: grant.version,
            fields,
            lease,
            is_renewable,
            decision,
            refresh,
        })
    }
}

/// Logs a record that cannot be opened. The journal already contains the decision to hand it out.
pub(super) fn corrupt(grant: &Grant, error: &PermitError) -> Error {
    static LIMIT: LogLimit = LogLimit::new(1);
    if let Some(suppressed) = LIMIT.allow() {
        tracing::error!(resource.name = %grant.name, %error, suppressed, "a stored credential cannot be opened");
    }
    Error::Corrupt
}

/// Checks the form of a request, before any decision.
pub(super) fn check_form(request: &ResolveRequest) -> Result<(), Error> {
    if request.fields.len() > MAX_REQUESTED_FIELDS {
        let text = format!("at most {MAX_REQUESTED_FIELDS} fields can be named");
        return Err(Error::TargetInvalid(text));
    }
    for field in &request.fields {
        FieldName::parse(field)?;
    }
    match request.ttl {
        Some(ttl) if !(MIN_TTL..=MAX_TTL).contains(&ttl) => {
            Err(Error::TtlOutOfRange { what: "ttl", least: MIN_TTL, most: MAX_TTL })
        }
        _ => Ok(()),
    }
}
