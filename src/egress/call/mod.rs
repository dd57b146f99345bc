//! One HTTP exchange for a step, streamed both ways.
//!
//! | file | holds |
//! |---|---|
//! | `address` | the address that paths are below |
//! | `method`, `path`, `headers` | what a step may say: types that cannot be wrong (pure) |
//! | `body` | the request's body as it comes |
//! | `pool` | connections that are kept for the next request |

mod address;
mod body;
mod headers;
mod method;
mod path;
mod pool;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_ENCODING, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use zeroize::Zeroizing;

pub use address::Address;
pub use body::{Outgoing, Pieces, StepGone};
pub use headers::{StepHeaders, named_by_connection};
pub use method::Method;
pub use path::SubPath;
pub(super) use pool::Pool;

use self::body::{BodyFault, SentBody};
use self::headers::LeftOut;
use self::pool::{Line, PoolKey};
use super::exchange::{is_identity, of_http};
use super::tls::{ClientIdentity, Handshake};
use super::{Connected, Destination, Egress, EgressError, Headers, HostAndPort, in_time};
use crate::model::Id;

/// The largest headers of an answer, and the bytes that are read or written at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// The most headers of an answer.
const MAX_HEADERS: usize = 100;

/// An HTTP request for a step.
pub struct Call {
    /// The uid of the connection, and its version: only requests of both share a connection to the upstream.
    pub of: (Id, u64),
    /// The address.
    pub address: Address,
    /// The path below it.
    pub path: SubPath,
    /// Parameters that are added to the query, in the clear.
    pub parameters: Headers,
    /// The method.
    pub method: Method,
    /// The headers of the step.
    pub headers: StepHeaders,
    /// Headers that the step cannot override.
    pub rendered: Headers,
    /// The body.
    pub body: Outgoing,
    /// True if a part of the body is the connection's own.
    pub has_own_body: bool,
    /// The client certificate, if there is one.
    pub identity: Option<ClientIdentity>,
    /// Certificates, PEM, that replace the system's roots.
    pub ca_certificate: Option<Vec<u8>>,
    /// True if the step gets the answer masked: what tells of its plain body is left out.
    pub is_masked: bool,
}

impl Call {
    /// True if a body goes out, which may be empty if its length is not known.
    fn has_body(&self) -> bool {
        match &self.body {
            Outgoing::Nothing => false,
            Outgoing::Whole(body) => !body.is_empty(),
            Outgoing::Pieces { length, .. } => *length != Some(0),
        }
    }

    /// True if the upstream gets more than what the step has made.
    fn has_credential(&self) -> bool {
        let is_rendered = !self.rendered.is_empty() || !self.parameters.is_empty();
        is_rendered || self.has_own_body || self.identity.is_some()
    }

    /// True if the upstream's connection may serve another request. An upstream that leaves a body unread takes its bytes
    /// for the next request, with the certificate of the connection.
    fn leaves_connection(&self) -> bool {
        !self.has_body() || (self.method.expects_body() && self.identity.is_none())
    }
}

/// The answer to a [`Call`]. If it is dropped before its end, the connection ends.
pub struct Answered {
    /// The status, from 200.
    pub status: u16,
    /// The headers, with names in lower case, without those of the connection. Left out are cookies if the upstream got a
    /// credential, and what tells of a body that is masked.
    pub headers: Headers,
    body: Incoming,
    at: HostAndPort,
    kept: Option<(Arc<Pool>, PoolKey, Line)>,
    form: AnswerForm,
}

/// What is known of an answer before it comes.
struct AnswerForm {
    left_out: LeftOut,
    /// True if the connection may be kept.
    leaves_connection: bool,
    /// True once the request's body was taken to its end.
    is_sent: Arc<AtomicBool>,
}

/// A piece of an answer.
pub enum AnswerPiece {
    /// A part of the body.
    Body(Bytes),
    /// The trailers, which follow the body.
    Trailers(Headers),
}

impl Answered {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// If the connection breaks, or the upstream breaks HTTP.
    pub async fn next(&mut self) -> Result<Option<AnswerPiece>, EgressError> {
        let Some(frame) = self.body.frame().await else {
            // An upstream may answer before it has the whole request. Such a connection is of no more use.
            let is_free = self.form.leaves_connection && self.form.is_sent.load(Ordering::Acquire);
            if let Some((pool, key, line)) = self.kept.take().filter(|_| is_free) {
                pool.keep(key, line);
            }
            return Ok(None);
        };
        let frame = frame.map_err(|error| of_call(&self.at, &error))?;
        Ok(Some(match frame.into_data() {
            Ok(data) => AnswerPiece::Body(data),
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                AnswerPiece::Trailers(headers::of_answer(&trailers, self.form.left_out))
            }
        }))
    }
}

impl Egress {
    /// Sends a request of the step that has this opening, and returns the answer when its head is there. Private addresses
    /// are denied unless the configuration allows them. Only a request without a body that changes nothing is sent again, if
    /// a kept connection turns out to be dead.
    ///
    /// # Errors
    /// If the rules deny the destination, the parts make no request, or the upstream fails before its answer.
    pub async fn call(&self, opening: Id, call: Call) -> Result<Answered, EgressError> {
        if call.method.needs_length() && matches!(call.body, Outgoing::Pieces { length: None, .. })
        {
            let fault = "a body of GET or HEAD needs its length: say content_length";
            return Err(EgressError::Body(fault.to_owned()));
        }
        let may_repeat = call.method.may_be_repeated() && matches!(call.body, Outgoing::Nothing);
        let leaves_connection = call.leaves_connection();
        let left_out = LeftOut { of_plain_body: call.is_masked, cookies: call.has_credential() };
        let destination = call.address.destination().clone();
        let key = pool_key(opening, &call);
        let (identity, ca_certificate) = (call.identity, call.ca_certificate);
        let head = head(&call.address, &call.path, &call.parameters, &call.method)?;
        let (mut parts, ()) = head.into_parts();
        parts.headers = call.headers.with(call.rendered, &destination)?;
        if !leaves_connection {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let copy = may_repeat.then(|| parts.clone());
        let (body, is_sent) = SentBody::new(call.body);
        let mut message = Request::from_parts(parts, body);
        let how = AnswerForm { left_out, leaves_connection, is_sent };
        while let Some(mut line) = self.pool.take(&key, may_repeat) {
            match line.sender.try_send_request(message).await {
                Ok(response) => {
                    return self.answered(response, destination.at, (key, line), how);
                }
                Err(mut failed) => match (failed.take_message(), &copy) {
                    // Nothing was sent.
                    (Some(unsent), _) => message = unsent,
                    (None, Some(copy)) => message = again(copy),
                    (None, None) => return Err(of_call(&destination.at, failed.error())),
                },
            }
        }
        let handshake = Handshake {
            protocol: b"http/1.1",
            ca_certificate: ca_certificate.as_deref(),
            is_any_name: false,
            identity: identity.as_ref(),
        };
        let mut line = self.open_line(&destination, &handshake).await?;
        let sent = line.sender.send_request(message).await;
        let response = sent.map_err(|error| of_call(&destination.at, &error))?;
        self.answered(response, destination.at, (key, line), how)
    }

    /// Opens a connection. It takes at most 2 seconds once the name is looked up.
    async fn open_line(
        &self,
        destination: &Destination,
        handshake: &Handshake<'_>,
    ) -> Result<Line, EgressError> {
        let at = &destination.at;
        let addresses = self.dialler.look_up(destination).await?;
        let connecting = async {
            let stream = self.dialler.dial(destination, addresses, true).await?;
            Ok(match destination.is_plain {
                true => Connected::Plain(stream),
                false => Connected::Secure(self.tls.connect(stream, at, handshake).await?),
            })
        };
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_BYTES).max_header_size(BUFFER_BYTES).max_headers(MAX_HEADERS);
        let failed = |error: hyper::Error| of_call(at, &error);
        // A connection reports its faults to the exchange on it.
        Ok(match in_time(at, connecting).await? {
            Connected::Plain(stream) => {
                let (sender, line) =
                    builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
                Line { sender, task: tokio::spawn(async { drop(line.await) }) }
            }
            Connected::Secure(stream) => {
                let (sender, line) =
                    builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
                Line { sender, task: tokio::spawn(async { drop(line.await) }) }
            }
        })
    }

    fn answered(
        &self,
        response: Response<Incoming>,
        at: HostAndPort,
        (key, line): (PoolKey, Line),
        form: AnswerForm,
    ) -> Result<Answered, EgressError> {
        let invalid = |fault: &str| EgressError::Invalid(format!("{at}: {fault}"));
        let (parts, body) = response.into_parts();
        let status = parts.status;
        if status == StatusCode::SWITCHING_PROTOCOLS || status.is_informational() {
            return Err(invalid("the answer has a status below 200"));
        }
        if parts.headers.get_all(CONTENT_ENCODING).iter().any(|coding| !is_identity(coding)) {
            return Err(invalid(
                "the answer is compressed, although the request asked for none; values in it could not be masked",
            ));
        }
        let headers = headers::of_answer(&parts.headers, form.left_out);
        let kept = Some((Arc::clone(&self.pool), key, line));
        Ok(Answered { status: status.as_u16(), headers, body, at, kept, form })
    }
}

fn pool_key(opening: Id, call: &Call) -> PoolKey {
    let (connection, version) = call.of;
    let destination = call.address.destination();
    let scheme = if destination.is_plain { "http" } else { "https" };
    PoolKey { opening, connection, version, address: format!("{scheme}://{}", destination.at) }
}

/// The request's line: method, path, and the query with the parameters.
fn head(
    address: &Address,
    path: &SubPath,
    parameters: &Headers,
    method: &Method,
) -> Result<Request<()>, EgressError> {
    let mut target = Zeroizing::new(address.path_of(path));
    if target.is_empty() {
        target.push('/');
    }
    let mut joint = '?';
    if let Some(query) = path.query() {
        target.push('?');
        target.push_str(query);
        joint = if query.is_empty() || query.ends_with('&') { ' ' } else { '&' };
    }
    for (name, value) in parameters {
        if joint != ' ' {
            target.push(joint);
        }
        joint = '&';
        target.extend(form_urlencoded::byte_serialize(name.as_bytes()));
        target.push('=');
        target.extend(form_urlencoded::byte_serialize(value.expose()));
    }
    let target = PathAndQuery::try_from(target.as_str());
    let target =
        target.map_err(|_| EgressError::Malformed("the path cannot be sent".to_owned()))?;
    let mut head = Request::new(());
    *head.uri_mut() = target.into();
    *head.method_mut() = method.of_http();
    Ok(head)
}

fn again(copy: &Parts) -> Request<SentBody> {
    Request::from_parts(copy.clone(), SentBody::new(Outgoing::Nothing).0)
}

/// The failure of an exchange. A fault of the step's body is the step's.
fn of_call(at: &HostAndPort, error: &hyper::Error) -> EgressError {
    let cause = std::error::Error::source(error);
    match cause.and_then(|cause| cause.downcast_ref::<BodyFault>()) {
        Some(fault) => EgressError::Body(fault.to_string()),
        None => of_http(at, error),
    }
}
