//! How long a connection is waited for, when the client says nothing, too little, or does not listen.
//!
//! ```text
//! handshake ─ preface ─┬─ no request open            for `idle`:  it ends
//!             in time  ├─ no reply taken, some wait  for `stall`: it ends
//!                      └─ no byte of ours taken      for `stall`: it ends
//! ```
//!
//! Requests are counted, not bytes: a Watch that is silent for hours is a request that is open, and pings
//! keep no connection alive on which nothing is asked. Whoever stops in the middle of a frame cannot answer
//! the server's pings and is cut off by them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// What a client says first (RFC 9113, 3.4), in bytes.
const PREFACE_BYTES: usize = 24;
/// A connection that was idle, and says something in the last moment, has this long to ask for something.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// How long a door waits for its clients.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the end of the handshake to the whole HTTP/2 preface.
    pub preface: Duration,
    /// Without any open request.
    pub idle: Duration,
    /// While the client takes none of what waits for it.
    pub stall: Duration,
}

/// What goes on on one connection, as whoever serves it tells.
#[derive(Debug)]
pub struct Traffic {
    began: Instant,
    requests: ActivityCount,
    replies: ActivityCount,
    penalties: AtomicUsize,
}

/// How many there are, and when the last one went, or the first one came, in milliseconds.
#[derive(Debug, Default)]
struct ActivityCount {
    count: AtomicUsize,
    since: AtomicU64,
}

impl Traffic {
    pub(crate) fn begin() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            requests: ActivityCount::default(),
            replies: ActivityCount::default(),
            penalties: AtomicUsize::new(0),
        })
    }

    /// Counts a request as open for as long as what is returned lives.
    pub fn request(self: &Arc<Self>) -> OpenRequest {
        self.requests.count.fetch_add(1, Ordering::AcqRel);
        OpenRequest(Arc::clone(self))
    }

    /// Counts a reply as waiting to be taken for as long as what is returned lives.
    pub fn reply(self: &Arc<Self>) -> WaitingReply {
        if self.replies.count.fetch_add(1, Ordering::AcqRel) == 0 {
            self.replies.since.store(self.now(), Ordering::Release);
        }
        WaitingReply(Arc::clone(self))
    }

    /// Has the client wait as if it had said so many bytes more: what is refused must cost whoever sent it.
    pub fn penalize(&self, bytes: usize) {
        self.penalties.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The penalties since this was last asked, in bytes.
    pub(super) fn take_penalties(&self) -> usize {
        match self.penalties.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.penalties.swap(0, Ordering::Relaxed),
        }
    }

    /// How many requests are open.
    pub(crate) fn open_requests(&self) -> usize {
        self.requests.count.load(Ordering::Acquire)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn end(&self, gauge: &ActivityCount) {
        // The time first: whoever sees that there is none sees since when.
        gauge.since.store(self.now(), Ordering::Release);
        gauge.count.fetch_sub(1, Ordering::AcqRel);
    }

    /// When the connection has been idle for this long, if it is idle.
    fn idle_at(&self, idle: Duration) -> Option<Instant> {
        (self.requests.count.load(Ordering::Acquire) == 0).then(|| self.after(&self.requests, idle))
    }

    /// When no reply was taken for this long, if any waits.
    fn stalled_at(&self, stall: Duration) -> Option<Instant> {
        (self.replies.count.load(Ordering::Acquire) > 0).then(|| self.after(&self.replies, stall))
    }

    fn after(&self, gauge: &ActivityCount, time: Duration) -> Instant {
        self.began + Duration::from_millis(gauge.since.load(Ordering::Acquire)) + time
    }
}

/// A request that is open.
#[derive(Debug)]
pub struct OpenRequest(Arc<Traffic>);

impl OpenRequest {
    /// What goes on on its connection.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.0
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.end(&self.0.requests);
    }
}

/// A reply that the client has not taken yet.
#[derive(Debug)]
pub struct WaitingReply(Arc<Traffic>);

impl Drop for WaitingReply {
    fn drop(&mut self) {
        self.0.end(&self.0.replies);
    }
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// The preface did not come in time.
    Silent,
    /// Nothing was asked for long enough. If something is being said just now, that is still heard.
    Idle {
        /// That it was heard once already.
        finally: bool,
    },
    /// Replies wait, and none is taken.
    Stalled,
}

/// Looks after one connection.
pub(crate) struct Watchdog {
    timeouts: Timeouts,
    traffic: Arc<Traffic>,
    preface_left: usize,
    last_moment: bool,
    alarm: Pin<Box<Sleep>>,
    /// Runs while bytes of ours are not taken.
    unsent: Option<Pin<Box<Sleep>>>,
}

impl Watchdog {
    pub(crate) fn new(timeouts: Timeouts, traffic: Arc<Traffic>) -> Self {
        Self {
            timeouts,
            traffic,
            preface_left: PREFACE_BYTES,
            last_moment: false,
            alarm: Box::pin(tokio::time::sleep(timeouts.preface)),
            unsent: None,
        }
    }

    /// The client has said this many bytes more.
    pub(crate) fn heard(&mut self, bytes: usize) {
        if self.preface_left > 0 {
            self.preface_left = self.preface_left.saturating_sub(bytes);
            if self.preface_left == 0 {
                let next = self.next_look(Instant::now());
                self.alarm.as_mut().reset(next);
            }
        }
    }

    /// Gives what is said in the last moment time to become a request.
    pub(super) fn wait_a_moment(&mut self) {
        self.last_moment = true;
        self.alarm.as_mut().reset(Instant::now() + LAST_MOMENT);
    }

    /// Ready when the connection is to end.
    pub(super) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<EndReason> {
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let now = Instant::now();
            if let Some(over) = self.over(now) {
                return Poll::Ready(over);
            }
            self.last_moment = false;
            let next = self.next_look(now);
            self.alarm.as_mut().reset(next);
        }
    }

    fn over(&self, now: Instant) -> Option<EndReason> {
        let has_come = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.preface_left > 0 {
            Some(EndReason::Silent)
        } else if has_come(self.traffic.stalled_at(self.timeouts.stall)) {
            Some(EndReason::Stalled)
        } else if has_come(self.traffic.idle_at(self.timeouts.idle)) {
            Some(EndReason::Idle { finally: self.last_moment })
        } else {
            None
        }
    }

    /// No later than what may begin right now could be over.
    fn next_look(&self, now: Instant) -> Instant {
        let Timeouts { idle, stall, .. } = self.timeouts;
        let known = [self.traffic.idle_at(idle), self.traffic.stalled_at(stall)];
        known.into_iter().flatten().fold(now + idle.min(stall), Instant::min)
    }

    /// Ready when nothing was taken for too long; asked whenever a write has to wait.
    pub(super) fn poll_unsent(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let stall = self.timeouts.stall;
        let alarm = self.unsent.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        alarm.as_mut().poll(context)
    }

    /// Something of ours was taken.
    pub(crate) fn sent(&mut self) {
        self.unsent = None;
    }
}
