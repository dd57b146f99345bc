//! Every associated data (AAD), on one page.
//!
//! ```text
//! record    "keyhatch/v1/record" 00 | kind 1 | uid 16 | version 8 BE | DEK id 8
//! wrapping  "keyhatch/v1/wrap" 00   | purpose … | key id 8
//! ```
//!
//! The parts have fixed lengths, so that no two records have one AAD.

use super::keys::keyring_file::KeyId;
use crate::model::Id;

/// What a sealed record holds. The number is part of the AAD and of the store's keys: never reuse one. Values have the
/// capital letters of the metadata that they belong to, so that both can be read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// The built-in CA's private keys.
    AuthorityKeys = b'a',
    /// A connection's metadata.
    Connection = b'c',
    /// A connection group.
    Group = b'g',
    /// An operators' own integration.
    Integration = b'i',
    /// A connection's values.
    ConnectionValues = b'C',
    /// The commit record: sequence and digest of the whole store.
    Commit = b'h',
    /// An operator or executor, with its pinned certificates.
    Registration = b'r',
    /// A secret's metadata.
    Secret = b's',
    /// A secret's value.
    SecretValue = b'S',
}

impl RecordKind {
    /// The kind with this number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::AuthorityKeys,
            Self::Connection,
            Self::ConnectionValues,
            Self::Commit,
            Self::Group,
            Self::Integration,
            Self::Registration,
            Self::Secret,
            Self::SecretValue,
        ]
        .into_iter()
        .find(|kind| kind.byte() == byte)
    }

    /// Its number.
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// Whether it holds what only a permit may open.
    pub const fn is_values(self) -> bool {
        self.byte().is_ascii_uppercase()
    }
}

/// Which record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// What it holds.
    pub kind: RecordKind,
    /// What it belongs to.
    pub uid: Id,
}

pub(super) fn record(key: RecordKey, version: u64, dek: KeyId) -> Vec<u8> {
    let mut aad = Vec::with_capacity(64);
    aad.extend_from_slice(b"keyhatch/v1/record\0");
    aad.push(key.kind.byte());
    aad.extend_from_slice(key.uid.as_bytes());
    aad.extend_from_slice(&version.to_be_bytes());
    aad.extend_from_slice(&dek.0);
    aad
}

pub(super) fn wrapping(purpose: &[u8], key: KeyId) -> Vec<u8> {
    let mut aad = Vec::with_capacity(64);
    aad.extend_from_slice(b"keyhatch/v1/wrap\0");
    aad.extend_from_slice(purpose);
    aad.extend_from_slice(&key.0);
    aad
}
