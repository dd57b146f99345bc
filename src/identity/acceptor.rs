//! The accept loop of one socket.
//!
//! tonic's own loop has no handshake deadline, no bound on unfinished handshakes and spins when the
//! process is out of file descriptors, so this one takes its place:
//!
//! ```text
//! permit (connections) → permit (handshakes) → accept → pace → SO_PEERCRED → handshake, with a deadline
//! ```
//!
//! What is beyond a bound waits in the kernel's queue. Who has gone while it waited there takes no turn: else
//! whoever connects and closes, again and again, would keep a queue of thousands before the next good client. A
//! bad client ends its own connection only.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Peer, Places};
use super::guests::{Guest, GuestLimits, Guests};
use super::pace::{Pace, PaceLimits, Reading};
use super::patience::{Patience, Traffic};
use super::pins::{self, LetIn, OpenConnections};
use super::quiet;
use super::refused::{Refusal, Refused};
use super::tls::Door;
use crate::metrics::Tally;
use crate::model::limits::HANDSHAKE_DEADLINE;

/// How long to wait before accepting again when the system has no file descriptor to give: at first, and
/// at most when it goes on. Every socket with somebody before it tries, and there may be thousands.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How many who have gone are taken out of the queue a second, and at once. The queue has a few thousand places.
const GONE_PACE: PaceLimits = PaceLimits { per_second: 10_000, burst: 1_000 };

/// Whom a socket lets in, and how many.
pub struct Gate<T> {
    /// What the socket stands for; every connection carries it.
    pub tag: T,
    /// The only Unix user that may connect; any if there is none.
    pub uid: Option<u32>,
    /// Says whose certificates are accepted.
    pub let_in: LetIn,
    /// Connections at a time.
    pub connections: u32,
    /// Unfinished handshakes at a time.
    pub pending_handshakes: u32,
    /// Connections at a time of all sockets like this one, so that file descriptors are left for others;
    /// beyond it a peer is turned away.
    pub files: Option<Arc<Semaphore>>,
    /// Requests in flight at a time, on all connections together.
    pub requests: u32,
    /// What users may do who are neither root nor the daemon's own, where not all are alike.
    pub guests: Option<GuestLimits>,
    /// How long clients are waited for.
    pub patience: Patience,
    /// New connections.
    pub pace: Option<PaceLimits>,
    /// What is read of all connections together, in pieces of [`PIECE_BYTES`](super::PIECE_BYTES).
    pub reading: Option<PaceLimits>,
    /// Ends the loop and every connection it made.
    pub stop: CancellationToken,
}

/// Makes connections out of what a socket accepts.
pub struct Acceptor<T> {
    /// The TLS settings.
    pub door: Arc<Door>,
    /// The door's connections.
    pub open: Arc<OpenConnections>,
    /// Where connections go.
    pub connections: mpsc::Sender<Connection<T>>,
    /// Where handshakes are made, if not all where connections are served.
    pub handshakes: Option<Handshakes>,
    /// When the daemon drains, connections on which nothing was said yet end: there is nothing to finish.
    pub draining: CancellationToken,
    /// Where those who are not let in are counted.
    pub refused: Arc<Tally>,
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
        let entrance = Entrance::new(gate);
        let (mut pace, mut gone) = (gate.pace.map(Pace::new), Pace::new(GONE_PACE));
        let mut pause = OUT_OF_FILES_PAUSE;
        loop {
            let permits = (
                Arc::clone(&entrance.connections).acquire_owned().await,
                Arc::clone(&entrance.handshakes).acquire_owned().await,
            );
            // The semaphores are never closed.
            let (Ok(connection), Ok(handshake)) = permits else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if let Some(unsaid) = quiet::next() {
                        tracing::warn!(%error, unsaid, "a connection cannot be accepted");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            pause = OUT_OF_FILES_PAUSE;
            if has_gone(&stream) {
                self.refused().note(Refusal::Gone, None);
                gone.keep().await;
                continue;
            }
            if let Some(pace) = &mut pace {
                pace.keep().await;
            }
            self.greet(stream, gate, &entrance, (connection, handshake));
        }
    }

    fn refused(&self) -> Refused {
        Refused(Arc::clone(&self.refused))
    }

    /// Hands a new connection over to a task of its own, for the handshake.
    fn greet(
        &self,
        stream: UnixStream,
        gate: &Gate<T>,
        entrance: &Entrance,
        (connection, handshake): (OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) {
        let refused = self.refused();
        let (uid, guest) = match admit(&stream, gate, entrance) {
            Ok(admitted) => admitted,
            Err((refusal, uid)) => return refused.note(refusal, uid),
        };
        // After it was accepted: a socket before which nobody stands must hold no place.
        let files = gate.files.as_ref().map(|files| Arc::clone(files).try_acquire_owned());
        let Ok(files) = files.transpose() else {
            return refused.note(Refusal::TooMany, Some(uid));
        };
        let (pending, stay) = guest.map(|Guest { pending, stay }| (pending, stay)).unzip();
        let reading = Reading::new(entrance.reading.clone());
        let acceptor = TlsAcceptor::from(self.door.settings());
        let (let_in, open) = (Arc::clone(&gate.let_in), Arc::clone(&self.open));
        let (tag, requests) = (gate.tag.clone(), Arc::clone(&entrance.requests));
        let (patience, sender) = (gate.patience, self.connections.clone());
        let (stop, draining) = (gate.stop.child_token(), self.draining.clone());
        let (runtime, place) = match &self.handshakes {
            Some(handshakes) => handshakes.place(),
            None => (Handle::current(), None),
        };
        runtime.spawn(async move {
            let shaking = pins::asking(Arc::clone(&let_in), uid, acceptor.accept(stream));
            let shaken = tokio::time::timeout(HANDSHAKE_DEADLINE, shaking).await;
            drop((handshake, pending, place));
            let (stream, svid) = match shaken {
                Ok(Ok((stream, Some(svid)))) => (stream, svid),
                Ok(Ok((_, None))) => return refused.note(Refusal::NoIdentity, Some(uid)),
                Ok(Err(error)) => return refused.note_handshake(&error, uid),
                Err(_) => return refused.note(Refusal::Slow, Some(uid)),
            };
            let peer = Arc::new(Peer { svid, uid, tag, traffic: Traffic::begin(), requests });
            let asked = Arc::clone(&peer);
            let is_accepted = move || let_in(&asked.svid, asked.uid).is_ok();
            let booked = open.book(peer.svid.not_after, is_accepted.clone(), stop.clone());
            if !is_accepted() {
                return refused.note(Refusal::NoIdentity, Some(uid));
            }
            let places =
                Places { _socket: connection, _files: files, _stay: stay, _booked: booked };
            let ends = (stop, draining);
            let connection = Connection::new(stream, peer, patience, reading, ends, places);
            let _ = sender.send(connection).await;
        });
    }
}

/// Whether the other end is closed.
fn has_gone(stream: &UnixStream) -> bool {
    let mut asked = [PollFd::new(stream, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_told = poll(&mut asked, Some(&now)).is_ok_and(|count| count > 0);
    is_told && asked.iter().any(|asked| asked.revents().contains(PollFlags::HUP))
}

/// What the connections of one socket share.
struct Entrance {
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    guests: Option<Guests>,
    reading: Option<Arc<Mutex<Pace>>>,
}

impl Entrance {
    fn new<T>(gate: &Gate<T>) -> Self {
        let places = |most: u32| Arc::new(Semaphore::new(most as usize));
        Self {
            connections: places(gate.connections),
            handshakes: places(gate.pending_handshakes),
            requests: places(gate.requests),
            guests: gate.guests.map(Guests::new),
            reading: gate.reading.map(|limits| Arc::new(Mutex::new(Pace::new(limits)))),
        }
    }
}

/// Whose connection it is, and its place among the guests if it is one's.
fn admit<T>(
    stream: &UnixStream,
    gate: &Gate<T>,
    entrance: &Entrance,
) -> Result<(u32, Option<Guest>), (Refusal, Option<u32>)> {
    let credentials = stream.peer_cred().map_err(|_| (Refusal::NoCredentials, None))?;
    let uid = credentials.uid();
    if gate.uid.is_some_and(|expected| expected != uid) {
        return Err((Refusal::OtherUser, Some(uid)));
    }
    let guests = entrance.guests.as_ref().filter(|_| !is_at_home(uid));
    let guest = guests.map(|guests| guests.admit(uid)).transpose();
    guest.map(|guest| (uid, guest)).map_err(|refusal| (refusal, Some(uid)))
}

/// Whether a user is root, or the daemon's own.
fn is_at_home(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}
