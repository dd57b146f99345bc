//! What one who is known may hold of a door, and what all who come to it share.
//!
//! | thing | of one's own | of the pool, for one | for a workflow | for an executor |
//! |---|---|---|---|---|
//! | requests in flight | 8 | a quarter, and no more than its limit | a quarter | a half |
//! | connections | 2 | a quarter, likewise | a quarter | a half |
//! | bytes of messages and unsent replies | the largest request | an eighth | a quarter | a half |
//! | requests that end something | 32 | | | |
//! | Applies and Plans, the one whose turn it is among them | 8 | | | |
//! | streams of health and reflection | 4 | | | |
//!
//! One is an opening, or an operator or executor. What is of one's own is outside of the pools, so that nobody is kept
//! from it by anybody. A place that is not there is refused; an Apply waits for its turn, and what needs bytes for a
//! reply waits for them, in order.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore};

use super::fair_share::{FairShare, SharedPool};
use super::rate_limiter::{PIECE_BYTES, RateLimit, RateLimiter};

/// Requests of one that end something, at a time. They take nothing else, and nothing else takes them.
const ENDING: u64 = 32;
/// Streams of health and reflection of one, at a time.
const LOOKING: u64 = 4;
/// Applies and Plans of one, at a time. What comes of one that waits for its turn stays in the buffers of HTTP/2, and is
/// counted nowhere.
const DOCUMENTS: u64 = 8;

/// Refusals of one that take all that is read of it in a second.
const PENALTIES_PER_SECOND: usize = 256;

/// How much there is at a door.
#[derive(Clone, Copy, Debug)]
pub struct QuotaLimits {
    /// Requests in flight: of one's own, for one at most, and in the pool.
    pub requests: Allotment,
    /// Connections, likewise.
    pub connections: Allotment,
    /// Bytes of messages and unsent replies, likewise.
    pub bytes: Allotment,
    /// How fast all is read that one says, in pieces of [`PIECE_BYTES`].
    pub reading: RateLimit,
}

/// How much there is of a thing.
#[derive(Clone, Copy, Debug)]
pub struct Allotment {
    /// Each one's own, outside of the pool.
    pub own: u64,
    /// The most that one may have in all; a fair part of the pool may be less.
    pub most: u64,
    /// What all share.
    pub pool: u64,
}

/// What several share: all who come to a door, or those of one executor or workflow.
#[derive(Debug)]
pub struct QuotaPool {
    shares: QuotaLimits,
    requests: Arc<SharedPool>,
    connections: Arc<SharedPool>,
    bytes: Arc<SharedPool>,
    /// Told whenever anybody gives bytes back.
    given: Arc<Notify>,
    large: Arc<OversizeTurn>,
    _above: Option<Arc<Self>>,
}

impl QuotaPool {
    /// Of a door.
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

    /// Of some who together have no more than one in `of` of the door.
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

    /// Of one of them.
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

/// What one holds, and may hold.
#[derive(Debug)]
pub struct PeerQuota {
    requests: FairShare,
    connections: FairShare,
    bytes: FairShare,
    ending: FairShare,
    looking: FairShare,
    documents: FairShare,
    limiter: Arc<Mutex<RateLimiter>>,
    /// In bytes.
    penalty: usize,
    /// Of those who wait for bytes; the first of them holds it.
    queue: AsyncMutex<()>,
    given: Arc<Notify>,
    applies: Arc<Semaphore>,
    large: Arc<OversizeTurn>,
    _commons: Arc<QuotaPool>,
}

/// The turn of what is larger than anybody's share of the bytes, at the whole door.
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
    /// The turn: there is one at a time.
    pub fn turn(&self) -> Arc<Semaphore> {
        Arc::clone(&self.turn)
    }

    /// Counts somebody as waiting for the turn for as long as what is returned lives.
    pub fn wait(self: &Arc<Self>) -> OversizeWaiter {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        OversizeWaiter(Arc::clone(self))
    }

    /// Whether anybody waits for the turn.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }
}

/// Somebody who waits for the turn.
#[derive(Debug)]
pub struct OversizeWaiter(Arc<OversizeTurn>);

impl Drop for OversizeWaiter {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a request takes a place among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Applies and Plans.
    Documents,
    /// Those that end or renew something: these are never kept waiting by others.
    Ending,
    /// Streams of health and reflection.
    Looking,
    /// All others.
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

    /// Takes a place: the lane that it is given back in, or none if there is none. Of those that end something more
    /// than their lane holds are requests like others.
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

    /// Takes bytes as soon as there are so many, in the order of those who wait for them.
    pub async fn wait_for_bytes(&self, count: u64) {
        let _turn = self.queue.lock().await;
        loop {
            // It is told what is given from now on, also before it is awaited.
            let given = self.given.notified();
            if self.bytes.take(count) {
                return;
            }
            given.await;
        }
    }

    /// Whether anybody waits for bytes.
    pub fn is_waited_for(&self) -> bool {
        self.queue.try_lock().is_err()
    }

    /// Takes bytes that are held already.
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

    /// Whether replies may be made that hold more bytes.
    pub fn has_bytes(&self) -> bool {
        self.bytes.has_room()
    }

    /// The limiter at which it is read.
    pub(crate) fn limiter(&self) -> Arc<Mutex<RateLimiter>> {
        Arc::clone(&self.limiter)
    }

    /// What a refusal costs it, as if so many bytes more had been read.
    pub fn penalty(&self) -> usize {
        self.penalty
    }

    /// The turn of its Applies: there is one at a time.
    pub fn applies(&self) -> Arc<Semaphore> {
        Arc::clone(&self.applies)
    }

    /// The turn of what is larger than anybody's share of the bytes.
    pub fn large(&self) -> &Arc<OversizeTurn> {
        &self.large
    }

    /// A place among the connections, if there is one.
    pub(crate) fn connect(self: &Arc<Self>) -> Option<ConnectionShare> {
        self.connections.take(1).then(|| ConnectionShare(Arc::clone(self)))
    }
}

/// A place among the connections.
pub(crate) struct ConnectionShare(Arc<PeerQuota>);

impl Drop for ConnectionShare {
    fn drop(&mut self) {
        self.0.connections.give(1);
    }
}

/// Something of each who is here, for as long as anybody holds it.
#[derive(Debug)]
pub struct WeakMap<K, V>(Mutex<HashMap<K, Weak<V>>>);

impl<K, V> Default for WeakMap<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V> WeakMap<K, V> {
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

    fn door(amount: Allotment) -> Arc<QuotaPool> {
        let reading = RateLimit { per_second: 1, burst: 1 };
        let (requests, connections, bytes) = (amount, amount, amount);
        QuotaPool::new(QuotaLimits { requests, connections, bytes, reading })
    }

    #[test]
    fn of_one_workflow_all_openings_have_a_quarter_and_each_its_own() {
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
    fn what_ends_something_has_a_place_when_all_are_taken() {
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
    async fn bytes_are_given_in_the_order_of_those_who_wait() {
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
        assert!(!is_done(&mut small), "though there would be room for it");
        one.give_bytes(4);
        assert!(!is_done(&mut small));
        assert!(is_done(&mut large));
        one.give_bytes(1);
        assert!(is_done(&mut small));
        assert!(!one.is_waited_for());
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let present = WeakMap::default();
        let kept = present.of(0, || Arc::new(0));
        for key in 1..1000 {
            present.of(key, || Arc::new(key));
        }
        assert_eq!(*present.of(0, || Arc::new(7)), *kept);
        assert!(present.0.lock().len() < 100);
    }
}
