//! The place of a request, from its head to the last byte of its reply.
//!
//! ```text
//! head ─ rate ─ message arrives: no place, its bytes count ─ whole: a place, or OVERLOADED ─ service ─ reply taken
//! ```
//!
//! A head costs its client one request of its rate. The place is taken only when the message is whole. A refusal counts
//! as bytes read, so refusals come no faster than requests would. Requests that end or renew something have a lane of
//! their own. Everything is taken from the [`PeerQuota`] of the client.

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

/// When to retry after a refusal for lack of room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An open request, and what it holds.
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
    /// The counted bytes of its message.
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

    /// Takes the place of the request: its message is whole, or may arrive as long as the request lasts.
    ///
    /// # Errors
    /// [`overloaded`] if no place is free.
    pub(crate) fn complete(&self) -> Result<(), Status> {
        let mut held = self.held.lock();
        if held.is_whole {
            return Ok(());
        }
        if let Some(lane) = self.class.lane() {
            // A client with too many unread replies gets no more of them. Requests that end something and Applies are
            // few.
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

    /// True if the message is whole.
    pub(crate) fn is_whole(&self) -> bool {
        self.held.lock().is_whole
    }

    /// Takes bytes for the message.
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

    /// The request is answered: from now on the reply counts until it is taken, and the message no more.
    pub(crate) fn answer(&self, weighed: Option<Arc<ReplyBytes>>) {
        let mut held = self.held.lock();
        self.give_message(&mut held);
        held.reply = Some((self.request.traffic().reply(), weighed));
    }

    /// The request is answered by a stream. Watches give their place back, because they have a limit of their own.
    pub(crate) fn begin_stream(&self) {
        let mut held = self.held.lock();
        self.give_message(&mut held);
        if matches!(self.class, RequestClass::Exchange | RequestClass::Stream)
            && let Some(lane) = held.place.take()
        {
            self.quota.give_place(lane);
        }
    }

    fn give_message(&self, held: &mut HeldResources) {
        self.quota.give_bytes(std::mem::take(&mut held.bytes));
        held.turns.clear();
    }

    /// Delays the client for a refusal.
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

/// Delays the client for a refusal.
pub(crate) fn penalize<T>(peer: &Peer<T>) {
    peer.traffic.penalize(peer.quota.penalty());
}

pub(crate) fn overloaded() -> Status {
    let text = "too many requests are in flight; try again";
    status::refused_early(Code::ResourceExhausted, "OVERLOADED", text, Some(RETRY_AFTER))
}

/// The status of a request that takes too long to arrive or to answer.
pub(super) fn too_slow() -> Status {
    let text = "the request did not arrive, or was not answered, within its time limit";
    status::refused_early(Code::DeadlineExceeded, "REQUEST_TOO_SLOW", text, None)
}

/// The message of a request as it arrives.
pub(crate) struct IncomingBody {
    body: Body,
    in_flight: Arc<InFlight>,
    /// The bytes that have arrived.
    seen: u64,
    turns: Option<Box<ApplyTurns>>,
}

impl IncomingBody {
    /// The message of an open request. Its documents may be silent for `timeout` at a time.
    pub(crate) fn new(body: Body, in_flight: Arc<InFlight>, timeout: Duration) -> Self {
        let turns = (in_flight.class == RequestClass::Documents)
            .then(|| Box::new(ApplyTurns::new(&in_flight.quota, timeout)));
        Self { body, in_flight, seen: 0, turns }
    }

    /// The next frame, if it arrives in time.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<BodyFrame> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let Some(turns) = &mut self.turns else { return frame };
        if let Poll::Ready(frame) = frame {
            let data =
                frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
            turns.note_bytes(data.map_or(0, length_of));
            return Poll::Ready(frame);
        }
        ready!(turns.poll_silence(context));
        Poll::Ready(Some(Err(too_slow())))
    }

    /// Waits for the turns of an Apply. It returns bytes that had waited for room.
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

    /// The end of a request that the client has broken off. tonic takes `Cancelled` for the end of the messages, with which an
    /// exchange would complete what it sends.
    fn broken_off(&self, status: Status) -> Status {
        let is_exchange = self.in_flight.class == RequestClass::Exchange;
        match is_exchange && status.code() == Code::Cancelled {
            true => Status::aborted("the request was broken off"),
            false => status,
        }
    }

    /// Counts bytes that have arrived. False if there is no room for them.
    fn weigh(&mut self, data: &Bytes) -> bool {
        let free = u64::try_from(FREE_BYTES).unwrap_or(0);
        let before = self.seen;
        self.seen += length_of(data);
        let counted = self.seen.saturating_sub(free) - before.saturating_sub(free);
        if self.in_flight.class == RequestClass::Exchange {
            // It pays for its requests, and is read as fast as the upstream takes it.
            self.in_flight.request.traffic().credit(data.len());
            return true;
        }
        let is_large = self.turns.as_ref().is_some_and(|turns| turns.is_large());
        counted == 0 || is_large || self.in_flight.take_bytes(counted)
    }
}

fn length_of(data: &Bytes) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}

type BodyFrame = Option<Result<Frame<Bytes>, Status>>;

impl http_body::Body for IncomingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<BodyFrame> {
        let this = self.get_mut();
        if let Some(data) = ready!(this.poll_turns(context)) {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let frame = match ready!(this.poll_body(context)) {
            None => return Poll::Ready(this.in_flight.complete().err().map(Err)),
            Some(Err(status)) => return Poll::Ready(Some(Err(this.broken_off(status)))),
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
