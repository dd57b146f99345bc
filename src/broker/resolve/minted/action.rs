//! An action of the broker that waits for a minted credential.

use std::sync::Arc;

use super::{Grant, Waiting};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::journal::{Act, CommitError, DecisionId, Permit};
use crate::lease::Lease;

/// An action that may begin.
pub(in crate::broker) struct Permitted {
    /// The decision again, on the credential.
    pub(in crate::broker) grant: Grant,
    /// The permit for the credential.
    pub(in crate::broker) permit: Permit<Act>,
    /// The lease of the action.
    pub(in crate::broker) lease: Lease,
    /// The line of the decision.
    pub(in crate::broker) decision: DecisionId,
}

impl Broker {
    /// Waits for the upstream on behalf of an action. `None` if something has changed: the caller decides again.
    ///
    /// # Errors
    /// As [`Broker::resolve`].
    pub(in crate::broker) async fn wait_to_act(
        &self,
        waiting: Waiting,
    ) -> Result<Option<Permitted>, Error> {
        let (claim, landed) = waiting.landing().await;
        let (mut claim, credential) = self.landed_on(claim, landed)?;
        // The loop ends: each turn needs another published change.
        while let Some(credential) = &credential {
            let decided = self.authorize_now(&claim.opening, &claim.request)?;
            let allowed = decided.outcome.ok().filter(|grant| claim.is_for(grant));
            let grant = allowed.and_then(|grant| grant.on(Arc::clone(credential), true).ok());
            let Some(grant) = grant else { break };
            let waiter = claim.waiter(decided.epoch);
            match self.journal.act_on(self.now(), waiter, &credential.minted) {
                Ok((permit, lease)) => {
                    claim.is_settled = true;
                    let decision = claim.decision;
                    return Ok(Some(Permitted { grant, permit, lease, decision }));
                }
                Err(CommitError::Stale) => {}
                Err(CommitError::CredentialEnding) => {
                    self.mints.forget(&claim.key, credential.minted.mint);
                    break;
                }
                Err(CommitError::LeaseEnded) => break,
                Err(error) => return Err(self.not_committed(error)),
            }
        }
        claim.ends_by_change();
        Ok(None)
    }
}
