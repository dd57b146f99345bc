//! Certificate signing requests (PKCS #10, RFC 2986), and checks of keys and certificates in values. A client creates
//! its key itself and sends only the public half.

use base64::Engine as _;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};
use zeroize::Zeroizing;

use super::authority::AuthorityError;
use super::validity::Validity;
use crate::identity::tls::provider;

/// The largest request in bytes. A P-256 key, a name and a signature take some 400.
const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// Why a request cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is not a certificate signing request.
    #[error("it is not a certificate signing request (PKCS #10, PEM or DER)")]
    Malformed,
    /// Its author does not hold the private key.
    #[error("it is not signed by its own key")]
    Signature,
    /// A renewal is for the current key only.
    #[error(
        "it is for another key than the current certificate; register again to use another key"
    )]
    OtherKey,
    /// Its key is not ECDSA P-256.
    #[error("its key is not ECDSA P-256, the type that every TLS library supports")]
    KeyType,
}

/// Creates a private key (PKCS #8, PEM) and a request for its certificate (PEM).
///
/// # Errors
/// If the key cannot be created.
pub fn new_request() -> Result<(Zeroizing<String>, String), AuthorityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok((Zeroizing::new(key.serialize_pem()), request_of(&key)?))
}

/// Creates a request (PEM) for another certificate of a private key in PEM.
///
/// # Errors
/// If the key cannot be read.
pub fn request_for(key_pem: &str) -> Result<String, AuthorityError> {
    request_of(&KeyPair::from_pem(key_pem)?)
}

fn request_of(key: &KeyPair) -> Result<String, AuthorityError> {
    let mut params = CertificateParams::default();
    // The broker uses only the key of a request.
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.pem()?)
}

/// The public key (SubjectPublicKeyInfo, DER) of a request in PEM or DER. Everything else in the request is ignored.
///
/// # Errors
/// If the request is malformed, is not signed by its own key, or its key is not ECDSA P-256.
pub fn requested_key(request: &[u8]) -> Result<Vec<u8>, RequestError> {
    if request.len() > MAX_REQUEST_BYTES {
        return Err(RequestError::Malformed);
    }
    let from_pem = CertificateSigningRequestDer::from_pem_slice(request).ok();
    let der = from_pem.as_ref().map_or(request, |der| der.as_ref());
    let (rest, parsed) =
        X509CertificationRequest::from_der(der).map_err(|_| RequestError::Malformed)?;
    if !rest.is_empty() {
        return Err(RequestError::Malformed);
    }
    let key = &parsed.certification_request_info.subject_pki;
    let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err(RequestError::KeyType);
    }
    parsed.verify_signature().map_err(|_| RequestError::Signature)?;
    Ok(key.raw.to_vec())
}

/// A fault of a certificate or its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemFault {
    /// The text holds no certificate.
    #[error("the value is not a PEM certificate")]
    Certificate,
    /// The text holds no private key.
    #[error("the value is not a PEM private key")]
    PrivateKey,
    /// The key does not belong to the certificate.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
}

/// Checks that a text holds a certificate or a chain.
///
/// # Errors
/// [`PemFault::Certificate`].
pub fn check_certificate(pem: &[u8]) -> Result<(), PemFault> {
    first_certificate(pem).map(drop)
}

/// Checks that a text holds a private key in PEM, or the Base64 of one. A key in OpenSSH's own format is checked by its
/// frame only.
///
/// # Errors
/// [`PemFault::PrivateKey`].
pub fn check_private_key(text: &[u8]) -> Result<(), PemFault> {
    let decoded = base64::engine::general_purpose::STANDARD.decode(text.trim_ascii());
    let decoded = decoded.ok().map(Zeroizing::new);
    let pem = decoded.as_ref().map_or(text, |decoded| decoded.as_slice());
    let is_openssh = pem.trim_ascii().starts_with(b"-----BEGIN OPENSSH PRIVATE KEY-----")
        && pem.trim_ascii().ends_with(b"-----END OPENSSH PRIVATE KEY-----");
    if is_openssh || PrivateKeyDer::from_pem_slice(pem).is_ok() {
        Ok(())
    } else {
        Err(PemFault::PrivateKey)
    }
}

/// The private key of a PEM text, as DER: PKCS#8, PKCS#1 or SEC1, as its label says.
///
/// # Errors
/// [`PemFault::PrivateKey`].
pub fn private_key_der(pem: &[u8]) -> Result<Zeroizing<Vec<u8>>, PemFault> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| PemFault::PrivateKey)?;
    Ok(Zeroizing::new(key.secret_der().to_vec()))
}

/// Checks that a private key belongs to a certificate. It succeeds for key types that it cannot compare.
///
/// # Errors
/// [`PemFault::Mismatch`], or which of the two cannot be read.
pub fn check_pair(certificate: &[u8], private_key: &[u8]) -> Result<(), PemFault> {
    let certificate = first_certificate(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(private_key).map_err(|_| PemFault::PrivateKey)?;
    let pair = rustls::sign::CertifiedKey::from_der(vec![certificate], key, &provider());
    match pair {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(PemFault::Mismatch)
        }
        _ => Ok(()),
    }
}

/// The validity of the first certificate in a text; `None` if it holds no certificate.
pub fn first_validity(text: &[u8]) -> Option<Validity> {
    let certificate = first_certificate(text).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).ok()?;
    Some(Validity::of(&parsed))
}

/// The first certificate of a PEM text, or of the Base64 of one as in kubeconfig files.
fn first_certificate(text: &[u8]) -> Result<CertificateDer<'static>, PemFault> {
    let decoded = base64::engine::general_purpose::STANDARD.decode(text.trim_ascii());
    let pem = decoded.as_deref().unwrap_or(text);
    let certificate =
        CertificateDer::from_pem_slice(pem).map_err(|_| PemFault::Certificate)?.into_owned();
    match x509_parser::parse_x509_certificate(&certificate) {
        Ok(_) => Ok(certificate),
        Err(_) => Err(PemFault::Certificate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{PKCS_ECDSA_P384_SHA384, PublicKeyData as _};

    #[test]
    fn a_request_yields_its_own_key_only() {
        let (pem, request) = new_request().unwrap();
        let key = KeyPair::from_pem(&pem).unwrap();
        assert_eq!(requested_key(request.as_bytes()).unwrap(), key.subject_public_key_info());
        let der = CertificateSigningRequestDer::from_pem_slice(request.as_bytes()).unwrap();
        assert!(requested_key(&der).is_ok());
        for position in 0..der.len() {
            let mut changed = der.to_vec();
            changed[position] ^= 1;
            let same =
                requested_key(&changed).is_ok_and(|key2| key2 == key.subject_public_key_info());
            assert!(same || requested_key(&changed).is_err(), "byte {position}");
        }
        let longer = [&der[..], b"\0"].concat();
        assert_eq!(requested_key(&longer), Err(RequestError::Malformed));
        assert_eq!(requested_key(b""), Err(RequestError::Malformed));
        let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let request = CertificateParams::default().serialize_request(&other).unwrap();
        assert_eq!(requested_key(request.der()), Err(RequestError::KeyType));
    }

    #[test]
    fn a_key_is_matched_with_its_certificate() {
        let pair = || {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
            let certificate = CertificateParams::default().self_signed(&key).unwrap();
            (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
        };
        let ((one, one_key), (_, other_key)) = (pair(), pair());
        assert_eq!(check_pair(&one, &one_key), Ok(()));
        assert_eq!(check_pair(&one, &other_key), Err(PemFault::Mismatch));
        assert_eq!(check_certificate(&one_key), Err(PemFault::Certificate));
        assert_eq!(check_private_key(&one), Err(PemFault::PrivateKey));
        assert_eq!(check_private_key(&one_key), Ok(()));
    }
}
