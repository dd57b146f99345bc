//! The broker's own answers, in the words of HTTP.

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::json;

use crate::cli::io::failure::Failure;
use crate::cli::step::listener::answer;
use crate::sys::local_http::HttpResponse;

/// The reason of an answer that is the broker's and not the upstream's.
pub static ERROR_HEADER: HeaderName = HeaderName::from_static("keyhatch-error");

/// The answer for a request that the upstream has not answered.
pub fn refusal(failure: &Failure) -> HttpResponse {
    let error = json!({ "reason": failure.reason, "message": failure.message });
    let mut response = answer::json(status_of(&failure.reason), &json!({ "error": error }));
    let may_pass = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
    if may_pass.contains(&response.status()) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let Ok(reason) = HeaderValue::from_str(&failure.reason) {
        response.headers_mut().insert(&ERROR_HEADER, reason);
    }
    response
}

fn status_of(reason: &str) -> StatusCode {
    match reason {
        "SEND_INVALID" | "TARGET_INVALID" | "NAME_INVALID" | "USAGE" => StatusCode::BAD_REQUEST,
        "OVERLOADED" | "TOO_MANY_ENDINGS" | "TOO_MANY_LEASES" | "TOO_MANY_REQUESTS"
        | "TOO_MANY_SENDS" => StatusCode::TOO_MANY_REQUESTS,
        "UPSTREAM_UNAVAILABLE" | "UPSTREAM_REFUSED" | "UPSTREAM_INVALID" => StatusCode::BAD_GATEWAY,
        // The request can be made again.
        "UNREACHABLE"
        | "DRAINING"
        | "VERSION_SUPERSEDED"
        | "JOURNAL_UNAVAILABLE"
        | "STORE_READ_ONLY"
        | "SVID_INVALID" => StatusCode::SERVICE_UNAVAILABLE,
        "REQUEST_TOO_SLOW" => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::FORBIDDEN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_status_and_names_itself() {
        for (reason, status) in [
            ("SEND_INVALID", 400),
            ("RESOLVE_DENIED", 403),
            ("STEP_NOT_OPEN", 403),
            ("TOO_MANY_SENDS", 429),
            ("TOO_MANY_REQUESTS", 429),
            ("UPSTREAM_UNAVAILABLE", 502),
            ("UNREACHABLE", 503),
            ("REQUEST_TOO_SLOW", 504),
        ] {
            let answer = refusal(&Failure::new(reason, "why, and what next", 1));
            assert_eq!(answer.status(), status, "{reason}");
            assert_eq!(answer.headers()[&ERROR_HEADER], reason);
        }
    }
}
