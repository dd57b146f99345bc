//! Fair shares of a bounded resource: places for requests, connections, bytes.
//!
//! ```text
//! own ──────────────┐ nobody else can take it
//! above that: pool ─┴─ of a workflow ─ of an executor ─ of the door: each counts what those below it hold
//! ```
//!
//! A share takes of its own part first, and only the rest of the pools. A peer that uses up its part of a pool takes
//! nothing of the own parts of others. All of this is counters, without locks and queues.
//!
//! A pool counts before its share does when something is taken, and after it when something is given back. A pool
//! therefore holds at least what its shares hold, and no counter falls below 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A pool of several shares, of `most` in all.
#[derive(Debug)]
pub(crate) struct SharedPool {
    taken: AtomicU64,
    most: u64,
    above: Option<Arc<Self>>,
}

impl SharedPool {
    pub(crate) fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { taken: AtomicU64::new(0), most, above: None })
    }

    /// A pool below this pool that holds at most `most`.
    pub(crate) fn part(self: &Arc<Self>, most: u64) -> Arc<Self> {
        Arc::new(Self { taken: AtomicU64::new(0), most, above: Some(Arc::clone(self)) })
    }

    fn take(&self, count: u64) -> bool {
        let after = |taken: u64| taken.checked_add(count).filter(|after| *after <= self.most);
        if self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, after).is_err() {
            return false;
        }
        if self.above.as_ref().is_none_or(|above| above.take(count)) {
            return true;
        }
        self.taken.fetch_sub(count, Ordering::AcqRel);
        false
    }

    fn owe(&self, count: u64) {
        self.taken.fetch_add(count, Ordering::AcqRel);
        if let Some(above) = &self.above {
            above.owe(count);
        }
    }

    fn give(&self, count: u64) {
        self.taken.fetch_sub(count, Ordering::AcqRel);
        if let Some(above) = &self.above {
            above.give(count);
        }
    }

    fn has_room(&self) -> bool {
        self.taken.load(Ordering::Acquire) < self.most
            && self.above.as_ref().is_none_or(|above| above.has_room())
    }
}

/// The part of one peer.
#[derive(Debug)]
pub(crate) struct FairShare {
    taken: AtomicU64,
    /// Outside of the pool.
    own: u64,
    /// With what comes from the pool.
    most: u64,
    pool: Arc<SharedPool>,
}

impl FairShare {
    /// A share of `own`, and of the pool up to `most` together.
    pub(crate) fn new(own: u64, most: u64, pool: &Arc<SharedPool>) -> Self {
        Self { taken: AtomicU64::new(0), own: own.min(most), most, pool: Arc::clone(pool) }
    }

    /// Takes `count` if there is so much.
    pub(crate) fn take(&self, count: u64) -> bool {
        self.add(count, self.most, |pooled| self.pool.take(pooled))
    }

    /// Takes `count` even beyond the bounds. Nothing more can be taken until it was given back.
    pub(crate) fn owe(&self, count: u64) {
        self.add(count, u64::MAX, |pooled| {
            self.pool.owe(pooled);
            true
        });
    }

    fn add(&self, count: u64, most: u64, take_of_pool: impl Fn(u64) -> bool) -> bool {
        let mut taken = self.taken.load(Ordering::Acquire);
        loop {
            let after = taken.checked_add(count).filter(|after| *after <= most);
            let Some(after) = after else { return false };
            let pooled = self.above_own(after) - self.above_own(taken);
            if pooled > 0 && !take_of_pool(pooled) {
                return false;
            }
            let swapped =
                self.taken.compare_exchange_weak(taken, after, Ordering::AcqRel, Ordering::Acquire);
            let Err(now) = swapped else { return true };
            if pooled > 0 {
                self.pool.give(pooled);
            }
            taken = now;
        }
    }

    /// Gives back `count`.
    pub(crate) fn give(&self, count: u64) {
        let before = self.taken.fetch_sub(count, Ordering::AcqRel);
        let pooled = self.above_own(before) - self.above_own(before.saturating_sub(count));
        if pooled > 0 {
            self.pool.give(pooled);
        }
    }

    /// True if anything is left.
    pub(crate) fn has_room(&self) -> bool {
        let taken = self.taken.load(Ordering::Acquire);
        taken < self.own || (taken < self.most && self.pool.has_room())
    }

    fn above_own(&self, taken: u64) -> u64 {
        taken.saturating_sub(self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_parts_are_safe_and_pools_are_shared() {
        let door = SharedPool::new(8);
        let group = door.part(4);
        let (one, two) = (FairShare::new(2, 5, &group), FairShare::new(2, 5, &group));
        let other = FairShare::new(2, 5, &door);
        let take_all = |share: &FairShare| (0..100).filter(|_| share.take(1)).count();
        assert_eq!(take_all(&one), 5, "two of its own and three of the pool");
        assert_eq!(take_all(&two), 3, "two of its own, and one that the group has left");
        assert_eq!(take_all(&other), 5);
        assert!([&one, &two, &other].iter().all(|share| !share.has_room()));
        for (share, taken) in [(&one, 5), (&two, 3), (&other, 5)] {
            share.give(taken);
            assert!(share.has_room());
        }
        assert!(
            door.taken.load(Ordering::Acquire) == 0 && group.taken.load(Ordering::Acquire) == 0
        );
    }

    #[test]
    fn debts_are_paid_before_more_is_taken() {
        let door = SharedPool::new(10);
        let share = FairShare::new(2, 8, &door);
        share.owe(20);
        assert!(!share.has_room() && !share.take(1) && !door.has_room());
        share.give(13);
        assert!(share.take(1) && !share.take(1));
        share.give(8);
        assert_eq!(door.taken.load(Ordering::Acquire), 0);
    }

    #[test]
    fn concurrent_debts_leave_nothing_behind() {
        let door = SharedPool::new(1_000);
        let share = FairShare::new(1, 100, &door.part(1_000));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let share = &share;
                scope.spawn(move || {
                    for _ in 0..300_000 {
                        if thread % 2 == 0 {
                            share.owe(1);
                            share.give(1);
                        } else if share.take(1) {
                            share.give(1);
                        }
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..300_000 {
                    let taken = door.taken.load(Ordering::Acquire);
                    assert!(taken <= 8, "{taken}");
                }
            });
        });
        assert_eq!(share.taken.load(Ordering::Acquire), 0);
        assert_eq!(door.taken.load(Ordering::Acquire), 0);
    }

    #[test]
    fn concurrent_takers_leave_nothing_behind() {
        let door = SharedPool::new(3);
        let share = FairShare::new(2, 100, &door);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if share.take(1) {
                            share.give(1);
                        }
                    }
                });
            }
        });
        assert_eq!(share.taken.load(Ordering::Acquire), 0);
        assert_eq!(door.taken.load(Ordering::Acquire), 0);
    }
}
