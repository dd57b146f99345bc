//! The progress of a Watch: what was delivered, what waits in its mailbox, and when to look again.

use std::task::Waker;
use std::time::Duration;

use super::request::Resolved;
use super::upstream::Awaits;
use crate::broker::error::Error;
use crate::journal::{DecisionId, Epoch};
use crate::lease::Edition;
use crate::model::{Id, ResourceName, Timestamp};

/// The longest that a Watch sleeps without checking the clock.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// How long a Watch that is behind and lacks room or rate waits until it tries again.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// One delivery of a Watch.
pub struct Delivery {
    /// The credential.
    pub resolved: Resolved,
    /// How many versions since the delivery before were not delivered.
    pub skipped: u64,
}

/// The progress of a Watch.
#[derive(Default)]
pub(crate) struct WatcherState {
    /// The last delivery that was committed, read or not.
    pub(super) last: Option<LastDelivery>,
    /// What the stream has read last.
    pub(super) seen: Option<Edition>,
    /// A committed delivery, or the end, that the stream has not read yet.
    pub(super) mailbox: Option<Letter>,
    /// Whether something changed while the mailbox was full.
    pub(super) is_behind: bool,
    /// When an upstream that has failed is asked again.
    pub(super) retry: Option<Timestamp>,
    /// The waker of the stream, if it has found nothing to send.
    pub(super) sleeper: Option<Waker>,
}

/// A delivery, or the end, in a mailbox.
pub(super) struct Letter {
    /// The snapshot that it was decided on.
    pub(super) epoch: Epoch,
    pub(super) outcome: Result<Resolved, Error>,
}

/// The last delivery that was committed.
pub(super) struct LastDelivery {
    pub(super) name: ResourceName,
    pub(super) decision: DecisionId,
    pub(super) lease: Id,
    /// When the lease ends.
    pub(super) end: Timestamp,
    /// When the next delivery is due.
    pub(super) due: Timestamp,
    /// When the upstream is asked for the next credential.
    pub(super) refresh: Option<Timestamp>,
}

impl WatcherState {
    /// The lease of the last delivery, which the next delivery ends.
    pub(crate) fn before(&self) -> Option<Id> {
        self.last.as_ref().map(|last| last.lease)
    }

    /// Whether the mailbox is empty. If not, the stream checks for itself later.
    pub(crate) fn has_room(&mut self) -> bool {
        self.is_behind |= self.mailbox.is_some();
        self.mailbox.is_none()
    }

    /// Leaves it to the stream to check for itself.
    pub(super) fn fall_behind(&mut self) {
        self.is_behind = true;
        self.wake();
    }

    /// Puts what was decided on the snapshot `epoch` into the mailbox.
    pub(crate) fn put(&mut self, epoch: Epoch, outcome: Result<Resolved, Error>) {
        if let Ok(resolved) = &outcome {
            self.decided(resolved);
        }
        self.mailbox = Some(Letter { epoch, outcome });
        self.wake();
    }

    /// Wakes the stream if it sleeps. If it does not, it looks at the mailbox before it does.
    fn wake(&mut self) {
        if let Some(sleeper) = self.sleeper.take() {
            sleeper.wake();
        }
    }

    /// Whether the lease of the last delivery is live.
    pub(super) fn has_credential(&self, now: Timestamp) -> bool {
        self.last.as_ref().is_some_and(|last| now < last.end)
    }

    /// How long the stream may sleep: until the next moment at which something is due, or `end`.
    pub(super) fn sleep(&self, awaits: Awaits, end: Timestamp, now: Timestamp) -> Duration {
        // Nothing is done before there is room, whatever is due.
        if self.is_behind {
            return end.since(now).clamp(SHORTEST_SLEEP, PATIENCE);
        }
        let last = self.last.as_ref().filter(|_| awaits != Awaits::Delivery);
        let due = last.map(|last| match self.retry {
            // It is overdue because the upstream fails. The step keeps what it has until the upstream is asked again.
            Some(_) if last.due <= now => last.end,
            _ => last.due,
        });
        let refresh = self.retry.or(last.and_then(|last| last.refresh));
        let refresh = refresh.filter(|_| awaits == Awaits::Nothing);
        let next = [due, refresh].into_iter().flatten().fold(end, Timestamp::min);
        next.since(now).clamp(SHORTEST_SLEEP, LONGEST_SLEEP)
    }

    pub(super) fn decided(&mut self, resolved: &Resolved) {
        let Resolved { lease, decision, refresh, .. } = resolved;
        let life = lease.expire_time.since(lease.issue_time);
        let end = lease.credential_expire_time();
        // Another lease on the same credential would hardly end later.
        let due = match end.is_some_and(|end| end.since(lease.expire_time) < life / 3) {
            true => lease.expire_time,
            false => lease.issue_time.two_thirds_to(lease.expire_time),
        };
        self.retry = None;
        self.last = Some(LastDelivery {
            name: resolved.name.clone(),
            decision: *decision,
            lease: lease.id,
            end: lease.expire_time,
            due,
            refresh: *refresh,
        });
    }

    /// Notes what the stream reads.
    pub(super) fn seen(&mut self, resolved: Resolved) -> Delivery {
        let edition = resolved.lease.edition();
        let skipped = match self.seen.replace(edition) {
            Some(before) if before.resource == edition.resource => {
                edition.version.saturating_sub(before.version + 1)
            }
            _ => 0,
        };
        Delivery { resolved, skipped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SecretName, SecretRef, WorkflowName};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    /// A Watch whose delivery is due at 20, and whose lease ends at 30.
    fn state(retry: Option<i64>) -> WatcherState {
        let workflow = WorkflowName::parse("w").unwrap();
        let name = SecretRef { workflow, name: SecretName::parse("s").unwrap() };
        let last = LastDelivery {
            name: ResourceName::Secret(name),
            decision: DecisionId { file: 1, line: 1 },
            lease: Id::from_bytes([1; 16]),
            end: at(30),
            due: at(20),
            refresh: None,
        };
        WatcherState { last: Some(last), retry: retry.map(at), ..WatcherState::default() }
    }

    fn sleep(state: &WatcherState, awaits: Awaits, now: i64) -> u64 {
        u64::try_from(state.sleep(awaits, at(1_000), at(now)).as_millis()).unwrap()
    }

    #[test]
    fn an_overdue_delivery_waits_for_the_upstream() {
        assert_eq!(sleep(&state(None), Awaits::Nothing, 15), 5_000);
        assert_eq!(sleep(&state(None), Awaits::Nothing, 25), 1);
        // The upstream has failed: it is asked again at 28, or not before the lease ends.
        assert_eq!(sleep(&state(Some(28)), Awaits::Nothing, 15), 5_000);
        assert_eq!(sleep(&state(Some(28)), Awaits::Nothing, 25), 3_000);
        assert_eq!(sleep(&state(Some(300)), Awaits::Nothing, 25), 5_000);
        // The upstream is being asked.
        assert_eq!(sleep(&state(None), Awaits::Delivery, 15), 30_000);
        assert_eq!(sleep(&state(Some(28)), Awaits::Delivery, 25), 30_000);
    }

    #[test]
    fn a_watch_without_room_tries_again_each_second() {
        let state = WatcherState { is_behind: true, ..state(None) };
        assert_eq!(sleep(&state, Awaits::Nothing, 25), 1_000);
    }
}
