//! A step gets its credential.
//!
//! ```text
//! bindings(name) → decide → find → propose a lease → journal.commit → permit → open
//! ```
//!
//! All of it on one snapshot. If another was published before the journal took the line, everything is
//! decided again.

pub(super) mod authorize;
pub(super) mod batch;
pub(super) mod explain;
pub(super) mod fan_out;
pub(super) mod leases;
pub(super) mod watch;

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::error::Error;
use crate::catalog::Catalog;
use crate::journal::{
    Allowed, CommitError, Committed, LiveOpening, NotAccepted, PermitError, Resolution,
    Unavailable, Verdict,
};
use crate::lease::{Ask, Bounds, Lease, is_renewable, propose};
use crate::model::limits::{LINE_BYTES, MAX_REQUESTED_FIELDS, MAX_TTL, MIN_TTL};
use crate::model::{
    FieldName, Id, IntegrationName, KindName, LogLimit, Opening, Reference, ResourceName, StepKey,
    Timestamp, Value,
};
use crate::seal::OpenedFields;
use authorize::{Found, Refusal, is_executors, judge, own_secret, step_principal};

/// What a step asks for.
#[derive(Clone, Debug)]
pub struct ResolveRequest {
    /// Which credential.
    pub target: Reference,
    /// Which fields, by names or aliases; all if empty.
    pub fields: Vec<String>,
    /// For how long.
    pub ttl: Option<Duration>,
}

/// How many lines the line of a decision on this is worth: what is asked, and on whose behalf, is in it.
pub(super) fn lines_of(opening: &Opening, fields: &[String]) -> u32 {
    let run_as = opening.run_as.iter().map(|one| one.name.as_str().len());
    let bytes: usize = fields.iter().map(String::len).chain(run_as).sum();
    1 + u32::try_from(bytes / LINE_BYTES).unwrap_or(u32::MAX - 1)
}

/// Room for what is opened. It is taken before anything is decided: nothing is opened that has none.
pub trait Room: Send {
    /// Takes so many bytes more, if there are so many.
    fn take(&mut self, bytes: usize) -> bool;
}

/// What one snapshot says of a request.
pub(super) struct Judged {
    pub(super) epoch: u64,
    pub(super) outcome: Result<Found, Refusal>,
}

impl Judged {
    /// The most bytes of values that come of it.
    pub(super) fn bytes(&self) -> usize {
        self.outcome.as_ref().map_or(0, Found::bytes)
    }
}

/// A decision on its way into the journal.
pub(super) struct Decided<'a> {
    pub(super) resolution: Resolution<'a>,
    /// What is handed out when it is committed, within which bounds.
    pub(super) outcome: Result<(Found, Bounds), Refusal>,
}

/// What a step gets.
pub struct Resolved {
    /// The full name of the resource.
    pub name: ResourceName,
    /// A connection's integration and kind.
    pub kind: Option<(IntegrationName, KindName)>,
    /// The version.
    pub version: u64,
    /// The values, by the names asked for, each of them once.
    pub fields: Vec<(String, Value)>,
    /// The lease.
    pub lease: Lease,
    /// Whether it could be renewed to last longer.
    pub is_renewable: bool,
}

impl Broker {
    /// Resolves a credential for the step behind this opening, if it has room.
    ///
    /// # Errors
    /// See `StepService.Resolve` in `proto/keyhatch/v1/step.proto`.
    pub fn resolve(
        &self,
        opening: &Arc<LiveOpening>,
        request: &ResolveRequest,
        room: &mut dyn Room,
    ) -> Result<Resolved, Error> {
        let now = self.now();
        let judged = self.judge_if_due(opening, request, now)?;
        self.decide_and_count(opening, request, None, judged, now, room)
    }

    /// What the newest snapshot says of a request, if it is well formed and its answer may still have a line.
    pub(super) fn judge_if_due(
        &self,
        opening: &LiveOpening,
        request: &ResolveRequest,
        now: Timestamp,
    ) -> Result<Judged, Error> {
        check_form(request)?;
        opening.check_refusals(now, &self.limits).map_err(Error::TooManyRequests)?;
        let judged = self.judge_now(opening, request)?;
        let checked = match judged.outcome {
            Ok(_) => {
                let lines = lines_of(opening.record(), &request.fields);
                opening.take_decision(now, &self.limits, lines)
            }
            Err(_) => opening.check_executor_refusals(now, &self.limits),
        };
        checked.map_err(Error::TooManyRequests)?;
        Ok(judged)
    }

    /// One delivery of a Watch, in place of the one before. What it gives was [paid for](watch) before.
    pub(super) fn deliver(
        &self,
        opening: &Arc<LiveOpening>,
        request: &ResolveRequest,
        before: Option<Id>,
        judged: Judged,
        now: Timestamp,
        room: &mut dyn Room,
    ) -> Result<Resolved, Error> {
        opening.check_refusals(now, &self.limits).map_err(Error::TooManyRequests)?;
        if judged.outcome.is_err() {
            let checked = opening.check_executor_refusals(now, &self.limits);
            checked.map_err(Error::TooManyRequests)?;
        }
        self.decide_and_count(opening, request, Some(before), judged, now, room)
    }

    /// What the newest snapshot says of a request.
    ///
    /// # Errors
    /// If the opening is no longer its executor's.
    pub(super) fn judge_now(
        &self,
        opening: &LiveOpening,
        request: &ResolveRequest,
    ) -> Result<Judged, Error> {
        let snapshot = self.snapshot();
        if !is_executors(&snapshot.catalog, opening.record()) {
            return Err(Error::NotAccepted(NotAccepted::NotOpen));
        }
        let outcome = judge_allowed(&snapshot.catalog, opening.record(), request);
        Ok(Judged { epoch: snapshot.head, outcome })
    }

    fn decide_and_count(
        &self,
        opening: &Arc<LiveOpening>,
        request: &ResolveRequest,
        watch: Option<Option<Id>>,
        judged: Judged,
        now: Timestamp,
        room: &mut dyn Room,
    ) -> Result<Resolved, Error> {
        let outcome = self.resolve_until_current(opening, request, watch, judged, now, room);
        if let Err(
            Error::Denied { .. }
            | Error::Disabled(_)
            | Error::FieldUnknown { .. }
            | Error::IdentifierUnknown(_)
            | Error::IdentifiersIncomplete(_)
            | Error::NoMember
            | Error::NotFound(_)
            | Error::TooManyLeases(_),
        ) = outcome
        {
            self.count_refusal(opening, request, now);
        }
        outcome
    }

    /// Counts a refusal of this that has its line.
    pub(super) fn count_refusal(
        &self,
        opening: &LiveOpening,
        request: &ResolveRequest,
        now: Timestamp,
    ) {
        opening.count_refusal(now, &self.limits, lines_of(opening.record(), &request.fields));
    }

    /// Decides on the newest snapshot, and does not count.
    pub(super) fn resolve_until_current(
        &self,
        opening: &LiveOpening,
        request: &ResolveRequest,
        watch: Option<Option<Id>>,
        mut judged: Judged,
        now: Timestamp,
        room: &mut dyn Room,
    ) -> Result<Resolved, Error> {
        let mut taken = 0;
        // Each turn means that somebody's change was published, so this ends.
        loop {
            let bytes = judged.bytes();
            if bytes > taken && !room.take(bytes - taken) {
                return Err(Error::Overloaded);
            }
            taken = taken.max(bytes);
            let Decided { resolution, outcome } =
                self.decided(opening, request, watch, judged, now);
            match self.journal.commit(now, resolution) {
                Ok(committed) => return self.conclude(outcome, committed),
                Err(CommitError::Stale) => judged = self.judge_now(opening, request)?,
                Err(error) => return Err(self.not_committed(error)),
            }
        }
    }

    /// What comes of a decision that is committed.
    pub(super) fn conclude(
        &self,
        outcome: Result<(Found, Bounds), Refusal>,
        committed: Committed,
    ) -> Result<Resolved, Error> {
        match (outcome, committed) {
            (Ok((found, bounds)), Committed::Permitted(permit, lease)) => {
                let opened = permit.open(&found.values.sealed, &self.keyring);
                let opened = opened.map_err(|error| corrupt(&found, error))?;
                hand_out(found, &opened, lease, &bounds)
            }
            (Err(refusal), Committed::Refused(decision_id)) => {
                Err(refusal.into_error(decision_id.to_opaque(&self.keyring)))
            }
            _ => Err(Error::Internal("a decision came out as another".to_owned())),
        }
    }

    /// What is told of a decision that the journal has not taken, and that is not to be made again.
    pub(super) fn not_committed(&self, error: CommitError) -> Error {
        match error {
            CommitError::Closed => Error::NotAccepted(NotAccepted::NotOpen),
            CommitError::TooManyLeases => Error::TooManyLeases(self.limits.step_live_leases),
            CommitError::Quarantined => Error::Quarantined,
            CommitError::Unavailable(Unavailable) => Error::JournalUnavailable,
            CommitError::LeaseOver | CommitError::Stale => Error::Internal(error.to_string()),
        }
    }

    /// A decision as the journal takes it, and what comes after it.
    pub(super) fn decided<'a>(
        &self,
        opening: &'a LiveOpening,
        request: &ResolveRequest,
        watch: Option<Option<Id>>,
        judged: Judged,
        now: Timestamp,
    ) -> Decided<'a> {
        let ask = Ask {
            target: target_text(&opening.record().key, &request.target),
            fields: request.fields.clone(),
            ttl_millis: request.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        };
        let (verdict, outcome) = match judged.outcome {
            Err(refusal) => {
                (Verdict::Refuse { reason: refusal.reason(), by: refusal.by() }, Err(refusal))
            }
            Ok(found) => {
                let bounds = self.lease_bounds(opening, found.max_ttl);
                let is_named =
                    matches!(request.target, Reference::Connection(_) | Reference::Secret(_));
                let allowed = Allowed {
                    by: found.by.clone(),
                    record: found.values.key,
                    resource: (!is_named).then(|| found.name.to_text()),
                    version: found.version,
                    fields: found.fields.iter().map(|(_, name)| name.clone()).collect(),
                    terms: propose(request.ttl, &bounds, now),
                    max_leases: self.limits.step_live_leases,
                };
                (Verdict::Allow(allowed), Ok((found, bounds)))
            }
        };
        let resolution = Resolution { epoch: judged.epoch, opening, ask, watch, verdict };
        Decided { resolution, outcome }
    }

    pub(super) fn lease_bounds(
        &self,
        opening: &LiveOpening,
        connection: Option<Duration>,
    ) -> Bounds {
        Bounds {
            default: Duration::from_secs(self.limits.default_lease_seconds.into()),
            server: Duration::from_secs(self.limits.max_lease_seconds.into()),
            connection,
            step_end: opening.record().expire_time,
        }
    }
}

/// A record that does not open; the journal says that it was to be handed out.
pub(super) fn corrupt(found: &Found, error: PermitError) -> Error {
    static LIMIT: LogLimit = LogLimit::new(1);
    if let Some(suppressed) = LIMIT.allow() {
        tracing::error!(resource.name = %found.name, %error, suppressed, "a stored credential cannot be opened");
    }
    Error::Corrupt
}

/// The credential as it is told, from the record that its permit has opened.
pub(super) fn hand_out(
    found: Found,
    opened: &OpenedFields,
    lease: Lease,
    bounds: &Bounds,
) -> Result<Resolved, Error> {
    let is_renewable = is_renewable(lease.issue_time, lease.expire_time, bounds);
    // Copied, not moved: one field may have been asked for under two of its names.
    let copy = |(asked, name): (String, FieldName)| {
        let value = opened.get(&name).ok_or(Error::Corrupt)?;
        Ok((asked, Value::new(value.to_vec())))
    };
    let fields = found.fields.into_iter().map(copy).collect::<Result<_, Error>>()?;
    Ok(Resolved {
        name: found.name,
        kind: found.kind,
        version: found.version,
        fields,
        lease,
        is_renewable,
    })
}

/// Decides within what its executor lets the step ask for.
pub(super) fn judge_allowed(
    catalog: &Catalog,
    opening: &Opening,
    request: &ResolveRequest,
) -> Result<Found, Refusal> {
    let allowed = &opening.allowed_targets;
    if !allowed.is_empty() && !allowed.iter().any(|one| one.admits(&request.target)) {
        return Err(Refusal::Outside);
    }
    let principal = step_principal(opening);
    judge(catalog, &principal, &opening.key.workflow, &request.target, &request.fields)
}

/// Form errors come before the decision.
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

/// What was asked, as the journal and the lease keep it.
fn target_text(key: &StepKey, target: &Reference) -> String {
    match target {
        Reference::Connection(name) => ResourceName::Connection(name.clone()).to_text(),
        Reference::Default(_) | Reference::Group(_) => target.to_text(),
        Reference::Secret(name) => ResourceName::Secret(own_secret(&key.workflow, name)).to_text(),
    }
}
