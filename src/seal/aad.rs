//! Every associated data (AAD), on one page.
//!
//! ```text
//! record    "keyhatch/v1/record" 00 | kind 1 | uid 16 | version 8 BE | DEK id 8
//! wrapping  "keyhatch/v1/wrap" 00   | purpose … | key id 8
//! ```
//!
//! The parts have fixed lengths, so that no two records have the same AAD.

use super::keys::id::KeyId;
use super::record::RecordKey;

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
