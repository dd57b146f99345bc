//! A keyring of 0.1.0 becomes a keyring of the current format. A kill at any time leaves a keyring that opens.
//!
//! ```text
//! keyring.json.next   is written in the current format, and is not in force yet: 0.1.0 drops it
//! state.json          says the current format: 0.1.0 refuses it from now on, and keyring.json.next is in force
//! keyring.json        is replaced by keyring.json.next
//! ```

use std::path::PathBuf;

use super::error::{KeyStoreError, KeyringError, io};
use super::keyring::Keyring;
use super::store::{KeyStore, Unlocked};
use super::stored_keyring::StoredKeyring;
use crate::seal::kek::source::AskPassphrase;
use crate::sys::files::{rename, sync_directory_of, write_new};

/// A keyring that is to be taken over. [`TakeOver::announce`] writes the first file.
pub struct TakeOver {
    unlocked: Unlocked,
    next: PathBuf,
    to: PathBuf,
}

impl KeyStore {
    /// Gets the KEK of a keyring of 0.1.0, and prepares the keyring in the current format.
    ///
    /// # Errors
    /// If the source gives no KEK or another one, or the keyring is not what 0.1.0 wrote.
    pub fn take_over(&self, ask: Option<&AskPassphrase>) -> Result<TakeOver, KeyStoreError> {
        let prepare = || {
            let (written, kek) = self.settle(ask, false)?;
            let StoredKeyring::Older(older) = written else {
                return Err(KeyringError::Ahead.into());
            };
            let unlocked = Unlocked { file: older.taken_over(&kek)?, kek };
            Ok(TakeOver { unlocked, next: self.next_path(), to: self.keyring_path() })
        };
        prepare().map_err(|error| self.located(error))
    }
}

impl TakeOver {
    /// Unwraps the keys.
    ///
    /// # Errors
    /// If the keyring is damaged.
    pub fn keyring(&self) -> Result<Keyring, KeyStoreError> {
        self.unlocked.keyring()
    }

    /// Writes the new keyring beside the old, and syncs it. The new keyring is in force once `state.json` says its format.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn announce(&self) -> Result<(), KeyStoreError> {
        let text = self.unlocked.file.to_text(&self.keyring()?)?;
        let written = write_new(&self.next, 0o600, text.as_bytes());
        written.and_then(|()| sync_directory_of(&self.next)).map_err(io(&self.next))
    }

    /// Replaces the old keyring, on disk when this returns. Call this once `state.json` says the new format.
    ///
    /// # Errors
    /// If it cannot be replaced. [`KeyStore::unlock`] does it later.
    pub fn commit(self) -> Result<Unlocked, KeyStoreError> {
        rename(&self.next, &self.to).map_err(io(&self.to))?;
        Ok(self.unlocked)
    }
}
