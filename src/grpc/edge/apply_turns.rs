//! The turns that an Apply or a Plan waits for, and how long its documents may take.
//!
//! ```text
//! place ─ turn of its peer's Applies ─ read, its bytes count ─ larger than a share? the turn of the door ─ rest
//! ```
//!
//! An Apply that waits for its peer's turn is not read: its bytes stay in the window of its stream. An Apply with the
//! turn of the door delays all others. It must keep a minimum speed, and has less time when others wait.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::PollSemaphore;
use tonic::codegen::Bytes;

use crate::identity::{OversizeTurn, OversizeWaiter, PeerQuota};

/// How long the door may wait for an Apply that has its turn, in all, and once another Apply waits.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
const OTHERS_WAIT: Duration = Duration::from_secs(5);
/// The minimum speed of that Apply: a first allowance, and then so many bytes per millisecond.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const BYTES_PER_MILLISECOND: u64 = 1024;
/// How often the code checks whether another Apply waits.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The turns of one Apply or Plan.
pub(crate) struct ApplyTurns {
    applies: PollSemaphore,
    has_turn: bool,
    large: PollSemaphore,
    oversize: Oversize,
    /// Bytes that have arrived and found no room in the peer's share.
    waiting: Option<(Bytes, OversizeWaiter)>,
    /// How long no byte may arrive, and since when none has. Earlier documents are held in memory meanwhile.
    timeout: Duration,
    silent_since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl ApplyTurns {
    /// The turns of an Apply of this peer, which may be silent for `timeout` at a time.
    pub(crate) fn new(quota: &PeerQuota, timeout: Duration) -> Self {
        let large = quota.large();
        Self {
            applies: PollSemaphore::new(quota.applies()),
            has_turn: false,
            large: PollSemaphore::new(large.turn()),
            oversize: Oversize { door: Arc::clone(large), turn: None },
            waiting: None,
            timeout,
            silent_since: None,
            alarm: None,
        }
    }

    /// Waits for the turn of the peer's Applies. It returns the turn once, and `None` afterwards.
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

    /// Holds bytes for which the peer's share has no room.
    pub(crate) fn wait_with(&mut self, data: Bytes) {
        self.waiting = Some((data, self.oversize.door.wait()));
    }

    /// True if bytes wait for room.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// True if it has the turn of the door. Its bytes then need not be counted.
    pub(crate) fn is_large(&self) -> bool {
        self.oversize.turn.is_some()
    }

    /// Waits for the turn of the door if bytes wait for room. It returns these bytes, and the turn.
    pub(crate) fn poll_large(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<(Bytes, Option<OwnedSemaphorePermit>)>> {
        if self.waiting.is_none() {
            return Poll::Ready(None);
        }
        let turn = ready!(self.large.poll_acquire(context));
        self.oversize.turn = Some(LargeTurn::default());
        Poll::Ready(self.waiting.take().map(|(data, _)| (data, turn)))
    }

    /// Notes that bytes have arrived.
    pub(crate) fn note_bytes(&mut self, bytes: u64) {
        self.alarm = None;
        let silent = self.silent_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        if let Some(turn) = &mut self.oversize.turn {
            turn.waited += silent;
            turn.bytes = turn.bytes.saturating_add(bytes);
        }
    }

    /// Waits until no byte has arrived for too long.
    pub(crate) fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        loop {
            if let Some(alarm) = &mut self.alarm {
                ready!(alarm.as_mut().poll(context));
            }
            let silent = since.elapsed();
            let left = self.timeout.saturating_sub(silent).min(self.oversize.left(silent));
            if left.is_zero() {
                return Poll::Ready(());
            }
            self.alarm = Some(Box::pin(tokio::time::sleep(left.min(CHECK_INTERVAL))));
        }
    }
}

/// The turn of the door, taken or not.
struct Oversize {
    door: Arc<OversizeTurn>,
    turn: Option<LargeTurn>,
}

impl Oversize {
    /// How much longer the client may be silent, after it was silent for `silent`.
    fn left(&mut self, silent: Duration) -> Duration {
        let is_waited_for = self.door.is_waited_for();
        let Some(turn) = &mut self.turn else { return Duration::MAX };
        turn.left(silent, is_waited_for)
    }
}

/// How an Apply uses the turn of the door. The broker's own reading time does not count.
#[derive(Default)]
struct LargeTurn {
    /// How long the door has waited for bytes.
    waited: Duration,
    /// The bytes that have arrived in this turn.
    bytes: u64,
    /// The value of `waited` when another Apply was first seen to wait.
    before_others: Option<Duration>,
}

impl LargeTurn {
    fn left(&mut self, silent: Duration, is_waited_for: bool) -> Duration {
        let waited = self.waited + silent;
        if is_waited_for {
            self.before_others.get_or_insert(waited);
        }
        let pace = FIRST_WAIT + Duration::from_millis(self.bytes / BYTES_PER_MILLISECOND);
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
    fn an_apply_that_delays_others_has_less_time() {
        let mut turn = LargeTurn::default();
        assert_eq!(turn.left(SECOND, false), SECOND, "two seconds at first");
        turn.bytes = MIB;
        assert_eq!(turn.left(SECOND, false), SECOND * 2 + Duration::from_millis(24));
        turn.bytes = 60 * MIB;
        turn.waited = SECOND * 3;
        assert_eq!(turn.left(SECOND, false), SECOND * 16);
        assert_eq!(turn.left(SECOND, true), SECOND * 5);
        turn.waited = SECOND * 8;
        assert_eq!(turn.left(SECOND, false), Duration::ZERO, "the other waiter is remembered");
    }
}
