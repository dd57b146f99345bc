//! Counts every request by its outcome: answered, refused before its service, or abandoned by its client.

use std::sync::Arc;

use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Response, StatusCode};
use tonic::{Code, Status};

use super::methods::{Methods, methods};
use crate::grpc::convert::status::reason_in;
use crate::integration::Source;
use crate::metrics::{EndpointMetrics, Method, Metrics};

/// The outcome of a request whose client went away before its end.
const CANCELLED: &str = "CANCELLED";
/// The outcome of a request that was refused for its form without a gRPC status.
const HTTP_INVALID: &str = "HTTP_INVALID";

/// Reasons that alerts watch: for all methods, and for the methods of steps.
const EXPECTED: [&str; 2] = ["INTERNAL", "JOURNAL_UNAVAILABLE"];
const EXPECTED_OF_STEPS: [&str; 1] = ["RESOLVE_DENIED"];
/// Reasons of one method: a step tries to log in where its key must not be used.
const EXPECTED_OF_SIGN: (&str, [&str; 3]) = (
    "/keyhatch.v1.StepService/Sign",
    ["SSH_HOST_UNKNOWN", "SSH_HOST_UNNAMED", "SSH_USER_MISMATCH"],
);

/// The counters of every method. Reasons that alerts watch begin at zero.
pub fn metrics() -> Metrics {
    let Methods { steps, admin, streams } = methods();
    let metrics = Metrics::new(steps.clone(), admin.clone(), Source::ALL.map(Source::name));
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
    let (sign, reasons) = EXPECTED_OF_SIGN;
    metrics.steps.method(sign).expect_reasons(&reasons);
    metrics
}

/// A running request. It counts as abandoned if it is dropped before it is answered.
pub(crate) struct RequestCount {
    method: Arc<Method>,
    began: Instant,
    is_answered: bool,
}

/// A running stream. It counts as abandoned if it is dropped before its end.
pub(crate) struct StreamCount {
    method: Arc<Method>,
    has_ended: bool,
}

impl RequestCount {
    /// Begins a request.
    pub(crate) fn begin(door: &EndpointMetrics, path: &str) -> Self {
        Self { method: door.method(path), began: Instant::now(), is_answered: false }
    }

    /// When it began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Counts a refusal before the service. Its duration is not counted for the method.
    pub(crate) fn refuse(mut self, answer: &Response<Body>) {
        self.method.answer(reason(answer));
        self.is_answered = true;
    }

    /// Counts an answer, by the service or in its place.
    pub(crate) fn answer(&mut self, answer: &Response<Body>) {
        self.method.answer(reason(answer));
        self.method.took(self.began.elapsed());
        self.is_answered = true;
    }

    /// Begins the stream that answers the request.
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
    /// Counts the end of the stream, in order or with an error.
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

/// The reason of a refusal; `None` if the request was served.
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

/// The reason for a refusal by another library: its code.
fn unexplained(code: Code) -> &'static str {
    match code {
        // tonic uses INTERNAL for a message that cannot be decoded. Our INTERNAL means a fault of the broker.
        Code::Internal => "MALFORMED",
        code => name(code),
    }
}

/// The code of a head or of trailers. A head without a code means OK so far.
fn code(headers: &HeaderMap) -> Code {
    let given = headers.get(Status::GRPC_STATUS);
    given.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

/// The name of a code in gRPC's documents.
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
