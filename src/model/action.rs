//! What the broker does with a credential for a step that does not get it.

use serde::{Deserialize, Serialize};

/// What the broker does with a credential for a step that does not get it, as leases and lines of the journal name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It sends an HTTP request.
    Send(SendAction),
}

/// An HTTP request, without its query and without any value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendAction {
    /// The service of the upstream; `None` for its API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The method.
    pub method: String,
    /// The host, with its port if that is not the usual one; `None` if the connection has no address, or nothing is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path without its query, at most 1 KiB of it: below the connection's address.
    pub path: String,
}
