//! The quota of one peer at a door, and the pools that all peers of the door share.
//!
//! | resource | own | of the pool, per peer | per workflow | per executor |
//! |---|---|---|---|---|
//! | requests in flight | 8 | a quarter, at most its limit | a quarter | a half |
//! | connections | 2 | a quarter, at most its limit | a quarter | a half |
//! | bytes of messages and unsent replies | the largest request | an eighth | a quarter | a half |
//! | requests that end or renew something | 32 | | | |
//! | Applies and Plans, running or waiting | 8 | | | |
//! | streams of health and reflection | 4 | | | |
//!
//! A peer is an opening, or an operator or executor. Its own part is outside of the pools, so nobody can take it. A
//! request without a place is refused. An Apply waits for its turn, and a reply waits for bytes, in order.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore};

use super::fair_share::{FairShare, SharedPool};
use super::rate_limiter::{PIECE_BYTES, RateLimiter};
use crate::model::RateLimit;

/// Requests of one peer that end or renew something, at a time. They use this lane only, and no other request uses it.
const ENDING: u64 = 32;
/// Streams of health and reflection of one peer, at a time.
const LOOKING: u64 = 4;
/// Applies and Plans of one peer, at a time. The bytes of those that wait stay in the buffers of HTTP/2, uncounted.
const DOCUMENTS: u64 = 8;

/// Refusals per second that cost a peer its whole read rate.
const PENALTIES_PER_SECOND: usize = 256;

/// The resources of a door.
#[derive(Clone, Copy, Debug)]
pub struct QuotaLimits {
    /// Requests in flight.
    pub requests: Allotment,
    /// Connections.
    pub connections: Allotment,
    /// Bytes of messages and unsent replies.
    pub bytes: Allotment,
    /// How fast the bytes of one peer are read, in pieces of [`PIECE_BYTES`].
    pub reading: RateLimit,
}

/// How much there is of one resource.
#[derive(Clone, Copy, Debug)]
pub struct Allotment {
    /// The own part of each peer, outside of the pool.
    pub own: u64,
    /// The most that one peer may hold in all. Its fair part of the pool may be less.
    pub most: u64,
    /// The pool of all peers.
    pub pool: u64,
}

/// The pools that several peers share: all peers of a door, or those of one executor or workflow.
#[derive(Debug)]
pub struct QuotaPool {
    shares: QuotaLimits,
    requests: Arc<SharedPool>,
    connections: Arc<SharedPool>,
    bytes: Arc<SharedPool>,
    /// Notified whenever bytes are given back.
    given: Arc<Notify>,
    large: Arc<OversizeTurn>,
    _above: Option<Arc<Self>>,
}

impl QuotaPool {
    /// The pools of a door.
    pub fn new(shares: QuotaLimits) -> Arc<Self> {
        Arc::new(Self {
            requests: SharedPool::new(shares.requests.pool),
            connections: SharedPool::new(shares.connections.pool),
            bytes: SharedPool::new(shares.bytes.pool),
            given: Arc::default(),
            large: Arc::default(),
            shares,
            _above: None,
        })
    }

    /// The pools of a group of peers, of at most one part in `of` of the door.
    pub fn part(self: &Arc<Self>, of: u64) -> Arc<Self> {
        Arc::new(Self {
            requests: self.requests.part(self.shares.requests.pool.div_ceil(of)),
            connections: self.connections.part(self.shares.connections.pool.div_ceil(of)),
            bytes: self.bytes.part(self.shares.bytes.pool.div_ceil(of)),
            given: Arc::clone(&self.given),
            large: Arc::clone(&self.large),
            shares: self.shares,
            _above: Some(Arc::clone(self)),
        })
    }

    /// The quota of one more peer.
    pub fn peer_quota(self: &Arc<Self>) -> Arc<PeerQuota> {
        let share = |amount: Allotment, part: u64, pool: &Arc<SharedPool>| {
            let fair = amount.own + amount.pool.div_ceil(part);
            FairShare::new(amount.own, amount.most.min(fair), pool)
        };
        let none = SharedPool::new(0);
        Arc::new(PeerQuota {
            requests: share(self.shares.requests, 4, &self.requests),
            connections: share(self.shares.connections, 4, &self.connections),
            bytes: share(self.shares.bytes, 8, &self.bytes),
            ending: FairShare::new(ENDING, ENDING, &none),
            looking: FairShare::new(LOOKING, LOOKING, &none),
            documents: FairShare::new(DOCUMENTS, DOCUMENTS, &none),
            limiter: Arc::new(Mutex::new(RateLimiter::new(self.shares.reading))),
            penalty: PIECE_BYTES * self.shares.reading.per_second as usize / PENALTIES_PER_SECOND,
            queue: AsyncMutex::default(),
            given: Arc::clone(&self.given),
            applies: Arc::new(Semaphore::new(1)),
            large: Arc::clone(&self.large),
            _commons: Arc::clone(self),
        })
    }
}

/// The quota of one peer, and its use.
#[derive(Debug)]
pub struct PeerQuota {
    requests: FairShare,
    connections: FairShare,
    bytes: FairShare,
    ending: FairShare,
    looking: FairShare,
    documents: FairShare,
    limiter: Arc<Mutex<RateLimiter>>,
    /// The cost of a refusal, in bytes.
    penalty: usize,
    /// The queue for bytes. Its first waiter holds the lock.
    queue: AsyncMutex<()>,
    given: Arc<Notify>,
    applies: Arc<Semaphore>,
    large: Arc<OversizeTurn>,
    _commons: Arc<QuotaPool>,
}

/// The turn of a request that is larger than any share of the bytes: one at a time for the whole door.
#[derive(Debug)]
pub struct OversizeTurn {
    turn: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for OversizeTurn {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), waiting: AtomicUsize::new(0) }
    }
}

impl OversizeTurn {
    /// The turn itself.
    pub fn turn(&self) -> Arc<Semaphore> {
        Arc::clone(&self.turn)
    }

    /// Counts one more waiter until the returned value is dropped.
    pub fn wait(self: &Arc<Self>) -> OversizeWaiter {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        OversizeWaiter(Arc::clone(self))
    }

    /// True if a request waits for the turn.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }
}

/// A request that waits for the turn.
#[derive(Debug)]
pub struct OversizeWaiter(Arc<OversizeTurn>);

impl Drop for OversizeWaiter {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The kind of place that a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Applies and Plans.
    Documents,
    /// Requests that end or renew something. Other requests never delay them.
    Ending,
    /// Streams of health and reflection.
    Looking,
    /// All other requests.
    Others,
}

impl PeerQuota {
    fn lane(&self, lane: Lane) -> &FairShare {
        match lane {
            Lane::Documents => &self.documents,
            Lane::Ending => &self.ending,
            Lane::Looking => &self.looking,
            Lane::Others => &self.requests,
        }
    }

    /// Takes a place, and returns the lane to give it back in; `None` if no place is free. Requests beyond the lane
    /// [`Lane::Ending`] take places like others.
    pub fn take_place(&self, lane: Lane) -> Option<Lane> {
        match lane {
            lane if self.lane(lane).take(1) => Some(lane),
            Lane::Ending => self.take_place(Lane::Others),
            Lane::Documents | Lane::Looking | Lane::Others => None,
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

    /// Takes bytes as soon as there are so many, in the order of the waiters.
    pub async fn wait_for_bytes(&self, count: u64) {
        let _turn = self.queue.lock().await;
        loop {
            // Bytes given back from now on notify it, also before it is awaited.
            let given = self.given.notified();
            if self.bytes.take(count) {
                return;
            }
            given.await;
        }
    }

    /// True if a reply waits for bytes.
    pub fn is_waited_for(&self) -> bool {
        self.queue.try_lock().is_err()
    }

    /// Takes bytes that are in memory already, even beyond the bounds.
    pub fn owe_bytes(&self, count: u64) {
        self.bytes.owe(count);
    }

    /// Gives bytes back.
    pub fn give_bytes(&self, count: u64) {
        if count > 0 {
            self.bytes.give(count);
            self.given.notify_waiters();
        }
    }

    /// True if the peer may hold more bytes.
    pub fn has_bytes(&self) -> bool {
        self.bytes.has_room()
    }

    /// The rate limiter for reads, in pieces.
    pub(crate) fn read_limiter(&self) -> Arc<Mutex<RateLimiter>> {
        Arc::clone(&self.limiter)
    }

    /// The cost of a refusal, in bytes that count as read.
    pub fn penalty(&self) -> usize {
        self.penalty
    }

    /// The turn of the peer's Applies: one at a time.
    pub fn applies(&self) -> Arc<Semaphore> {
        Arc::clone(&self.applies)
    }

    /// The turn of a request that is larger than any share of the bytes.
    pub fn large(&self) -> &Arc<OversizeTurn> {
        &self.large
    }

    /// Takes a connection, if the quota allows one more.
    pub(crate) fn connect(self: &Arc<Self>) -> Option<ConnectionShare> {
        self.connections.take(1).then(|| ConnectionShare(Arc::clone(self)))
    }
}

/// One connection of the quota, until it is dropped.
pub(crate) struct ConnectionShare(Arc<PeerQuota>);

impl Drop for ConnectionShare {
    fn drop(&mut self) {
        self.0.connections.give(1);
    }
}

/// A map that keeps a value only while it is in use elsewhere.
#[derive(Debug)]
pub struct WeakMap<K, V>(Mutex<HashMap<K, Weak<V>>>);

impl<K, V> Default for WeakMap<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V> WeakMap<K, V> {
    /// The value of a key, made now if nobody uses one.
    pub fn of(&self, key: K, make: impl FnOnce() -> Arc<V>) -> Arc<V> {
        let mut present = self.0.lock();
        if let Some(found) = present.get(&key).and_then(Weak::upgrade) {
            return found;
        }
        // Unused values are removed before the map would grow.
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

    fn door(amount: Allotment) -> Arc<QuotaPool> {
        let reading = RateLimit { per_second: 1, burst: 1 };
        let (requests, connections, bytes) = (amount, amount, amount);
        QuotaPool::new(QuotaLimits { requests, connections, bytes, reading })
    }

    #[test]
    fn openings_of_a_workflow_share_a_quarter_beside_their_own() {
        let amount = Allotment { own: 2, most: 1000, pool: 64 };
        let door = door(amount);
        let executor = door.part(2);
        let workflow = executor.part(4);
        let take_all =
            |one: &PeerQuota| (0..1000).filter(|_| one.take_place(Lane::Others).is_some()).count();
        let openings: Vec<_> = (0..10).map(|_| workflow.peer_quota()).collect();
        let taken: usize = openings.iter().map(|one| take_all(one)).sum();
        assert_eq!(taken, 10 * 2 + 16);
        assert_eq!(
            take_all(&executor.part(4).peer_quota()),
            2 + 16,
            "another workflow has its own"
        );
        assert_eq!(take_all(&executor.part(4).peer_quota()), 2, "its executor has no more");
        assert_eq!(take_all(&door.part(2).part(4).peer_quota()), 2 + 16, "another executor has");
    }

    #[test]
    fn ending_requests_have_places_when_all_others_are_taken() {
        let amount = Allotment { own: 1, most: 1, pool: 1 };
        let door = door(amount);
        let one = door.peer_quota();
        assert_eq!(one.take_place(Lane::Others), Some(Lane::Others));
        assert_eq!(one.take_place(Lane::Others), None);
        assert_eq!(one.take_place(Lane::Ending), Some(Lane::Ending));
    }

    fn is_done<T>(future: &mut std::pin::Pin<Box<impl Future<Output = T>>>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        future.as_mut().poll(&mut context).is_ready()
    }

    #[tokio::test]
    async fn waiters_get_bytes_in_order() {
        let amount = Allotment { own: 1, most: 100, pool: 80 };
        let door = door(amount);
        let (one, other) = (door.peer_quota(), door.peer_quota());
        assert!(one.take_bytes(11) && !one.take_bytes(1) && !one.is_waited_for());
        let mut large = Box::pin(one.wait_for_bytes(8));
        let mut small = Box::pin(one.wait_for_bytes(1));
        assert!(!is_done(&mut large));
        assert!(!is_done(&mut small));
        assert!(one.is_waited_for() && !other.is_waited_for());
        one.give_bytes(4);
        assert!(!is_done(&mut large));
        assert!(!is_done(&mut small), "the larger request is first");
        one.give_bytes(4);
        assert!(!is_done(&mut small));
        assert!(is_done(&mut large));
        one.give_bytes(1);
        assert!(is_done(&mut small));
        assert!(!one.is_waited_for());
    }

    #[test]
    fn unused_values_are_forgotten() {
        let present = WeakMap::default();
        let kept = present.of(0, || Arc::new(0));
        for key in 1..1000 {
            present.of(key, || Arc::new(key));
        }
        assert_eq!(*present.of(0, || Arc::new(7)), *kept);
        assert!(present.0.lock().len() < 100);
    }
}
