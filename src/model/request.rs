//! A client's name for one request, bound to everything that it asks for.

use serde::{Deserialize, Serialize};

use super::names::name::RequestId;
use super::text::hex_bytes;

/// Stands for one request: a keyed MAC over the method and all that is asked for, values included. Without the key it
/// says nothing about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestMac(#[serde(with = "hex_bytes")] [u8; 32]);

impl From<[u8; 32]> for RequestMac {
    fn from(mac: [u8; 32]) -> Self {
        Self(mac)
    }
}

/// A request that is done once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedRequest {
    /// What the client calls it.
    #[serde(rename = "request_id")]
    pub id: RequestId,
    /// What it is. Another under the same id is refused.
    #[serde(rename = "request_mac")]
    pub mac: RequestMac,
}
