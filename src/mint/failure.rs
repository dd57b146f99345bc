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
    /// True if the upstream is away, or wants to be left alone: whoever asks it for another credential fails as well.
    pub concerns_all: bool,
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
    /// A failure that concerns one credential, which was not made.
    pub fn new(reason: FailureReason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            retry_after: None,
            upstream_request: None,
            is_uncertain: false,
            concerns_all: false,
        }
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
        let (reason, concerns_all) = match error {
            EgressError::Closed(_) | EgressError::Denied(_) => (FailureReason::EgressDenied, true),
            EgressError::Body(_) | EgressError::Malformed(_) => (FailureReason::Refused, false),
            EgressError::Invalid(_) => (FailureReason::Invalid, false),
            EgressError::Unavailable(_) => (FailureReason::Unavailable, true),
        };
        Self { concerns_all, ..Self::new(reason, error.to_string()) }
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

#[cfg(test)]
mod tests {
    use super::super::reply::{Refusal, check_accepted};
    use super::super::samples::reply;
    use super::*;

    #[test]
    fn a_failure_of_the_way_out_concerns_all_unless_it_is_answered() {
        let of = |error: fn(String) -> EgressError| Failure::from(error("why".to_owned()));
        assert!(of(EgressError::Closed).concerns_all && of(EgressError::Denied).concerns_all);
        assert!(of(EgressError::Unavailable).concerns_all);
        assert!(!of(EgressError::Invalid).concerns_all && !of(EgressError::Malformed).concerns_all);
    }

    #[test]
    fn an_answer_concerns_all_if_the_server_wants_to_be_left_alone() {
        for (status, is_passing, retry_after, expected) in [
            (302, false, None, false),
            (400, false, None, false),
            (400, true, None, false),
            (401, false, None, false),
            (401, false, Some("9"), false),
            (403, true, Some("9"), true),
            (404, false, None, false),
            (408, false, None, false),
            (429, false, None, true),
            (429, false, Some("9"), true),
            (500, false, None, false),
            (500, false, Some("9"), true),
            (502, false, None, true),
            (503, false, None, true),
            (503, false, Some("9"), true),
            (504, false, None, true),
        ] {
            let headers: Vec<_> =
                retry_after.map(|text| ("retry-after", text)).into_iter().collect();
            let refusal = Refusal { code: "code".to_owned(), advice: "advice", is_passing };
            let reply = reply(status, &headers, "");
            let failure = check_accepted(&reply, &[], Some(refusal), "advice").unwrap_err();
            assert_eq!(failure.concerns_all, expected, "{status} {is_passing} {retry_after:?}");
        }
    }
}
