//! RenewLease and RevokeLease.

use std::time::Duration;

use super::authorize::{Refusal, is_executors, regrant};
use super::lines_of;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::steps::session::StepSession;
use crate::journal::{CommitError, LiveOpening, Outcome, Refused, RenewalLine, RenewedLease};
use crate::lease::{Lease, is_renewable, renew};
use crate::model::limits::{MAX_TTL, MIN_TTL};
use crate::model::{Id, ResourceName, Timestamp};

impl Broker {
    /// Renews a lease of this step. Returns the lease, and whether it could be renewed again.
    ///
    /// # Errors
    /// See `StepService.RenewLease`.
    pub fn renew_lease(
        &self,
        session: &StepSession,
        id: Id,
        ttl: Option<Duration>,
    ) -> Result<(Lease, bool), Error> {
        if ttl.is_some_and(|ttl| !(MIN_TTL..=MAX_TTL).contains(&ttl)) {
            return Err(Error::TtlOutOfRange { what: "ttl", least: MIN_TTL, most: MAX_TTL });
        }
        let now = self.now();
        session.check_refusals(now, &self.limits).map_err(Error::TooManyRequests)?;
        let lines = lines_of(session.opening.record(), &[]);
        session.take_decision(now, &self.limits, lines).map_err(Error::TooManyRequests)?;
        // The loop ends: each turn needs another published change. Only refusals are counted, and not the faults that
        // return at once.
        let outcome = loop {
            match self.renew_once(&session.opening, id, ttl, now) {
                Err(CommitError::Stale) => {}
                Err(CommitError::Quarantined) => break Err(Error::Quarantined),
                Err(CommitError::LeaseEnded) => break Err(absent(id)),
                Err(error) => return Err(self.not_committed(error)),
                Ok(outcome) => break outcome,
            }
        };
        if outcome.is_err() {
            session.count_refusal(now, &self.limits, lines);
        }
        outcome
    }

    fn renew_once(
        &self,
        opening: &LiveOpening,
        id: Id,
        ttl: Option<Duration>,
        now: Timestamp,
    ) -> Result<Result<(Lease, bool), Error>, CommitError> {
        let snapshot = self.snapshot();
        let record = opening.record();
        if !is_executors(&snapshot.catalog, record) {
            return Err(CommitError::Closed);
        }
        let found = self.journal.with_live(|live| live.leases().find(id).cloned())?;
        // Another step's lease looks like a lease that never existed.
        let own = found.filter(|lease| lease.opening == record.id && now < lease.expire_time);
        let Some(lease) = own else { return Ok(Err(absent(id))) };
        let line = |outcome| RenewalLine {
            opening: record.id,
            principal: opening.principal(),
            run_as: record.run_as.clone(),
            lease: id,
            target: lease.ask.target.clone(),
            outcome,
        };
        let refuse = |reason: &str| line(Outcome::Refuse(Refused::because(reason)));
        let commit = |line| self.journal.commit_renewal(now, snapshot.epoch, opening, line);
        let Some(grant) = regrant(snapshot.in_force(), record, &lease) else {
            let decision_id = commit(refuse(Refusal::Denied.reason()))?;
            return Ok(Err(Refusal::Denied.into_error(decision_id.to_opaque(&self.keyring))));
        };
        if grant.version != lease.version {
            commit(refuse("VERSION_SUPERSEDED"))?;
            return Ok(Err(Error::VersionSuperseded));
        }
        let end = lease.credential_expire_time();
        let bounds = self.lease_bounds(opening, grant.max_ttl, end);
        let terms = renew(&lease, ttl, &bounds, now);
        let (expire_time, limited_by) = (terms.expire_time, terms.limited_by);
        commit(line(Outcome::Allow(RenewedLease { by: grant.by, expire_time, limited_by })))?;
        let is_renewable = is_renewable(lease.issue_time, expire_time, &bounds);
        Ok(Ok((Lease { expire_time, limited_by, ..lease }, is_renewable)))
    }

    /// Ends a lease of this step before it expires. Returns the mints whose credentials are ended for it, unless something
    /// else of the step uses them.
    ///
    /// # Errors
    /// See `StepService.RevokeLease`.
    pub async fn revoke_lease(&self, session: &StepSession, id: Id) -> Result<Vec<Id>, Error> {
        let revoked = self.journal.revoke(self.now(), session.opening.record().id, id)?;
        let (position, mints) = revoked.ok_or_else(|| absent(id))?;
        // The wait for the endings begins those that cannot begin now.
        let _ = self.endings.begin(&mints);
        self.journal.synced(position).await?;
        Ok(mints)
    }
}

fn absent(id: Id) -> Error {
    Error::NotFound(ResourceName::Lease(id))
}
