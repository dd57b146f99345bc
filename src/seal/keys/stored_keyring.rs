//! `keyring.json` of any format that can be read.

use serde::Deserialize;

use super::error::KeyringError;
use super::keyring_file::{FORMAT, KeyringFile, check};
use super::older_keyring::{self, OlderKeyring};
use crate::seal::kek::Kek;
use crate::seal::kek::source::NotedSource;

/// `keyring.json` as it is on disk.
pub(crate) enum StoredKeyring {
    Current(KeyringFile),
    Older(OlderKeyring),
}

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

    /// The source of the KEK that the file notes.
    pub(crate) fn source(&self) -> NotedSource {
        match self {
            Self::Current(file) => file.source.clone(),
            Self::Older(file) => file.source(),
        }
    }

    /// Checks that this is the KEK that wraps the keys.
    pub(crate) fn check(&self, kek: &Kek) -> Result<(), KeyringError> {
        match self {
            Self::Current(file) => file.check(kek),
            Self::Older(file) => check(kek, file.kek_id, &file.kek_check),
        }
    }

    /// Checks that the file is as it was written, by its tag.
    pub(crate) fn check_tag(&self, kek: &Kek) -> Result<(), KeyringError> {
        match self {
            Self::Current(file) => file.check_tag(&file.open(kek)?),
            Self::Older(file) => file.open(kek).map(drop),
        }
    }

    /// The keyring of the current format.
    ///
    /// # Errors
    /// If it has an older one.
    pub(crate) fn current(self) -> Result<KeyringFile, KeyringError> {
        match self {
            Self::Current(file) => Ok(file),
            Self::Older(_) => Err(KeyringError::Older),
        }
    }
}
