//! What the documents of an Apply or a Plan wait for, and how long they are waited for.
//!
//! ```text
//! place ─ turn of its sender's Applies ─ read, its bytes count ─ larger than a share? the turn of the door ─ rest
//! ```
//!
//! What waits for its sender's turn is not read: it stays in the window of its stream. Whoever has the turn of the whole
//! door keeps others waiting, so he is held to a pace, and to less time when somebody waits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::PollSemaphore;
use tonic::codegen::Bytes;

use crate::identity::{OversizeTurn, OversizeWaiter, PeerQuota};

/// How long a client may keep the turn of the door waiting in all, and when somebody else waits for it.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
const OTHERS_WAIT: Duration = Duration::from_secs(5);
/// The pace of whoever has that turn: so long at first, and then a millisecond for so many bytes.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const BYTES_A_MILLISECOND: u64 = 1024;
/// How often it is looked whether somebody waits.
const LOOK: Duration = Duration::from_millis(500);

/// What documents wait for.
pub(crate) struct ApplyTurns {
    applies: PollSemaphore,
    has_turn: bool,
    large: PollSemaphore,
    at_large: Oversize,
    /// What has come, and has no room yet.
    waiting: Option<(Bytes, OversizeWaiter)>,
    /// How long nothing may come, and since when nothing has: what came before is held meanwhile.
    patience: Duration,
    silent_since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl ApplyTurns {
    /// Those of one whose documents may keep us waiting for so long each.
    pub(crate) fn new(quota: &PeerQuota, patience: Duration) -> Self {
        let large = quota.large();
        Self {
            applies: PollSemaphore::new(quota.applies()),
            has_turn: false,
            large: PollSemaphore::new(large.turn()),
            at_large: Oversize { door: Arc::clone(large), turn: None },
            waiting: None,
            patience,
            silent_since: None,
            alarm: None,
        }
    }

    /// Waits for the turn of its sender's: something to keep, or nothing if it was had before.
    pub(crate) fn poll_begin(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<OwnedSemaphorePermit>> {
        if self.has_turn {
            return Poll::Ready(None);
        }
        let turn = ready!(self.applies.poll_acquire(context));
        self.has_turn = true;
        Poll::Ready(turn)
    }

    /// This has no room in a share.
    pub(crate) fn wait_with(&mut self, data: Bytes) {
        self.waiting = Some((data, self.at_large.door.wait()));
    }

    /// Whether something has no room.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether it has the turn of the door: what comes need not be counted.
    pub(crate) fn is_large(&self) -> bool {
        self.at_large.turn.is_some()
    }

    /// Waits for the turn of the door, if anything has no room: that, and something to keep.
    pub(crate) fn poll_large(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<(Bytes, Option<OwnedSemaphorePermit>)>> {
        if self.waiting.is_none() {
            return Poll::Ready(None);
        }
        let turn = ready!(self.large.poll_acquire(context));
        self.at_large.turn = Some(LargeTurn::default());
        Poll::Ready(self.waiting.take().map(|(data, _)| (data, turn)))
    }

    /// Something has come.
    pub(crate) fn hear(&mut self, bytes: u64) {
        self.alarm = None;
        let silent = self.silent_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        if let Some(turn) = &mut self.at_large.turn {
            turn.waited += silent;
            turn.bytes = turn.bytes.saturating_add(bytes);
        }
    }

    /// Waits until nothing has come for too long.
    pub(crate) fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        loop {
            if let Some(alarm) = &mut self.alarm {
                ready!(alarm.as_mut().poll(context));
            }
            let silent = since.elapsed();
            let left = self.patience.saturating_sub(silent).min(self.at_large.left(silent));
            if left.is_zero() {
                return Poll::Ready(());
            }
            self.alarm = Some(Box::pin(tokio::time::sleep(left.min(LOOK))));
        }
    }
}

/// The turn of the door, had or not.
struct Oversize {
    door: Arc<OversizeTurn>,
    turn: Option<LargeTurn>,
}

impl Oversize {
    /// How much longer nothing may come, after nothing has for so long.
    fn left(&mut self, silent: Duration) -> Duration {
        let is_waited_for = self.door.is_waited_for();
        let Some(turn) = &mut self.turn else { return Duration::MAX };
        turn.left(silent, is_waited_for)
    }
}

/// How whoever has the turn of the door uses it. The time that it takes us to read what has come is not his.
#[derive(Default)]
struct LargeTurn {
    /// How long it was waited for him.
    waited: Duration,
    /// How much has come of him meanwhile.
    bytes: u64,
    /// How long it had been waited for him when somebody else was first seen to wait.
    before_others: Option<Duration>,
}

impl LargeTurn {
    fn left(&mut self, silent: Duration, is_waited_for: bool) -> Duration {
        let waited = self.waited + silent;
        if is_waited_for {
            self.before_others.get_or_insert(waited);
        }
        let pace = FIRST_WAIT + Duration::from_millis(self.bytes / BYTES_A_MILLISECOND);
        let others = self.before_others.map_or(LONGEST_WAIT, |before| before + OTHERS_WAIT);
        pace.min(LONGEST_WAIT).min(others).saturating_sub(waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MIB: u64 = 1024 * 1024;

    #[test]
    fn who_keeps_the_door_waiting_has_less_time_when_others_wait() {
        let mut turn = LargeTurn::default();
        assert_eq!(turn.left(SECOND, false), SECOND, "two seconds at first");
        turn.bytes = MIB;
        assert_eq!(turn.left(SECOND, false), SECOND * 2 + Duration::from_millis(24));
        turn.bytes = 60 * MIB;
        turn.waited = SECOND * 3;
        assert_eq!(turn.left(SECOND, false), SECOND * 16);
        assert_eq!(turn.left(SECOND, true), SECOND * 5);
        turn.waited = SECOND * 8;
        assert_eq!(turn.left(SECOND, false), Duration::ZERO, "it is known from then on");
    }
}
