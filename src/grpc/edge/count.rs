//! Every request is counted, by what becomes of it: answered, refused at the door, or abandoned by its client.
//! The door is where each of them passes, of whatever service.

use std::sync::Arc;

use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Response, StatusCode};
use tonic::{Code, Status};

use super::methods::{Methods, methods};
use crate::grpc::convert::status::reason_in;
use crate::metrics::{EndpointMetrics, Method, Metrics};

/// What is counted of a request whose client went away before its end.
const CANCELLED: &str = "CANCELLED";
/// What is counted of a request that the strict look at its form has refused without a gRPC status.
const HTTP_INVALID: &str = "HTTP_INVALID";

/// Refusals that alerts are about, of all methods; and of those of steps.
const EXPECTED: [&str; 2] = ["INTERNAL", "JOURNAL_UNAVAILABLE"];
const EXPECTED_OF_STEPS: [&str; 1] = ["RESOLVE_DENIED"];

/// The counters of every method. What alerts are about begins at zero.
pub fn metrics() -> Metrics {
    let Methods { steps, admin, streams } = methods();
    let metrics = Metrics::new(steps.clone(), admin.clone());
    for (door, names) in [(&metrics.steps, &steps), (&metrics.admin, &admin)] {
        for name in names {
            let method = door.method(&format!("/{name}"));
            method.expect_reasons(&EXPECTED);
            if streams.contains(name) {
                let codes = (0..=16).map(|code| self::name(Code::from_i32(code)));
                method.expect_ends(&codes.collect::<Vec<_>>());
            }
        }
    }
    let of_steps = steps.iter().map(|name| metrics.steps.method(&format!("/{name}")));
    of_steps.for_each(|method| method.expect_reasons(&EXPECTED_OF_STEPS));
    metrics
}

/// A request. Dropped before it is answered, it was abandoned.
pub(crate) struct RequestCount {
    method: Arc<Method>,
    began: Instant,
    is_answered: bool,
}

/// A stream that has begun. Dropped before its end, it was abandoned.
pub(crate) struct StreamCount {
    method: Arc<Method>,
    has_ended: bool,
}

impl RequestCount {
    /// A request begins.
    pub(crate) fn begin(door: &EndpointMetrics, path: &str) -> Self {
        Self { method: door.method(path), began: Instant::now(), is_answered: false }
    }

    /// When it began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// It is refused at the door. How fast that goes says nothing of its method.
    pub(crate) fn refuse(mut self, answer: &Response<Body>) {
        self.method.answer(reason(answer));
        self.is_answered = true;
    }

    /// It is answered, by its method or in place of it.
    pub(crate) fn answer(&mut self, answer: &Response<Body>) {
        self.method.answer(reason(answer));
        self.method.took(self.began.elapsed());
        self.is_answered = true;
    }

    /// The stream that it is answered with.
    pub(crate) fn stream(&self) -> StreamCount {
        StreamCount { method: Arc::clone(&self.method), has_ended: false }
    }
}

impl Drop for RequestCount {
    fn drop(&mut self) {
        if !self.is_answered {
            self.method.answer(Some(CANCELLED));
        }
    }
}

impl StreamCount {
    /// It ends in order, or with an error.
    pub(crate) fn end(&mut self, trailers: &HeaderMap) {
        self.method.end_stream(name(code(trailers)));
        self.has_ended = true;
    }
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        if !self.has_ended {
            self.method.end_stream(CANCELLED);
        }
    }
}

/// Why a request was refused; none if it was not.
fn reason(answer: &Response<Body>) -> Option<&'static str> {
    if let Some(status) = answer.extensions().get::<Status>() {
        return Some(reason_in(status).unwrap_or(unexplained(status.code())));
    }
    if answer.status() != StatusCode::OK {
        return Some(HTTP_INVALID);
    }
    match code(answer.headers()) {
        Code::Ok => None,
        code => Some(unexplained(code)),
    }
}

/// A refusal that is not ours has a code and no reason.
fn unexplained(code: Code) -> &'static str {
    match code {
        // tonic's word for a message that cannot be read; ours means a fault of the broker.
        Code::Internal => "MALFORMED",
        code => name(code),
    }
}

/// What a head or trailers say; a head says nothing if all is well so far.
fn code(headers: &HeaderMap) -> Code {
    let given = headers.get(Status::GRPC_STATUS);
    given.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

/// A code as gRPC's documents write it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => CANCELLED,
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
