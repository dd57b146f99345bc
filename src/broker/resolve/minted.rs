//! A minted connection: from the decision to the upstream's answer, and from there to the step.
//!
//! ```text
//! decision ─ committed, no permit ─ Waiting ─ landing ─ decide again ─ lease on the credential, permit ─ hand out
//! ```
//!
//! A credential that is in memory is handed out at once, as a stored one is.

pub(in crate::broker) mod action;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::authorize::{Grant, Material, Refusal};
use super::request::{ResolveRequest, Resolved, Room};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::minting::{Credential, Landing, MintKey, Offer, Order, Ticket, Trouble};
use crate::broker::steps::session::StepSession;
use crate::catalog::Unusable;
use crate::integration::Source;
use crate::journal::{CommitError, DecisionId, Epoch, Journal, LiveOpening, MintFault, Waiter};
use crate::metrics::MintLookup;
use crate::mint::FailureReason;
use crate::model::{Clock, Id, Opening, ResourceName, Timestamp};

/// When to try again if no upstream says so.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// When a Watch looks again at a refresh token that is of no use. Another one that is written wakes it.
const UNUSABLE_WAIT: Duration = Duration::from_secs(5 * 60);

/// The answer to a request.
pub enum Answer {
    /// The credential.
    Resolved(Resolved),
    /// An upstream was asked for the credential.
    Minting(Waiting),
}

/// A committed decision whose credential an upstream makes.
pub struct Waiting {
    ticket: Ticket,
    /// The last moment at which the answer is of use.
    deadline: Instant,
    claim: Box<Claim>,
}

/// A lease that awaits a credential. When this is dropped, a lease that still awaits it ends.
pub(super) struct Claim {
    journal: Arc<Journal>,
    clock: Clock,
    opening: Arc<LiveOpening>,
    request: ResolveRequest,
    name: ResourceName,
    key: MintKey,
    source: Source,
    decision: DecisionId,
    lease: Id,
    /// Why there is no credential, and the mint that has failed.
    fault: (Option<Id>, MintFault),
    is_settled: bool,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_settled {
            let (mint, fault) = self.fault.clone();
            let (now, resource) = (self.clock.now(), self.name.to_text());
            // Without the line the lease expires by itself.
            let _ = self.journal.stop_waiting(now, self.lease, mint, resource, fault);
        }
    }
}

impl Claim {
    /// Whether a decision is on the same version of the same connection.
    fn is_for(&self, grant: &Grant) -> bool {
        key_of(grant, self.opening.record()).is_some_and(|(_, key)| key == self.key)
    }

    fn waiter(&self, epoch: Epoch) -> Waiter<'_> {
        Waiter {
            epoch,
            opening: &self.opening,
            decision: self.decision,
            lease: self.lease,
            source: self.source,
            resource: self.name.to_text(),
        }
    }

    /// The lease ends, because the broker decides again.
    fn ends_by_change(self) {
        let detail = "something changed while the upstream was asked";
        self.ends_by(None, MintFault::new("DECIDED_AGAIN", detail));
    }

    /// The lease has ended, or ends for this reason.
    fn ends_by(mut self, mint: Option<Id>, fault: MintFault) {
        self.fault = (mint, fault);
    }
}

impl Waiting {
    /// Waits for the upstream's answer, or for the end of the step.
    pub(super) async fn landing(self) -> (Claim, Landed) {
        let Self { ticket, deadline, claim } = self;
        let ended = claim.opening.ended();
        let landing = tokio::select! {
            landing = timeout_at(deadline, ticket.landing()) => landing.ok(),
            () = ended => Some(Landing::GivenUp),
        };
        (*claim, Landed { landing, deadline })
    }

    /// Waits no longer than this.
    pub fn until(self, deadline: Instant) -> Self {
        Self { deadline: self.deadline.min(deadline), ..self }
    }

    /// The version of a connection that it waits for.
    pub(super) fn key(&self) -> &MintKey {
        &self.claim.key
    }
}

/// The end of a wait.
pub(super) struct Landed {
    /// `None` if the upstream has not answered in time.
    landing: Option<Landing>,
    deadline: Instant,
}

/// The source and the key of a minted connection's grant.
pub(super) fn key_of(grant: &Grant, opening: &Opening) -> Option<(Source, MintKey)> {
    let Material::Minted { source, is_own, .. } = &grant.material else { return None };
    Some((*source, MintKey::of(*is_own, grant.values.key.uid, grant.version, opening)))
}

impl Broker {
    /// The grant with what is in memory, if it is of a minted connection.
    ///
    /// # Errors
    /// If the upstream has failed a moment ago, or the credential lacks a field.
    pub(super) fn with_credential(
        &self,
        grant: Grant,
        opening: &Opening,
        request: &ResolveRequest,
    ) -> Result<Grant, Refusal> {
        let Some((source, key)) = key_of(&grant, opening) else { return Ok(grant) };
        let now = self.now();
        let offer = self.mints.offer(&key, now);
        let refused = |grant: Grant, reason, wait, mint| {
            Err(Refusal::Upstream { name: grant.name, source, reason, wait, mint })
        };
        let unusable = grant.unusable.as_ref().map(Unusable::mint);
        match (offer, unusable) {
            (Offer::Ready(credential), _) => grant.on(credential, request.fields.is_empty()),
            (Offer::Missing | Offer::Failing(_), Some(mint)) => {
                refused(grant, FailureReason::Reauthorize, UNUSABLE_WAIT, mint)
            }
            (Offer::Missing, None) => Ok(grant),
            (Offer::Failing(trouble), None) => {
                let wait = trouble.until.since(now);
                refused(grant, trouble.reason, wait, trouble.mint)
            }
        }
    }

    /// Forgets the minted credential of a grant.
    pub(super) fn forget_credential(&self, grant: &Grant, opening: &Opening) {
        if let (Some(credential), Some((_, key))) = (grant.credential(), key_of(grant, opening)) {
            self.mints.forget(&key, credential.minted.mint);
        }
    }

    /// Counts a decision that has found a minted credential.
    pub(in crate::broker) fn count_hit(&self, grant: &Grant) {
        if let Material::Minted { source, .. } = &grant.material {
            self.mints.count(*source, MintLookup::Hit);
        }
    }

    /// Asks the upstream for the credential of a decision that is committed.
    pub(in crate::broker) fn ask_upstream(
        &self,
        opening: &Arc<LiveOpening>,
        request: &ResolveRequest,
        grant: &Grant,
        (decision, lease): (DecisionId, Id),
    ) -> Result<Answer, Error> {
        let Some((source, key)) = key_of(grant, opening.record()) else {
            return Err(Error::Internal("a stored credential awaits an upstream".to_owned()));
        };
        let claim = Claim {
            journal: Arc::clone(&self.journal),
            clock: self.clock.clone(),
            opening: Arc::clone(opening),
            request: request.clone(),
            name: grant.name.clone(),
            key,
            source,
            decision,
            lease,
            fault: (None, MintFault::new("CANCELLED", "the step no longer waits")),
            is_settled: false,
        };
        match self.mints.join(order(&claim), self.now()) {
            Ok(ticket) => {
                let found = if ticket.is_first { MintLookup::Missed } else { MintLookup::Joined };
                self.mints.count(source, found);
                let deadline = self.last_answer();
                Ok(Answer::Minting(Waiting { ticket, deadline, claim: Box::new(claim) }))
            }
            Err(Some(trouble)) => Err(self.upstream_failed(claim, &trouble)),
            Err(None) => {
                self.check_serving()?;
                Err(self.no_answer(claim, "too many mints wait"))
            }
        }
    }

    /// The last moment at which an upstream's answer is of use to a request that arrives now: the request may last
    /// longer.
    pub fn last_answer(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.limits.step_request_seconds.into()) * 17 / 20
    }

    /// Starts to replace a credential that is handed out, or joins who does. `None` if it is not time.
    ///
    /// # Errors
    /// When to try again, if the upstream is not asked now.
    pub(in crate::broker) fn replace_early(
        &self,
        opening: &Arc<LiveOpening>,
        request: &ResolveRequest,
        grant: &Grant,
        (decision, lease): (DecisionId, Id),
    ) -> Option<Result<Ticket, Timestamp>> {
        let now = self.now();
        grant.credential().filter(|credential| credential.refresh <= now)?;
        if grant.unusable.is_some() {
            return Some(Err(now.after(UNUSABLE_WAIT)));
        }
        let (source, key) = key_of(grant, opening.record())?;
        let (opening, target) = (Arc::clone(opening), request.target.clone());
        let name = grant.name.clone();
        let purpose = request.purpose();
        let order = Order { key, name, source, opening, target, purpose, decision, lease };
        let later = |trouble: Option<Arc<Trouble>>| {
            trouble.map_or_else(|| now.after(RETRY_AFTER), |trouble| trouble.until)
        };
        Some(self.mints.join(order, now).map_err(later))
    }

    /// Waits for the upstream, and hands the credential to the step if it may still have it. If something has changed,
    /// the broker decides again.
    ///
    /// # Errors
    /// As [`Broker::resolve`].
    pub async fn finish(
        &self,
        session: &StepSession,
        mut waiting: Waiting,
        room: &mut dyn Room,
    ) -> Result<Resolved, Error> {
        // The loop ends: each turn needs another published change, or a step that has gone, and has the same deadline.
        loop {
            let (claim, landed) = waiting.landing().await;
            let (request, now) = (claim.request.clone(), self.now());
            let answer = self.settle(claim, landed, None, room);
            match self.count_if_refused(session, &request, now, answer)? {
                Answer::Resolved(resolved) => return Ok(resolved),
                Answer::Minting(again) => waiting = again,
            }
        }
    }

    /// The answer to a request whose upstream has answered. `watch` as in a [`Resolution`](crate::journal::Resolution).
    pub(super) fn settle(
        &self,
        claim: Claim,
        landed: Landed,
        watch: Option<Option<Id>>,
        room: &mut dyn Room,
    ) -> Result<Answer, Error> {
        let deadline = landed.deadline;
        let claim = match self.landed_on(claim, landed)? {
            (claim, None) => claim,
            (claim, Some(credential)) => {
                match self.hand_out_minted(claim, &credential, watch, room)? {
                    Ok(resolved) => return Ok(Answer::Resolved(resolved)),
                    Err(claim) => claim,
                }
            }
        };
        let (opening, request) = (Arc::clone(&claim.opening), claim.request.clone());
        claim.ends_by_change();
        let (decided, now) = (self.authorize_now(&opening, &request)?, self.now());
        let answer =
            self.resolve_until_current(&opening, &request, watch, decided, now, (room, 0))?;
        Ok(match answer {
            Answer::Minting(again) => Answer::Minting(again.until(deadline)),
            resolved => resolved,
        })
    }

    /// The credential that a wait has ended with; `None` if the broker decides again.
    ///
    /// # Errors
    /// Why there is no credential.
    fn landed_on(
        &self,
        claim: Claim,
        landed: Landed,
    ) -> Result<(Claim, Option<Arc<Credential>>), Error> {
        match landed.landing {
            None => Err(self.no_answer(claim, "the upstream did not answer in time")),
            Some(Landing::Failed(trouble)) => Err(self.upstream_failed(claim, &trouble)),
            Some(Landing::Corrupt) => {
                claim.ends_by(None, MintFault::new("RECORD_CORRUPT", ""));
                Err(Error::Corrupt)
            }
            Some(Landing::GivenUp) => Ok((claim, None)),
            Some(Landing::Minted(credential)) => Ok((claim, Some(credential))),
        }
    }

    /// Hands out what was minted, if the newest snapshot still allows it. Returns the claim if not: the broker decides
    /// again then.
    fn hand_out_minted(
        &self,
        mut claim: Claim,
        credential: &Arc<Credential>,
        watch: Option<Option<Id>>,
        room: &mut dyn Room,
    ) -> Result<Result<Resolved, Claim>, Error> {
        let opening = Arc::clone(&claim.opening);
        let (mut taken, is_for_all) = (0, claim.request.fields.is_empty());
        // The loop ends: each turn needs another published change.
        loop {
            let decided = self.authorize_now(&opening, &claim.request)?;
            let allowed = decided.outcome.ok().filter(|grant| claim.is_for(grant));
            let grant = allowed.and_then(|grant| grant.on(Arc::clone(credential), is_for_all).ok());
            let Some(grant) = grant else { return Ok(Err(claim)) };
            opening.check_watch(watch.flatten())?;
            let bytes = grant.bytes();
            if bytes > taken && !room.take(bytes - taken) {
                return Err(Error::Overloaded);
            }
            taken = taken.max(bytes);
            let now = self.now();
            let committed =
                self.journal.hand_out(now, claim.waiter(decided.epoch), &credential.minted);
            let (permit, lease) = match committed {
                Ok(committed) => committed,
                Err(CommitError::Stale) => continue,
                Err(CommitError::CredentialEnding) => {
                    self.mints.forget(&claim.key, credential.minted.mint);
                    return Ok(Err(claim));
                }
                Err(CommitError::LeaseEnded) => return Ok(Err(claim)),
                Err(error) => return Err(self.not_committed(error)),
            };
            claim.is_settled = true;
            if let Some(before) = watch.flatten() {
                // Without the line the lease of the delivery before expires by itself.
                let _ = self.journal.revoke(now, opening.record().id, before);
            }
            let opened = permit.open(&credential.values.sealed, &self.keyring);
            let given = (claim.decision, lease);
            return self.hand_out(&opening, &claim.request, grant, opened.as_ref(), given).map(Ok);
        }
    }

    fn upstream_failed(&self, claim: Claim, trouble: &Trouble) -> Error {
        let error = Error::Upstream {
            name: claim.name.clone(),
            reason: trouble.reason,
            wait: trouble.until.since(self.now()),
            decision_id: claim.decision.to_opaque(&self.keyring),
        };
        claim.ends_by(trouble.mint, trouble.fault.clone());
        error
    }

    fn no_answer(&self, claim: Claim, detail: &str) -> Error {
        let error = Error::Upstream {
            name: claim.name.clone(),
            reason: FailureReason::Unavailable,
            wait: RETRY_AFTER,
            decision_id: claim.decision.to_opaque(&self.keyring),
        };
        claim.ends_by(None, MintFault::new(FailureReason::Unavailable.as_str(), detail));
        error
    }
}

fn order(claim: &Claim) -> Order {
    Order {
        key: claim.key.clone(),
        name: claim.name.clone(),
        source: claim.source,
        opening: Arc::clone(&claim.opening),
        target: claim.request.target.clone(),
        purpose: claim.request.purpose(),
        decision: claim.decision,
        lease: claim.lease,
    }
}
