//! `keyring.json`: the DEKs and the derivation keys, wrapped by the KEK, and a note of where the KEK comes from.
//!
//! The note is compared with what the process is told, before anything is run or read, and decides nothing. The file
//! carries a keyed tag: an old DEK that was put in the place of the newest would be what everything is sealed under
//! again.
//!
//! | format | written by | derivation keys |
//! |---|---|---|
//! | 3 | this version | `shared` and `host` |
//! | 2 | 0.1.0 | one: see [`OlderKeyring`], which becomes format 3 |
//!
//! A key that a format does not have is refused, and so is a newer format.

use std::collections::BTreeSet;
use std::fmt;

use aws_lc_rs::constant_time;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::keyring::Keyring;
use super::older_keyring::{self, OlderKeyring};
use crate::model::{Formats, Timestamp, hex_bytes};
use crate::seal::aad;
use crate::seal::cipher::{decrypt, encrypt};
use crate::seal::kek::Kek;
use crate::seal::kek::source::{KekKind, NotedSource};
use crate::seal::memory::secret_memory::SecretKey;
use crate::seal::{NoRandomness, random, random_key};

const FORMAT: u32 = Formats::CURRENT.keyring;

/// Names a key. Not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(#[serde(with = "hex_bytes")] pub(crate) [u8; 8]);

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
    /// `state.json` was replaced by an older one.
    #[error(
        "the keyring has format {FORMAT}, but state.json an older one: it was replaced by an older copy; restore \
         state.json and keyring.json from one backup"
    )]
    Ahead,
    /// The keyring was replaced by an older one.
    #[error(
        "the keyring has an older format than was written here before: it was replaced by an older copy; restore \
         keyring.json from a backup"
    )]
    Older,
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
pub(crate) struct KeyringFile {
    format: u32,
    pub(crate) source: NotedSource,
    pub(crate) kek_id: KeyId,
    #[serde(with = "hex_bytes")]
    kek_check: [u8; 32],
    /// Oldest first; new records are sealed under the last.
    deks: Vec<WrappedKey>,
    /// What brokers with the same records agree on comes from it.
    shared: WrappedKey,
    /// What is this broker's own comes from it.
    host: WrappedKey,
    /// Over everything else.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "hex_bytes")]
    tag: Vec<u8>,
}

/// `keyring.json` as it stands on disk.
pub(crate) enum StoredKeyring {
    Current(KeyringFile),
    Older(OlderKeyring),
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

impl StoredKeyring {
    pub(crate) fn parse(text: &str) -> Result<Self, KeyringError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = |error: serde_json::Error| KeyringError::Damaged(error.to_string());
        let Format { format } = serde_json::from_str(text).map_err(damaged)?;
        match format {
            FORMAT => serde_json::from_str(text).map(Self::Current).map_err(damaged),
            older_keyring::FORMAT => serde_json::from_str(text).map(Self::Older).map_err(damaged),
            newer if newer > FORMAT => Err(KeyringError::Newer(newer)),
            unknown => {
                Err(KeyringError::Damaged(format!("no release has written format {unknown}")))
            }
        }
    }

    pub(crate) fn format(&self) -> u32 {
        match self {
            Self::Current(_) => FORMAT,
            Self::Older(_) => older_keyring::FORMAT,
        }
    }

    /// What it notes of where the KEK comes from.
    pub(crate) fn source(&self) -> NotedSource {
        match self {
            Self::Current(file) => file.source.clone(),
            Self::Older(file) => file.source(),
        }
    }

    /// Whether this is the KEK that it is wrapped by.
    pub(crate) fn check(&self, kek: &Kek) -> Result<(), KeyringError> {
        match self {
            Self::Current(file) => file.check(kek),
            Self::Older(file) => check(kek, file.kek_id, &file.kek_check),
        }
    }

    /// Whether it is as it was written, by the keys in it.
    pub(super) fn check_tag(&self, kek: &Kek) -> Result<(), KeyringError> {
        match self {
            Self::Current(file) => file.check_tag(&file.open(kek)?),
            Self::Older(file) => file.open(kek).map(drop),
        }
    }

    /// The keyring, if it is of the current format.
    pub(crate) fn current(self) -> Result<KeyringFile, KeyringError> {
        match self {
            Self::Current(file) => Ok(file),
            Self::Older(_) => Err(KeyringError::Older),
        }
    }
}

/// What a keyring says that KEK `id` has `check` for, against the KEK that is given.
pub(crate) fn check(kek: &Kek, id: KeyId, check: &[u8; 32]) -> Result<(), KeyringError> {
    constant_time::verify_slices_are_equal(check, &kek.check_value())
        .map_err(|_| KeyringError::WrongKek { given: kek.id(), expected: id, kind: kek.kind() })
}

/// Everything but the tag, as it is tagged.
pub(crate) fn untagged(
    file: &impl Serialize,
) -> serde_json::Result<serde_json::Map<String, Value>> {
    let mut file = serde_json::to_value(file)?;
    let fields = file.as_object_mut().map(std::mem::take).unwrap_or_default();
    Ok(fields.into_iter().filter(|(name, _)| name != "tag").collect())
}

/// Whether `tag` is that of a keyring with these keys.
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

    /// The keys of a keyring that had one derivation key, which is both from now on.
    pub(super) fn with_one_derivation_key(
        kek: &Kek,
        source: NotedSource,
        deks: Vec<WrappedKey>,
        derivation: (&SecretKey, Option<Timestamp>),
    ) -> Result<Self, NoRandomness> {
        let (key, create_time) = derivation;
        let wrap = |purpose| WrappedKey::wrap(kek, purpose, KeyId(random()?), create_time, key);
        Ok(Self::of(kek, source, deks, wrap(SHARED_PURPOSE)?, wrap(HOST_PURPOSE)?))
    }

    /// The text of the file, with the tag of these keys, which are its own.
    pub(crate) fn to_text(&self, keyring: &Keyring) -> Result<String, KeyringError> {
        let damaged = |error: serde_json::Error| KeyringError::Damaged(error.to_string());
        let mut file = untagged(self).map_err(damaged)?;
        let tag = keyring.keyring_tag(&serde_json::to_vec(&file).map_err(damaged)?);
        file.insert("tag".to_owned(), hex::encode(tag).into());
        serde_json::to_string_pretty(&file).map_err(damaged)
    }

    /// Whether it is as it was written with these keys.
    pub(super) fn check_tag(&self, keyring: &Keyring) -> Result<(), KeyringError> {
        check_tag(self, &self.tag, keyring)
    }

    /// Whether this is the KEK that it is wrapped by.
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

    /// Adds a new DEK, the newest from then on: the ids of the one before and of the new one.
    pub(crate) fn add_dek(
        &mut self,
        kek: &Kek,
        now: Timestamp,
    ) -> Result<(KeyId, KeyId), KeyringError> {
        self.check(kek)?;
        let old = self.deks.last().map(|dek| dek.id);
        let old = old.ok_or_else(|| KeyringError::Damaged("no data key".to_owned()))?;
        let new = WrappedKey::create(kek, DEK_PURPOSE, now)?;
        let id = new.id;
        self.deks.push(new);
        Ok((old, id))
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

    /// Unwraps the key, which is called `name` where it is damaged.
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
