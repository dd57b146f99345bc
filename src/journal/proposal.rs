//! From a decision to its line.

use std::sync::Arc;

use super::event::{Event, Outcome, ResolveLine};
use super::state::live::Live;
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
    /// The line to write, after those earlier ones that are not applied yet, unless the world has moved on since the
    /// decision.
    pub(super) fn settle(
        self,
        live: &Live,
        earlier: &[Event],
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
        let mut line = ResolveLine::new(self.opening, self.ask);
        line.watch = self.watch.is_some();
        match self.verdict {
            Verdict::Refuse { reason, by } => {
                Ok((refused(line, reason.to_owned(), by.to_owned()), Settled::Refused))
            }
            Verdict::Allow(allowed) => {
                settle_allowed(live, earlier, now, line, allowed, self.watch.flatten())
            }
        }
    }
}

/// The line of a refusal. What was asked for beside the target says nothing to anybody, and can be long.
fn refused(mut line: ResolveLine, reason: String, by: String) -> ResolveLine {
    Arc::make_mut(&mut line.ask).fields.clear();
    line.outcome = Outcome::Refuse { reason, by };
    line
}

/// The line of a decision to hand out, under a lease that is there already or a new one.
fn settle_allowed(
    live: &Live,
    earlier: &[Event],
    now: Timestamp,
    mut line: ResolveLine,
    allowed: Allowed,
    ended: Option<Id>,
) -> Result<(ResolveLine, Settled), CommitError> {
    let Allowed { by, record, resource, version, fields, terms, max_leases } = allowed;
    let leases = live.leases();
    let of_opening = || of_opening(earlier, line.opening);
    let begun = || of_opening().filter_map(ResolveLine::new_lease);
    // What is allowed at most may be less than it was. A Watch's lease is nobody else's.
    let reused = begun()
        .find(|lease| lease.is_for(&line.ask, record.uid, version))
        .or_else(|| leases.reusable(line.opening, &line.ask, record.uid, version, now).cloned())
        .filter(|lease| lease.expire_time <= terms.expire_time && !line.watch);
    let over = of_opening().filter_map(ResolveLine::ended_lease).chain(ended);
    let held = leases.count_of(line.opening) + begun().count()
        - over.filter(|id| leases.find(*id).is_some()).count();
    if reused.is_none() && held >= max_leases as usize {
        let line = refused(line, "TOO_MANY_LEASES".to_owned(), String::new());
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
            ask: Arc::clone(&line.ask),
            is_watch: line.watch,
            issue_time: now,
            expire_time: terms.expire_time,
            limited_by: terms.limited_by,
        },
    };
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

/// The decisions on this opening among these lines.
fn of_opening(lines: &[Event], opening: Id) -> impl Iterator<Item = &ResolveLine> {
    lines.iter().filter_map(move |line| match line {
        Event::Resolve(line) if line.opening == opening => Some(&**line),
        _ => None,
    })
}
