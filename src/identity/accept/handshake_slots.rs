//! Those at a door of many whose handshakes are not done, and of whom only the Unix user and the process are known.
//!
//! Root and the daemon's own user have three quarters of the slots: all of these if they are the same user, as in a
//! daemon that runs as root, and half for each if they are two. Others have the last quarter, half of that for each, at
//! a limiter of their own. Nobody waits here, since all who come later would wait with him: where there is no place,
//! somebody gives way or the newcomer is turned away.
//!
//! The process with the most connections gives way, the silent ones of these first and then the oldest: at once to a
//! process that has fewer, and to another of its own only after a moment. So one process, whatever it says or keeps
//! to itself, keeps out only itself, also of root and also where root is the daemon's own user.
//!
//! Processes of one user cannot be told apart by more than their numbers. A user with as many processes as there are
//! slots for him can take turns of his other processes, by each speaking and stopping. He takes none of other users',
//! but for one case: a daemon that runs as root shares its slots with everything else that root runs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::rate_limiter::{RateLimit, RateLimiter};
use super::refused::ConnectionRefusal;

/// The most users whose limiter is remembered; who comes beyond them waits until one is forgotten.
const MAX_USERS: usize = 1024;
/// Who has spoken is given this long before another may take its place, and who has not, this long to begin; none of
/// it where a process with more gives way to a process with fewer.
const GRACE: Duration = Duration::from_millis(100);
const BEGINNING: Duration = Duration::from_millis(20);

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeLimits {
    /// Unfinished handshakes.
    pub slots: u32,
    /// New connections of each user who is neither root nor the daemon's own.
    pub guests: RateLimit,
}

/// Whose a connection is, as the kernel noted it when it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerProcess {
    /// The Unix user.
    pub(crate) uid: u32,
    /// The process; 0 for all that the daemon's PID namespace does not show.
    pub(crate) process: i32,
}

/// Who stands there, the oldest first.
pub(crate) struct HandshakeSlots {
    limits: HandshakeLimits,
    pending: Mutex<VecDeque<PendingHandshake>>,
    limiters: Mutex<HashMap<u32, RateLimiter>>,
}

struct PendingHandshake {
    origin: PeerProcess,
    since: Instant,
    has_spoken: Arc<AtomicBool>,
    evicted: CancellationToken,
}

/// A place there.
pub(crate) struct HandshakeSlot {
    slots: Arc<HandshakeSlots>,
    has_spoken: Arc<AtomicBool>,
    evicted: CancellationToken,
}

impl HandshakeSlot {
    /// It has said something.
    pub(crate) fn speak(&self) {
        self.has_spoken.store(true, Ordering::Release);
    }

    /// Waits until it has to give way.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        let is_it = |one: &PendingHandshake| Arc::ptr_eq(&one.has_spoken, &self.has_spoken);
        self.slots.pending.lock().retain(|one| !is_it(one));
    }
}

impl HandshakeSlots {
    pub(crate) fn new(limits: HandshakeLimits) -> Arc<Self> {
        Arc::new(Self { limits, pending: Mutex::default(), limiters: Mutex::default() })
    }

    /// A place for somebody who may have spoken already, or why there is none.
    pub(crate) fn admit(
        self: &Arc<Self>,
        origin: PeerProcess,
        has_spoken: bool,
    ) -> Result<HandshakeSlot, ConnectionRefusal> {
        if !is_at_home(origin.uid) && self.comes_too_often(origin.uid) {
            return Err(ConnectionRefusal::TooOften);
        }
        self.find_place(origin, has_spoken).ok_or(ConnectionRefusal::AtDoor)
    }

    fn find_place(
        self: &Arc<Self>,
        origin: PeerProcess,
        has_spoken: bool,
    ) -> Option<HandshakeSlot> {
        let uid = origin.uid;
        let slots = usize::try_from(self.limits.slots).unwrap_or(usize::MAX);
        let guests = slots.div_ceil(4);
        let of_kind = if is_at_home(uid) { slots.saturating_sub(guests).max(1) } else { guests };
        // Root is the daemon's own user, or else another.
        let is_alone = is_at_home(uid) && own_uid() == 0;
        let of_user = if is_alone { of_kind } else { of_kind.div_ceil(2) };
        let mut pending = self.pending.lock();
        let count = |pending: &VecDeque<PendingHandshake>, is_one: &dyn Fn(u32) -> bool| {
            pending.iter().filter(|one| is_one(one.origin.uid)).count()
        };
        let is_alike = |other: u32| is_at_home(other) == is_at_home(uid);
        if count(&pending, &|other| other == uid) >= of_user {
            evict(&mut pending, origin.process, |other| other == uid)?;
        } else if count(&pending, &is_alike) >= of_kind {
            // Of the user that takes the most.
            let alike = pending.iter().map(|one| one.origin.uid).filter(|other| is_alike(*other));
            let most = alike.max_by_key(|other| count(&pending, &|one| one == *other))?;
            evict(&mut pending, origin.process, |other| other == most)?;
        }
        let has_spoken = Arc::new(AtomicBool::new(has_spoken));
        let evicted = CancellationToken::new();
        let slot = HandshakeSlot {
            slots: Arc::clone(self),
            has_spoken: Arc::clone(&has_spoken),
            evicted: evicted.clone(),
        };
        pending.push_back(PendingHandshake { origin, since: Instant::now(), has_spoken, evicted });
        Some(slot)
    }

    fn comes_too_often(&self, uid: u32) -> bool {
        let mut limiters = self.limiters.lock();
        if limiters.len() >= MAX_USERS && !limiters.contains_key(&uid) {
            // Whoever has its whole burst again is as if it had never come.
            limiters.retain(|_, limiter| !limiter.is_rested());
            if limiters.len() >= MAX_USERS {
                return true;
            }
        }
        let limiter = limiters.entry(uid).or_insert_with(|| RateLimiter::new(self.limits.guests));
        limiter.take().is_err()
    }
}

/// Has one of these users' give way to a newcomer of this process, if one can.
fn evict(
    pending: &mut VecDeque<PendingHandshake>,
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
            let is_it = may_speak || !one.has_spoken.load(Ordering::Acquire);
            // Where each has one, nobody's process is to blame.
            let is_of_it = most == 1 || one.origin.process == heaviest;
            is_it && is_of_it && is_theirs(one.origin.uid) && now - one.since >= least
        })
    };
    let oldest = oldest(beginning, false).or_else(|| oldest(grace, true));
    let evicted = pending.remove(oldest?)?;
    evicted.evicted.cancel();
    Some(())
}

/// Whether a user is root, or the daemon's own.
fn is_at_home(uid: u32) -> bool {
    uid == 0 || uid == own_uid()
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUESTS: RateLimit = RateLimit { per_second: 1, burst: 30 };
    const GUEST: u32 = 70_000;

    fn slots() -> Arc<HandshakeSlots> {
        HandshakeSlots::new(HandshakeLimits { slots: 16, guests: GUESTS })
    }

    fn come(
        slots: &Arc<HandshakeSlots>,
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
    async fn a_silent_one_gives_way_to_its_like_and_keeps_nobody_out() {
        let slots = slots();
        let mut taken = vec![come(&slots, GUEST, 1, false).unwrap()];
        taken.push(come(&slots, GUEST, 1, false).unwrap());
        assert!(come(&slots, GUEST, 1, false).is_none(), "they are given a moment to begin");
        // Another user has slots, though the first would have them all.
        for uid in [GUEST + 1, GUEST + 2, 0] {
            taken.push(come(&slots, uid, 2, false).unwrap());
        }
        tokio::time::sleep(BEGINNING).await;
        let next = come(&slots, GUEST, 1, true).unwrap();
        taken[0].evicted().await;
        assert!(stays(&next) && taken.iter().skip(1).all(stays));
    }

    #[test]
    fn a_process_gives_way_at_once_to_those_that_have_fewer() {
        let slots = slots();
        for uid in [0, own_uid(), GUEST] {
            let taken: Vec<_> = std::iter::from_fn(|| come(&slots, uid, 1, true)).collect();
            let mut others = Vec::new();
            while others.len() + 1 < taken.len().div_ceil(2) {
                others.push(come(&slots, uid, 2, true).unwrap());
                assert!(come(&slots, uid, 1, true).is_none(), "not to one of its own");
            }
            let next = come(&slots, uid, 3, true).unwrap();
            assert!(stays(&next) && others.iter().all(stays));
            let gone = taken.iter().take_while(|slot| !stays(slot)).count();
            assert_eq!(gone, others.len() + 1, "the oldest have gone, and no more");
            assert!(taken.iter().skip(gone).all(stays));
        }
    }

    #[test]
    fn who_speaks_does_not_give_way_where_each_process_has_a_place() {
        let slots = slots();
        let mut process = 0;
        let taken = std::iter::from_fn(|| {
            process += 1;
            come(&slots, 0, process, true)
        });
        let taken: Vec<_> = taken.collect();
        assert_eq!(taken.len(), if own_uid() == 0 { 12 } else { 6 });
        assert!(taken.iter().all(stays));
    }

    #[test]
    fn guests_come_at_a_pace_and_few_are_remembered() {
        let slots = slots();
        let mut let_in = 0;
        for _ in 0..100 {
            let_in += usize::from(come(&slots, GUEST, 1, true).is_some());
        }
        assert_eq!(let_in, 30);
        for uid in 0..5000 {
            let _ = come(&slots, GUEST + uid, 1, true);
        }
        assert!(slots.limiters.lock().len() <= MAX_USERS);
    }
}
