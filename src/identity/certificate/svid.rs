//! From a leaf certificate to an identity.
//!
//! X509-SVID section 5.2: "leaf … validators MUST ensure that the cA field … is not set to true, and that keyCertSign
//! and cRLSign are not set in the key usage extension"; section 2: "An X.509 SVID MUST contain exactly one URI SAN".
//! Ours are narrower: digitalSignature must be set, and the extended key usage, optional in the standard, must be
//! clientAuth.
//!
//! rustls has checked the chain, the dates and a present extended key usage before this code runs.

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use crate::model::{Invalid, SpiffeId, Timestamp, TrustDomain};

/// The contents of a verified leaf certificate.
#[derive(Clone, Debug)]
pub struct Svid {
    /// The identity.
    pub id: SpiffeId,
    /// SHA-256 of the certificate, as the registry pins it.
    pub sha256: [u8; 32],
    /// SHA-256 of its public key (SubjectPublicKeyInfo, DER), which people compare.
    pub key_sha256: [u8; 32],
    /// The first moment of its validity.
    pub not_before: Timestamp,
    /// The last moment of its validity.
    pub not_after: Timestamp,
}

/// Why a certificate is not an SVID of this deployment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// It is a CA certificate.
    #[error("the certificate is a CA certificate")]
    Authority,
    /// It has no extended key usage.
    #[error("the certificate has no extended key usage")]
    ExtendedKeyUsage,
    /// Its SPIFFE ID is malformed or of another trust domain.
    #[error(transparent)]
    Id(#[from] Invalid),
    /// Its key usage is not digitalSignature alone.
    #[error("the certificate's key usage is not digitalSignature alone")]
    KeyUsage,
    /// It cannot be read.
    #[error("the certificate is malformed")]
    Malformed,
    /// It has no URI name, or more than one.
    #[error("the certificate has {0} URI names instead of one")]
    UriCount(usize),
}

impl Svid {
    /// Parses the first certificate of a PEM text that was verified before.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse_pem(pem: &str, domain: &TrustDomain) -> Result<Self, SvidError> {
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes());
        Self::parse(&leaf.map_err(|_| SvidError::Malformed)?, domain)
    }

    /// Parses the own certificate, the first of a PEM text, in any trust domain.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse_own(pem: &str) -> Result<Self, SvidError> {
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes());
        let leaf = leaf.map_err(|_| SvidError::Malformed)?;
        Self::read(&leaf, |uri| SpiffeId::parse(uri, &TrustDomain::of(uri)?))
    }

    /// True if it is for this public key (SubjectPublicKeyInfo, DER).
    pub fn is_for_key(&self, public_key: &[u8]) -> bool {
        self.key_sha256 == sha256(public_key)
    }

    /// True if it has the identity and key of `old`.
    pub fn is_renewal_of(&self, old: &Self) -> bool {
        self.id == old.id && self.key_sha256 == old.key_sha256
    }

    /// When it is to be renewed: after two thirds of its validity.
    pub fn renewal(&self) -> Timestamp {
        self.not_before.two_thirds_to(self.not_after)
    }

    /// Parses the leaf of a verified chain.
    ///
    /// # Errors
    /// The rule that it breaks.
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
        // webpki allows every use to a certificate without this extension.
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
