//! What a Watch awaits of an upstream: the credential of a delivery, or the next credential before the last one ends.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::Authorization;
use super::minted::{Claim, Landed, Waiting, key_of};
use crate::broker::minting::{Landing, MintKey, Ticket};
use crate::journal::LiveOpening;

type Landings<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a Watch awaits of an upstream.
#[derive(Default)]
pub(super) struct Awaited {
    state: State,
    was_given_up: bool,
}

/// The same, without the wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaits {
    Nothing,
    Delivery,
    Next,
}

#[derive(Default)]
enum State {
    /// Nothing.
    #[default]
    Nothing,
    /// The credential of a delivery that is decided. If this is dropped, the lease of the delivery ends.
    Delivery(MintKey, Landings<(Claim, Landed)>),
    /// The end of that.
    Landed(Box<(Claim, Landed)>),
    /// The next credential.
    Next(Landings<Landing>),
}

impl Awaited {
    /// Awaits the credential of a delivery.
    pub(super) fn wait(&mut self, waiting: Waiting) {
        self.state = State::Delivery(waiting.key().clone(), Box::pin(waiting.landing()));
    }

    /// Awaits the next credential.
    pub(super) fn wait_for_next(&mut self, ticket: Ticket) {
        self.state = State::Next(Box::pin(ticket.landing()));
    }

    /// Which of them it awaits.
    pub(super) fn what(&self) -> Awaits {
        match self.state {
            State::Nothing => Awaits::Nothing,
            State::Delivery(..) | State::Landed(..) => Awaits::Delivery,
            State::Next(_) => Awaits::Next,
        }
    }

    /// True if it awaits the credential of this decision.
    pub(super) fn is_for(&self, opening: &LiveOpening, decided: &Authorization) -> bool {
        let (State::Delivery(awaited, _), Ok(grant)) = (&self.state, &decided.outcome) else {
            return false;
        };
        let key = key_of(grant, opening.record()).map(|(_, key)| key);
        grant.handed_out().is_none() && key.as_ref() == Some(awaited)
    }

    /// The end of the wait for a delivery, once.
    pub(super) fn landed(&mut self) -> Option<(Claim, Landed)> {
        match std::mem::take(&mut self.state) {
            State::Landed(landed) => Some(*landed),
            state => {
                self.state = state;
                None
            }
        }
    }

    /// True once after the next credential was given up without a reason.
    pub(super) fn was_given_up(&mut self) -> bool {
        std::mem::take(&mut self.was_given_up)
    }

    /// Waits. Ready if something has landed.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let state = match &mut self.state {
            State::Nothing => return Poll::Pending,
            State::Landed(..) => return Poll::Ready(()),
            State::Delivery(_, landing) => {
                landing.as_mut().poll(context).map(|landed| State::Landed(Box::new(landed)))
            }
            State::Next(landing) => landing.as_mut().poll(context).map(|landing| {
                self.was_given_up = matches!(landing, Landing::GivenUp | Landing::Corrupt);
                State::Nothing
            }),
        };
        state.map(|state| self.state = state)
    }
}
