//! `keyring.json` as 0.1.0 wrote it, format 2: with one derivation key.
//!
//! It is only read to be taken over into the current format. Its derivation key becomes both current derivation keys, so
//! that journals, backups, fingerprints and digests of 0.1.0 still verify.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::KeyringError;
use super::id::KeyId;
use super::keyring::Keyring;
use super::keyring_file::{KeyringFile, WrappedKey, check, check_tag, unwrap_deks};
use crate::model::hex_bytes;
use crate::seal::kek::Kek;
use crate::seal::kek::passphrase::Recipe;
use crate::seal::kek::source::NotedSource;

pub(crate) const FORMAT: u32 = 2;

const DERIVATION_PURPOSE: &[u8] = b"derivation";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OlderKeyring {
    format: u32,
    source: OlderSource,
    pub(crate) kek_id: KeyId,
    #[serde(with = "hex_bytes")]
    pub(super) kek_check: [u8; 32],
    deks: Vec<WrappedKey>,
    derivation: WrappedKey,
    /// The keyed tag of everything else.
    #[serde(with = "hex_bytes")]
    tag: Vec<u8>,
}

/// The source of the KEK, which this format decided.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OlderSource {
    Command(Vec<String>),
    File(PathBuf),
    Passphrase(Recipe),
}

impl OlderKeyring {
    /// The source as the current format notes it.
    pub(crate) fn source(&self) -> NotedSource {
        match &self.source {
            OlderSource::Command(_) => NotedSource::Command,
            OlderSource::File(path) => NotedSource::File(path.clone()),
            OlderSource::Passphrase(recipe) => NotedSource::Passphrase(recipe.clone()),
        }
    }

    /// Unwraps the keys, if the file is as it was written.
    pub(crate) fn open(&self, kek: &Kek) -> Result<Keyring, KeyringError> {
        check(kek, self.kek_id, &self.kek_check)?;
        let derivation = self.derivation.unwrap(kek, DERIVATION_PURPOSE, "the derivation key")?;
        let keyring =
            Keyring::new(self.kek_id, unwrap_deks(&self.deks, kek)?, &derivation, &derivation);
        let keyring = keyring.ok_or_else(|| KeyringError::Damaged("no data key".to_owned()))?;
        check_tag(self, &self.tag, &keyring)?;
        Ok(keyring)
    }

    /// The same keys in the current format, if the file is as it was written.
    pub(super) fn taken_over(self, kek: &Kek) -> Result<KeyringFile, KeyringError> {
        self.open(kek)?;
        let derivation = self.derivation.unwrap(kek, DERIVATION_PURPOSE, "the derivation key")?;
        let (source, create_time) = (self.source(), self.derivation.create_time);
        let deks = self.deks;
        Ok(KeyringFile::with_one_derivation_key(kek, source, deks, &derivation, create_time)?)
    }
}
