//! `keyring.json`: the DEKs and the derivation keys, wrapped by the KEK, and a note of the KEK's source.
//!
//! The note decides nothing: see [`super::store`]. The file has a keyed tag, so that nobody can put an old DEK in the
//! place of the newest and have everything sealed under that again.
//!
//! | format | written by | derivation keys |
//! |---|---|---|
//! | 3 | this version | `shared` and `host` |
//! | 2 | 0.1.0 | one: see [`super::older_keyring`], which becomes format 3 |
//!
//! A JSON key that a format does not have is refused, and so is a newer format.

use std::collections::BTreeSet;

use aws_lc_rs::constant_time;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::KeyringError;
use super::id::{Dek, KeyId};
use super::keyring::Keyring;
use crate::model::{Formats, Timestamp, hex_bytes};
use crate::seal::aad;
use crate::seal::cipher::{decrypt, encrypt};
use crate::seal::kek::Kek;
use crate::seal::kek::source::NotedSource;
use crate::seal::memory::secret_memory::SecretKey;
use crate::seal::{NoRandomness, random, random_key};

pub(super) const FORMAT: u32 = Formats::CURRENT.keyring;

/// `keyring.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyringFile {
    format: u32,
    pub(crate) source: NotedSource,
    pub(crate) kek_id: KeyId,
    #[serde(with = "hex_bytes")]
    kek_check: [u8; 32],
    /// Oldest first; new records are sealed under the last.
    deks: Vec<WrappedKey>,
    /// The derivation key that brokers with the same records share.
    shared: WrappedKey,
    /// The derivation key of this broker alone.
    host: WrappedKey,
    /// The keyed tag of everything else.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "hex_bytes")]
    tag: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrappedKey {
    pub(crate) id: KeyId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) create_time: Option<Timestamp>,
    #[serde(with = "hex_bytes")]
    nonce: [u8; 24],
    #[serde(with = "hex_bytes")]
    wrapped: Vec<u8>,
}

pub(super) const DEK_PURPOSE: &[u8] = b"dek";
const SHARED_PURPOSE: &[u8] = b"shared";
const HOST_PURPOSE: &[u8] = b"host";

/// Checks that a KEK is the one with this id and check value.
pub(crate) fn check(kek: &Kek, id: KeyId, check: &[u8; 32]) -> Result<(), KeyringError> {
    constant_time::verify_slices_are_equal(check, &kek.check_value())
        .map_err(|_| KeyringError::WrongKek { given: kek.id(), expected: id, kind: kek.kind() })
}

/// Everything but the tag: what the tag is made of.
pub(crate) fn untagged(
    file: &impl Serialize,
) -> serde_json::Result<serde_json::Map<String, Value>> {
    let mut file = serde_json::to_value(file)?;
    let fields = file.as_object_mut().map(std::mem::take).unwrap_or_default();
    Ok(fields.into_iter().filter(|(name, _)| name != "tag").collect())
}

/// Checks the tag of a file with the keys in it.
pub(super) fn check_tag(
    file: &impl Serialize,
    tag: &[u8],
    keyring: &Keyring,
) -> Result<(), KeyringError> {
    let tagged = untagged(file).and_then(|file| serde_json::to_vec(&file));
    match tagged.is_ok_and(|file| keyring.is_keyring_tag(&file, tag)) {
        true => Ok(()),
        false => Err(KeyringError::Damaged("it was changed after it was written".to_owned())),
    }
}

/// Unwraps DEKs, oldest first.
pub(super) fn unwrap_deks(
    deks: &[WrappedKey],
    kek: &Kek,
) -> Result<Vec<(Dek, SecretKey)>, KeyringError> {
    let unwrap = |wrapped: &WrappedKey| {
        let key = wrapped.unwrap(kek, DEK_PURPOSE, "a data key")?;
        Ok((Dek { id: wrapped.id, create_time: wrapped.create_time }, key))
    };
    deks.iter().map(unwrap).collect()
}

impl KeyringFile {
    /// Makes new keys.
    pub(crate) fn create(
        kek: &Kek,
        source: NotedSource,
        now: Timestamp,
    ) -> Result<Self, NoRandomness> {
        let deks = vec![WrappedKey::create(kek, DEK_PURPOSE, now)?];
        let shared = WrappedKey::create(kek, SHARED_PURPOSE, now)?;
        let host = WrappedKey::create(kek, HOST_PURPOSE, now)?;
        Ok(Self::of(kek, source, deks, shared, host))
    }

    fn of(
        kek: &Kek,
        source: NotedSource,
        deks: Vec<WrappedKey>,
        shared: WrappedKey,
        host: WrappedKey,
    ) -> Self {
        let (kek_id, kek_check, tag) = (kek.id(), kek.check_value(), Vec::new());
        Self { format: FORMAT, source, kek_id, kek_check, deks, shared, host, tag }
    }

    /// The keys of a keyring that had one derivation key. That key becomes both derivation keys.
    pub(super) fn with_one_derivation_key(
        kek: &Kek,
        source: NotedSource,
        deks: Vec<WrappedKey>,
        key: &SecretKey,
        create_time: Option<Timestamp>,
    ) -> Result<Self, NoRandomness> {
        let wrap = |purpose| WrappedKey::wrap(kek, purpose, KeyId(random()?), create_time, key);
        Ok(Self::of(kek, source, deks, wrap(SHARED_PURPOSE)?, wrap(HOST_PURPOSE)?))
    }

    /// The text of the file. `keyring` is its own keys, which make the tag.
    pub(crate) fn to_text(&self, keyring: &Keyring) -> Result<String, KeyringError> {
        let damaged = |error: serde_json::Error| KeyringError::Damaged(error.to_string());
        let mut file = untagged(self).map_err(damaged)?;
        let tag = keyring.keyring_tag(&serde_json::to_vec(&file).map_err(damaged)?);
        file.insert("tag".to_owned(), hex::encode(tag).into());
        serde_json::to_string_pretty(&file).map_err(damaged)
    }

    /// Checks that the file is as it was written with these keys.
    pub(super) fn check_tag(&self, keyring: &Keyring) -> Result<(), KeyringError> {
        check_tag(self, &self.tag, keyring)
    }

    /// Checks that this is the KEK that wraps the keys.
    pub(crate) fn check(&self, kek: &Kek) -> Result<(), KeyringError> {
        check(kek, self.kek_id, &self.kek_check)
    }

    /// Unwraps its keys.
    pub(crate) fn open(&self, kek: &Kek) -> Result<Keyring, KeyringError> {
        self.check(kek)?;
        let deks = unwrap_deks(&self.deks, kek)?;
        let shared = self.shared.unwrap(kek, SHARED_PURPOSE, "the shared derivation key")?;
        let host = self.host.unwrap(kek, HOST_PURPOSE, "the host's derivation key")?;
        Keyring::new(self.kek_id, deks, &shared, &host)
            .ok_or_else(|| KeyringError::Damaged("no data key".to_owned()))
    }

    /// The same keys, wrapped by another KEK.
    pub(crate) fn rewrapped(
        &self,
        old: &Kek,
        new: &Kek,
        source: NotedSource,
    ) -> Result<Self, KeyringError> {
        self.check(old)?;
        let rewrap = |wrapped: &WrappedKey, purpose| wrapped.rewrapped(old, new, purpose);
        let deks =
            self.deks.iter().map(|dek| rewrap(dek, DEK_PURPOSE)).collect::<Result<_, _>>()?;
        let shared = rewrap(&self.shared, SHARED_PURPOSE)?;
        Ok(Self::of(new, source, deks, shared, rewrap(&self.host, HOST_PURPOSE)?))
    }

    /// The DEK that new records are sealed under.
    pub(super) fn newest_dek(&self) -> Result<KeyId, KeyringError> {
        let newest = self.deks.last().map(|dek| dek.id);
        newest.ok_or_else(|| KeyringError::Damaged("no data key".to_owned()))
    }

    /// Adds a new DEK, which is the newest from then on, and returns its id.
    pub(super) fn add_dek(&mut self, kek: &Kek, now: Timestamp) -> Result<KeyId, KeyringError> {
        self.check(kek)?;
        let dek = WrappedKey::create(kek, DEK_PURPOSE, now)?;
        let id = dek.id;
        self.deks.push(dek);
        Ok(id)
    }

    /// Drops DEKs, but never the newest.
    pub(crate) fn drop_deks(&mut self, dropped: &BTreeSet<KeyId>) {
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

    /// Unwraps the key. `name` is what an error calls the key.
    pub(crate) fn unwrap(
        &self,
        kek: &Kek,
        purpose: &[u8],
        name: &str,
    ) -> Result<SecretKey, KeyringError> {
        let aad = aad::wrapping(purpose, self.id);
        let key = decrypt(kek.key(), &self.nonce, &self.wrapped, &aad);
        let key = key.and_then(|key| key.as_slice().try_into().ok().map(SecretKey::new));
        key.ok_or_else(|| KeyringError::Damaged(name.to_owned()))
    }

    fn rewrapped(&self, old: &Kek, new: &Kek, purpose: &[u8]) -> Result<Self, KeyringError> {
        let key = self.unwrap(old, purpose, "a wrapped key")?;
        Ok(Self::wrap(new, purpose, self.id, self.create_time, &key)?)
    }
}
