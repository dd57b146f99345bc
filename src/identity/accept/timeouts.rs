//! Limits the time of a connection whose client sends nothing, sends too little, or does not read.
//!
//! ```text
//! handshake ─ preface ─┬─ no request open               for `idle`:  the connection ends
//!             in time  ├─ replies wait, none is taken   for `stall`: the connection ends
//!                      └─ no byte of ours is taken      for `stall`: the connection ends
//! ```
//!
//! Requests are counted, not bytes. A Watch that is silent for hours is an open request, and pings keep no idle
//! connection open. A client that stops in the middle of a frame cannot answer the server's pings, which then end the
//! connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The bytes of a client's preface (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// The extra time for a request whose bytes arrive just before the idle limit.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// How long a door waits for its clients.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the end of the handshake to the whole HTTP/2 preface.
    pub preface: Duration,
    /// Without an open request.
    pub idle: Duration,
    /// While the client takes none of the bytes or replies that wait for it.
    pub stall: Duration,
}

/// The open requests and unsent replies of one connection.
#[derive(Debug)]
pub struct Traffic {
    began: Instant,
    requests: ActivityCount,
    replies: ActivityCount,
    penalties: AtomicUsize,
    credits: AtomicUsize,
}

/// The number of open requests or waiting replies, and the time when the first began or the last ended, in milliseconds
/// after the connection began.
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
            credits: AtomicUsize::new(0),
        })
    }

    /// Counts a request as open until the returned value is dropped.
    pub fn request(self: &Arc<Self>) -> OpenRequest {
        self.requests.count.fetch_add(1, Ordering::AcqRel);
        OpenRequest(Arc::clone(self))
    }

    /// Counts a reply as waiting until the returned value is dropped.
    pub fn reply(self: &Arc<Self>) -> WaitingReply {
        if self.replies.count.fetch_add(1, Ordering::AcqRel) == 0 {
            self.replies.since.store(self.now(), Ordering::Release);
        }
        WaitingReply(Arc::clone(self))
    }

    /// Delays the client as if it had sent so many more bytes. A refusal must cost its client something.
    pub fn penalize(&self, bytes: usize) {
        self.penalties.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives bytes back that were read and do not count: the broker only passes them on.
    pub fn credit(&self, bytes: usize) {
        self.credits.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes the penalties since the last call, in bytes.
    pub(super) fn take_penalties(&self) -> usize {
        taken(&self.penalties)
    }

    /// Takes the credits since the last call, in bytes.
    pub(super) fn take_credits(&self) -> usize {
        taken(&self.credits)
    }

    /// True if more than one request is open.
    pub fn has_several_requests(&self) -> bool {
        self.open_requests() > 1
    }

    /// How many requests are open.
    pub(crate) fn open_requests(&self) -> usize {
        self.requests.count.load(Ordering::Acquire)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn end(&self, gauge: &ActivityCount) {
        // The time is stored first: a reader that sees a count of 0 must see since when.
        gauge.since.store(self.now(), Ordering::Release);
        gauge.count.fetch_sub(1, Ordering::AcqRel);
    }

    /// When the connection has been idle for `idle`; `None` if a request is open.
    fn idle_at(&self, idle: Duration) -> Option<Instant> {
        (self.requests.count.load(Ordering::Acquire) == 0).then(|| self.after(&self.requests, idle))
    }

    /// When no reply was taken for `stall`; `None` if no reply waits.
    fn stalled_at(&self, stall: Duration) -> Option<Instant> {
        (self.replies.count.load(Ordering::Acquire) > 0).then(|| self.after(&self.replies, stall))
    }

    fn after(&self, gauge: &ActivityCount, time: Duration) -> Instant {
        self.began + Duration::from_millis(gauge.since.load(Ordering::Acquire)) + time
    }
}

fn taken(bytes: &AtomicUsize) -> usize {
    match bytes.load(Ordering::Relaxed) {
        0 => 0,
        _ => bytes.swap(0, Ordering::Relaxed),
    }
}

/// An open request.
#[derive(Debug)]
pub struct OpenRequest(Arc<Traffic>);

impl OpenRequest {
    /// The traffic of its connection.
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
    /// The preface did not arrive in time.
    Silent,
    /// No request was open for too long. Bytes that arrive just now are still read.
    Idle {
        /// True if the connection has used its extra time.
        is_extended: bool,
    },
    /// Replies wait, and the client takes none.
    Stalled,
}

/// Watches the timeouts of one connection.
pub(crate) struct Watchdog {
    timeouts: Timeouts,
    traffic: Arc<Traffic>,
    preface_left: usize,
    last_moment: bool,
    alarm: Pin<Box<Sleep>>,
    /// Runs while the client takes none of our bytes.
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

    /// Counts bytes that were received.
    pub(crate) fn heard(&mut self, bytes: usize) {
        if self.preface_left > 0 {
            self.preface_left = self.preface_left.saturating_sub(bytes);
            if self.preface_left == 0 {
                let next = self.next_check(Instant::now());
                self.alarm.as_mut().reset(next);
            }
        }
    }

    /// Gives bytes that arrived in the last moment time to become a request.
    pub(super) fn extend_idle(&mut self) {
        self.last_moment = true;
        self.alarm.as_mut().reset(Instant::now() + LAST_MOMENT);
    }

    /// Ready when the connection must end.
    pub(super) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<EndReason> {
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let now = Instant::now();
            if let Some(reason) = self.end_reason(now) {
                return Poll::Ready(reason);
            }
            self.last_moment = false;
            let next = self.next_check(now);
            self.alarm.as_mut().reset(next);
        }
    }

    fn end_reason(&self, now: Instant) -> Option<EndReason> {
        let has_come = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.preface_left > 0 {
            Some(EndReason::Silent)
        } else if has_come(self.traffic.stalled_at(self.timeouts.stall)) {
            Some(EndReason::Stalled)
        } else if has_come(self.traffic.idle_at(self.timeouts.idle)) {
            Some(EndReason::Idle { is_extended: self.last_moment })
        } else {
            None
        }
    }

    /// The earliest moment at which a timeout can have passed.
    fn next_check(&self, now: Instant) -> Instant {
        let Timeouts { idle, stall, .. } = self.timeouts;
        let known = [self.traffic.idle_at(idle), self.traffic.stalled_at(stall)];
        known.into_iter().flatten().fold(now + idle.min(stall), Instant::min)
    }

    /// Ready when the client took nothing for too long. It is polled whenever a write has to wait.
    pub(super) fn poll_unsent(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let stall = self.timeouts.stall;
        let alarm = self.unsent.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        alarm.as_mut().poll(context)
    }

    /// The client has taken bytes.
    pub(crate) fn sent(&mut self) {
        self.unsent = None;
    }
}
