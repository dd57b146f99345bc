//! The store's keys.
//!
//! ```text
//! kind 1 | uid 16 | chunk 2 BE
//! ```
//!
//! A key holds no name: the kind is a letter, the uid is random. The chunks of a record sort together and in order. A
//! record is cut into chunks of 4 KiB because sled moves larger pages into files that it never syncs.

use crate::model::Id;
use crate::seal::{RecordKey, RecordKind};

/// The most bytes in one chunk.
pub(super) const CHUNK_BYTES: usize = 4096;

const PREFIX_BYTES: usize = 1 + Id::BYTES;

/// The end of the values: their kinds are upper-case letters, which sort first. Their metadata has the lower-case
/// letter.
pub(super) const AFTER_VALUES: [u8; 1] = [b'a'];

/// The resource that a record belongs to, in the order of the keys.
pub(super) fn owner(record: RecordKey) -> (u8, Id) {
    (record.kind.byte().to_ascii_lowercase(), record.uid)
}

/// The first bytes of the keys of all chunks of a record.
pub(super) fn prefix(record: RecordKey) -> [u8; PREFIX_BYTES] {
    let mut key = [0; PREFIX_BYTES];
    if let Some((kind, uid)) = key.split_first_mut() {
        *kind = record.kind.byte();
        uid.copy_from_slice(record.uid.as_bytes());
    }
    key
}

/// The key of one chunk.
pub(super) fn chunk(record: RecordKey, number: usize) -> Vec<u8> {
    let mut key = prefix(record).to_vec();
    key.extend_from_slice(&u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes());
    key
}

/// Why a key names no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRecord {
    /// The key is malformed.
    Malformed,
    /// The record is of a kind that this version does not know.
    Newer,
}

/// The record and the number of the chunk that a key names.
pub(super) fn parse(key: &[u8]) -> Result<(RecordKey, u16), NoRecord> {
    let malformed = || NoRecord::Malformed;
    let (kind, rest) = key.split_first().ok_or_else(malformed)?;
    let (uid, number) = rest.split_first_chunk::<{ Id::BYTES }>().ok_or_else(malformed)?;
    let number = number.try_into().map_err(|_| NoRecord::Malformed)?;
    let kind = match RecordKind::from_byte(*kind) {
        Some(kind) => kind,
        None if kind.is_ascii_alphabetic() => return Err(NoRecord::Newer),
        None => return Err(NoRecord::Malformed),
    };
    Ok((RecordKey { kind, uid: Id::from_bytes(*uid) }, u16::from_be_bytes(number)))
}
