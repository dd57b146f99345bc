//! Why an exchange failed.

use std::net::{Ipv4Addr, UdpSocket};

use rustix::io::Errno;

use super::destination::HostAndPort;

/// Why an exchange failed. Texts contain no value and nothing that the upstream sent. They name its host and are for
/// operators.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The system forbids this process to use the network.
    #[error(
        "{0}: the system forbids the daemon to use the network; its unit is closed, or a firewall of this host denies the \
         address: print a unit with keyhatch config systemd-unit --network"
    )]
    Closed(String),
    /// The rules deny it.
    #[error("{0}")]
    Denied(String),
    /// The step's own body is not as it was announced.
    #[error("{0}")]
    Body(String),
    /// The request is not well formed: the URL, a header.
    #[error("{0}")]
    Malformed(String),
    /// The upstream's reply breaks HTTP, or is too large.
    #[error("{0}")]
    Invalid(String),
    /// The upstream cannot be reached, or does not answer in time.
    #[error("{0}")]
    Unavailable(String),
}

impl EgressError {
    /// A failed look-up, connection or transfer.
    pub(super) fn unavailable(at: &HostAndPort, fault: impl std::fmt::Display) -> Self {
        Self::Unavailable(format!("{at}: {fault}"))
    }

    /// The failure of a system call on the way to an upstream.
    pub(super) fn of_system(at: &HostAndPort, error: &std::io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::AFNOSUPPORT) if has_ipv4() => {
                Self::unavailable(at, "this host has no IPv6")
            }
            Some(Errno::AFNOSUPPORT | Errno::PERM | Errno::ACCESS) => Self::Closed(at.to_string()),
            Some(errno) => Self::unavailable(at, std::io::Error::from(errno)),
            // Such an error is made by a library, and could quote the upstream.
            None => Self::unavailable(at, error.kind()),
        }
    }
}

/// True if this process may use the network at all.
fn has_ipv4() -> bool {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).is_ok()
}
