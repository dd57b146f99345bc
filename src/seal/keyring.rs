//! The keyring: the DEKs and one derivation key, wrapped by the KEK in `keyring.json`.
//!
//! The derivation key never encrypts. From it come, by HMAC-SHA-256 over a label, the keys of
//! everything that is authenticated but not sealed: journal tags, field fingerprints, the store's
//! digest. They stay the same when a new DEK is added.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::{constant_time, hmac};
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::aad::{self, RecordKey};
use super::kek::Kek;
use super::sealed::Sealed;
use super::{NoRandomness, OpenError, random};
use crate::model::{Id, hex_bytes};

const FORMAT: u32 = 1;

/// Names a key. Not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(#[serde(with = "hex_bytes")] pub(super) [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Why the keyring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// `keyring.json` is not what was written.
    #[error("the keyring is damaged ({0}); restore keyring.json from a backup")]
    Damaged(String),
    /// No random numbers.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The KEK is another one.
    #[error(
        "this KEK ({given}) is not the one the keyring was made with ({expected}); give the right KEK file"
    )]
    WrongKek {
        /// The key that was given.
        given: KeyId,
        /// The key that is needed.
        expected: KeyId,
    },
}

/// The unwrapped keys of one broker.
pub struct Keyring {
    kek_id: KeyId,
    deks: BTreeMap<KeyId, XChaCha20Poly1305>,
    newest: KeyId,
    journal: hmac::Key,
    fingerprint: hmac::Key,
    digest: hmac::Key,
    backup: hmac::Key,
}

/// `keyring.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyringFile {
    format: u32,
    kek_id: KeyId,
    #[serde(with = "hex_bytes")]
    kek_check: [u8; 32],
    /// Oldest first; new records are sealed under the last.
    deks: Vec<WrappedKey>,
    derivation: WrappedKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrappedKey {
    id: KeyId,
    #[serde(with = "hex_bytes")]
    nonce: [u8; 24],
    #[serde(with = "hex_bytes")]
    wrapped: Vec<u8>,
}

const DEK_PURPOSE: &[u8] = b"dek";
const DERIVATION_PURPOSE: &[u8] = b"derivation";

impl Keyring {
    /// Makes new keys, and the text of `keyring.json` that holds them wrapped.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn create(kek: &Kek) -> Result<String, KeyringError> {
        let file = KeyringFile {
            format: FORMAT,
            kek_id: kek.id(),
            kek_check: kek.check_value(),
            deks: vec![WrappedKey::create(kek, DEK_PURPOSE)?],
            derivation: WrappedKey::create(kek, DERIVATION_PURPOSE)?,
        };
        serde_json::to_string_pretty(&file)
            .map_err(|error| KeyringError::Damaged(error.to_string()))
    }

    /// Unwraps the keys of `keyring.json`.
    ///
    /// # Errors
    /// If the KEK is another one, or the file is damaged.
    pub fn open(text: &str, kek: &Kek) -> Result<Self, KeyringError> {
        let damaged = |what: &str| KeyringError::Damaged(what.to_owned());
        let file: KeyringFile =
            serde_json::from_str(text).map_err(|error| KeyringError::Damaged(error.to_string()))?;
        if file.format != FORMAT {
            return Err(damaged("its format is not known to this version"));
        }
        if constant_time::verify_slices_are_equal(&file.kek_check, &kek.check_value()).is_err() {
            return Err(KeyringError::WrongKek { given: kek.id(), expected: file.kek_id });
        }
        let mut deks = BTreeMap::new();
        for wrapped in &file.deks {
            let key = wrapped.unwrap(kek, DEK_PURPOSE).ok_or_else(|| damaged("a data key"))?;
            deks.insert(wrapped.id, cipher(&key));
        }
        let newest = file.deks.last().ok_or_else(|| damaged("no data key"))?.id;
        let derivation = file.derivation.unwrap(kek, DERIVATION_PURPOSE);
        let derivation = derivation.ok_or_else(|| damaged("the derivation key"))?;
        let derive = |label: &[u8]| {
            let root = hmac::Key::new(hmac::HMAC_SHA256, &*derivation);
            hmac::Key::new(hmac::HMAC_SHA256, &*Zeroizing::new(prf(&root, &[label])))
        };
        Ok(Self {
            kek_id: file.kek_id,
            deks,
            newest,
            journal: derive(b"keyhatch/v1/journal tag"),
            fingerprint: derive(b"keyhatch/v1/field fingerprint"),
            digest: derive(b"keyhatch/v1/store digest"),
            backup: derive(b"keyhatch/v1/backup manifest"),
        })
    }

    /// Names the KEK that wraps this keyring.
    pub fn kek_id(&self) -> KeyId {
        self.kek_id
    }

    /// Seals one record under the newest DEK.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn seal(
        &self,
        key: RecordKey,
        version: u64,
        plaintext: &[u8],
    ) -> Result<Sealed, NoRandomness> {
        let nonce = random::<24>()?;
        let aad = aad::record(key, version, self.newest);
        let cipher = self.deks.get(&self.newest).ok_or(NoRandomness)?;
        let ciphertext = cipher
            .encrypt(&nonce.into(), Payload { msg: plaintext, aad: &aad })
            .map_err(|_| NoRandomness)?;
        Ok(Sealed::assemble(self.newest, version, &nonce, &ciphertext))
    }

    /// Opens a record that holds no values.
    ///
    /// # Errors
    /// If it fails authentication, or is of a kind that only a permit opens.
    pub fn open_metadata(
        &self,
        key: RecordKey,
        sealed: &Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if key.kind.is_values() {
            return Err(OpenError);
        }
        self.decrypt(key, sealed)
    }

    pub(super) fn decrypt(
        &self,
        key: RecordKey,
        sealed: &Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let cipher = self.deks.get(&sealed.dek()).ok_or(OpenError)?;
        let aad = aad::record(key, sealed.version(), sealed.dek());
        cipher
            .decrypt(&sealed.nonce().into(), Payload { msg: sealed.ciphertext(), aad: &aad })
            .map(Zeroizing::new)
            .map_err(|_| OpenError)
    }

    /// The keyed tag of a journal line.
    pub fn journal_tag(&self, line: &[u8]) -> [u8; 32] {
        prf(&self.journal, &[line])
    }

    /// Whether `tag` is the keyed tag of this journal line; takes the same time for every wrong tag.
    pub fn is_journal_tag(&self, line: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.journal, line, tag).is_ok()
    }

    /// The keyed fingerprint of one field's value: equal values of one field of one connection have
    /// equal fingerprints, and without the key it says nothing about the value.
    pub fn fingerprint(&self, uid: Id, field: &str, value: &[u8]) -> [u8; 32] {
        let length = (field.len() as u64).to_be_bytes();
        prf(&self.fingerprint, &[uid.as_bytes(), &length, field.as_bytes(), value])
    }

    /// The keyed tag of a backup's manifest.
    pub fn backup_tag(&self, manifest: &[u8]) -> [u8; 32] {
        prf(&self.backup, &[manifest])
    }

    /// Whether `tag` is the keyed tag of this manifest.
    pub fn is_backup_tag(&self, manifest: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.backup, manifest, tag).is_ok()
    }

    /// The share of one record in the store's digest.
    pub fn digest_share(&self, key: RecordKey, sealed: &[u8]) -> [u8; 32] {
        prf(&self.digest, &[&[key.kind.byte()], key.uid.as_bytes(), sealed])
    }
}

impl WrappedKey {
    fn create(kek: &Kek, purpose: &[u8]) -> Result<Self, NoRandomness> {
        let id = KeyId(random()?);
        let nonce = random::<24>()?;
        let key = Zeroizing::new(random::<32>()?);
        let aad = aad::wrapping(purpose, id);
        let wrapped = cipher(kek.expose())
            .encrypt(&nonce.into(), Payload { msg: &*key, aad: &aad })
            .map_err(|_| NoRandomness)?;
        Ok(Self { id, nonce, wrapped })
    }

    fn unwrap(&self, kek: &Kek, purpose: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        let aad = aad::wrapping(purpose, self.id);
        let plain = cipher(kek.expose())
            .decrypt(&self.nonce.into(), Payload { msg: &self.wrapped, aad: &aad })
            .map(Zeroizing::new)
            .ok()?;
        let mut key = Zeroizing::new([0; 32]);
        if plain.len() != key.len() {
            return None;
        }
        key.copy_from_slice(&plain);
        Some(key)
    }
}

fn cipher(key: &[u8; 32]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.into())
}

/// HMAC-SHA-256 (RFC 2104) over the parts, one after the other.
pub(super) fn prf(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut output = [0; 32];
    output.copy_from_slice(context.sign().as_ref());
    output
}
