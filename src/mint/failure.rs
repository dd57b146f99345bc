//! Why nothing was made.

use std::time::Duration;

/// Why nothing was made. It contains no value, and of the upstream's reply only codes of a strict form.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The reason.
    pub reason: FailureReason,
    /// What was wrong and the next step, for operators: HTTP status, the upstream's code.
    pub detail: String,
    /// When the upstream wants to be asked again.
    pub retry_after: Option<Duration>,
    /// The upstream's number of the request.
    pub upstream_request: Option<String>,
}

/// The kinds of failures: the API's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// The rules of egress deny it: `EGRESS_DENIED`.
    EgressDenied,
    /// The upstream's reply is not of the protocol: `UPSTREAM_INVALID`.
    Invalid,
    /// The upstream refuses the root or the request: `UPSTREAM_REFUSED`.
    Refused,
    /// The upstream cannot be reached, or fails: `UPSTREAM_UNAVAILABLE`.
    Unavailable,
}
