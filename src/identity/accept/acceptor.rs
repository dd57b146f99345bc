//! The accept loop of one socket.
//!
//! tonic's own loop has no handshake deadline, no bound on unfinished handshakes and spins when the
//! process is out of file descriptors, so this one takes its place:
//!
//! ```text
//! slots → accept → limiter → SO_PEERCRED → a place in front → handshake, with a deadline → a place to share
//! ```
//!
//! On a socket of one, what is beyond a bound waits in the kernel's queue. Who has gone while it waited there takes no
//! slots: else whoever connects and closes, again and again, would keep a queue of thousands before the next good
//! client. On a socket of many everybody is accepted at once, and the loop waits for nobody's handshake: see
//! [`handshakes`](super::handshakes). A bad client ends its own connection only.

use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::CLIENT_LOG_LIMIT;
use super::admission::{Admission, AdmissionControl, PendingPeer};
use super::certificate_check::{self, CertificateCheck, OpenConnections};
use super::connection::{ConnectionHolds, Peer, PeerConnection};
use super::handshake_slots::PeerProcess;
use super::rate_limiter::{RateLimit, RateLimiter, ReadLimiter};
use super::refused::{ConnectionRefusal, RefusalCounter};
use super::timeouts::{Timeouts, Traffic};
use crate::identity::certificate::svid::Svid;
use crate::identity::tls::ServerTls;
use crate::metrics::LabelCounters;
use crate::model::limits::HANDSHAKE_DEADLINE;

/// How long to wait before accepting again when the system has no file descriptor to give: at first, and
/// at most when it goes on. Every socket with somebody before it tries, and there may be thousands.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How many who have gone are taken out of the queue a second, and at once. The queue has a few thousand places.
const GONE_RATE: RateLimit = RateLimit { per_second: 10_000, burst: 1_000 };

/// Whom a socket lets in, and how many.
pub struct ListenerConfig<T> {
    /// What the socket stands for; every connection carries it.
    pub tag: T,
    /// The only Unix user that may connect; any if there is none.
    pub uid: Option<u32>,
    /// Says whose certificates are accepted.
    pub certificate_check: CertificateCheck,
    /// Who comes, and how many may.
    pub admission: Admission,
    /// How long clients are waited for.
    pub timeouts: Timeouts,
    /// New connections.
    pub rate_limit: Option<RateLimit>,
    /// Ends the loop and every connection it made.
    pub stop: CancellationToken,
}

/// Makes connections out of what a socket accepts.
pub struct Acceptor<T> {
    /// The TLS settings.
    pub tls: Arc<ServerTls>,
    /// The door's connections.
    pub open: Arc<OpenConnections>,
    /// Where connections go.
    pub connections: mpsc::Sender<PeerConnection<T>>,
    /// Where handshakes are made, if not all where connections are served.
    pub handshakes: Option<Handshakes>,
    /// When the daemon drains, connections on which nothing was said yet end: there is nothing to finish.
    pub draining: CancellationToken,
    /// Where those who are not let in are counted.
    pub refused: Arc<LabelCounters>,
}

/// Where handshakes are made. They cost much, and thousands at once would keep everybody else waiting; but from one
/// thread to another and back takes a fifth of the time of a whole handshake. So a few at a time are made where
/// connections are served, and the others apart from it.
#[derive(Clone)]
pub struct Handshakes {
    here: Arc<Semaphore>,
    apart: Handle,
}

impl Handshakes {
    /// At most so many at a time where connections are served, and the others on this runtime.
    pub fn new(here: usize, apart: Handle) -> Self {
        Self { here: Arc::new(Semaphore::new(here)), apart }
    }

    /// Where to make the next one, and its place there.
    fn place(&self) -> (Handle, Option<OwnedSemaphorePermit>) {
        match Arc::clone(&self.here).try_acquire_owned() {
            Ok(place) => (Handle::current(), Some(place)),
            Err(_) => (self.apart.clone(), None),
        }
    }
}

impl<T: Clone + Send + Sync + 'static> Acceptor<T> {
    /// Accepts until the config's token or the receiver says stop.
    pub async fn run(self, listener: UnixListener, config: ListenerConfig<T>) {
        let stop = config.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.connections.closed() => {}
            () = self.accept(listener, &config) => {}
        }
    }

    async fn accept(&self, listener: UnixListener, config: &ListenerConfig<T>) {
        let admission = AdmissionControl::new(&config.admission);
        let (mut limiter, mut gone) =
            (config.rate_limit.map(RateLimiter::new), RateLimiter::new(GONE_RATE));
        let mut pause = OUT_OF_FILES_PAUSE;
        loop {
            let slots = admission.slots().await;
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if let Some(suppressed) = CLIENT_LOG_LIMIT.allow() {
                        tracing::warn!(%error, suppressed, "a connection cannot be accepted");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            pause = OUT_OF_FILES_PAUSE;
            let (has_spoken, has_gone) = look_at(&stream);
            if has_gone {
                self.refused().note(ConnectionRefusal::Gone, None);
                gone.keep().await;
                continue;
            }
            if let Some(limiter) = &mut limiter {
                limiter.keep().await;
            }
            match origin(&stream, config.uid) {
                Ok(origin) => match admission.admit(origin, has_spoken, slots) {
                    Ok(pending) => self.start_handshake((stream, origin.uid), config, pending),
                    Err(refusal) => self.refused().note(refusal, Some(origin.uid)),
                },
                Err((refusal, uid)) => self.refused().note(refusal, uid),
            }
        }
    }

    fn refused(&self) -> RefusalCounter {
        RefusalCounter(Arc::clone(&self.refused))
    }

    /// Hands a new connection over to a task of its own, for the handshake.
    fn start_handshake(
        &self,
        (stream, uid): (UnixStream, u32),
        config: &ListenerConfig<T>,
        pending: PendingPeer,
    ) {
        let refused = self.refused();
        let acceptor = TlsAcceptor::from(self.tls.settings());
        let (let_in, open) = (Arc::clone(&config.certificate_check), Arc::clone(&self.open));
        let (tag, timeouts, sender) =
            (config.tag.clone(), config.timeouts, self.connections.clone());
        let (stop, draining) = (config.stop.child_token(), self.draining.clone());
        let (runtime, place) = match &self.handshakes {
            Some(handshakes) => handshakes.place(),
            None => (Handle::current(), None),
        };
        runtime.spawn(async move {
            let done = handshake(&pending, stream, &acceptor, Arc::clone(&let_in), uid).await;
            drop(place);
            let admitted = done.and_then(|(stream, svid)| {
                let place = pending.complete(&svid).map_err(Failed::Refused)?;
                Ok((stream, svid, place))
            });
            let (stream, svid, place) = match admitted {
                Ok(admitted) => admitted,
                Err(Failed::Refused(refusal)) => return refused.note(refusal, Some(uid)),
                Err(Failed::Handshake(error)) => return refused.note_handshake(&error, uid),
            };
            let quota = Arc::clone(&place.quota);
            let reading = ReadLimiter::new(quota.limiter());
            let peer = Arc::new(Peer { svid, uid, tag, traffic: Traffic::begin(), quota });
            let asked = Arc::clone(&peer);
            let is_accepted = move || let_in(&asked.svid, asked.uid).is_ok();
            let booked = open.book(peer.svid.not_after, is_accepted.clone(), stop.clone());
            if !is_accepted() {
                return refused.note(ConnectionRefusal::NoIdentity, Some(uid));
            }
            let places = ConnectionHolds { _place: place, _booked: booked };
            let ends = (stop, draining);
            let connection = PeerConnection::new(stream, peer, timeouts, reading, ends, places);
            let _ = sender.send(connection).await;
        });
    }
}

/// Why nobody comes in.
enum Failed {
    Handshake(std::io::Error),
    Refused(ConnectionRefusal),
}

/// Makes the handshake, unless it takes too long, or somebody else needs the place.
async fn handshake(
    pending: &PendingPeer,
    stream: UnixStream,
    acceptor: &TlsAcceptor,
    let_in: CertificateCheck,
    uid: u32,
) -> Result<(TlsStream<UnixStream>, Svid), Failed> {
    let made = async {
        // A new socket counts as readable until somebody has looked.
        let has_spoken = || match look_at(&stream) {
            (true, _) => Ok(()),
            (false, _) => Err(std::io::ErrorKind::WouldBlock.into()),
        };
        stream.async_io(Interest::READABLE, has_spoken).await?;
        pending.speak();
        certificate_check::asking(let_in, uid, acceptor.accept(stream)).await
    };
    let done = tokio::select! {
        done = tokio::time::timeout(HANDSHAKE_DEADLINE, made) => done,
        () = pending.evicted() => return Err(Failed::Refused(ConnectionRefusal::GaveWay)),
    };
    match done {
        Ok(Ok((stream, Some(svid)))) => Ok((stream, svid)),
        Ok(Ok((_, None))) => Err(Failed::Refused(ConnectionRefusal::NoIdentity)),
        Ok(Err(error)) => Err(Failed::Handshake(error)),
        Err(_) => Err(Failed::Refused(ConnectionRefusal::Slow)),
    }
}

/// Whether the other end has said something, and whether it is closed.
fn look_at(stream: &UnixStream) -> (bool, bool) {
    let mut asked = [PollFd::new(stream, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_told = poll(&mut asked, Some(&now)).is_ok_and(|count| count > 0);
    let told = |flag| is_told && asked.iter().any(|asked| asked.revents().contains(flag));
    (told(PollFlags::IN), told(PollFlags::HUP))
}

/// Whose connection it is, if it is of this user, or of any if none is named.
fn origin(
    stream: &UnixStream,
    expected: Option<u32>,
) -> Result<PeerProcess, (ConnectionRefusal, Option<u32>)> {
    let credentials = stream.peer_cred().map_err(|_| (ConnectionRefusal::NoCredentials, None))?;
    let uid = credentials.uid();
    match expected {
        Some(expected) if expected != uid => Err((ConnectionRefusal::OtherUser, Some(uid))),
        _ => Ok(PeerProcess { uid, process: credentials.pid().unwrap_or_default() }),
    }
}
