//! The place of a request, from its head to the last byte of its reply.
//!
//! ```text
//! head ─ rate ─ message comes: no place, its bytes count ─ whole: a place, or OVERLOADED ─ service ─ reply taken
//! ```
//!
//! A head costs whoever sends it one request of its rate and nothing else: the place is taken when the message is
//! there. What is refused counts as much that was read, so that refusals do not come faster than requests would.
//! What ends or renews something has a lane of its own. Everything is taken of the [`PeerQuota`] of who asks.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::{Code, Status};

use super::apply_turns::ApplyTurns;
use super::reply_bytes::{FREE_BYTES, ReplyBytes};
use super::request_class::RequestClass;
use crate::grpc::convert::status;
use crate::identity::{Lane, OpenRequest, Peer, PeerQuota, WaitingReply};

/// When to try again what was refused for want of room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A request that is open, and what it holds.
pub(crate) struct InFlight {
    class: RequestClass,
    quota: Arc<PeerQuota>,
    request: OpenRequest,
    held: Mutex<HeldResources>,
}

#[derive(Default)]
struct HeldResources {
    is_whole: bool,
    place: Option<Lane>,
    /// Of its message.
    bytes: u64,
    turns: Vec<OwnedSemaphorePermit>,
    reply: Option<(WaitingReply, Option<Arc<ReplyBytes>>)>,
}

impl InFlight {
    pub(crate) fn new<T>(class: RequestClass, peer: &Peer<T>) -> Arc<Self> {
        Arc::new(Self {
            class,
            quota: Arc::clone(&peer.quota),
            request: peer.traffic.request(),
            held: Mutex::default(),
        })
    }

    pub(crate) fn class(&self) -> RequestClass {
        self.class
    }

    pub(crate) fn quota(&self) -> &Arc<PeerQuota> {
        &self.quota
    }

    /// Its message is there, or may go on as long as it does: takes its place.
    ///
    /// # Errors
    /// [`overloaded`] if there is none.
    pub(crate) fn complete(&self) -> Result<(), Status> {
        let mut held = self.held.lock();
        if held.is_whole {
            return Ok(());
        }
        if let Some(lane) = self.class.lane() {
            // Whoever has too many replies lying about gets no more of them. What waits for its turn is few.
            let may_be_answered =
                matches!(self.class, RequestClass::Documents | RequestClass::Ending)
                    || self.quota.has_bytes();
            held.place = may_be_answered.then(|| self.quota.take_place(lane)).flatten();
            if held.place.is_none() {
                self.penalize();
                return Err(overloaded());
            }
        }
        held.is_whole = true;
        Ok(())
    }

    /// Whether its message is there.
    pub(crate) fn is_whole(&self) -> bool {
        self.held.lock().is_whole
    }

    /// Takes bytes for its message.
    fn take_bytes(&self, count: u64) -> bool {
        let is_taken = self.quota.take_bytes(count);
        if is_taken {
            self.held.lock().bytes += count;
        }
        is_taken
    }

    fn keep_turn(&self, turn: OwnedSemaphorePermit) {
        self.held.lock().turns.push(turn);
    }

    /// It is answered: from now on the reply counts until it is taken, not the message.
    pub(crate) fn answer(&self, weighed: Option<Arc<ReplyBytes>>) {
        let mut held = self.held.lock();
        self.give_message(&mut held);
        held.reply = Some((self.request.traffic().reply(), weighed));
    }

    /// It is answered by a stream. Watches have a bound of their own; others keep their places.
    pub(crate) fn begin_stream(&self) {
        let mut held = self.held.lock();
        self.give_message(&mut held);
        if self.class == RequestClass::Stream
            && let Some(lane) = held.place.take()
        {
            self.quota.give_place(lane);
        }
    }

    fn give_message(&self, held: &mut HeldResources) {
        self.quota.give_bytes(std::mem::take(&mut held.bytes));
        held.turns.clear();
    }

    /// Has whoever has asked wait, for a refusal.
    pub(crate) fn penalize(&self) {
        self.request.traffic().penalize(self.quota.penalty());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let held = std::mem::take(self.held.get_mut());
        self.quota.give_bytes(held.bytes);
        if let Some(lane) = held.place {
            self.quota.give_place(lane);
        }
    }
}

/// Has whoever has asked wait, for a refusal.
pub(crate) fn penalize<T>(peer: &Peer<T>) {
    peer.traffic.penalize(peer.quota.penalty());
}

pub(crate) fn overloaded() -> Status {
    let text = "as many requests are in flight as the broker takes at once; try again";
    status::at_the_door(Code::ResourceExhausted, "OVERLOADED", text, Some(RETRY_AFTER))
}

/// A request that takes too long, or whose message does.
pub(super) fn too_slow() -> Status {
    let text = "the request was not complete, or not done, in the time that it may take";
    status::at_the_door(Code::DeadlineExceeded, "REQUEST_TOO_SLOW", text, None)
}

/// A message that comes.
pub(crate) struct IncomingBody {
    body: Body,
    in_flight: Arc<InFlight>,
    /// How much of it has come, in bytes.
    seen: u64,
    turns: Option<Box<ApplyTurns>>,
}

impl IncomingBody {
    /// One whose documents may keep us waiting for so long each.
    pub(crate) fn new(body: Body, in_flight: Arc<InFlight>, patience: Duration) -> Self {
        let turns = (in_flight.class == RequestClass::Documents)
            .then(|| Box::new(ApplyTurns::new(&in_flight.quota, patience)));
        Self { body, in_flight, seen: 0, turns }
    }

    /// What comes next, if it comes in time.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Came> {
        let came = Pin::new(&mut self.body).poll_frame(context);
        let Some(turns) = &mut self.turns else { return came };
        if let Poll::Ready(came) = came {
            let data = came.as_ref().and_then(|came| came.as_ref().ok()).and_then(Frame::data_ref);
            turns.hear(data.map_or(0, length_of));
            return Poll::Ready(came);
        }
        ready!(turns.poll_silence(context));
        Poll::Ready(Some(Err(too_slow())))
    }

    /// Waits for the turns of documents: what had no room comes of it.
    fn poll_turns(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(turns) = &mut self.turns else { return Poll::Ready(None) };
        if let Some(turn) = ready!(turns.poll_begin(context)) {
            self.in_flight.keep_turn(turn);
        }
        let Some((data, turn)) = ready!(turns.poll_large(context)) else {
            return Poll::Ready(None);
        };
        turn.into_iter().for_each(|turn| self.in_flight.keep_turn(turn));
        Poll::Ready(Some(data))
    }

    /// Counts what has come.
    fn weigh(&mut self, data: &Bytes) -> bool {
        let free = u64::try_from(FREE_BYTES).unwrap_or(0);
        let before = self.seen;
        self.seen += length_of(data);
        let counted = self.seen.saturating_sub(free) - before.saturating_sub(free);
        let is_large = self.turns.as_ref().is_some_and(|turns| turns.is_large());
        counted == 0 || is_large || self.in_flight.take_bytes(counted)
    }
}

fn length_of(data: &Bytes) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}

type Came = Option<Result<Frame<Bytes>, Status>>;

impl http_body::Body for IncomingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Came> {
        let this = self.get_mut();
        if let Some(data) = ready!(this.poll_turns(context)) {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let frame = match ready!(this.poll_body(context)) {
            None => return Poll::Ready(this.in_flight.complete().err().map(Err)),
            Some(Err(status)) => return Poll::Ready(Some(Err(status))),
            Some(Ok(frame)) => frame,
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
        };
        if !this.weigh(&data) {
            let Some(turns) = &mut this.turns else {
                this.in_flight.penalize();
                return Poll::Ready(Some(Err(overloaded())));
            };
            turns.wait_with(data);
            let data = ready!(this.poll_turns(context));
            return Poll::Ready(data.map(|data| Ok(Frame::data(data))));
        }
        if this.body.is_end_stream()
            && let Err(status) = this.in_flight.complete()
        {
            return Poll::Ready(Some(Err(status)));
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.turns.as_ref().is_none_or(|turns| !turns.is_waiting())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
