//! One verified connection, and when it ends by itself.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::admission::ConnectionSlot;
use super::certificate_check::TrackedConnection;
use super::quota::PeerQuota;
use super::rate_limiter::ReadLimiter;
use super::refused::{Refusals, address_of};
use super::timeouts::{EndReason, Timeouts, Traffic, Watchdog};
use crate::identity::certificate::svid::Svid;
use crate::identity::socket::{Origin, Socket};

/// The verified peer of a connection.
#[derive(Debug)]
pub struct Peer<T> {
    /// The identity in its certificate.
    pub svid: Svid,
    /// Where it is.
    pub origin: Origin,
    /// The purpose of the socket, for example an opening.
    pub tag: T,
    /// The open requests and unsent replies of this connection.
    pub traffic: Arc<Traffic>,
    /// The quota of the peer, over all of its connections.
    pub quota: Arc<PeerQuota>,
}

/// The parts of the bounds that a connection holds until it ends.
pub(crate) struct ConnectionHolds {
    /// Its slot among the connections.
    pub(crate) _slot: ConnectionSlot,
    /// Its entry among the tracked connections.
    pub(super) _tracked: TrackedConnection,
    /// The log of its door.
    pub(super) refused: Arc<Refusals>,
}

/// The most bytes that are written before they are sent: one TLS record.
const UNSENT_BYTES: usize = 16 * 1024;

/// For how many sends a connection counts as crowded after it had several requests open. Waiting for a turn costs a
/// connection with one request more than it saves.
const CROWDED_SENDS: u8 = 32;

/// One verified connection. It reads as ended when it or its listener is stopped, and when a timeout has passed; before
/// its first byte also when the daemon drains.
///
/// Bytes that are written in one turn are sent together. HTTP/2 flushes after each reply and again after its trailers.
/// Each flush would be a write(2) of its own, two for a warm Resolve.
pub struct PeerConnection<T> {
    stream: TlsStream<Socket>,
    peer: Arc<Peer<T>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    silent: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    watchdog: Watchdog,
    reading: ReadLimiter,
    /// Bytes written that may not be sent yet.
    unsent: usize,
    /// True if the client takes no more bytes at the moment.
    is_blocked: bool,
    /// The sends for which the connection still counts as crowded.
    crowded: u8,
    holds: ConnectionHolds,
}

impl<T> PeerConnection<T> {
    pub(crate) fn new(
        stream: TlsStream<Socket>,
        peer: Arc<Peer<T>>,
        timeouts: Timeouts,
        reading: ReadLimiter,
        (stop, draining): (CancellationToken, CancellationToken),
        holds: ConnectionHolds,
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
            holds,
        }
    }

    /// The peer of the connection.
    pub fn peer(&self) -> &Arc<Peer<T>> {
        &self.peer
    }

    /// Sends the written bytes.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.stream).poll_flush(context);
        self.is_blocked = sent.is_pending();
        if sent.is_ready() {
            self.unsent = 0;
            self.crowded = self.crowded.saturating_sub(1);
        }
        self.fail_if_stalled(context, sent)
    }

    /// Returns a finished write, or fails with `TimedOut` if the client takes nothing for too long.
    fn fail_if_stalled<R>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.watchdog.sent();
            return written;
        }
        ready!(self.watchdog.poll_unsent(context));
        self.log_disconnected("it reads nothing");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn log_disconnected(&self, why: &str) {
        if let Some(suppressed) = self.holds.refused.log.allow() {
            tracing::warn!(
                peer.uid = self.peer.origin.uid(),
                peer.address = address_of(Some(self.peer.origin)),
                suppressed,
                "a client was disconnected: {why}"
            );
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
        let is_idle = match this.watchdog.poll_end(context) {
            Poll::Pending => false,
            Poll::Ready(EndReason::Idle { is_extended: false }) => true,
            Poll::Ready(reason) => {
                match reason {
                    EndReason::Silent => this.log_disconnected("it sent no HTTP/2 preface"),
                    EndReason::Stalled => this.log_disconnected("it takes no reply"),
                    EndReason::Idle { .. } => {}
                }
                return Poll::Ready(Ok(()));
            }
        };
        this.reading.read(this.peer.traffic.take_penalties());
        this.reading.credit(this.peer.traffic.take_credits());
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
            this.watchdog.extend_idle();
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

    /// On a crowded connection with an open request, written bytes are sent at the next [`PeerConnection::poll_read`],
    /// after other tasks had their turn. A blocked client is an exception: waking this task again and again would spin.
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
        this.fail_if_stalled(context, shut)
    }
}
