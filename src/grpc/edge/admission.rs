//! Admits requests before their services: checks their form, and bounds their number and their time.
//!
//! ```text
//! form ─ rate ─ head ─ whole message ─ place? ─ service ─ reply ─ taken by the client: the place is free again
//!                      └ in time      └ no: RESOURCE_EXHAUSTED at once, without a queue
//! ```
//!
//! Every request is [counted](RequestCount), whatever becomes of it. See [`in_flight`] for the places.
//!
//! HTTP/2 itself limits a connection to [`MAX_STREAMS`](crate::grpc::MAX_STREAMS) requests. A reply counts until its
//! bytes are sent, so a client that does not read cannot pile up replies. A stream from the server counts until it
//! begins; Watches have a limit of their own.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::count::{RequestCount, StreamCount};
use super::in_flight::{self, InFlight, IncomingBody, too_slow};
use super::peer::AdmissionPolicy;
use super::reply_bytes::ReplyBytes;
use super::request_class::RequestClass;
use super::request_form::{self, Authorities};
use crate::broker::Broker;
use crate::grpc::convert::status::to_status;
use crate::identity::{Origin, Peer};
use crate::metrics::EndpointMetrics;
use crate::model::HostName;

/// Wraps services in an [`AdmissionService`]. `T` is the tag of their connections.
pub(crate) struct AdmissionLayer<T> {
    broker: Arc<Broker>,
    arrival: Duration,
    deadline: Duration,
    metrics: Arc<EndpointMetrics>,
    /// The names under which the door is served over TCP.
    hosts: Arc<[HostName]>,
    tag: PhantomData<fn() -> T>,
}

impl<T> AdmissionLayer<T> {
    /// A layer for requests that may take `deadline_seconds` each.
    pub(crate) fn new(
        broker: &Arc<Broker>,
        deadline_seconds: u32,
        metrics: Arc<EndpointMetrics>,
    ) -> Self {
        let deadline = Duration::from_secs(deadline_seconds.into());
        let arrival = Duration::from_secs(broker.limits().arrival_seconds.into());
        Self {
            broker: Arc::clone(broker),
            arrival: arrival.min(deadline),
            deadline,
            metrics,
            hosts: broker.tcp_door().map(|door| door.hosts.clone()).unwrap_or_default().into(),
            tag: PhantomData,
        }
    }
}

impl<T> Clone for AdmissionLayer<T> {
    fn clone(&self) -> Self {
        Self {
            broker: Arc::clone(&self.broker),
            arrival: self.arrival,
            deadline: self.deadline,
            metrics: Arc::clone(&self.metrics),
            hosts: Arc::clone(&self.hosts),
            tag: PhantomData,
        }
    }
}

impl<S, T> Layer<S> for AdmissionLayer<T> {
    type Service = AdmissionService<S, T>;

    fn layer(&self, inner: S) -> Self::Service {
        AdmissionService { inner, layer: self.clone() }
    }
}

/// Services behind an [`AdmissionLayer`].
pub(crate) struct AdmissionService<S, T> {
    inner: S,
    layer: AdmissionLayer<T>,
}

impl<S: Clone, T> Clone for AdmissionService<S, T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S, T: AdmissionPolicy> AdmissionService<S, T> {
    /// Admits a request, or returns the response that refuses it.
    fn admit(&self, request: &Request<Body>) -> Result<Arc<InFlight>, Box<Response<Body>>> {
        let Some(peer) = request.extensions().get::<Arc<Peer<T>>>() else {
            return Err(Status::internal("a request without a peer").into_http().into());
        };
        let authorities = match peer.origin {
            Origin::Unix(_) => Authorities::Socket,
            Origin::Tcp(_) => Authorities::Tcp(&self.layer.hosts),
        };
        if let Some(refusal) = request_form::refusal(request, authorities) {
            return Err(refusal.into());
        }
        let (broker, class) = (&self.layer.broker, RequestClass::of(request.uri().path()));
        let charged = T::charge(broker, peer, class);
        charged
            .and_then(|()| if class.is_foreign() { T::check(broker, peer) } else { Ok(()) })
            .map_err(|error| {
                in_flight::penalize(peer);
                Box::new(to_status(&error).into_http())
            })?;
        let in_flight = InFlight::new(class, peer);
        // The messages of a stream may arrive as long as the request lasts, so its place is taken now.
        let is_streamed = [RequestClass::Documents, RequestClass::Exchange, RequestClass::Looking];
        if is_streamed.contains(&class) {
            in_flight.complete().map_err(|status| Box::new(status.into_http()))?;
        }
        Ok(in_flight)
    }

    /// How long the message may take to arrive. Documents have the whole time.
    fn arrival(&self, class: RequestClass) -> Duration {
        if class == RequestClass::Documents { self.layer.deadline } else { self.layer.arrival }
    }
}

impl<S, T> Service<Request<Body>> for AdmissionService<S, T>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    T: AdmissionPolicy,
{
    type Response = Response<ReplyBody>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let count = RequestCount::begin(&self.layer.metrics, request.uri().path());
        match self.admit(&request) {
            Err(answer) => {
                count.refuse(&answer);
                ResponseFuture::Refused { answer: Some(*answer) }
            }
            Ok(in_flight) => {
                let arrives = count.began() + self.arrival(in_flight.class());
                let (message, timeout) = (Arc::clone(&in_flight), self.layer.arrival);
                ResponseFuture::Served {
                    work: self.inner.call(
                        request.map(|body| Body::new(IncomingBody::new(body, message, timeout))),
                    ),
                    deadline: tokio::time::sleep_until(arrives),
                    end: count.began() + self.layer.deadline,
                    underway: Some((in_flight, count)),
                }
            }
        }
    }
}

/// The response, with what it holds until it is sent.
fn reply(
    in_flight: Arc<InFlight>,
    response: Response<Body>,
    count: &RequestCount,
) -> Response<ReplyBody> {
    let (mut head, body) = response.into_parts();
    // A refusal consists of a head only.
    let held = if http_body::Body::is_end_stream(&body) {
        ReplyHold::Nothing
    } else if in_flight.class().is_stream() {
        in_flight.begin_stream();
        ReplyHold::Stream { in_flight, count: count.stream() }
    } else {
        in_flight.answer(head.extensions.remove());
        ReplyHold::Reply(in_flight)
    };
    Response::from_parts(head, ReplyBody { body, held })
}

pin_project! {
    /// The response to an admitted request, or its refusal.
    #[project = ResponseFuturePinned]
    pub(crate) enum ResponseFuture<F> {
        Refused { answer: Option<Response<Body>> },
        Served {
            #[pin]
            work: F,
            #[pin]
            deadline: Sleep,
            end: Instant,
            underway: Option<(Arc<InFlight>, RequestCount)>,
        },
    }
}

impl<F, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<ReplyBody>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let unheld = |body| ReplyBody { body, held: ReplyHold::Nothing };
        match self.project() {
            ResponseFuturePinned::Refused { answer } => {
                Poll::Ready(Ok(answer.take().unwrap_or_default().map(unheld)))
            }
            ResponseFuturePinned::Served { work, mut deadline, end, underway } => match work
                .poll(context)
            {
                Poll::Ready(answer) => Poll::Ready(answer.map(|response| match underway.take() {
                    Some((in_flight, mut count)) => {
                        count.answer(&response);
                        reply(in_flight, response, &count)
                    }
                    None => response.map(unheld),
                })),
                Poll::Pending => {
                    ready!(deadline.as_mut().poll(context));
                    let is_whole = |(in_flight, _): &(Arc<InFlight>, _)| in_flight.is_whole();
                    if deadline.deadline() < *end && underway.as_ref().is_some_and(is_whole) {
                        deadline.as_mut().reset(*end);
                        ready!(deadline.poll(context));
                    }
                    let answer = too_slow().into_http();
                    if let Some((in_flight, mut count)) = underway.take() {
                        in_flight.penalize();
                        count.answer(&answer);
                    }
                    Poll::Ready(Ok(answer.map(unheld)))
                }
            },
        }
    }
}

/// The body of a reply. It holds the place of its request until the client has taken it.
pub(crate) struct ReplyBody {
    body: Body,
    held: ReplyHold,
}

enum ReplyHold {
    Nothing,
    Reply(Arc<InFlight>),
    Stream { in_flight: Arc<InFlight>, count: StreamCount },
}

/// Bytes of a reply, with what they hold until they are sent.
struct UnsentBytes {
    bytes: Bytes,
    _in_flight: Arc<InFlight>,
    _weighed: Option<ReplyBytes>,
}

impl AsRef<[u8]> for UnsentBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl ReplyHold {
    /// Ties what a reply holds to its bytes.
    fn hold(&self, bytes: Bytes) -> Bytes {
        let (in_flight, weighed) = match self {
            Self::Reply(in_flight) => (in_flight, None),
            // Each message of a stream counts by itself, if it is large.
            Self::Stream { in_flight, .. } => {
                match ReplyBytes::new(in_flight.quota(), bytes.len()) {
                    None => return bytes,
                    weighed => (in_flight, weighed),
                }
            }
            Self::Nothing => return bytes,
        };
        let _in_flight = Arc::clone(in_flight);
        Bytes::from_owner(UnsentBytes { bytes, _in_flight, _weighed: weighed })
    }
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        let Some(Ok(frame)) = frame else {
            this.held = ReplyHold::Nothing;
            return Poll::Ready(frame);
        };
        let frame = match (frame.into_data(), &mut this.held) {
            (Ok(bytes), held) => Frame::data(held.hold(bytes)),
            (Err(trailers), _) => {
                if let (ReplyHold::Stream { count, .. }, Some(trailers)) =
                    (&mut this.held, trailers.trailers_ref())
                {
                    count.end(trailers);
                }
                // The place is free before the trailers are sent: a client that has them may send its next request at
                // once.
                this.held = ReplyHold::Nothing;
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
