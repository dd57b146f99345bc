//! The accept loop of one socket.
//!
//! tonic's own loop has no handshake deadline and no bound on unfinished handshakes, and it spins when the process is
//! out of file descriptors. This loop replaces it:
//!
//! ```text
//! listener slots → accept → rate limit → SO_PEERCRED → handshake slot → handshake, with a deadline → connection quota
//! ```
//!
//! Over TCP the peer's address takes the place of SO_PEERCRED.
//!
//! On the socket of one step, connections over a bound wait in the kernel's queue. Clients that disconnected while
//! queued are skipped, so connect-and-close loops cannot delay others. On the admin socket and over TCP every
//! connection is accepted at once, and the loop waits for no handshake: see [`handshake_slots`](super::handshake_slots)
//! and [`network_slots`](super::network_slots). A bad client ends its own connection only.

use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, PendingPeer};
use super::certificate_check::{self, CertificateCheck, OpenConnections};
use super::connection::{ConnectionHolds, Peer, PeerConnection};
use super::listener::{Listener, Newcomer};
use super::rate_limiter::{RateLimiter, ReadLimiter};
use super::refused::{ConnectionRefusal, Refusals};
use super::timeouts::{Timeouts, Traffic};
use crate::identity::certificate::svid::Svid;
use crate::identity::socket::{Origin, Socket};
use crate::identity::tls::ServerTls;
use crate::model::limits::HANDSHAKE_DEADLINE;
use crate::model::{LogLimit, RateLimit, SpiffeId};

/// The first and the longest pause before the next accept when no file descriptor is free. Thousands of sockets may
/// retry at a time.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How fast disconnected clients are taken out of the kernel's queue, which holds a few thousand.
const GONE_RATE: RateLimit = RateLimit { per_second: 10_000, burst: 1_000 };

/// The peers and the number of connections that a socket accepts.
pub struct ListenerConfig<T> {
    /// The purpose of the socket, for example an opening. Every connection carries it.
    pub tag: T,
    /// The only Unix user that may connect; `None` for any user.
    pub uid: Option<u32>,
    /// Decides whether a certificate is accepted.
    pub certificate_check: CertificateCheck,
    /// How many handshakes and connections there may be.
    pub admission: Admission,
    /// How long the socket waits for its clients.
    pub timeouts: Timeouts,
    /// The rate of new connections; `None` for no limit.
    pub rate_limit: Option<RateLimit>,
    /// Ends the loop and every connection that it accepted.
    pub stop: CancellationToken,
}

/// Turns accepted sockets into verified connections.
pub struct Acceptor<T> {
    /// The TLS settings.
    pub tls: Arc<ServerTls>,
    /// The open connections of this door.
    pub open: Arc<OpenConnections>,
    /// Receives every verified connection.
    pub connections: mpsc::Sender<PeerConnection<T>>,
    /// The threads for handshakes; `None` to run them all on the threads that serve connections.
    pub handshakes: Option<Handshakes>,
    /// Cancelled when the daemon drains. Connections on which no byte was received then end at once.
    pub draining: CancellationToken,
    /// Counts and logs refused connections.
    pub refused: Arc<Refusals>,
}

/// The threads on which handshakes run.
///
/// A few at a time run on the threads that serve connections, the others on a runtime of their own. Thousands of
/// handshakes would delay all requests, but a change of threads costs a fifth of a handshake.
#[derive(Clone)]
pub struct Handshakes {
    here: Arc<Semaphore>,
    apart: Handle,
}

impl Handshakes {
    /// Runs at most `here` handshakes at a time on the serving threads, and the others on the runtime `apart`.
    pub fn new(here: usize, apart: Handle) -> Self {
        Self { here: Arc::new(Semaphore::new(here)), apart }
    }

    /// The runtime of the next handshake, and its permit if it runs on a serving thread.
    fn choose(&self) -> (Handle, Option<OwnedSemaphorePermit>) {
        match Arc::clone(&self.here).try_acquire_owned() {
            Ok(permit) => (Handle::current(), Some(permit)),
            Err(_) => (self.apart.clone(), None),
        }
    }
}

impl<T: Clone + Send + Sync + 'static> Acceptor<T> {
    /// Accepts until `config.stop` is cancelled or the receiver of connections is dropped.
    pub async fn run(&self, listener: impl Into<Listener>, config: ListenerConfig<T>) {
        let (listener, stop) = (listener.into(), config.stop.clone());
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.connections.closed() => {}
            () = self.accept(listener, &config) => {}
        }
    }

    async fn accept(&self, listener: Listener, config: &ListenerConfig<T>) {
        let (mut limiter, mut gone) =
            (config.rate_limit.map(RateLimiter::new), RateLimiter::new(GONE_RATE));
        let mut pause = OUT_OF_FILES_PAUSE;
        loop {
            let slots = config.admission.slots().await;
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(suppressed) = self.refused.log.allow() {
                        tracing::warn!(%error, suppressed, "a connection cannot be accepted");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            pause = OUT_OF_FILES_PAUSE;
            let (has_spoken, has_gone) = poll_peer(&stream);
            if has_gone {
                self.refused.note(ConnectionRefusal::Gone, None);
                gone.wait().await;
                continue;
            }
            if let Some(limiter) = &mut limiter {
                limiter.wait().await;
            }
            match Newcomer::of(&stream, address, config.uid) {
                Ok(newcomer) => match config.admission.admit(newcomer, has_spoken, slots) {
                    Ok(pending) => {
                        self.start_handshake((stream, newcomer.origin()), config, pending);
                    }
                    Err(refusal) => self.refused.note(refusal, Some(newcomer.origin())),
                },
                Err((refusal, origin)) => self.refused.note(refusal, origin),
            }
        }
    }

    /// Starts a task for the handshake of a new connection.
    fn start_handshake(
        &self,
        (stream, origin): (Socket, Origin),
        config: &ListenerConfig<T>,
        pending: PendingPeer,
    ) {
        let refused = Arc::clone(&self.refused);
        let acceptor = TlsAcceptor::from(self.tls.settings());
        let (check, open) = (Arc::clone(&config.certificate_check), Arc::clone(&self.open));
        let (tag, timeouts, sender) =
            (config.tag.clone(), config.timeouts, self.connections.clone());
        let (stop, draining) = (config.stop.child_token(), self.draining.clone());
        let (runtime, permit) = match &self.handshakes {
            Some(handshakes) => handshakes.choose(),
            None => (Handle::current(), None),
        };
        runtime.spawn(async move {
            let done = handshake(&pending, stream, &acceptor, Arc::clone(&check), origin).await;
            drop(permit);
            let admitted = done.and_then(|(stream, svid)| {
                let slot = pending.complete(&svid).map_err(Failed::Refused)?;
                Ok((stream, svid, slot))
            });
            let (stream, svid, slot) = match admitted {
                Ok(admitted) => admitted,
                Err(Failed::Refused(refusal)) => return refused.note(refusal, Some(origin)),
                Err(Failed::Handshake(error)) => return refused.note_handshake(&error, origin),
            };
            let quota = Arc::clone(&slot.quota);
            let reading = ReadLimiter::new(quota.read_limiter());
            let peer = Arc::new(Peer { svid, origin, tag, traffic: Traffic::begin(), quota });
            let checked = Arc::clone(&peer);
            let is_accepted = move || check(&checked.svid, checked.origin).is_ok();
            let tracked = open.track(peer.svid.not_after, is_accepted.clone(), stop.clone());
            if !is_accepted() {
                return refused.note(ConnectionRefusal::NoIdentity, Some(origin));
            }
            note_remote(&refused.log, &peer.svid, origin);
            let holds = ConnectionHolds { _slot: slot, _tracked: tracked, refused };
            let ends = (stop, draining);
            let connection = PeerConnection::new(stream, peer, timeouts, reading, ends, holds);
            let _ = sender.send(connection).await;
        });
    }
}

/// Logs from where an operator has connected over TCP.
fn note_remote(log: &LogLimit, svid: &Svid, origin: Origin) {
    if let (Some(address), SpiffeId::Operator(name)) = (origin.address(), &svid.id)
        && let Some(suppressed) = log.allow()
    {
        tracing::info!(peer.address = %address, operator = %name, suppressed, "connected over TCP");
    }
}

/// Why a connection is not served.
enum Failed {
    Handshake(std::io::Error),
    Refused(ConnectionRefusal),
}

/// Runs the handshake within its deadline. It is aborted if its slot goes to another client.
async fn handshake(
    pending: &PendingPeer,
    stream: Socket,
    acceptor: &TlsAcceptor,
    check: CertificateCheck,
    origin: Origin,
) -> Result<(TlsStream<Socket>, Svid), Failed> {
    let made = async {
        // tokio reports a new socket as readable until the first attempt to read.
        let has_spoken = || match poll_peer(&stream) {
            (true, _) => Ok(()),
            (false, _) => Err(std::io::ErrorKind::WouldBlock.into()),
        };
        stream.when_readable(has_spoken).await?;
        pending.speak();
        certificate_check::run_checked(check, origin, acceptor.accept(stream)).await
    };
    let done = tokio::select! {
        done = tokio::time::timeout(HANDSHAKE_DEADLINE, made) => done,
        () = pending.evicted() => return Err(Failed::Refused(ConnectionRefusal::Evicted)),
    };
    match done {
        Ok(Ok((stream, Some(svid)))) => Ok((stream, svid)),
        Ok(Ok((_, None))) => Err(Failed::Refused(ConnectionRefusal::NoIdentity)),
        Ok(Err(error)) => Err(Failed::Handshake(error)),
        Err(_) => Err(Failed::Refused(ConnectionRefusal::Slow)),
    }
}

/// Whether the client has sent bytes, and whether it has disconnected.
fn poll_peer(stream: &Socket) -> (bool, bool) {
    let mut asked = [PollFd::new(stream, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_ready = poll(&mut asked, Some(&now)).is_ok_and(|count| count > 0);
    let has = |flag| is_ready && asked.iter().any(|asked| asked.revents().contains(flag));
    (has(PollFlags::IN), has(PollFlags::HUP))
}
