//! The accept loop of one socket.
//!
//! tonic's own loop has no handshake deadline, no bound on unfinished handshakes and spins when the
//! process is out of file descriptors, so this one takes its place:
//!
//! ```text
//! permit (connections) → permit (handshakes) → pace → accept → SO_PEERCRED → handshake, with a deadline
//! ```
//!
//! What is beyond a bound waits in the kernel's queue. A bad client ends its own connection only.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::svid::Svid;
use super::tls::Door;
use crate::model::TrustDomain;
use crate::model::limits::{HANDSHAKE_DEADLINE, Rate};

/// How long to wait before accepting again when the system has no file descriptor to give.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end, verified.
#[derive(Debug)]
pub struct Peer<T> {
    /// What its certificate says.
    pub svid: Svid,
    /// Its Unix user, as the kernel saw it when it connected.
    pub uid: u32,
    /// What the socket stands for.
    pub tag: T,
}

/// Whom a socket lets in, and how many.
pub struct Gate<T> {
    /// What the socket stands for; every connection carries it.
    pub tag: T,
    /// The only Unix user that may connect; any if there is none.
    pub uid: Option<u32>,
    /// Connections at a time.
    pub connections: u32,
    /// Unfinished handshakes at a time.
    pub pending_handshakes: u32,
    /// Unfinished handshakes at a time of users who are neither root nor the daemon's own, where not all are
    /// alike; beyond it they are turned away, so that they take nobody's turn.
    pub guests: Option<u32>,
    /// New connections a second, and how many at once.
    pub pace: Option<(u32, u32)>,
    /// Ends the loop and every connection it made.
    pub stop: CancellationToken,
}

/// Makes connections out of what a socket accepts.
pub struct Acceptor<T> {
    /// The TLS settings.
    pub door: Arc<Door>,
    /// The trust domain of the identities.
    pub domain: TrustDomain,
    /// Where connections go.
    pub connections: mpsc::Sender<Connection<T>>,
    /// When the daemon drains, connections on which nothing was said yet end: there is nothing to finish.
    pub draining: CancellationToken,
}

impl<T: Clone + Send + Sync + 'static> Acceptor<T> {
    /// Accepts until the gate's token or the receiver says stop.
    pub async fn run(self, listener: UnixListener, gate: Gate<T>) {
        let stop = gate.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.connections.closed() => {}
            () = self.accept(listener, &gate) => {}
        }
    }

    async fn accept(&self, listener: UnixListener, gate: &Gate<T>) {
        let connections = Arc::new(Semaphore::new(gate.connections as usize));
        let handshakes = Arc::new(Semaphore::new(gate.pending_handshakes as usize));
        let guests = gate.guests.map(|most| Arc::new(Semaphore::new(most as usize)));
        let started = Instant::now();
        let mut rate = Rate::default();
        loop {
            let permits = (
                Arc::clone(&connections).acquire_owned().await,
                Arc::clone(&handshakes).acquire_owned().await,
            );
            // The semaphores are never closed.
            let (Ok(connection), Ok(handshake)) = permits else { return };
            if let Some((per_second, burst)) = gate.pace {
                let millis = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
                if let Err(wait) = rate.take(millis, per_second, burst) {
                    tokio::time::sleep(wait).await;
                }
            }
            match listener.accept().await {
                Ok((stream, _)) => {
                    let permits = (connection, handshake);
                    self.greet(stream, gate, permits, guests.as_ref());
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(OUT_OF_FILES_PAUSE).await;
                }
            }
        }
    }

    /// Hands a new connection over to a task of its own, for the handshake.
    fn greet(
        &self,
        stream: UnixStream,
        gate: &Gate<T>,
        (connection, handshake): (OwnedSemaphorePermit, OwnedSemaphorePermit),
        guests: Option<&Arc<Semaphore>>,
    ) {
        let Some((uid, guest)) = admit(&stream, gate, guests) else { return };
        let acceptor = TlsAcceptor::from(self.door.settings());
        let (domain, sender) = (self.domain.clone(), self.connections.clone());
        let (tag, stop) = (gate.tag.clone(), gate.stop.clone());
        let draining = self.draining.clone();
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await;
            drop((handshake, guest));
            let stream = match shaken {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return log_refused_handshake(&error, uid),
                Err(_) => return log_turned_away(uid, "a handshake took too long"),
            };
            let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let Some(Ok(svid)) = leaf.map(|leaf| Svid::parse(leaf, &domain)) else {
                return log_turned_away(uid, "a handshake without an identity was dropped");
            };
            let connection = Connection {
                stream,
                peer: Arc::new(Peer { svid, uid, tag }),
                stopped: Box::pin(stop.cancelled_owned()),
                silent: Some(Box::pin(draining.cancelled_owned())),
                _permit: connection,
            };
            let _ = sender.send(connection).await;
        });
    }
}

/// Whose connection it is, and its place among the guests if it is one's; none if it is to be turned away.
fn admit<T>(
    stream: &UnixStream,
    gate: &Gate<T>,
    guests: Option<&Arc<Semaphore>>,
) -> Option<(u32, Option<OwnedSemaphorePermit>)> {
    let uid = match stream.peer_cred() {
        Ok(credentials) => credentials.uid(),
        Err(error) => {
            tracing::warn!(%error, "a peer without credentials was turned away");
            return None;
        }
    };
    if gate.uid.is_some_and(|expected| expected != uid) {
        log_turned_away(uid, "a peer of another user was turned away");
        return None;
    }
    let Some(guests) = guests.filter(|_| !is_at_home(uid)) else { return Some((uid, None)) };
    let Ok(guest) = Arc::clone(guests).try_acquire_owned() else {
        log_turned_away(uid, "a peer was turned away: too many of its like are at the door");
        return None;
    };
    Some((uid, Some(guest)))
}

/// Says so, with how much of the like was not said since the last time.
fn log_turned_away(uid: u32, what: &str) {
    if let Some(unsaid) = quiet::next() {
        tracing::warn!(peer.uid = uid, unsaid, "{what}");
    }
}

/// Whether a user is root, or the daemon's own.
fn is_at_home(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// What strangers can have said in the log, as often as they like, is said ten times a second at most.
mod quiet {
    use parking_lot::Mutex;
    use tokio::time::{Duration, Instant};

    const A_SECOND: u32 = 10;

    struct Said {
        since: Option<Instant>,
        times: u32,
        unsaid: u64,
    }

    static SAID: Mutex<Said> = Mutex::new(Said { since: None, times: 0, unsaid: 0 });

    /// Whether something more may be said, and how much was not since the last time.
    pub(super) fn next() -> Option<u64> {
        let mut said = SAID.lock();
        let now = Instant::now();
        if said.since.is_none_or(|since| now - since >= Duration::from_secs(1)) {
            (said.since, said.times) = (Some(now), 0);
        }
        if said.times < A_SECOND {
            said.times += 1;
            return Some(std::mem::take(&mut said.unsaid));
        }
        said.unsaid += 1;
        None
    }
}

fn log_refused_handshake(error: &io::Error, uid: u32) {
    let Some(unsaid) = quiet::next() else { return };
    let text = error.to_string();
    if text.contains("ServerNameMustContainOneHostName") || text.contains("Illegal SNI") {
        tracing::warn!(
            peer.uid = uid,
            unsaid,
            "a handshake was refused: the client sent a server name that is no host name, as Python's \
             grpcio does over unix sockets; set its option grpc.default_authority to localhost"
        );
    } else {
        tracing::info!(peer.uid = uid, error = %text, unsaid, "a handshake was refused");
    }
}

/// One verified connection. It reads as ended once its gate is stopped; before its first byte, also when
/// the daemon drains.
pub struct Connection<T> {
    stream: TlsStream<UnixStream>,
    peer: Arc<Peer<T>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    silent: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _permit: OwnedSemaphorePermit,
}

impl<T> Connection<T> {
    /// Who is at the other end.
    pub fn peer(&self) -> &Arc<Peer<T>> {
        &self.peer
    }
}

impl<T> AsyncRead for Connection<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.stopped.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if let Some(draining) = &mut this.silent
            && draining.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        this.silent = None;
        Poll::Ready(Ok(()))
    }
}

impl<T> AsyncWrite for Connection<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        Poll::Ready(Ok(()))
    }
}
