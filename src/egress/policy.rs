//! Where the daemon may connect to.

use serde::{Deserialize, Serialize};

/// The table `egress` of the configuration file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressTable {
    /// Destinations that are allowed although they are denied by default: a CIDR, a host, or `http://HOST:PORT`.
    pub allow: Vec<String>,
    /// Destinations that are denied although they are allowed by default.
    pub deny: Vec<String>,
    /// The proxy, `http://HOST:PORT`.
    pub proxy: Option<String>,
}
