//! A keyring of 0.1.0 becomes one of the current format, so that a kill at any moment leaves a keyring that opens.
//!
//! ```text
//! keyring.json.next   is written in the current format, and counts for nothing yet: 0.1.0 drops it
//! state.json          says the current format: 0.1.0 refuses from now on, and keyring.json.next counts
//! keyring.json        is replaced by keyring.json.next
//! ```

use std::path::PathBuf;

use super::keyring::Keyring;
use super::keyring_file::{KeyringError, StoredKeyring};
use super::store::{KeyStore, KeyStoreError, Unlocked, io};
use crate::seal::kek::source::AskPassphrase;
use crate::sys::files::{rename, sync_directory_of, write_new};

/// A keyring that is about to be taken over. Nothing of it is on disk before [`TakeOver::announce`].
pub struct TakeOver {
    unlocked: Unlocked,
    next: PathBuf,
    to: PathBuf,
}

impl KeyStore {
    /// Gets the KEK of a keyring that 0.1.0 has written, and prepares it in the current format.
    ///
    /// # Errors
    /// If the KEK cannot be had or is another one, or the keyring is not what 0.1.0 wrote.
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

    /// Writes what the keyring is about to be, on disk when this returns. It counts once `state.json` says its format.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn announce(&self) -> Result<(), KeyStoreError> {
        let text = self.unlocked.file.to_text(&self.keyring()?)?;
        let written = write_new(&self.next, 0o600, text.as_bytes());
        written.and_then(|()| sync_directory_of(&self.next)).map_err(io(&self.next))
    }

    /// Puts it in the keyring's place, on disk when this returns. `state.json` says its format by now.
    ///
    /// # Errors
    /// If it cannot be replaced. [`KeyStore::unlock`] does it then.
    pub fn commit(self) -> Result<Unlocked, KeyStoreError> {
        rename(&self.next, &self.to).map_err(io(&self.to))?;
        Ok(self.unlocked)
    }
}
