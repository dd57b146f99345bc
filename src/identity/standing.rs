//! What one who is known may hold of a door, and what all who come to it share.
//!
//! | thing | of one's own | of the pool, for one | for a workflow | for an executor |
//! |---|---|---|---|---|
//! | requests in flight | 8 | a quarter, and no more than its limit | a quarter | a half |
//! | connections | 2 | a quarter, likewise | a quarter | a half |
//! | bytes of messages and unsent replies | the largest request | an eighth | a quarter | a half |
//! | requests that end something | 32 | | | |
//! | streams of health and reflection | 4 | | | |
//!
//! One is an opening, or an operator or executor. What is of one's own is outside of the pools, so that nobody is kept
//! from it by anybody. Places and bytes are refused when there are none; only an Apply waits for its turn.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::shares::{Pool, Share};

/// Requests of one that end something, at a time. They take nothing else, and nothing else takes them.
const ENDING: u64 = 32;
/// Streams of health and reflection of one, at a time.
const LOOKING: u64 = 4;

/// How much there is at a door.
#[derive(Clone, Copy, Debug)]
pub struct DoorShares {
    /// Requests in flight: of one's own, for one at most, and in the pool.
    pub requests: Amount,
    /// Connections, likewise.
    pub connections: Amount,
    /// Bytes of messages and unsent replies, likewise.
    pub bytes: Amount,
}

/// How much there is of a thing.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Each one's own, outside of the pool.
    pub own: u64,
    /// The most that one may have in all; a fair part of the pool may be less.
    pub most: u64,
    /// What all share.
    pub pool: u64,
}

/// What several share: all who come to a door, or those of one executor or workflow.
#[derive(Debug)]
pub struct Commons {
    shares: DoorShares,
    requests: Arc<Pool>,
    connections: Arc<Pool>,
    bytes: Arc<Pool>,
    large: Arc<Semaphore>,
    _above: Option<Arc<Self>>,
}

impl Commons {
    /// Of a door.
    pub fn new(shares: DoorShares) -> Arc<Self> {
        Arc::new(Self {
            requests: Pool::new(shares.requests.pool),
            connections: Pool::new(shares.connections.pool),
            bytes: Pool::new(shares.bytes.pool),
            large: Arc::new(Semaphore::new(1)),
            shares,
            _above: None,
        })
    }

    /// Of some who together have no more than one in `of` of the door.
    pub fn part(self: &Arc<Self>, of: u64) -> Arc<Self> {
        Arc::new(Self {
            requests: self.requests.part(self.shares.requests.pool.div_ceil(of)),
            connections: self.connections.part(self.shares.connections.pool.div_ceil(of)),
            bytes: self.bytes.part(self.shares.bytes.pool.div_ceil(of)),
            large: Arc::clone(&self.large),
            shares: self.shares,
            _above: Some(Arc::clone(self)),
        })
    }

    /// Of one of them.
    pub fn stand(self: &Arc<Self>) -> Arc<Standing> {
        let share = |amount: Amount, part: u64, pool: &Arc<Pool>| {
            let fair = amount.own + amount.pool.div_ceil(part);
            Share::new(amount.own, amount.most.min(fair), pool)
        };
        let none = Pool::new(0);
        Arc::new(Standing {
            requests: share(self.shares.requests, 4, &self.requests),
            connections: share(self.shares.connections, 4, &self.connections),
            bytes: share(self.shares.bytes, 8, &self.bytes),
            ending: Share::new(ENDING, ENDING, &none),
            looking: Share::new(LOOKING, LOOKING, &none),
            applies: Arc::new(Semaphore::new(1)),
            large: Arc::clone(&self.large),
            _commons: Arc::clone(self),
        })
    }
}

/// What one holds, and may hold.
#[derive(Debug)]
pub struct Standing {
    requests: Share,
    connections: Share,
    bytes: Share,
    ending: Share,
    looking: Share,
    applies: Arc<Semaphore>,
    large: Arc<Semaphore>,
    _commons: Arc<Commons>,
}

/// What a request takes a place among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Those that end or renew something: these are never kept waiting by others.
    Ending,
    /// Streams of health and reflection.
    Looking,
    /// All others.
    Others,
}

impl Standing {
    fn lane(&self, lane: Lane) -> &Share {
        match lane {
            Lane::Ending => &self.ending,
            Lane::Looking => &self.looking,
            Lane::Others => &self.requests,
        }
    }

    /// Takes a place: the lane that it is given back in, or none if there is none. Of those that end something more
    /// than their lane holds are requests like others.
    pub fn take_place(&self, lane: Lane) -> Option<Lane> {
        match lane {
            lane if self.lane(lane).take(1) => Some(lane),
            Lane::Ending => self.take_place(Lane::Others),
            Lane::Looking | Lane::Others => None,
        }
    }

    /// Gives a place back.
    pub fn give_place(&self, lane: Lane) {
        self.lane(lane).give(1);
    }

    /// Takes bytes, if there are so many.
    pub fn take_bytes(&self, count: u64) -> bool {
        self.bytes.take(count)
    }

    /// Takes bytes that are held already.
    pub fn owe_bytes(&self, count: u64) {
        self.bytes.owe(count);
    }

    /// Gives bytes back.
    pub fn give_bytes(&self, count: u64) {
        self.bytes.give(count);
    }

    /// Whether replies may be made that hold more bytes.
    pub fn has_bytes(&self) -> bool {
        self.bytes.has_room()
    }

    /// The turn of its Applies: there is one at a time.
    pub fn applies(&self) -> Arc<Semaphore> {
        Arc::clone(&self.applies)
    }

    /// The turn of what is larger than anybody's share of the bytes, at the whole door.
    pub fn large(&self) -> Arc<Semaphore> {
        Arc::clone(&self.large)
    }

    /// A place among the connections, if there is one.
    pub(super) fn connect(self: &Arc<Self>) -> Option<Stay> {
        self.connections.take(1).then(|| Stay(Arc::clone(self)))
    }
}

/// A place among the connections.
pub(super) struct Stay(Arc<Standing>);

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.connections.give(1);
    }
}

/// Something of each who is here, for as long as anybody holds it.
#[derive(Debug)]
pub struct Present<K, V>(Mutex<HashMap<K, Weak<V>>>);

impl<K, V> Default for Present<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V> Present<K, V> {
    /// What there is of this one, or what is made now.
    pub fn of(&self, key: K, make: impl FnOnce() -> Arc<V>) -> Arc<V> {
        let mut present = self.0.lock();
        if let Some(found) = present.get(&key).and_then(Weak::upgrade) {
            return found;
        }
        // Who has gone is forgotten before there would be more room for it.
        if present.len() == present.capacity() {
            present.retain(|_, one| one.strong_count() > 0);
        }
        let made = make();
        present.insert(key, Arc::downgrade(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_workflow_all_openings_have_a_quarter_and_each_its_own() {
        let amount = Amount { own: 2, most: 1000, pool: 64 };
        let door =
            Commons::new(DoorShares { requests: amount, connections: amount, bytes: amount });
        let executor = door.part(2);
        let workflow = executor.part(4);
        let take_all =
            |one: &Standing| (0..1000).filter(|_| one.take_place(Lane::Others).is_some()).count();
        let openings: Vec<_> = (0..10).map(|_| workflow.stand()).collect();
        let taken: usize = openings.iter().map(|one| take_all(one)).sum();
        assert_eq!(taken, 10 * 2 + 16);
        assert_eq!(take_all(&executor.part(4).stand()), 2 + 16, "another workflow has its own");
        assert_eq!(take_all(&executor.part(4).stand()), 2, "its executor has no more");
        assert_eq!(take_all(&door.part(2).part(4).stand()), 2 + 16, "another executor has");
    }

    #[test]
    fn what_ends_something_has_a_place_when_all_are_taken() {
        let amount = Amount { own: 1, most: 1, pool: 1 };
        let door =
            Commons::new(DoorShares { requests: amount, connections: amount, bytes: amount });
        let one = door.stand();
        assert_eq!(one.take_place(Lane::Others), Some(Lane::Others));
        assert_eq!(one.take_place(Lane::Others), None);
        assert_eq!(one.take_place(Lane::Ending), Some(Lane::Ending));
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let present = Present::default();
        let kept = present.of(0, || Arc::new(0));
        for key in 1..1000 {
            present.of(key, || Arc::new(key));
        }
        assert_eq!(*present.of(0, || Arc::new(7)), *kept);
        assert!(present.0.lock().len() < 100);
    }
}
