//! Whoever is not let in: counted every time, and said in the log now and then.

use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error as TlsError, PeerMisbehaved};

use super::CLIENT_LOG_LIMIT;
use crate::metrics::LabelCounters;

/// Every word that a connection which is not let in is counted by.
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

/// Why a connection ended before its handshake was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionRefusal {
    /// It was closed by the other end before its turn came.
    Gone,
    /// Too many of a kind stand in the door.
    AtDoor,
    /// It stood in the door, and somebody came who needed the place.
    GaveWay,
    /// One user connects too often.
    TooOften,
    /// The system does not say whose it is.
    NoCredentials,
    /// Its certificate says nobody.
    NoIdentity,
    /// It is not of the user that the socket is for.
    OtherUser,
    /// Its handshake took too long.
    Slow,
    /// As many are connected as may be.
    TooMany,
}

impl ConnectionRefusal {
    /// The word it is counted by, and what the log says.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Gone => ("GONE", "a peer had gone before its turn came"),
            Self::AtDoor => (
                "TOO_MANY_HANDSHAKES",
                "a peer was turned away: too many of its like are at the door",
            ),
            Self::GaveWay => (
                "TOO_MANY_HANDSHAKES",
                "a peer gave way to another: too many of its like are at the door",
            ),
            Self::TooOften => ("TOO_OFTEN", "a peer was turned away: its user connects too often"),
            Self::NoCredentials => ("NO_CREDENTIALS", "a peer without credentials was turned away"),
            Self::NoIdentity => ("NO_IDENTITY", "a handshake without an identity was dropped"),
            Self::OtherUser => ("OTHER_USER", "a peer of another user was turned away"),
            Self::Slow => ("HANDSHAKE_TOO_SLOW", "a handshake took too long"),
            Self::TooMany => {
                ("TOO_MANY_CONNECTIONS", "a peer was turned away: as many are connected as may be")
            }
        }
    }
}

/// The refusals of one door.
#[derive(Clone)]
pub(crate) struct RefusalCounter(pub(crate) Arc<LabelCounters>);

impl RefusalCounter {
    /// Notes a refusal; of whom, if that is known.
    pub(crate) fn note(&self, refusal: ConnectionRefusal, uid: Option<u32>) {
        let (word, text) = refusal.words();
        self.0.count(word);
        let Some(suppressed) = CLIENT_LOG_LIMIT.allow() else { return };
        match refusal {
            ConnectionRefusal::Gone => tracing::info!(suppressed, "{text}"),
            _ => tracing::warn!(peer.uid = uid, suppressed, "{text}"),
        }
    }

    /// Notes a handshake that failed.
    pub(super) fn note_handshake(&self, error: &io::Error, uid: u32) {
        self.0.count(fault(error));
        let Some(suppressed) = CLIENT_LOG_LIMIT.allow() else { return };
        if let Some(TlsError::PeerMisbehaved(PeerMisbehaved::ServerNameMustContainOneHostName)) =
            tls_error(error)
        {
            tracing::warn!(
                peer.uid = uid,
                suppressed,
                "a handshake was refused: the client sent a server name that is no host name, as Python's \
                 grpcio does over unix sockets; set its option grpc.default_authority to localhost"
            );
        } else {
            tracing::info!(peer.uid = uid, %error, suppressed, "a handshake was refused");
        }
    }
}

/// The error of rustls, if the handshake failed by one.
fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref().and_then(|cause| cause.downcast_ref())
}

/// What was wrong with a handshake, in one of a few words.
fn fault(error: &io::Error) -> &'static str {
    match tls_error(error) {
        // The client ended the connection.
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
