//! Refused connections: every one is counted, and a few a second are logged.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error as TlsError, PeerMisbehaved};
use tracing::field::{DisplayValue, display};

use crate::identity::socket::Origin;
use crate::metrics::LabelCounters;
use crate::model::LogLimit;

/// How many log lines a second the clients of one door can cause.
const LINES_PER_SECOND: u32 = 10;

/// Every reason for which a connection is refused, as the metrics name it.
pub const REFUSALS: [&str; 19] = [
    "GONE",
    "TOO_MANY_HANDSHAKES",
    "TOO_OFTEN",
    "NO_CREDENTIALS",
    "NO_IDENTITY",
    "OTHER_USER",
    "HANDSHAKE_TOO_SLOW",
    "TOO_MANY_CONNECTIONS",
    "HANDSHAKE_BROKEN_OFF",
    "NO_CERTIFICATE",
    "OWN_CERTIFICATE_REFUSED",
    "TLS_INCOMPATIBLE",
    "TLS_INVALID",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_NOT_YET_VALID",
    "CERTIFICATE_ISSUER_UNKNOWN",
    "CERTIFICATE_ELSEWHERE",
    "CERTIFICATE_UNKNOWN",
    "CERTIFICATE_INVALID",
];

/// Why a connection was refused, apart from errors of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionRefusal {
    /// The client disconnected before the connection was accepted.
    Gone,
    /// No handshake slot is free, and none can be freed.
    NoSlot,
    /// The handshake slot went to another client.
    Evicted,
    /// The user or address connects too often.
    TooOften,
    /// The system returns no credentials of the client.
    NoCredentials,
    /// The certificate names no known identity.
    NoIdentity,
    /// The user is not the user of the socket.
    OtherUser,
    /// The handshake did not finish in time.
    Slow,
    /// The connection quota is used up.
    TooMany,
}

impl ConnectionRefusal {
    /// The reason in the metrics, and the text in the log.
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Gone => ("GONE", "a client disconnected before its connection was accepted"),
            Self::NoSlot => (
                "TOO_MANY_HANDSHAKES",
                "a connection was refused: too many handshakes of such clients are unfinished",
            ),
            Self::Evicted => (
                "TOO_MANY_HANDSHAKES",
                "a handshake was aborted for another client: too many of such clients are unfinished",
            ),
            Self::TooOften => {
                ("TOO_OFTEN", "a connection was refused: its user or address connects too often")
            }
            Self::NoCredentials => {
                ("NO_CREDENTIALS", "a connection without peer credentials was refused")
            }
            Self::NoIdentity => {
                ("NO_IDENTITY", "a connection was refused: its certificate is not accepted")
            }
            Self::OtherUser => ("OTHER_USER", "a connection of another Unix user was refused"),
            Self::Slow => ("HANDSHAKE_TOO_SLOW", "a handshake took too long"),
            Self::TooMany => (
                "TOO_MANY_CONNECTIONS",
                "a connection was refused: its peer has too many connections",
            ),
        }
    }
}

/// Counts and logs the refused connections of one door. The clients of a door take no log line of another door.
pub struct Refusals {
    counters: Arc<LabelCounters>,
    pub(super) log: LogLimit,
}

impl Refusals {
    /// The refusals of one door, which these metrics count.
    pub fn new(counters: Arc<LabelCounters>) -> Arc<Self> {
        Arc::new(Self { counters, log: LogLimit::new(LINES_PER_SECOND) })
    }

    /// Notes a refusal, with the origin of the connection if it is known.
    pub(crate) fn note(&self, refusal: ConnectionRefusal, origin: Option<Origin>) {
        let (reason, text) = refusal.texts();
        self.counters.count(reason);
        let Some(suppressed) = self.log.allow() else { return };
        match refusal {
            ConnectionRefusal::Gone => tracing::info!(suppressed, "{text}"),
            _ => tracing::warn!(
                peer.uid = origin.and_then(Origin::uid),
                peer.address = address_of(origin),
                suppressed,
                "{text}"
            ),
        }
    }

    /// Notes a failed handshake.
    pub(super) fn note_handshake(&self, error: &io::Error, origin: Origin) {
        self.counters.count(fault(error));
        let Some(suppressed) = self.log.allow() else { return };
        let (uid, address) = (origin.uid(), address_of(Some(origin)));
        if let Some(TlsError::PeerMisbehaved(PeerMisbehaved::ServerNameMustContainOneHostName)) =
            tls_error(error)
        {
            tracing::warn!(
                peer.uid = uid,
                peer.address = address,
                suppressed,
                "a handshake was refused: the client sent a server name that is not a host name, as Python's \
                 grpcio does over unix sockets; set its option grpc.default_authority to localhost"
            );
        } else {
            tracing::info!(peer.uid = uid, peer.address = address, %error, suppressed, "a handshake was refused");
        }
    }
}

/// The address of a network, as the log shows it.
pub(super) fn address_of(origin: Option<Origin>) -> Option<DisplayValue<SocketAddr>> {
    origin.and_then(Origin::address).map(display)
}

/// The error of rustls, if rustls made the handshake fail.
fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref().and_then(|cause| cause.downcast_ref())
}

/// The reason of a failed handshake, as the metrics name it.
fn fault(error: &io::Error) -> &'static str {
    match tls_error(error) {
        // The client disconnected.
        None => "HANDSHAKE_BROKEN_OFF",
        Some(TlsError::NoCertificatesPresented) => "NO_CERTIFICATE",
        Some(TlsError::InvalidCertificate(fault)) => certificate_fault(fault),
        Some(TlsError::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown,
        )) => "OWN_CERTIFICATE_REFUSED",
        Some(TlsError::AlertReceived(_)) => "HANDSHAKE_BROKEN_OFF",
        Some(TlsError::PeerIncompatible(_) | TlsError::NoApplicationProtocol) => "TLS_INCOMPATIBLE",
        Some(_) => "TLS_INVALID",
    }
}

fn certificate_fault(fault: &CertificateError) -> &'static str {
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "CERTIFICATE_EXPIRED"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "CERTIFICATE_NOT_YET_VALID"
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "CERTIFICATE_ISSUER_UNKNOWN"
        }
        CertificateError::ApplicationVerificationFailure => "CERTIFICATE_ELSEWHERE",
        CertificateError::Revoked => "CERTIFICATE_UNKNOWN",
        _ => "CERTIFICATE_INVALID",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_takes_no_log_line_of_another() {
        let [one, other] = [(), ()].map(|()| Refusals::new(Arc::default()));
        while one.log.allow().is_some() {}
        assert!(other.log.allow().is_some());
    }
}
