//! What people compare of a certificate or a key.

use std::fmt;
use std::str::FromStr;

use crate::identity::certificate::svid::sha256;
use crate::identity::{RequestError, RootKey, requested_key};

/// The SHA-256 of a certificate, or of a public key (SubjectPublicKeyInfo, DER). Shown as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// That of a root certificate in PEM. None if the text holds no certificate.
    pub fn of_root(pem: &str) -> Option<Self> {
        RootKey::from_pem(pem).map(|root| Self(root.sha256()))
    }

    /// That of the key which a request asks a certificate for. Fails if the broker would refuse the request.
    pub fn of_request(request: &[u8]) -> Result<Self, RequestError> {
        requested_key(request).map(|key| Self(sha256(&key)))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&hex::encode(self.0))
    }
}

/// In hexadecimal, with or without colons between the bytes.
impl FromStr for Fingerprint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut sha256 = [0; 32];
        match hex::decode_to_slice(text.replace(':', ""), &mut sha256) {
            Ok(()) => Ok(Self(sha256)),
            Err(_) => Err("a SHA-256 has 64 hexadecimal digits"),
        }
    }
}
