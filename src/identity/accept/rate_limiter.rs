//! How fast clients may connect, and how fast their bytes are read.

use std::collections::HashMap;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use crate::model::{Rate, RateLimit};

/// Limits events to a rate.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    limit: RateLimit,
    rate: Rate,
    started: Instant,
}

impl RateLimiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self { limit, rate: Rate::default(), started: Instant::now() }
    }

    /// Waits until one more event is allowed, and takes it.
    pub(crate) async fn wait(&mut self) {
        while let Err(wait) = self.take() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes one event.
    ///
    /// # Errors
    /// How long to wait, if no event is allowed yet.
    pub(crate) fn take(&mut self) -> Result<(), Duration> {
        self.rate.take(self.now(), self.limit)
    }

    fn now(&self) -> i64 {
        millis_since(self.started, Instant::now())
    }
}

/// The most keys whose rates are tracked, apart from those that keep a place. Further keys share one rate.
pub(super) const MAX_KEYS: usize = 1024;
/// How often rates that equal new ones are looked for when there are so many, in milliseconds.
const SWEEP_MILLIS: i64 = 1000;

/// Limits events to a rate for each key, such as a user or a network.
pub(super) struct KeyedRates<K> {
    limit: RateLimit,
    started: Instant,
    tracked: Mutex<TrackedRates<K>>,
}

struct TrackedRates<K> {
    of: HashMap<K, Rate>,
    /// The rate of all keys that are not tracked.
    others: Rate,
    next_sweep: i64,
}

impl<K: Copy + Eq + Hash> KeyedRates<K> {
    pub(super) fn new(limit: RateLimit) -> Self {
        let tracked = TrackedRates { of: HashMap::new(), others: Rate::default(), next_sweep: 0 };
        Self { limit, started: Instant::now(), tracked: Mutex::new(tracked) }
    }

    /// Takes one event of a key. True if none is allowed yet. A key that `keeps_place` is tracked in any case.
    pub(super) fn is_over(&self, key: K, keeps_place: bool, now: Instant) -> bool {
        let now = millis_since(self.started, now);
        let mut tracked = self.tracked.lock();
        let TrackedRates { of, others, next_sweep } = &mut *tracked;
        let is_full = |of: &HashMap<K, Rate>| of.len() >= MAX_KEYS && !of.contains_key(&key);
        if is_full(of) && now >= *next_sweep {
            of.retain(|_, rate| !rate.is_rested(now));
            *next_sweep = now.saturating_add(SWEEP_MILLIS);
        }
        let rate = match is_full(of) && !keeps_place {
            true => others,
            false => of.entry(key).or_default(),
        };
        rate.take(now, self.limit).is_err()
    }

    /// How many keys are tracked.
    #[cfg(test)]
    pub(super) fn tracked(&self) -> usize {
        self.tracked.lock().of.len()
    }
}

/// The time from one instant to another, in milliseconds, as a [`Rate`] counts it.
pub(super) fn millis_since(started: Instant, now: Instant) -> i64 {
    i64::try_from(now.saturating_duration_since(started).as_millis()).unwrap_or(i64::MAX)
}

/// The bytes that are read of a connection before others have their turn. tokio would allow a hundred reads, and the
/// bytes of a hostile client can be expensive to read.
pub const PIECE_BYTES: usize = 16 * 1024;

/// Limits how fast one connection is read. It yields after each piece of [`PIECE_BYTES`], and waits when its peer is over
/// the rate, which is counted in pieces.
pub(crate) struct ReadLimiter {
    /// The bytes read since the last turn.
    bytes: usize,
    /// The bytes read that do not count: they take turns, but nothing of the rate.
    credits: usize,
    limiter: Arc<Mutex<RateLimiter>>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl ReadLimiter {
    pub(crate) fn new(limiter: Arc<Mutex<RateLimiter>>) -> Self {
        Self { bytes: 0, credits: 0, limiter, waiting: None }
    }

    /// Counts bytes that were read.
    pub(crate) fn read(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Gives bytes back that were read and do not count.
    pub(crate) fn credit(&mut self, bytes: usize) {
        self.credits += bytes;
    }

    /// Waits until more bytes may be read.
    pub(super) fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.bytes < PIECE_BYTES {
            return Poll::Ready(());
        }
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(context));
                self.waiting = None;
            }
            if let Some(left) = self.credits.checked_sub(PIECE_BYTES) {
                self.credits = left;
                break;
            }
            let taken = self.limiter.lock().take();
            match taken {
                Ok(()) => break,
                Err(wait) => self.waiting = Some(Box::pin(tokio::time::sleep(wait))),
            }
        }
        self.bytes -= PIECE_BYTES;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn credited_bytes_take_turns_and_nothing_of_the_rate() {
        let limiter = RateLimiter::new(RateLimit { per_second: 1, burst: 1 });
        let mut reading = ReadLimiter::new(Arc::new(Mutex::new(limiter)));
        let mut context = Context::from_waker(std::task::Waker::noop());
        for _ in 0..100 {
            reading.read(PIECE_BYTES);
            reading.credit(PIECE_BYTES);
            assert!(reading.poll_turn(&mut context).is_pending());
            assert!(reading.poll_turn(&mut context).is_ready());
        }
    }

    #[tokio::test]
    async fn each_piece_read_takes_a_turn_and_less_takes_none() {
        let limiter = RateLimiter::new(RateLimit { per_second: 1, burst: 2 });
        let mut reading = ReadLimiter::new(Arc::new(Mutex::new(limiter)));
        let mut context = Context::from_waker(std::task::Waker::noop());
        reading.read(PIECE_BYTES - 1);
        assert!(reading.poll_turn(&mut context).is_ready());
        reading.read(9 * PIECE_BYTES + 1);
        let turns = (0..100).filter(|_| {
            let before = reading.bytes;
            assert!(reading.poll_turn(&mut context).is_pending());
            reading.bytes < before
        });
        // The burst is two; the other turns wait.
        assert!((2..5).contains(&turns.count()));
    }
}
