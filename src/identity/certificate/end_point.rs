//! The channel binding `tls-server-end-point` (RFC 5929, 4).

use aws_lc_rs::digest::{Algorithm, SHA224, SHA256, SHA384, SHA512, digest};

/// The signature algorithms of certificates, with the hash that binds a channel: their own, or SHA-256 in place of MD5 and
/// SHA-1.
const HASHES: [(&str, &Algorithm); 11] = [
    ("1.2.840.113549.1.1.4", &SHA256),
    ("1.2.840.113549.1.1.5", &SHA256),
    ("1.2.840.113549.1.1.11", &SHA256),
    ("1.2.840.113549.1.1.12", &SHA384),
    ("1.2.840.113549.1.1.13", &SHA512),
    ("1.2.840.113549.1.1.14", &SHA224),
    ("1.2.840.10045.4.1", &SHA256),
    ("1.2.840.10045.4.3.1", &SHA224),
    ("1.2.840.10045.4.3.2", &SHA256),
    ("1.2.840.10045.4.3.3", &SHA384),
    ("1.2.840.10045.4.3.4", &SHA512),
];

/// The hash of a server's certificate (DER) that binds a login to the connection. `None` for signatures without a hash of
/// their own, such as Ed25519, for which the binding is not defined.
pub fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let signed = parsed.signature_algorithm.algorithm.to_id_string();
    let (_, hash) = HASHES.iter().find(|(oid, _)| *oid == signed)?;
    Some(digest(hash, certificate).as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, SHA384, digest};
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use super::*;

    #[test]
    fn the_hash_is_that_of_the_certificates_signature() {
        let certificate = |algorithm: &'static SignatureAlgorithm| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            CertificateParams::new(vec!["db.example".to_owned()])
                .unwrap()
                .self_signed(&key)
                .unwrap()
        };
        for (algorithm, hash) in
            [(&rcgen::PKCS_ECDSA_P256_SHA256, &SHA256), (&rcgen::PKCS_ECDSA_P384_SHA384, &SHA384)]
        {
            let made = certificate(algorithm);
            let expected = digest(hash, made.der());
            assert_eq!(server_end_point(made.der()).unwrap(), expected.as_ref());
        }
        assert_eq!(server_end_point(certificate(&rcgen::PKCS_ED25519).der()), None);
        assert_eq!(server_end_point(b"no certificate"), None);
    }
}
