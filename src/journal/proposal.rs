//! From a decision to its line.

use super::event::{Outcome, ResolveLine};
use super::live::Live;
use super::{Allowed, CommitError, Resolution, Unavailable, Verdict};
use crate::lease::Lease;
use crate::model::{Id, Timestamp};
use crate::seal::{RecordKey, random_id};

/// What a line says of a decision.
pub(super) enum Settled {
    /// The record may be opened.
    Permitted { record: RecordKey, version: u64, lease: Lease },
    /// Access or the catalogue refuses.
    Refused,
    /// The opening holds as many as it may.
    TooManyLeases,
}

impl Resolution<'_> {
    /// The line to write, unless the world has moved on since the decision.
    pub(super) fn settle(
        self,
        live: &Live,
        now: Timestamp,
    ) -> Result<(ResolveLine, Settled), CommitError> {
        if live.is_quarantined() {
            return Err(CommitError::Quarantined);
        }
        if live.epoch() != self.epoch {
            return Err(CommitError::Stale);
        }
        if self.opening.is_closed() {
            return Err(CommitError::Closed);
        }
        let mut line = ResolveLine::new(self.opening.record(), self.ask);
        line.watch = self.watch.is_some();
        match self.verdict {
            Verdict::Refuse { reason, by } => {
                // What was asked for beside the target says nothing to anybody, and can be long.
                line.ask.fields.clear();
                line.outcome = Outcome::Refuse { reason: reason.to_owned(), by: by.to_owned() };
                Ok((line, Settled::Refused))
            }
            Verdict::Allow(allowed) => {
                settle_allowed(live, now, line, allowed, self.watch.flatten())
            }
        }
    }
}

/// The line of a decision to hand out, under a lease that is there already or a new one.
fn settle_allowed(
    live: &Live,
    now: Timestamp,
    mut line: ResolveLine,
    allowed: Allowed,
    ended: Option<Id>,
) -> Result<(ResolveLine, Settled), CommitError> {
    let Allowed { by, record, resource, version, fields, terms, max_leases } = allowed;
    let leases = live.leases();
    // What is allowed at most may be less than it was. A Watch's lease is nobody else's.
    let reused = leases
        .reusable(line.opening, &line.ask, record.uid, version, now)
        .filter(|lease| lease.expire_time <= terms.expire_time && !line.watch)
        .cloned();
    let held = leases.count_of(line.opening)
        - usize::from(ended.is_some_and(|id| leases.find(id).is_some()));
    if reused.is_none() && held >= max_leases as usize {
        let reason = "TOO_MANY_LEASES".to_owned();
        line.outcome = Outcome::Refuse { reason, by: String::new() };
        return Ok((line, Settled::TooManyLeases));
    }
    let is_reused = reused.is_some();
    let lease = match reused {
        Some(lease) => lease,
        None => Lease {
            id: random_id().map_err(|_| Unavailable)?,
            opening: line.opening,
            resource: record.uid,
            version,
            ask: line.ask.clone(),
            is_watch: line.watch,
            issue_time: now,
            expire_time: terms.expire_time,
            limited_by: terms.limited_by,
        },
    };
    // Said only where the target does not say it.
    let resource = Some(resource).filter(|resource| *resource != line.ask.target);
    line.outcome = Outcome::Allow {
        by,
        uid: record.uid,
        resource,
        version,
        released: fields,
        lease: lease.id,
        issue_time: lease.issue_time,
        expire_time: lease.expire_time,
        limited_by: lease.limited_by,
        reused: is_reused,
        ended,
    };
    Ok((line, Settled::Permitted { record, version, lease }))
}
