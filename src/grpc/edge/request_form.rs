//! Checks the form of gRPC requests before their contents.
//!
//! tonic serves GET requests, requests without content-type or `:authority`, and requests with a `?query`. No gRPC
//! client sends these. Parts of a server that disagree about a request can be played against each other, so all of them
//! are refused (gRPC over HTTP/2, "Requests").
//!
//! A request that does not claim to be gRPC gets a bare HTTP status: 415, as the protocol requires, because gRPC errors
//! travel under 200 and would look like success. A gRPC request gets both: an HTTP status that everything on the way
//! takes for an error, and the gRPC status for that HTTP status (400 maps to INTERNAL), with a reason. A malformed path
//! is answered like an unknown path, by UNIMPLEMENTED.

use tonic::body::Body;
use tonic::codegen::http::header::{ALLOW, CONTENT_TYPE, HeaderName, TE};
use tonic::codegen::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tonic::{Code, Status};

use crate::grpc::convert::status;
use crate::model::HostName;

/// The accepted content types. gRPC-Web is for browsers, which have no client certificate.
const CONTENT_TYPES: [&[u8]; 2] = [b"application/grpc", b"application/grpc+proto"];
/// The names of a door that a client may send as `:authority`.
#[derive(Clone, Copy)]
pub(crate) enum Authorities<'a> {
    /// `localhost`, on a Unix socket.
    Socket,
    /// Those of the daemon's options, over TCP.
    Tcp(&'a [HostName]),
}

impl Authorities<'_> {
    /// True for a name of the door, with or without a port. Some clients add a port.
    fn have(self, authority: &str) -> bool {
        let host = HostName::of_authority(authority);
        host.is_some_and(|host| match self {
            Self::Socket => host == HostName::localhost(),
            Self::Tcp(names) => names.contains(&host),
        })
    }
}

/// A fault in the form of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FormFault {
    Authority,
    ContentType,
    Method,
    Path,
    Query,
    Scheme,
    TcpAuthority,
    Te,
}

/// The response to a request that is not well formed; `None` if the form is right.
pub(crate) fn refusal<B>(
    request: &Request<B>,
    authorities: Authorities<'_>,
) -> Option<Response<Body>> {
    fault(request, authorities).map(|fault| {
        let speaks_grpc = has_content_type(request.headers());
        tracing::debug!(?fault, "a request was refused for its form");
        answer(fault, speaks_grpc)
    })
}

fn fault<B>(request: &Request<B>, authorities: Authorities<'_>) -> Option<FormFault> {
    let (uri, headers) = (request.uri(), request.headers());
    let authority = match authorities {
        Authorities::Socket => FormFault::Authority,
        Authorities::Tcp(_) => FormFault::TcpAuthority,
    };
    let checks = [
        (request.method() == Method::POST, FormFault::Method),
        (has_content_type(headers), FormFault::ContentType),
        (only(headers, &TE).is_some_and(|te| te == "trailers"), FormFault::Te),
        (matches!(uri.scheme_str(), Some("http" | "https")), FormFault::Scheme),
        (uri.authority().is_some_and(|given| authorities.have(given.as_str())), authority),
        (uri.query().is_none(), FormFault::Query),
        (is_method_path(uri.path()), FormFault::Path),
    ];
    checks.into_iter().find(|(is_right, _)| !is_right).map(|(_, fault)| fault)
}

fn answer(fault: FormFault, speaks_grpc: bool) -> Response<Body> {
    let (http, words) = match fault {
        FormFault::Authority => (
            StatusCode::BAD_REQUEST,
            ":authority must be localhost; set the client's option for it (in grpcio \
             grpc.default_authority, in grpcurl -authority)",
        ),
        FormFault::TcpAuthority => (
            StatusCode::BAD_REQUEST,
            ":authority must be one of the names that the broker serves operators under (serve --admin-name); \
             keyhatch status on its host prints them",
        ),
        FormFault::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, ""),
        FormFault::Method => {
            (StatusCode::METHOD_NOT_ALLOWED, "the method of a gRPC request is POST")
        }
        FormFault::Path => (StatusCode::OK, "nothing is served at this path"),
        FormFault::Query => (StatusCode::BAD_REQUEST, "the path of a gRPC request has no query"),
        FormFault::Scheme => (StatusCode::BAD_REQUEST, ":scheme must be https"),
        FormFault::Te => (StatusCode::BAD_REQUEST, "a gRPC request has the header te: trailers"),
    };
    let mut response = match (speaks_grpc, fault) {
        (false, _) => Response::new(Body::default()),
        (true, FormFault::Path) => Status::new(Code::Unimplemented, words).into_http(),
        (true, _) => status::refused_early(Code::Internal, "HTTP_INVALID", words, None).into_http(),
    };
    let http = if fault == FormFault::Path && !speaks_grpc { StatusCode::NOT_FOUND } else { http };
    *response.status_mut() = http;
    if fault == FormFault::Method {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// The value of a header that occurs exactly once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_none() { first } else { None }
}

fn has_content_type(headers: &HeaderMap) -> bool {
    only(headers, &CONTENT_TYPE).is_some_and(|value| CONTENT_TYPES.contains(&value.as_bytes()))
}

/// True for `/package.Service/Method`, in the characters of protobuf names.
fn is_method_path(path: &str) -> bool {
    let is_name = |name: &str, others: &[u8]| {
        let is_of_it = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
        !name.is_empty() && name.bytes().all(is_of_it)
    };
    path.strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .is_some_and(|(service, method)| is_name(service, b"._") && is_name(method, b"_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_service_and_a_method() {
        assert!(is_method_path("/keyhatch.v1.StepService/Resolve"));
        for path in [
            "", "/", "//", "/a", "/a/", "//a/b", "/a//b", "/a/b/", "/a/b/c", "/a/..", "/a/%62",
            "a/b",
        ] {
            assert!(!is_method_path(path), "{path}");
        }
    }

    #[test]
    fn a_door_has_its_own_names_only() {
        let names = ["broker.example.com", "192.0.2.1"].map(|name| HostName::parse(name).unwrap());
        let (socket, tcp) = (Authorities::Socket, Authorities::Tcp(&names));
        for authority in ["localhost", "LOCALHOST", "localhost:443"] {
            assert!(socket.have(authority) && !tcp.have(authority), "{authority}");
        }
        for authority in ["broker.example.com:7443", "Broker.example.com", "192.0.2.1:7443"] {
            assert!(tcp.have(authority) && !socket.have(authority), "{authority}");
        }
        for authority in ["", "127.0.0.1", "localhost.", "x.broker.example.com", "example.com"] {
            assert!(!tcp.have(authority) && !socket.have(authority), "{authority}");
        }
    }
}
