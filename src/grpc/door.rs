//! What every request passes before its service: its form, its place among those in flight, its time.
//!
//! ```text
//! strict ─ room for one more? ─ deadline ─ service ─ reply ─ taken by the client: the place is free again
//!             └ no: RESOURCE_EXHAUSTED at once; nothing waits in a queue
//! ```
//!
//! Whatever way a request takes, it is [counted](Count).
//!
//! A connection has [`MAX_STREAMS`](super::MAX_STREAMS) requests at most, by HTTP/2 itself; here are the
//! bounds on all connections of one socket and on all sockets of a door. A reply counts until its bytes are
//! on their way, so that a client that reads nothing cannot have replies heaped up. Streams that the server
//! sends are counted only until they begin: Watches have a bound of their own.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::count::{Count, StreamCount};
use super::{status, strict};
use crate::identity::{OpenRequest, Peer, Traffic, WaitingReply};
use crate::metrics::DoorMetrics;

/// Methods whose reply is a stream, which may be open for days.
const STREAMS: [&str; 6] = [
    "/keyhatch.v1.StepService/Watch",
    "/keyhatch.v1.SystemService/Backup",
    "/keyhatch.v1.SystemService/TailJournal",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// Whether the broker lives is asked when it is overloaded, too.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// When to try again what was refused for want of room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Makes a [`Door`] around the services of connections whose sockets stand for a `T`.
pub(super) struct DoorLayer<T> {
    room: Arc<Semaphore>,
    deadline: Duration,
    metrics: Arc<DoorMetrics>,
    tag: PhantomData<fn() -> T>,
}

impl<T> DoorLayer<T> {
    /// A door for this many requests in flight, each of which may take so long.
    pub(super) fn new(requests: u32, deadline_seconds: u32, metrics: Arc<DoorMetrics>) -> Self {
        Self {
            room: Arc::new(Semaphore::new(requests as usize)),
            deadline: Duration::from_secs(deadline_seconds.into()),
            metrics,
            tag: PhantomData,
        }
    }
}

impl<T> Clone for DoorLayer<T> {
    fn clone(&self) -> Self {
        Self {
            room: Arc::clone(&self.room),
            deadline: self.deadline,
            metrics: Arc::clone(&self.metrics),
            tag: PhantomData,
        }
    }
}

impl<S, T> Layer<S> for DoorLayer<T> {
    type Service = Door<S, T>;

    fn layer(&self, inner: S) -> Self::Service {
        Door { inner, layer: self.clone() }
    }
}

/// Services behind a door.
pub(super) struct Door<S, T> {
    inner: S,
    layer: DoorLayer<T>,
}

impl<S: Clone, T> Clone for Door<S, T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S, T> Door<S, T>
where
    T: Send + Sync + 'static,
{
    /// A place for a request, or the answer to give it.
    fn admit(&self, request: &Request<Body>) -> Result<Place, Box<Response<Body>>> {
        if let Some(refusal) = strict::refusal(request) {
            return Err(refusal.into());
        }
        let Some(peer) = request.extensions().get::<Arc<Peer<T>>>() else {
            return Err(Status::internal("a request without a peer").into_http().into());
        };
        let path = request.uri().path();
        let permits = if path == HEALTH {
            None
        } else {
            let places = [&peer.requests, &self.layer.room];
            let [socket, door] = places.map(|room| Arc::clone(room).try_acquire_owned());
            let (Ok(socket), Ok(door)) = (socket, door) else {
                return Err(overloaded().into_http().into());
            };
            Some([socket, door])
        };
        Ok(Place {
            permits,
            is_stream: STREAMS.contains(&path),
            traffic: Arc::clone(&peer.traffic),
            request: peer.traffic.request(),
        })
    }
}

fn overloaded() -> Status {
    let text = "as many requests are in flight as the broker takes at once; try again";
    status::at_the_door(Code::ResourceExhausted, "OVERLOADED", text, Some(RETRY_AFTER))
}

fn too_slow() -> Status {
    let text = "the request was not complete, or not done, in the time that it may take";
    status::at_the_door(Code::DeadlineExceeded, "REQUEST_TOO_SLOW", text, None)
}

impl<S, T> Service<Request<Body>> for Door<S, T>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    T: Send + Sync + 'static,
{
    type Response = Response<Reply>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let count = Count::begin(&self.layer.metrics, request.uri().path());
        match self.admit(&request) {
            Err(answer) => {
                count.refuse(&answer);
                Answering::Refused { answer: Some(*answer) }
            }
            Ok(place) => Answering::Served {
                work: self.inner.call(request),
                deadline: tokio::time::sleep_until(count.began() + self.layer.deadline),
                underway: Some((place, count)),
            },
        }
    }
}

/// What a request holds until it is answered.
pub(super) struct Place {
    permits: Option<[OwnedSemaphorePermit; 2]>,
    is_stream: bool,
    traffic: Arc<Traffic>,
    request: OpenRequest,
}

impl Place {
    /// What its reply holds.
    fn reply(self, body: Body, count: &Count) -> Reply {
        // A refusal is but a head.
        if http_body::Body::is_end_stream(&body) {
            return Reply { body, held: Held::Nothing };
        }
        let held = if self.is_stream {
            Held::Stream { _request: self.request, count: count.stream() }
        } else {
            let _reply = self.traffic.reply();
            Held::Reply(Arc::new(Unsent { _permits: self.permits, _request: self.request, _reply }))
        };
        Reply { body, held }
    }
}

pin_project! {
    /// A request on its way.
    #[project = AnsweringPinned]
    pub(super) enum Answering<F> {
        Refused { answer: Option<Response<Body>> },
        Served {
            #[pin]
            work: F,
            #[pin]
            deadline: Sleep,
            underway: Option<(Place, Count)>,
        },
    }
}

impl<F, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Reply>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let unheld = |body| Reply { body, held: Held::Nothing };
        match self.project() {
            AnsweringPinned::Refused { answer } => {
                Poll::Ready(Ok(answer.take().unwrap_or_default().map(unheld)))
            }
            AnsweringPinned::Served { work, deadline, underway } => match work.poll(context) {
                Poll::Ready(answer) => Poll::Ready(answer.map(|response| match underway.take() {
                    Some((place, mut count)) => {
                        count.answer(&response);
                        response.map(|body| place.reply(body, &count))
                    }
                    None => response.map(unheld),
                })),
                Poll::Pending => {
                    ready!(deadline.poll(context));
                    let answer = too_slow().into_http();
                    if let Some((_, mut count)) = underway.take() {
                        count.answer(&answer);
                    }
                    Poll::Ready(Ok(answer.map(unheld)))
                }
            },
        }
    }
}

/// A reply, which holds its request's place until the client has taken it.
pub(super) struct Reply {
    body: Body,
    held: Held,
}

enum Held {
    Nothing,
    Reply(Arc<Unsent>),
    Stream { _request: OpenRequest, count: StreamCount },
}

/// What is free again when the last byte of a reply is on its way.
struct Unsent {
    _permits: Option<[OwnedSemaphorePermit; 2]>,
    _request: OpenRequest,
    _reply: WaitingReply,
}

/// Bytes of a reply.
struct UnsentBytes {
    bytes: Bytes,
    _unsent: Arc<Unsent>,
}

impl AsRef<[u8]> for UnsentBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        let Some(Ok(frame)) = frame else {
            this.held = Held::Nothing;
            return Poll::Ready(frame);
        };
        let frame = match (frame.into_data(), &mut this.held) {
            (Ok(bytes), Held::Reply(unsent)) => {
                Frame::data(Bytes::from_owner(UnsentBytes { bytes, _unsent: Arc::clone(unsent) }))
            }
            (Ok(bytes), _) => Frame::data(bytes),
            (Err(trailers), _) => {
                if let (Held::Stream { count, .. }, Some(trailers)) =
                    (&mut this.held, trailers.trailers_ref())
                {
                    count.end(trailers);
                }
                // Before they go: whoever has them and asks again finds the place free.
                this.held = Held::Nothing;
                trailers
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
