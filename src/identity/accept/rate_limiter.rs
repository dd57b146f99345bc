//! How fast clients may come, and how fast what they say is read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use crate::model::limits::Rate;

/// So many a second, and so many at once after a pause.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    /// A second.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

/// Keeps to a limiter.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    limits: RateLimit,
    rate: Rate,
    started: Instant,
}

impl RateLimiter {
    pub(crate) fn new(limits: RateLimit) -> Self {
        Self { limits, rate: Rate::default(), started: Instant::now() }
    }

    /// Waits until it is time for one more.
    pub(crate) async fn keep(&mut self) {
        while let Err(wait) = self.take() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long to wait, if it is not time for it.
    pub(crate) fn take(&mut self) -> Result<(), Duration> {
        self.rate.take(self.now(), self.limits.per_second, self.limits.burst)
    }

    /// Whether it is as if nothing had ever been taken.
    pub(crate) fn is_rested(&self) -> bool {
        self.rate.is_rested(self.now())
    }

    fn now(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

/// What is read at a time, in bytes. tokio would let a client go on for a hundred reads, and what a hostile
/// one says can cost much to read.
pub const PIECE_BYTES: usize = 16 * 1024;

/// Reads one connection piece by piece: after each the others have their turn, and beyond the limiter of whose it is, in
/// pieces, the client waits.
pub(crate) struct ReadLimiter {
    /// What was read since the last turn.
    bytes: usize,
    limiter: Arc<Mutex<RateLimiter>>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl ReadLimiter {
    pub(crate) fn new(limiter: Arc<Mutex<RateLimiter>>) -> Self {
        Self { bytes: 0, limiter, waiting: None }
    }

    /// So much was read.
    pub(crate) fn read(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Waits until more may be read.
    pub(super) fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.bytes < PIECE_BYTES {
            return Poll::Ready(());
        }
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(context));
                self.waiting = None;
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
    async fn less_than_a_piece_needs_no_turn_and_a_piece_one_of_the_pace() {
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
        // Two at once; what follows waits.
        assert!((2..5).contains(&turns.count()));
    }
}
