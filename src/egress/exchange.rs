//! One request and its reply.

use std::fmt;
use std::io::{self, ErrorKind};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, DATE, EXPECT, HOST, HeaderMap,
    HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use hyper::http::response::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::io::{AsyncRead, AsyncWrite};

use super::EgressError;
use super::destination::{Destination, HostAndPort};
use crate::model::{Timestamp, Value};

/// The longest reply unless a request says otherwise: headers and body together, in bytes.
pub const MAX_REPLY_BYTES: usize = 64 * 1024;
/// The most headers of a reply.
const MAX_HEADERS: usize = 100;

/// Headers by name. Values may be secret.
pub type Headers = Vec<(String, Value)>;

/// A request to an upstream.
pub struct Request {
    /// `GET`, `POST` or `DELETE`.
    pub method: &'static str,
    /// An absolute `https` URL; `http` only where the configuration allows it by name. It may contain a secret.
    pub url: Value,
    /// The headers, without those that belong to the connection: `Host`, `Content-Length`, `Accept-Encoding` and the like.
    pub headers: Headers,
    /// The body.
    pub body: Value,
    /// Certificates, PEM, that replace the system's roots.
    pub ca_certificate: Option<Vec<u8>>,
    /// True if private ranges are denied, because a step sees the reply.
    pub is_private_denied: bool,
    /// The longest reply, headers and body together, in bytes. The headers have at most 64 KiB.
    pub max_reply_bytes: usize,
}

/// The reply of an upstream. A redirect is a reply like any other.
pub struct Reply {
    /// The status, from 200.
    pub status: u16,
    /// The headers, with names in lower case.
    pub headers: Headers,
    /// The body.
    pub body: Value,
    /// The upstream's clock, by its header `Date`.
    pub date: Option<Timestamp>,
}

/// The headers that egress sets itself, or that would change how the exchange is framed.
const OWN_HEADERS: [HeaderName; 9] = [
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A request in the form of the HTTP library.
pub(super) type Message = hyper::Request<Full<Bytes>>;

/// Checks the parts of a request and makes the message.
///
/// # Errors
/// [`EgressError::Malformed`]: the message names the header.
pub(super) fn message(
    method: &str,
    destination: &Destination,
    path: PathAndQuery,
    headers: Headers,
    body: Value,
) -> Result<Message, EgressError> {
    let malformed = |fault: String| EgressError::Malformed(fault);
    let mut message = hyper::Request::new(Full::new(Bytes::from(body.into_exposed())));
    *message.uri_mut() = path.into();
    *message.method_mut() = match method {
        "GET" => Method::GET,
        "POST" => Method::POST,
        "DELETE" => Method::DELETE,
        _ => return Err(malformed(format!("the method {method} is not supported"))),
    };
    let to = message.headers_mut();
    let host = HeaderValue::try_from(destination.host_header());
    to.insert(
        HOST,
        host.map_err(|_| malformed("the URL has a host that cannot be sent".to_owned()))?,
    );
    to.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("keyhatch/", env!("CARGO_PKG_VERSION"))),
    );
    to.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    to.insert(CONNECTION, HeaderValue::from_static("close"));
    let mut given = HeaderMap::new();
    for (name, value) in headers {
        let Ok(parsed) = HeaderName::try_from(name.as_str()) else {
            return Err(malformed(format!(
                "the header {name:?} has a name that HTTP does not allow"
            )));
        };
        if OWN_HEADERS.contains(&parsed) || parsed.as_str().starts_with("proxy-") {
            return Err(malformed(format!(
                "the header {name} belongs to the connection; remove it"
            )));
        }
        let Ok(mut value) = HeaderValue::from_bytes(value.expose()) else {
            let fault = "has a value with a line end or another control character";
            return Err(malformed(format!("the header {name} {fault}")));
        };
        value.set_sensitive(true);
        given.append(parsed, value);
    }
    to.extend(given);
    Ok(message)
}

/// Sends a message over a connection and reads the reply.
///
/// # Errors
/// If the upstream hangs up, breaks HTTP, or sends too much.
pub(super) async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    message: Message,
    at: &HostAndPort,
    max_reply_bytes: usize,
) -> Result<Reply, EgressError> {
    let failed = |error: hyper::Error| of_http(at, &error);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_REPLY_BYTES).max_header_size(MAX_REPLY_BYTES).max_headers(MAX_HEADERS);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let exchange = async move {
        let response = sender.send_request(message).await.map_err(failed)?;
        // The connection ends when both the reply is read and nothing more can be sent.
        drop(sender);
        read(response, at, max_reply_bytes).await
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        reply = &mut exchange => reply,
        // The connection reports its faults to the exchange.
        _ = connection => exchange.await,
    }
}

async fn read(
    response: Response<Incoming>,
    at: &HostAndPort,
    max_reply_bytes: usize,
) -> Result<Reply, EgressError> {
    let invalid = |fault: &str| EgressError::Invalid(format!("{at}: {fault}"));
    let (Parts { status, headers, .. }, mut body) = response.into_parts();
    if status == StatusCode::SWITCHING_PROTOCOLS || status.is_informational() {
        return Err(invalid("the reply has a status below 200"));
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| !is_identity(coding)) {
        return Err(invalid("the reply is compressed, although the request asked for none"));
    }
    let too_large =
        || invalid(&format!("the reply is larger than {} KiB", max_reply_bytes.div_ceil(1024)));
    let sizes = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let mut room = max_reply_bytes.checked_sub(sizes.sum()).ok_or_else(too_large)?;
    if body.size_hint().lower() > u64::try_from(room).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| of_http(at, &error))?;
        let Ok(data) = frame.into_data() else { continue };
        room = room.checked_sub(data.len()).ok_or_else(too_large)?;
        whole.extend_from_slice(&data);
    }
    let date = headers.get(DATE).and_then(date);
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), Value::new(value.as_bytes().to_vec())));
    Ok(Reply { status: status.as_u16(), headers: headers.collect(), body: Value::new(whole), date })
}

pub(super) fn is_identity(coding: &HeaderValue) -> bool {
    coding.as_bytes().eq_ignore_ascii_case(b"identity")
}

/// Reads a date in the form of HTTP.
fn date(value: &HeaderValue) -> Option<Timestamp> {
    let moment = OffsetDateTime::parse(value.to_str().ok()?, &Rfc2822).ok()?;
    Some(Timestamp::from_seconds(moment.unix_timestamp()))
}

/// The failure of an exchange on an open connection. The library's own text could quote the upstream.
pub(super) fn of_http(at: &HostAndPort, error: &hyper::Error) -> EgressError {
    let said = |fault: &dyn fmt::Display| format!("{at}: {fault}");
    // A body that breaks the protocol is a fault of this kind. A connection that breaks has another.
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    let is_malformed = cause.is_some_and(|cause| {
        matches!(cause.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput)
    });
    match error {
        error if error.is_parse_too_large() => {
            EgressError::Invalid(said(&"the reply's headers are larger than 64 KiB"))
        }
        error if error.is_parse() || is_malformed => {
            EgressError::Invalid(said(&"the reply is not HTTP"))
        }
        _ => EgressError::Unavailable(said(&"the connection broke before the reply was complete")),
    }
}
