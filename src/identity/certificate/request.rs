//! Certificate signing requests (PKCS #10, RFC 2986): a key is made where it is used, and only its public
//! half is sent.

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

/// The largest request, in bytes: a P-256 key, a name and a signature take some 400.
const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// Why a request cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is no certificate signing request.
    #[error("it is no certificate signing request (PKCS #10, PEM or DER)")]
    Malformed,
    /// Whoever made it does not hold the private key.
    #[error("its signature is not by the key that it asks a certificate for")]
    Signature,
    /// A renewal is for the key that there is.
    #[error(
        "it is for another key than the certificate that it is to follow; register anew for another key"
    )]
    OtherKey,
    /// The key is of another type.
    #[error("its key is not ECDSA P-256, which every client's TLS library takes")]
    KeyType,
}

/// A new private key (PKCS #8, PEM) and a request for a certificate for it (PEM).
///
/// # Errors
/// If the key cannot be made.
pub fn new_request() -> Result<(Zeroizing<String>, String), AuthorityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok((Zeroizing::new(key.serialize_pem()), request_of(&key)?))
}

/// A request (PEM) for another certificate for a private key in PEM.
///
/// # Errors
/// If the key cannot be read.
pub fn request_for(key_pem: &str) -> Result<String, AuthorityError> {
    request_of(&KeyPair::from_pem(key_pem)?)
}

fn request_of(key: &KeyPair) -> Result<String, AuthorityError> {
    let mut params = CertificateParams::default();
    // The broker takes nothing from it but the key.
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.pem()?)
}

/// The public key (SubjectPublicKeyInfo, DER) of a request, PEM or DER. Nothing else in it counts.
///
/// # Errors
/// If it is malformed, was not signed by its key, or its key is of another type than ours.
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

/// What can be wrong with a certificate and its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemFault {
    /// It is no certificate.
    #[error("the value is no certificate in PEM")]
    Certificate,
    /// It is no private key.
    #[error("the value is no private key in PEM")]
    PrivateKey,
    /// They do not belong together.
    #[error("the private key is not the certificate's")]
    Mismatch,
}

/// Whether this is a certificate, or a chain.
///
/// # Errors
/// If not.
pub fn check_certificate(pem: &[u8]) -> Result<(), PemFault> {
    first_certificate(pem).map(drop)
}

/// Whether this is a private key in PEM, or the Base64 of one. Those of OpenSSH's own format are looked at no further.
///
/// # Errors
/// If not.
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

/// Whether a private key is a certificate's.
///
/// # Errors
/// If it is another's. What cannot be told is no error.
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

/// When the first of a text's certificates begins and ends; none if there is none.
pub fn first_validity(text: &[u8]) -> Option<Validity> {
    let certificate = first_certificate(text).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).ok()?;
    Some(Validity::of(&parsed))
}

/// The first certificate of a PEM text, or of the Base64 of one, as kubeconfig files hold it.
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
    fn a_request_gives_the_key_that_it_was_made_for_and_no_other() {
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
    fn a_key_is_its_certificates_or_it_is_not() {
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
