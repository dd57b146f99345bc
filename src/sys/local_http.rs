//! HTTP/1.1 for programs on this machine, within limits.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

/// How long to wait before accepting again if the system has no file descriptor left.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(250);

/// A response whose body is sent as a whole.
pub type HttpResponse = Response<Full<Bytes>>;

/// The limits of one connection.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// How long the head of the request may take.
    pub head_timeout: Duration,
    /// How long request and response may take together, on a connection that serves one request. `None`: a connection
    /// serves any number, and the responses end by themselves.
    pub timeout: Option<Duration>,
    /// The longest head of the request, in bytes; hyper takes no less than 8 KiB.
    pub max_head_bytes: usize,
    /// The most headers of the request.
    pub max_headers: usize,
}

/// Accepts the next connection, however long that takes.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(_) => tokio::time::sleep(OUT_OF_FILES_PAUSE).await,
        }
    }
}

/// Reads requests from a connection and writes their responses, as the limits say. Returns when the last response is
/// sent, the client is gone or the time is up. If the body of a response fails, the connection is cut.
pub async fn serve_connection<Content, Responding>(
    stream: TcpStream,
    limits: HttpLimits,
    respond: impl Fn(Request<Incoming>) -> Responding,
) where
    Content: Body<Data = Bytes> + 'static,
    Content::Error: Into<Box<dyn Error + Send + Sync>>,
    Responding: Future<Output = Response<Content>>,
{
    let service = service_fn(|request| {
        let responding = respond(request);
        async { Ok::<_, Infallible>(responding.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .keep_alive(limits.timeout.is_none())
        .max_buf_size(limits.max_head_bytes)
        .max_headers(limits.max_headers)
        .serve_connection(TokioIo::new(stream), service);
    // A client that neither reads nor writes in time gets no response.
    let _ = match limits.timeout {
        Some(timeout) => tokio::time::timeout(timeout, connection).await.unwrap_or(Ok(())),
        None => connection.await,
    };
}

/// A response that nobody may cache.
pub fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> HttpResponse {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
