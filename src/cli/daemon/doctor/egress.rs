//! The way out to the upstreams of minted connections.

use super::diagnosis::Diagnosis;
use super::site::Site;
use crate::egress::{name_servers, system_roots};

/// Whether TLS to upstreams has roots, and what the rules are.
pub(super) fn check(site: &Site) -> Diagnosis {
    let (roots, (allowed, denied, proxy)) = (system_roots().len(), site.egress.summary());
    if roots == 0 {
        return Diagnosis::warn(
            "upstreams",
            "this system has no root certificates; only connections with a ca_certificate can be minted",
            "install the package ca-certificates, or name a file with SSL_CERT_FILE in the daemon's environment",
        );
    }
    let servers: Vec<_> = name_servers().iter().map(ToString::to_string).collect();
    let proxy = proxy.map(|proxy| format!(", through the proxy {proxy}")).unwrap_or_default();
    let servers = servers.join(", ");
    Diagnosis::ok(
        "upstreams",
        format!(
            "{roots} root certificates; name servers {servers}; egress allows {allowed} destinations by name or \
             range{proxy} and denies {denied}"
        ),
    )
}
