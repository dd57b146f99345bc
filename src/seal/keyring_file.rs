//! `keyring.json`: the DEKs and the derivation key, wrapped by the KEK, and where the KEK comes from.
//!
//! Format 2 says where the KEK comes from, so that one rename changes key and source together, and carries a
//! keyed tag: an old DEK that was put in the place of the newest would be what everything is sealed under again.
//! Format 1 left the source to `state.json`, did not say when keys were made, and had one DEK.

use std::collections::BTreeSet;
use std::fmt;

use aws_lc_rs::constant_time;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::aad;
use super::cipher::{decrypt, encrypt};
use super::kek::Kek;
use super::keyring::Keyring;
use super::secret_memory::SecretKey;
use super::source::{KekKind, KekSource};
use super::{NoRandomness, random, random_key};
use crate::model::{Timestamp, hex_bytes};

const FORMAT: u32 = 2;

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
    /// It was written by a newer version.
    #[error("the keyring has format {0}, which this version does not know; run the newer keyhatch")]
    Newer(u32),
    /// No random numbers.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The KEK is another one.
    #[error(
        "this KEK ({given}) is not the one in use ({expected}); {}", way_out(*.kind)
    )]
    WrongKek {
        /// The key that was given.
        given: KeyId,
        /// The key that is needed.
        expected: KeyId,
        /// Where the one that was given came from.
        kind: KekKind,
    },
}

fn way_out(kind: KekKind) -> &'static str {
    match kind {
        KekKind::Command => "its command printed another key: see that it gives the right one",
        KekKind::File => "give the right KEK file with --kek-file",
        KekKind::Passphrase => "the passphrase is wrong: give the right one",
    }
}

/// A DEK without the key itself.
#[derive(Clone, Copy, Debug)]
pub struct Dek {
    /// Which.
    pub id: KeyId,
    /// When it was made; a keyring of the first format does not say.
    pub create_time: Option<Timestamp>,
}

/// `keyring.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyringFile {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<KekSource>,
    pub(super) kek_id: KeyId,
    #[serde(with = "hex_bytes")]
    kek_check: [u8; 32],
    /// Oldest first; new records are sealed under the last.
    deks: Vec<WrappedKey>,
    derivation: WrappedKey,
    /// Over everything else.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "hex_bytes")]
    tag: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrappedKey {
    id: KeyId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    create_time: Option<Timestamp>,
    #[serde(with = "hex_bytes")]
    nonce: [u8; 24],
    #[serde(with = "hex_bytes")]
    wrapped: Vec<u8>,
}

const DEK_PURPOSE: &[u8] = b"dek";
const DERIVATION_PURPOSE: &[u8] = b"derivation";

impl KeyringFile {
    /// Makes new keys.
    pub(super) fn create(
        kek: &Kek,
        source: Option<KekSource>,
        now: Timestamp,
    ) -> Result<Self, NoRandomness> {
        Ok(Self {
            format: FORMAT,
            source,
            kek_id: kek.id(),
            kek_check: kek.check_value(),
            deks: vec![WrappedKey::create(kek, DEK_PURPOSE, now)?],
            derivation: WrappedKey::create(kek, DERIVATION_PURPOSE, now)?,
            tag: Vec::new(),
        })
    }

    pub(super) fn parse(text: &str) -> Result<Self, KeyringError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = |error: serde_json::Error| KeyringError::Damaged(error.to_string());
        let Format { format } = serde_json::from_str(text).map_err(damaged)?;
        match format {
            1..=FORMAT => serde_json::from_str(text).map_err(damaged),
            newer => Err(KeyringError::Newer(newer)),
        }
    }

    /// The text of the file, with the tag of these keys, which are its own.
    pub(super) fn to_text(&self, keyring: &Keyring) -> Result<String, KeyringError> {
        let damaged = |error: serde_json::Error| KeyringError::Damaged(error.to_string());
        let mut file = self.untagged().map_err(damaged)?;
        let tag = keyring.keyring_tag(&serde_json::to_vec(&file).map_err(damaged)?);
        file.insert("tag".to_owned(), hex::encode(tag).into());
        serde_json::to_string_pretty(&file).map_err(damaged)
    }

    /// Whether it is as it was written with these keys.
    pub(super) fn check_tag(&self, keyring: &Keyring) -> Result<(), KeyringError> {
        let is_whole = match self.format {
            1 => self.deks.len() == 1,
            _ => self
                .untagged()
                .and_then(|file| serde_json::to_vec(&file))
                .is_ok_and(|file| keyring.is_keyring_tag(&file, &self.tag)),
        };
        match is_whole {
            true => Ok(()),
            false => Err(KeyringError::Damaged("it was changed after it was written".to_owned())),
        }
    }

    /// Everything but the tag.
    fn untagged(&self) -> serde_json::Result<serde_json::Map<String, Value>> {
        let mut file = serde_json::to_value(self)?;
        let fields = file.as_object_mut().map(std::mem::take).unwrap_or_default();
        Ok(fields.into_iter().filter(|(name, _)| name != "tag").collect())
    }

    /// Whether this is the KEK that it is wrapped by.
    pub(super) fn check(&self, kek: &Kek) -> Result<(), KeyringError> {
        constant_time::verify_slices_are_equal(&self.kek_check, &kek.check_value()).map_err(|_| {
            KeyringError::WrongKek { given: kek.id(), expected: self.kek_id, kind: kek.kind() }
        })
    }

    /// Unwraps its keys.
    pub(super) fn open(&self, kek: &Kek) -> Result<Keyring, KeyringError> {
        self.check(kek)?;
        let unwrap = |wrapped: &WrappedKey| {
            let key = wrapped.unwrap(kek, DEK_PURPOSE);
            let key = key.ok_or_else(|| KeyringError::Damaged("a data key".to_owned()))?;
            Ok((Dek { id: wrapped.id, create_time: wrapped.create_time }, key))
        };
        let deks = self.deks.iter().map(unwrap).collect::<Result<Vec<_>, KeyringError>>()?;
        let derivation = self.derivation.unwrap(kek, DERIVATION_PURPOSE);
        let derivation =
            derivation.ok_or_else(|| KeyringError::Damaged("the derivation key".to_owned()))?;
        Keyring::new(self.kek_id, deks, &derivation)
            .ok_or_else(|| KeyringError::Damaged("no data key".to_owned()))
    }

    /// The same keys, wrapped by another KEK.
    pub(super) fn rewrapped(
        &self,
        old: &Kek,
        new: &Kek,
        source: Option<KekSource>,
    ) -> Result<Self, KeyringError> {
        self.check(old)?;
        let rewrap = |wrapped: &WrappedKey, purpose| wrapped.rewrapped(old, new, purpose);
        Ok(Self {
            format: FORMAT,
            source,
            kek_id: new.id(),
            kek_check: new.check_value(),
            deks: self.deks.iter().map(|dek| rewrap(dek, DEK_PURPOSE)).collect::<Result<_, _>>()?,
            derivation: rewrap(&self.derivation, DERIVATION_PURPOSE)?,
            tag: Vec::new(),
        })
    }

    /// Adds a new DEK, the newest from then on: the ids of the one before and of the new one.
    pub(super) fn add_dek(
        &mut self,
        kek: &Kek,
        now: Timestamp,
    ) -> Result<(KeyId, KeyId), KeyringError> {
        self.check(kek)?;
        let old = self.deks.last().map(|dek| dek.id);
        let old = old.ok_or_else(|| KeyringError::Damaged("no data key".to_owned()))?;
        let new = WrappedKey::create(kek, DEK_PURPOSE, now)?;
        let id = new.id;
        self.format = FORMAT;
        self.deks.push(new);
        Ok((old, id))
    }

    /// Drops DEKs, but never the newest.
    pub(super) fn drop_deks(&mut self, dropped: &BTreeSet<KeyId>) {
        let newest = self.deks.last().map(|dek| dek.id);
        self.deks.retain(|dek| Some(dek.id) == newest || !dropped.contains(&dek.id));
    }
}

impl WrappedKey {
    fn create(kek: &Kek, purpose: &[u8], now: Timestamp) -> Result<Self, NoRandomness> {
        Self::wrap(kek, purpose, KeyId(random()?), Some(now), &random_key()?)
    }

    fn wrap(
        kek: &Kek,
        purpose: &[u8],
        id: KeyId,
        create_time: Option<Timestamp>,
        key: &SecretKey,
    ) -> Result<Self, NoRandomness> {
        let nonce = random::<24>()?;
        let wrapped = encrypt(kek.key(), &nonce, &*key.copy(), &aad::wrapping(purpose, id));
        Ok(Self { id, create_time, nonce, wrapped: wrapped.ok_or(NoRandomness)? })
    }

    fn unwrap(&self, kek: &Kek, purpose: &[u8]) -> Option<SecretKey> {
        let aad = aad::wrapping(purpose, self.id);
        let key = decrypt(kek.key(), &self.nonce, &self.wrapped, &aad)?;
        key.as_slice().try_into().ok().map(SecretKey::new)
    }

    fn rewrapped(&self, old: &Kek, new: &Kek, purpose: &[u8]) -> Result<Self, KeyringError> {
        let key = self.unwrap(old, purpose);
        let key = key.ok_or_else(|| KeyringError::Damaged("a wrapped key".to_owned()))?;
        Ok(Self::wrap(new, purpose, self.id, self.create_time, &key)?)
    }
}
