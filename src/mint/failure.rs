//! Why nothing was made.

use std::time::Duration;

use crate::egress::EgressError;

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
    /// True if the upstream may have made the credential nevertheless.
    pub is_uncertain: bool,
}

/// The kinds of failures: the API's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// The rules of egress deny it: `EGRESS_DENIED`.
    EgressDenied,
    /// The broker's configuration names no issuer: `ISSUER_NOT_CONFIGURED`.
    NoIssuer,
    /// The upstream's reply is not of the protocol: `UPSTREAM_INVALID`.
    Invalid,
    /// The store takes no writes, so what the upstream would give could be lost, and nothing was sent: `STORE_READ_ONLY`.
    NotKept,
    /// The upstream refuses the refresh token for good: `REAUTHORIZATION_REQUIRED`.
    Reauthorize,
    /// The upstream refuses the root or the request, or a field makes no request: `UPSTREAM_REFUSED`.
    Refused,
    /// Too many credentials of the connection have not ended upstream, so nothing was sent: `TOO_MANY_ENDINGS`.
    TooManyEndings,
    /// The upstream cannot be reached, or fails: `UPSTREAM_UNAVAILABLE`.
    Unavailable,
}

impl Failure {
    pub(super) fn new(reason: FailureReason, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { reason, detail, retry_after: None, upstream_request: None, is_uncertain: false }
    }

    /// The reply is not of the protocol. `text` says what is wrong with it.
    pub(super) fn invalid(text: &str) -> Self {
        Self::new(FailureReason::Invalid, text)
    }

    /// A field makes no request. `text` goes on after the field's name; it shows no value.
    pub(super) fn field(name: &str, text: &str) -> Self {
        let detail = format!("the field {name} {text}; nothing was sent, so change the connection");
        Self::new(FailureReason::Refused, detail)
    }
}

impl From<EgressError> for Failure {
    fn from(error: EgressError) -> Self {
        let reason = match error {
            EgressError::Closed(_) | EgressError::Denied(_) => FailureReason::EgressDenied,
            EgressError::Malformed(_) => FailureReason::Refused,
            EgressError::Invalid(_) => FailureReason::Invalid,
            EgressError::Unavailable(_) => FailureReason::Unavailable,
        };
        Self::new(reason, error.to_string())
    }
}

impl FailureReason {
    /// The API's reason.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EgressDenied => "EGRESS_DENIED",
            Self::NoIssuer => "ISSUER_NOT_CONFIGURED",
            Self::Invalid => "UPSTREAM_INVALID",
            Self::NotKept => "STORE_READ_ONLY",
            Self::Reauthorize => "REAUTHORIZATION_REQUIRED",
            Self::Refused => "UPSTREAM_REFUSED",
            Self::TooManyEndings => "TOO_MANY_ENDINGS",
            Self::Unavailable => "UPSTREAM_UNAVAILABLE",
        }
    }
}
