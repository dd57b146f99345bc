//! Checks of a certificate that need no private key: its validity and its issuer.

use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::identity::tls::{TlsError, certificates, check_client, check_daemon};
use crate::model::Timestamp;

/// When a certificate begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first moment.
    pub not_before: Timestamp,
    /// Its last moment.
    pub not_after: Timestamp,
}

impl Validity {
    /// The validity of the first certificate in a PEM text.
    ///
    /// # Errors
    /// If the text holds no certificate.
    pub fn of_pem(pem: &str) -> Result<Self, TlsError> {
        let chain = certificates(pem)?;
        let first = chain.first().and_then(|first| X509Certificate::from_der(first).ok());
        let (_, certificate) = first.ok_or(TlsError::Pem("certificate"))?;
        Ok(Self::of(&certificate))
    }

    /// The validity of a parsed certificate.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        Self {
            not_before: Timestamp::from_seconds(certificate.validity().not_before.timestamp()),
            not_after: Timestamp::from_seconds(certificate.validity().not_after.timestamp()),
        }
    }
}

/// The use of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateRole {
    /// An operator, an executor or a step.
    Client,
    /// The daemon.
    Daemon,
}

/// Checks that a root has issued this chain (PEM, leaf first) for a role, and that it is valid now. The registry is not
/// asked, so a removed or replaced certificate passes.
///
/// # Errors
/// Why the other side would refuse it.
pub fn check_issued(
    chain_pem: &str,
    root_pem: &str,
    role: CertificateRole,
    now: Timestamp,
) -> Result<(), TlsError> {
    let chain = certificates(chain_pem)?;
    let root = certificates(root_pem)?.into_iter().next().ok_or(TlsError::Pem("certificate"))?;
    match role {
        CertificateRole::Client => check_client(&chain, &root, now),
        CertificateRole::Daemon => check_daemon(&chain, &root, now, &[]),
    }
}
