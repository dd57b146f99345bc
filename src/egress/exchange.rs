//! One request and its reply.

use crate::model::{Timestamp, Value};

/// Headers by name. Values may be secret.
pub type Headers = Vec<(String, Value)>;

/// A request to an upstream.
pub struct Request {
    /// `GET`, `POST` or `DELETE`.
    pub method: &'static str,
    /// An absolute `https` URL; `http` only where the configuration allows it by name. It may contain a secret.
    pub url: Value,
    /// The headers, without `Host` and `Content-Length`.
    pub headers: Headers,
    /// The body.
    pub body: Value,
    /// Certificates, PEM, that replace the system's roots.
    pub ca_certificate: Option<Vec<u8>>,
    /// True if private ranges are denied, because a step sees the reply.
    pub is_private_denied: bool,
}

/// The reply of an upstream.
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers, with names in lower case.
    pub headers: Headers,
    /// The body, of at most 64 KiB.
    pub body: Value,
    /// The upstream's clock, by its header `Date`.
    pub date: Option<Timestamp>,
}
