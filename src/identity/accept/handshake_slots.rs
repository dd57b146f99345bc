//! Bounds the unfinished handshakes on the admin socket, where only the Unix user and the process are known.
//!
//! | users | slots | for one user |
//! |---|---|---|
//! | root and the daemon's own user | three quarters | half of these; all of these if the daemon runs as root |
//! | others | a quarter | half of these, at a rate of its own |
//!
//! No client waits for a slot: everything accepted later would wait behind it. Where all slots are taken, a pending
//! handshake is evicted or the new client is refused.
//!
//! The process with the most pending handshakes loses a slot: a silent handshake first, then the oldest. A process with
//! fewer takes the slot at once; the same process takes it only after a grace period. One process can therefore shut out
//! only itself, even as root.
//!
//! Processes of one user are told apart by their ids only. A user with as many processes as slots can evict handshakes
//! of its other processes. It never evicts those of other users, with one exception: a daemon that runs as root shares
//! its slots with everything else that root runs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::listener::PeerProcess;
use super::pending::{HandshakeSlot, PendingHandshake, PendingList};
use super::rate_limiter::KeyedRates;
use super::refused::ConnectionRefusal;
use crate::model::RateLimit;

/// How long a handshake keeps its slot against its own process: after bytes were received, and while the client is
/// silent. Both are zero against a process with fewer handshakes.
const GRACE: Duration = Duration::from_millis(100);
const BEGINNING: Duration = Duration::from_millis(20);

/// The bounds on unfinished handshakes.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeLimits {
    /// Unfinished handshakes at a time.
    pub slots: u32,
    /// The rate of new connections of each user but root and the daemon's own.
    pub guests: RateLimit,
}

/// The pending handshakes of the admin socket.
pub(crate) struct HandshakeSlots {
    limits: HandshakeLimits,
    pending: PendingList<PeerProcess>,
    rates: KeyedRates<u32>,
}

impl HandshakeSlots {
    pub(crate) fn new(limits: HandshakeLimits) -> Self {
        Self { limits, pending: Arc::default(), rates: KeyedRates::new(limits.guests) }
    }

    /// Takes a slot for a new connection. `has_spoken` says that its client has sent bytes already.
    ///
    /// # Errors
    /// The refusal, if the user connects too often or no slot can be freed.
    pub(crate) fn admit(
        &self,
        origin: PeerProcess,
        has_spoken: bool,
    ) -> Result<HandshakeSlot, ConnectionRefusal> {
        if !is_trusted(origin.uid) && self.rates.is_over(origin.uid, false, Instant::now()) {
            return Err(ConnectionRefusal::TooOften);
        }
        self.find_slot(origin, has_spoken).ok_or(ConnectionRefusal::NoSlot)
    }

    fn find_slot(&self, origin: PeerProcess, has_spoken: bool) -> Option<HandshakeSlot> {
        let uid = origin.uid;
        let slots = usize::try_from(self.limits.slots).unwrap_or(usize::MAX);
        let guests = slots.div_ceil(4);
        let of_kind = if is_trusted(uid) { slots.saturating_sub(guests).max(1) } else { guests };
        // The daemon may run as root; then the slots are for one user instead of two.
        let is_alone = is_trusted(uid) && own_uid() == 0;
        let of_user = if is_alone { of_kind } else { of_kind.div_ceil(2) };
        let mut pending = self.pending.lock();
        let count = |pending: &VecDeque<PendingHandshake<PeerProcess>>,
                     is_one: &dyn Fn(u32) -> bool| {
            pending.iter().filter(|one| is_one(one.origin.uid)).count()
        };
        let is_alike = |other: u32| is_trusted(other) == is_trusted(uid);
        if count(&pending, &|other| other == uid) >= of_user {
            evict(&mut pending, origin.process, |other| other == uid)?;
        } else if count(&pending, &is_alike) >= of_kind {
            // The user with the most handshakes loses one.
            let alike = pending.iter().map(|one| one.origin.uid).filter(|other| is_alike(*other));
            let most = alike.max_by_key(|other| count(&pending, &|one| one == *other))?;
            evict(&mut pending, origin.process, |other| other == most)?;
        }
        Some(HandshakeSlot::take(&self.pending, &mut pending, origin, has_spoken))
    }
}

/// Evicts a handshake of the users that `is_theirs` selects, for a new connection of a process. `None` if no handshake
/// may be evicted.
fn evict(
    pending: &mut VecDeque<PendingHandshake<PeerProcess>>,
    newcomer: i32,
    is_theirs: impl Fn(u32) -> bool,
) -> Option<()> {
    let mut counts: HashMap<i32, usize> = HashMap::new();
    for one in pending.iter().filter(|one| is_theirs(one.origin.uid)) {
        *counts.entry(one.origin.process).or_default() += 1;
    }
    let own = counts.get(&newcomer).copied().unwrap_or_default();
    let (heaviest, most) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    let (beginning, grace) =
        if most > own + 1 { (Duration::ZERO, Duration::ZERO) } else { (BEGINNING, GRACE) };
    let now = Instant::now();
    let oldest = |least: Duration, may_speak: bool| {
        pending.iter().position(|one| {
            let is_it = may_speak || !one.has_spoken();
            // If every process has one handshake, any of them may go.
            let is_of_it = most == 1 || one.origin.process == heaviest;
            is_it && is_of_it && is_theirs(one.origin.uid) && now - one.since >= least
        })
    };
    let oldest = oldest(beginning, false).or_else(|| oldest(grace, true));
    pending.remove(oldest?)?.evict();
    Some(())
}

/// True for root and for the daemon's own user.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == own_uid()
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::accept::rate_limiter::MAX_KEYS;

    const GUESTS: RateLimit = RateLimit { per_second: 1, burst: 30 };
    const GUEST: u32 = 70_000;

    fn slots() -> HandshakeSlots {
        HandshakeSlots::new(HandshakeLimits { slots: 16, guests: GUESTS })
    }

    fn connect(
        slots: &HandshakeSlots,
        uid: u32,
        process: i32,
        has_spoken: bool,
    ) -> Option<HandshakeSlot> {
        slots.admit(PeerProcess { uid, process }, has_spoken).ok()
    }

    fn stays(slot: &HandshakeSlot) -> bool {
        !slot.evicted.is_cancelled()
    }

    #[tokio::test]
    async fn a_silent_handshake_is_evicted_and_shuts_out_nobody() {
        let slots = slots();
        let mut taken = vec![connect(&slots, GUEST, 1, false).unwrap()];
        taken.push(connect(&slots, GUEST, 1, false).unwrap());
        assert!(connect(&slots, GUEST, 1, false).is_none(), "silent clients have a grace period");
        // Another user gets slots although the first user has tried to take all of them.
        for uid in [GUEST + 1, GUEST + 2, 0] {
            taken.push(connect(&slots, uid, 2, false).unwrap());
        }
        tokio::time::sleep(BEGINNING).await;
        let next = connect(&slots, GUEST, 1, true).unwrap();
        taken[0].evicted().await;
        assert!(stays(&next) && taken.iter().skip(1).all(stays));
    }

    #[test]
    fn a_process_loses_slots_at_once_to_those_with_fewer() {
        let slots = slots();
        for uid in [0, own_uid(), GUEST] {
            let taken: Vec<_> = std::iter::from_fn(|| connect(&slots, uid, 1, true)).collect();
            let mut others = Vec::new();
            while others.len() + 1 < taken.len().div_ceil(2) {
                others.push(connect(&slots, uid, 2, true).unwrap());
                assert!(connect(&slots, uid, 1, true).is_none(), "not for its own process");
            }
            let next = connect(&slots, uid, 3, true).unwrap();
            assert!(stays(&next) && others.iter().all(stays));
            let gone = taken.iter().take_while(|slot| !stays(slot)).count();
            assert_eq!(gone, others.len() + 1, "only the oldest are evicted");
            assert!(taken.iter().skip(gone).all(stays));
        }
    }

    #[test]
    fn active_handshakes_stay_if_each_process_has_a_slot() {
        let slots = slots();
        let mut process = 0;
        let taken = std::iter::from_fn(|| {
            process += 1;
            connect(&slots, 0, process, true)
        });
        let taken: Vec<_> = taken.collect();
        assert_eq!(taken.len(), if own_uid() == 0 { 12 } else { 6 });
        assert!(taken.iter().all(stays));
    }

    #[test]
    fn guests_are_rate_limited_and_few_are_remembered() {
        let slots = slots();
        let mut admitted = 0;
        for _ in 0..100 {
            admitted += usize::from(connect(&slots, GUEST, 1, true).is_some());
        }
        assert_eq!(admitted, 30);
        for uid in 0..5000 {
            let _ = connect(&slots, GUEST + uid, 1, true);
        }
        assert!(slots.rates.tracked() <= MAX_KEYS);
    }
}
