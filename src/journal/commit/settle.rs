//! From a decision to its line.

use std::sync::Arc;

use super::{Allowed, CommitError, Resolution};
use crate::journal::event::{Event, Leased, Outcome, Refused, ResolveLine, Upstream};
use crate::journal::state::live::Live;
use crate::journal::{Epoch, LiveOpening, Unavailable};
use crate::lease::{Ask, Edition, Lease, MintedCredential};
use crate::model::{Id, Timestamp};
use crate::seal::{RecordKey, random_id};

impl Live {
    /// Checks that a decision on the snapshot `epoch` may be committed.
    pub(super) fn check_epoch(&self, epoch: Epoch) -> Result<(), CommitError> {
        if self.is_quarantined() {
            return Err(CommitError::Quarantined);
        }
        if self.epoch() == epoch { Ok(()) } else { Err(CommitError::Stale) }
    }

    /// Checks that a credential may still be handed out.
    pub(super) fn check_credential(&self, made: &MintedCredential) -> Result<(), CommitError> {
        let may_use = self.mints().owed().may_use(made);
        if may_use { Ok(()) } else { Err(CommitError::CredentialEnding) }
    }

    /// Checks that a decision for this opening may be committed.
    pub(super) fn check_decision(
        &self,
        epoch: Epoch,
        opening: &LiveOpening,
    ) -> Result<(), CommitError> {
        self.check_epoch(epoch)?;
        if opening.is_closed() { Err(CommitError::Closed) } else { Ok(()) }
    }
}

/// The outcome of a decision, with the record and lease to hand out, if any.
type Settled = (Outcome<Leased>, Option<(RecordKey, Lease)>);

impl Resolution {
    /// The line to write, and the record and lease to hand out, if any. `earlier` are lines before it that are not
    /// applied yet.
    ///
    /// # Errors
    /// If something has changed since the decision.
    pub(super) fn settle(
        self,
        live: &Live,
        earlier: &[Event],
    ) -> Result<(ResolveLine, Option<(RecordKey, Lease)>), CommitError> {
        live.check_decision(self.epoch, &self.opening)?;
        if let Ok(Allowed { upstream: Some(Upstream { credential: Some(made), .. }), .. }) =
            &self.outcome
        {
            live.check_credential(made)?;
        }
        let (opening, mut ask) = (self.opening.record(), Arc::new(self.ask));
        let (outcome, granted) = match self.outcome {
            Ok(allowed) => {
                let before = Before { live, earlier, now: self.time, opening: opening.id };
                before.settle_allowed(&ask, self.watch, allowed)?
            }
            Err(refusal) => (Outcome::Refuse(refusal), None),
        };
        if granted.is_none() {
            // The fields and the TTL explain no refusal, and can be long.
            Arc::make_mut(&mut ask).fields.clear();
        }
        let line = ResolveLine {
            opening: opening.id,
            principal: self.opening.principal(),
            run_as: opening.run_as.clone(),
            ask,
            watch: self.watch.is_some(),
            outcome,
        };
        Ok((line, granted))
    }
}

/// The state in which a decision is settled.
struct Before<'a> {
    live: &'a Live,
    /// Lines before it that are not applied yet.
    earlier: &'a [Event],
    now: Timestamp,
    opening: Id,
}

impl Before<'_> {
    /// The outcome of a decision to hand out, under a live lease or a new one.
    fn settle_allowed(
        &self,
        ask: &Arc<Ask>,
        watch: Option<Option<Id>>,
        allowed: Allowed,
    ) -> Result<Settled, CommitError> {
        let Allowed { by, record, resource, version, fields, terms, max_leases, upstream } =
            allowed;
        let before = watch.flatten();
        let made = upstream.as_ref().and_then(|upstream| upstream.credential.as_ref());
        let is_awaited = upstream.is_some() && made.is_none();
        let edition = Edition { resource: record.uid, version, mint: made.map(|one| one.mint) };
        // A Watch keeps its lease until the upstream has answered.
        let ended = before
            .filter(|lease| !is_awaited && !self.runs_on(*lease, edition, max_leases as usize));
        // What an upstream is asked for has a lease of its own, as a Watch and an action of the broker have.
        let is_new = watch.is_some() || is_awaited || ask.action.is_some();
        let reused = if is_new { None } else { self.reusable(ask, edition) };
        // The maximum may be lower than it was.
        let reused = reused.filter(|lease| lease.expire_time <= terms.expire_time);
        let is_reused = reused.is_some();
        let lease = match reused {
            Some(lease) => lease,
            None if !self.has_room(max_leases as usize, before) => {
                return Ok((Outcome::Refuse(Refused::because("TOO_MANY_LEASES")), None));
            }
            None => Lease {
                id: random_id().map_err(|_| Unavailable)?,
                opening: self.opening,
                resource: record.uid,
                version,
                ask: Arc::clone(ask),
                is_watch: watch.is_some(),
                issue_time: self.now,
                expire_time: terms.expire_time,
                limited_by: terms.limited_by,
                mint: upstream.as_ref().map(Upstream::state),
                is_done: false,
            },
        };
        let outcome = Outcome::Allow(Leased {
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
            upstream,
        });
        Ok((outcome, Some((record, lease))))
    }

    /// The lease to give again for the same ask.
    fn reusable(&self, ask: &Ask, edition: Edition) -> Option<Lease> {
        let mut begun = self.lines().filter_map(ResolveLine::new_lease);
        begun.find(|lease| lease.is_for(ask, edition)).or_else(|| {
            let leases = self.live.leases();
            leases.reusable(self.opening, ask, edition, self.now).cloned()
        })
    }

    /// Whether the lease of a Watch's last delivery goes on beside the next: the step may be in the middle of a request with
    /// a credential that ends with its lease, and was replaced early.
    fn runs_on(&self, before: Id, next: Edition, most: usize) -> bool {
        let Some(lease) = self.live.leases().find(before) else { return false };
        let replaced = lease.credential().filter(|made| Some(made.mint) != next.mint);
        let is_renewal = lease.edition().is_same_version(&next);
        let is_usable = |made: &Arc<MintedCredential>| {
            made.owed && self.live.mints().owed().may_use(made) && self.now < lease.expire_time
        };
        is_renewal && replaced.is_some_and(is_usable) && self.has_room(most, None)
    }

    /// Whether the opening may hold another lease of `most` in place of the lease `before`.
    fn has_room(&self, most: usize, before: Option<Id>) -> bool {
        let leases = self.live.leases();
        let held = leases.count_of(self.opening);
        if held + self.earlier.len() < most {
            return true;
        }
        let begun = self.lines().filter(|line| line.begins_lease()).count();
        let all_ended = self.lines().filter_map(ResolveLine::ended_lease).chain(before);
        held + begun - all_ended.filter(|id| leases.find(*id).is_some()).count() < most
    }

    /// The earlier decisions on this opening.
    fn lines(&self) -> impl Iterator<Item = &ResolveLine> {
        self.earlier.iter().filter_map(|line| match line {
            Event::Resolve(line) if line.opening == self.opening => Some(&**line),
            _ => None,
        })
    }
}
