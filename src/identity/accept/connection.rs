//! One verified connection, and when it ends by itself.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::CLIENT_LOG_LIMIT;
use super::admission::ConnectionSlot;
use super::certificate_check::TrackedConnection;
use super::quota::PeerQuota;
use super::rate_limiter::ReadLimiter;
use super::timeouts::{EndReason, Timeouts, Traffic, Watchdog};
use crate::identity::certificate::svid::Svid;

/// Who is at the other end, verified.
#[derive(Debug)]
pub struct Peer<T> {
    /// What its certificate says.
    pub svid: Svid,
    /// Its Unix user, as the kernel saw it when it connected.
    pub uid: u32,
    /// What the socket stands for.
    pub tag: T,
    /// What goes on on this connection.
    pub traffic: Arc<Traffic>,
    /// What it holds, and may hold.
    pub quota: Arc<PeerQuota>,
}

/// What a connection holds for as long as it lasts.
pub(crate) struct ConnectionHolds {
    /// Among the connections.
    pub(crate) _place: ConnectionSlot,
    /// In the book of the door.
    pub(super) _booked: TrackedConnection,
}

/// What is written without being sent, in bytes: as much as one TLS record holds.
const UNSENT_BYTES: usize = 16 * 1024;

/// For how many sends a connection that had several requests open counts as one that has them. To wait for a turn costs
/// one that has a single request more than it saves.
const CROWDED_SENDS: u8 = 32;

/// One verified connection. It reads as ended once it or its config is stopped, and when the timeouts with it is over; before its
/// first byte, also when the daemon drains.
///
/// What is said on it at one moment is sent at once: HTTP/2 flushes after every reply, and again after its trailers, and
/// each would be a write(2) of its own, of which a warm Resolve had two.
pub struct PeerConnection<T> {
    stream: TlsStream<UnixStream>,
    peer: Arc<Peer<T>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    silent: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    watchdog: Watchdog,
    reading: ReadLimiter,
    /// How much was written that may not be on its way, in bytes.
    unsent: usize,
    /// Whether the other end has no room for it.
    is_blocked: bool,
    /// For how many sends it still counts as one with several requests at a time.
    crowded: u8,
    _places: ConnectionHolds,
}

impl<T> PeerConnection<T> {
    pub(crate) fn new(
        stream: TlsStream<UnixStream>,
        peer: Arc<Peer<T>>,
        timeouts: Timeouts,
        reading: ReadLimiter,
        (stop, draining): (CancellationToken, CancellationToken),
        places: ConnectionHolds,
    ) -> Self {
        Self {
            stream,
            watchdog: Watchdog::new(timeouts, Arc::clone(&peer.traffic)),
            peer,
            stopped: Box::pin(stop.cancelled_owned()),
            silent: Some(Box::pin(draining.cancelled_owned())),
            reading,
            unsent: 0,
            is_blocked: false,
            crowded: 0,
            _places: places,
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Arc<Peer<T>> {
        &self.peer
    }

    /// Sends what was written.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.stream).poll_flush(context);
        self.is_blocked = sent.is_pending();
        if sent.is_ready() {
            self.unsent = 0;
            self.crowded = self.crowded.saturating_sub(1);
        }
        self.or_stalled(context, sent)
    }

    /// What a write has come to, unless it has waited for too long.
    fn or_stalled<R>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.watchdog.sent();
            return written;
        }
        ready!(self.watchdog.poll_unsent(context));
        self.log_cut_off("a client was cut off: it takes nothing of what it is sent");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn log_cut_off(&self, what: &str) {
        if let Some(suppressed) = CLIENT_LOG_LIMIT.allow() {
            tracing::warn!(peer.uid = self.peer.uid, suppressed, "{what}");
        }
    }
}

impl<T> AsyncRead for PeerConnection<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unsent > 0
            && let Poll::Ready(Err(error)) = this.poll_send(context)
        {
            return Poll::Ready(Err(error));
        }
        if this.stopped.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if let Some(draining) = &mut this.silent
            && draining.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Ok(()));
        }
        let is_idle = match this.watchdog.poll_over(context) {
            Poll::Pending => false,
            Poll::Ready(EndReason::Idle { finally: false }) => true,
            Poll::Ready(over) => {
                match over {
                    EndReason::Silent => {
                        this.log_cut_off("a client was cut off: it said no preface")
                    }
                    EndReason::Stalled => {
                        this.log_cut_off("a client was cut off: it takes no reply")
                    }
                    EndReason::Idle { .. } => {}
                }
                return Poll::Ready(Ok(()));
            }
        };
        this.reading.read(this.peer.traffic.take_penalties());
        ready!(this.reading.poll_turn(context));
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Ready(read) => read?,
            Poll::Pending if is_idle => return Poll::Ready(Ok(())),
            Poll::Pending => return Poll::Pending,
        }
        this.silent = None;
        let read = buffer.filled().len() - before;
        this.reading.read(read);
        this.watchdog.heard(read);
        if is_idle {
            this.watchdog.wait_a_moment();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T> AsyncWrite for PeerConnection<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.unsent >= UNSENT_BYTES {
            ready!(this.poll_send(context))?;
        }
        let written = this.stream.get_mut().1.writer().write_vectored(slices)?;
        this.unsent += written;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// While a request is open, on a connection that has several at a time, what was written goes when those that are
    /// ready to say something had their turn: at the next [`PeerConnection::poll_read`]. Not while the other end has no room:
    /// who asks for another turn then, gets one after the other for nothing.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let open = this.peer.traffic.open_requests();
        if open > 1 {
            this.crowded = CROWDED_SENDS;
        }
        if this.is_blocked || open == 0 || this.crowded == 0 {
            return this.poll_send(context);
        }
        if this.unsent > 0 {
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        let shut = Pin::new(&mut this.stream).poll_shutdown(context);
        this.or_stalled(context, shut)
    }
}
