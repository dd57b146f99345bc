//! The public half of the root, as `ca.crt` holds it.

use super::svid::sha256;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The root's public key, for signatures on other things than certificates.
pub struct RootKey {
    key: UnparsedPublicKey<Vec<u8>>,
    sha256: [u8; 32],
}

impl RootKey {
    /// Reads the key of the first certificate in a PEM text; `None` if it holds no certificate with such a key.
    pub fn from_pem(pem: &str) -> Option<Self> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
        let point = parsed.public_key().subject_public_key.data.to_vec();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
        Some(Self { key, sha256: sha256(&certificate) })
    }

    /// The SHA-256 of the certificate, which people compare.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// True if the root has signed this message.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify(message, signature).is_ok()
    }
}
