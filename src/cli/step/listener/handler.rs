//! Checks and routes one request.

use std::net::SocketAddrV4;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap};
use hyper::{Method, Request, StatusCode};
use serde_json::json;
use zeroize::Zeroizing;

use super::answer;
use super::aws::{self, AwsEndpoint};
use super::forward::{Forward, ForwardResponse};
use super::relay::Relay;
use super::relay_api;
use crate::sys::local_http::HttpResponse;

/// How long an answer of this address itself may take.
const OWN_TIMEOUT: Duration = Duration::from_secs(20);

/// The state that requests are answered from.
pub struct ListenerState {
    /// Every request has it.
    pub token: Zeroizing<String>,
    pub address: SocketAddrV4,
    /// `--serve aws`
    pub aws: Option<AwsEndpoint>,
    /// `--serve relay`
    pub relay: Option<Relay>,
    /// `--serve git` and `--serve http`
    pub forwards: Vec<Forward>,
}

/// Answers a request that names this address and has a token.
pub async fn answer(shared: &ListenerState, request: Request<Incoming>) -> ForwardResponse {
    let is_local = is_for_this_address(request.headers(), shared.address);
    let mut forwards = shared.forwards.iter().filter(|_| is_local);
    if let Some(forward) = forwards.find(|forward| forward.has(request.uri().path())) {
        return forward.answer(request).await;
    }
    let answering = tokio::time::timeout(OWN_TIMEOUT, own_answer(shared, request));
    let late = |_| answer::empty(StatusCode::GATEWAY_TIMEOUT);
    answering.await.unwrap_or_else(late).map(Either::Left)
}

async fn own_answer(shared: &ListenerState, request: Request<Incoming>) -> HttpResponse {
    let headers = request.headers();
    if !is_for_this_address(headers, shared.address) {
        let text = format!("this address is {} and nothing else", shared.address.ip());
        return answer::text(StatusCode::MISDIRECTED_REQUEST, &text);
    }
    let path = request.uri().path();
    if path == "/healthz" && request.method() == Method::GET {
        return answer::json(StatusCode::OK, &json!({ "ping": "pong" }));
    }
    if !has_token(headers, &shared.token) {
        return answer::text(StatusCode::UNAUTHORIZED, "401 unauthorized");
    }
    match (&shared.aws, &shared.relay) {
        (Some(aws), _) if path == aws::PATH => match *request.method() {
            Method::GET => aws.answer().await,
            _ => answer::empty(StatusCode::METHOD_NOT_ALLOWED),
        },
        (_, Some(relay)) => relay_api::answer(relay, request).await,
        _ => answer::text(StatusCode::NOT_FOUND, "nothing is served here"),
    }
}

/// Whether the host of a request is this address. A browser that was led here by a name sends that name.
fn is_for_this_address(headers: &HeaderMap, address: SocketAddrV4) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // Clients leave out the default port.
    let port = match address.port() {
        80 if !host.contains(':') => String::new(),
        port => format!(":{port}"),
    };
    let is_local = address.ip().is_loopback() && host == format!("localhost{port}");
    is_local || host == format!("{}{port}", address.ip())
}

/// Whether a request has the token: alone, as AWS SDKs send it; as a bearer token; or as the password of an empty user
/// or of `token`, as Relay's clients send it.
fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let Some(given) = headers.get(AUTHORIZATION) else { return false };
    let given = given.as_bytes();
    let after = |scheme: &str| {
        let (begin, rest) = given.split_at_checked(scheme.len())?;
        begin.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
    };
    let basic = after("Basic ").and_then(|encoded| STANDARD.decode(encoded).ok());
    let password = basic
        .as_deref()
        .and_then(|login| login.strip_prefix(b":").or_else(|| login.strip_prefix(b"token:")));
    let given = password.or_else(|| after("Bearer ")).unwrap_or(given);
    verify_slices_are_equal(given, token.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn the_token_is_accepted_in_each_scheme_and_nothing_else() {
        let has = |given: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(given).unwrap());
            has_token(&headers, "secret")
        };
        let basic = |login: &str| format!("Basic {}", STANDARD.encode(login));
        for good in
            ["secret", "Bearer secret", "bearer secret", &basic(":secret"), &basic("token:secret")]
        {
            assert!(has(good), "{good}");
        }
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Secret",
            "secret2",
            &basic("x:secret"),
            &basic("secret"),
            "Basic !",
        ] {
            assert!(!has(bad), "{bad}");
        }
        assert!(!has_token(&HeaderMap::new(), "secret"));
    }
}
