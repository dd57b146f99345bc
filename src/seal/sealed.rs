//! The form of a sealed record.
//!
//! ```text
//! format 1 (= 1) | DEK id 8 | version 8 BE | nonce 24 | ciphertext … | tag 16
//! ```
//!
//! The version stands in clear because the AAD needs it; it is authenticated there.

use std::sync::Arc;

use super::OpenError;
use super::keys::keyring_file::KeyId;

const FORMAT: u8 = 1;
const DEK: std::ops::Range<usize> = 1..9;
const VERSION: std::ops::Range<usize> = 9..17;
const NONCE: std::ops::Range<usize> = 17..41;
const TAG_BYTES: usize = 16;

/// One sealed record: safe to show to anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed(Arc<[u8]>);

impl Sealed {
    /// Takes bytes from the store.
    ///
    /// # Errors
    /// If they have not the form of a sealed record.
    pub fn parse(bytes: &[u8]) -> Result<Self, OpenError> {
        if bytes.len() < NONCE.end + TAG_BYTES || bytes.first() != Some(&FORMAT) {
            return Err(OpenError);
        }
        Ok(Self(bytes.into()))
    }

    pub(super) fn assemble(dek: KeyId, version: u64, nonce: &[u8; 24], ciphertext: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(NONCE.end + ciphertext.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&dek.0);
        bytes.extend_from_slice(&version.to_be_bytes());
        bytes.extend_from_slice(nonce);
        bytes.extend_from_slice(ciphertext);
        Self(bytes.into())
    }

    /// The bytes as the store keeps them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The version it was sealed as.
    pub fn version(&self) -> u64 {
        u64::from_be_bytes(self.part(VERSION))
    }

    /// The DEK that it is sealed under.
    pub fn dek(&self) -> KeyId {
        KeyId(self.part(DEK))
    }

    pub(super) fn nonce(&self) -> [u8; 24] {
        self.part(NONCE)
    }

    pub(super) fn ciphertext(&self) -> &[u8] {
        self.0.get(NONCE.end..).unwrap_or_default()
    }

    fn part<const N: usize>(&self, range: std::ops::Range<usize>) -> [u8; N] {
        // `parse` and `assemble` make nothing shorter than the header.
        self.0.get(range).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
    }
}
