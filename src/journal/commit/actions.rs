//! Actions of the broker with a credential that the step does not get.
//!
//! ```text
//! send ─ Permit<Act> ─ upstream ─ sent
//! send ─ (as for a mint) ─ mint_joined ─ Permit<Act> ─ upstream ─ sent
//! ```
//!
//! The lease of the decision lasts as long as the action. An action that was under way when the daemon stopped is
//! interrupted at the next start.

use std::sync::Arc;

use super::mints::Waiter;
use super::permit::{Act, Permit};
use super::{CommitError, Resolution, minted_record};
use crate::journal::event::{Event, SentLine};
use crate::journal::{DecisionId, Journal, Unavailable};
use crate::lease::{Lease, MintedCredential};
use crate::model::{Action, Timestamp};

/// A decision on an action whose line is written.
pub struct CommittedAction {
    /// The place of the line.
    pub decision_id: DecisionId,
    /// The lease and the permit. The lease is `None` if nothing is done: the decision was a refusal, or the opening has its
    /// most leases. The permit is `None` if an upstream is asked for the credential.
    pub granted: Option<(Lease, Option<Permit<Act>>)>,
}

impl Journal {
    /// Commits a decision on an action of the broker, as [`Journal::commit`] does.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    pub fn commit_action(
        &self,
        now: Timestamp,
        resolution: Resolution,
    ) -> Result<CommittedAction, CommitError> {
        let mut chain = self.lock()?;
        chain.live_mut().expire(now);
        let (line, granted) = resolution.settle(chain.live(), &[])?;
        let position = chain.append(now, &line.into_event())?;
        let decision_id = chain.decision_id(position);
        let granted = granted.map(|(stored, lease)| {
            let record = match &lease.mint {
                None => Some(stored),
                Some(_) => lease.credential().map(|made| minted_record(made.mint)),
            };
            let permit = record.map(|key| Permit::to_act(key, lease.version, decision_id));
            (lease, permit)
        });
        Ok(CommittedAction { decision_id, granted })
    }

    /// Lets an action that has waited for a minted credential use it, as [`Journal::hand_out`] does for a step.
    ///
    /// # Errors
    /// As [`Journal::hand_out`].
    pub fn act_on(
        &self,
        now: Timestamp,
        waiter: Waiter<'_>,
        credential: &Arc<MintedCredential>,
    ) -> Result<(Permit<Act>, Lease), CommitError> {
        let decision = waiter.decision;
        let lease = self.join_mint(now, waiter, credential)?;
        Ok((Permit::to_act(minted_record(credential.mint), lease.version, decision), lease))
    }

    /// Ends an HTTP exchange, and its lease. Does nothing if the lease has ended.
    ///
    /// # Errors
    /// If the line cannot be written. The lease then expires by itself.
    pub fn sent(&self, now: Timestamp, line: SentLine) -> Result<(), Unavailable> {
        self.append(now, &Event::Sent(Box::new(line))).map(drop)
    }

    /// At start: ends the exchanges that were under way when the daemon stopped.
    ///
    /// # Errors
    /// If the lines cannot be written.
    pub fn interrupt_actions(&self, now: Timestamp) -> Result<(), Unavailable> {
        let mut chain = self.lock()?;
        let is_under_way =
            |lease: &&Lease| matches!(lease.ask.action, Some(Action::Send(_))) && !lease.is_done;
        let interrupted = |lease: &Lease| {
            Event::Sent(Box::new(SentLine {
                opening: lease.opening,
                lease: lease.id,
                resource: lease.ask.target.to_text(),
                status: None,
                sent_bytes: 0,
                received_bytes: 0,
                fault: Some("INTERRUPTED".to_owned()),
            }))
        };
        let lines = chain.live().leases().iter().filter(is_under_way).map(interrupted);
        let lines: Vec<Event> = lines.collect();
        chain.append_all(now, &lines).map(drop)
    }
}
