//! Sealed records: their names and their layout.
//!
//! ```text
//! format 1 (= 1) | DEK id 8 | version 8 BE | nonce 24 | ciphertext … | tag 16
//! ```
//!
//! The version is in clear because the AAD needs it, where it is authenticated.

use std::sync::Arc;

use super::OpenError;
use super::keys::id::KeyId;
use crate::model::Id;

const FORMAT: u8 = 1;
const DEK: std::ops::Range<usize> = 1..9;
const VERSION: std::ops::Range<usize> = 9..17;
const NONCE: std::ops::Range<usize> = 17..41;
const TAG_BYTES: usize = 16;

/// The content of a sealed record. The number is part of the AAD and of the store's keys: never reuse a number. Values have
/// the capital letter of their metadata, so that the store can read both together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// The built-in CA's private keys.
    AuthorityKeys = b'a',
    /// A connection's metadata.
    Connection = b'c',
    /// What ends a credential that an upstream made. The uid is the mint's id.
    Ending = b'E',
    /// A connection group.
    Group = b'g',
    /// An integration that operators have made.
    Integration = b'i',
    /// The issuer's private keys.
    IssuerKeys = b'k',
    /// A connection's values.
    ConnectionValues = b'C',
    /// The commit record: sequence and digest of the whole store.
    Commit = b'h',
    /// A credential that an upstream made. Such records are in memory only: the store knows none.
    MintedValues = b'M',
    /// An operator or executor, with its pinned certificates.
    Registration = b'r',
    /// The refresh token that an upstream gave in place of a connection's. The uid is the connection's.
    RotatedToken = b'T',
    /// A secret's metadata.
    Secret = b's',
    /// A secret's value.
    SecretValue = b'S',
}

impl RecordKind {
    /// The kind with this number, if the store may contain it.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::AuthorityKeys,
            Self::Connection,
            Self::ConnectionValues,
            Self::Commit,
            Self::Ending,
            Self::Group,
            Self::Integration,
            Self::IssuerKeys,
            Self::Registration,
            Self::RotatedToken,
            Self::Secret,
            Self::SecretValue,
        ]
        .into_iter()
        .find(|kind| kind.byte() == byte)
    }

    /// The number of the kind.
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// True if such records are in memory only, and end with the process.
    pub(super) const fn is_in_memory(self) -> bool {
        matches!(self, Self::MintedValues)
    }

    /// True if only a permit may open such a record.
    pub const fn is_values(self) -> bool {
        self.byte().is_ascii_uppercase()
    }
}

/// The name of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// The content of the record.
    pub kind: RecordKind,
    /// The resource that it belongs to.
    pub uid: Id,
}

impl RecordKey {
    /// The CA's private keys, in a file of their own.
    pub const AUTHORITY: Self =
        Self { kind: RecordKind::AuthorityKeys, uid: Id::from_bytes([0; Id::BYTES]) };
    /// The issuer's private keys, in a file of their own.
    pub const ISSUER: Self =
        Self { kind: RecordKind::IssuerKeys, uid: Id::from_bytes([0; Id::BYTES]) };
}

/// A sealed record. Not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed(Arc<[u8]>);

impl Sealed {
    /// Parses the bytes that the store keeps.
    ///
    /// # Errors
    /// If they do not have the layout of a sealed record.
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

    /// The version that the record was sealed as.
    pub fn version(&self) -> u64 {
        u64::from_be_bytes(self.part(VERSION))
    }

    /// The DEK that the record is sealed under.
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
        // `parse` and `assemble` never make a record that is shorter than the header.
        self.0.get(range).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
    }
}
