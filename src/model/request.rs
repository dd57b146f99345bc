//! Requests that a client gives an id, bound to everything that they ask for.

use serde::{Deserialize, Serialize};

use super::names::name::RequestId;
use super::text::hex_bytes;

/// A keyed MAC over the method and everything that a request asks for, values included. Without the key it says nothing
/// about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestMac(#[serde(with = "hex_bytes")] [u8; 32]);

impl From<[u8; 32]> for RequestMac {
    fn from(mac: [u8; 32]) -> Self {
        Self(mac)
    }
}

/// The id of a request that is carried out once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedRequest {
    /// The client's id of the request.
    #[serde(rename = "request_id")]
    pub id: RequestId,
    /// The request's MAC. A different request with the same id is refused.
    #[serde(rename = "request_mac")]
    pub mac: RequestMac,
}
