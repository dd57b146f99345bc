//! From a leaf certificate to an identity.
//!
//! X509-SVID section 5.2: "leaf … validators MUST ensure that the cA field … is not set to true, and
//! that keyCertSign and cRLSign are not set in the key usage extension"; section 2: "An X.509 SVID MUST
//! contain exactly one URI SAN". We ask more: digitalSignature must be set, and the extended key usage,
//! which the standard leaves optional, must be clientAuth.
//!
//! rustls has checked the chain, the dates and, where there is one, the extended key usage before this runs.

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use crate::model::{Invalid, SpiffeId, Timestamp, TrustDomain};

/// What a verified leaf certificate says.
#[derive(Clone, Debug)]
pub struct Svid {
    /// Whom it speaks for.
    pub id: SpiffeId,
    /// SHA-256 of the certificate: what is pinned.
    pub sha256: [u8; 32],
    /// SHA-256 of its public key.
    key_sha256: [u8; 32],
    /// Its beginning.
    pub not_before: Timestamp,
    /// Its end.
    pub not_after: Timestamp,
}

/// Why a certificate is no SVID of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// It can issue certificates.
    #[error("the certificate is a CA's")]
    Authority,
    /// It may be used for anything.
    #[error("the certificate does not say what it is for: it has no extended key usage")]
    ExtendedKeyUsage,
    /// Its SPIFFE ID is not ours.
    #[error(transparent)]
    Id(#[from] Invalid),
    /// Its key usage is wrong.
    #[error("the certificate's key usage is not digitalSignature alone")]
    KeyUsage,
    /// It cannot be read.
    #[error("the certificate is malformed")]
    Malformed,
    /// It has no SPIFFE ID or more than one.
    #[error("the certificate has {0} URI names instead of one")]
    UriCount(usize),
}

impl Svid {
    /// Reads the first certificate of a PEM text that is known to be good.
    ///
    /// # Errors
    /// Which rule it breaks.
    pub fn parse_pem(pem: &str, domain: &TrustDomain) -> Result<Self, SvidError> {
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes());
        Self::parse(&leaf.map_err(|_| SvidError::Malformed)?, domain)
    }

    /// Reads one's own certificate, the first of a PEM text, in whatever trust domain it stands.
    ///
    /// # Errors
    /// Which rule it breaks.
    pub fn parse_own(pem: &str) -> Result<Self, SvidError> {
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes());
        let leaf = leaf.map_err(|_| SvidError::Malformed)?;
        Self::read(&leaf, |uri| SpiffeId::parse(uri, &TrustDomain::of(uri)?))
    }

    /// Whether it is for this public key (SubjectPublicKeyInfo, DER).
    pub fn is_for_key(&self, public_key: &[u8]) -> bool {
        self.key_sha256 == sha256(public_key)
    }

    /// Whether it is another certificate for the same name and key.
    pub fn is_renewal_of(&self, old: &Self) -> bool {
        self.id == old.id && self.key_sha256 == old.key_sha256
    }

    /// When it is to be renewed: after two thirds of its life.
    pub fn renewal(&self) -> Timestamp {
        self.not_before.two_thirds_to(self.not_after)
    }

    /// Reads the leaf of a verified chain.
    ///
    /// # Errors
    /// Which rule it breaks.
    pub fn parse(leaf: &[u8], domain: &TrustDomain) -> Result<Self, SvidError> {
        Self::read(leaf, |uri| SpiffeId::parse(uri, domain))
    }

    fn read(
        leaf: &[u8],
        parse_id: impl FnOnce(&str) -> Result<SpiffeId, Invalid>,
    ) -> Result<Self, SvidError> {
        let (rest, certificate) =
            X509Certificate::from_der(leaf).map_err(|_| SvidError::Malformed)?;
        if !rest.is_empty() {
            return Err(SvidError::Malformed);
        }
        if certificate.is_ca() {
            return Err(SvidError::Authority);
        }
        check_key_usage(&certificate)?;
        // webpki takes one without it for one that may do everything.
        let extended = certificate.extended_key_usage().map_err(|_| SvidError::Malformed)?;
        extended.ok_or(SvidError::ExtendedKeyUsage)?;
        let uris = uri_names(&certificate)?;
        let [uri] = uris.as_slice() else { return Err(SvidError::UriCount(uris.len())) };
        let validity = certificate.validity();
        Ok(Self {
            id: parse_id(uri)?,
            sha256: sha256(leaf),
            key_sha256: sha256(certificate.public_key().raw),
            not_before: Timestamp::from_seconds(validity.not_before.timestamp()),
            not_after: Timestamp::from_seconds(validity.not_after.timestamp()),
        })
    }
}

fn check_key_usage(certificate: &X509Certificate<'_>) -> Result<(), SvidError> {
    let usage = certificate.key_usage().map_err(|_| SvidError::Malformed)?;
    match usage.map(|usage| usage.value) {
        Some(usage) if usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign() => {
            Ok(())
        }
        _ => Err(SvidError::KeyUsage),
    }
}

fn uri_names<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, SvidError> {
    let mut uris = Vec::new();
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                for name in &names.general_names {
                    match name {
                        GeneralName::URI(uri) => uris.push(*uri),
                        GeneralName::Invalid(..) => return Err(SvidError::Malformed),
                        _ => {}
                    }
                }
            }
            ParsedExtension::ParseError { .. } => return Err(SvidError::Malformed),
            _ => {}
        }
    }
    Ok(uris)
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut output = [0; 32];
    output.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    output
}
