//! Certificates in PEM, without anything that a reader of PEM skips.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::identity::tls::{TlsError, certificates};

/// The characters of a line of PEM (RFC 7468).
const LINE: usize = 64;

/// The certificates of a PEM text, each as a PEM text of its own: nothing else of the text is left, so every reader finds the
/// same certificates in it.
///
/// # Errors
/// If the text holds no certificate, or one that cannot be read.
pub fn certificates_alone(pem: &str) -> Result<Vec<String>, TlsError> {
    Ok(certificates(pem)?.iter().map(|certificate| encoded(certificate)).collect())
}

fn encoded(der: &[u8]) -> String {
    let mut pem = "-----BEGIN CERTIFICATE-----".to_owned();
    for (at, character) in STANDARD.encode(der).chars().enumerate() {
        if at % LINE == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem + "\n-----END CERTIFICATE-----\n"
}
