//! A change of keys that is on its way.

use std::path::PathBuf;

use super::keyring::Keyring;
use super::keyring_file::KeyId;
#[cfg(doc)]
use super::store::KeyStore;
use super::store::{KeyStoreError, io};
use crate::sys::files::rename;

/// A change of keys that is prepared, and takes effect by [`Rotation::commit`]. Dropped, it leaves nothing.
pub struct Rotation {
    /// The key that was in use.
    pub old: KeyId,
    /// The key that is to be.
    pub new: KeyId,
    /// Where the old KEK is kept, if it is in a file.
    pub kept: Option<PathBuf>,
    pub(crate) keyring: Keyring,
    /// The KEK's file that is to be replaced, by which.
    pub(crate) replaced: Option<(PathBuf, PathBuf)>,
    pub(crate) next: PathBuf,
    pub(crate) to: PathBuf,
    /// What is removed if it comes to nothing.
    pub(crate) made: Vec<PathBuf>,
}

impl Rotation {
    /// Puts it in force, on disk when this returns, and then in the keyring that is in use.
    ///
    /// # Errors
    /// If a file cannot be replaced. Half of it may be done then: [`KeyStore::unlock`] does the rest.
    pub fn commit(mut self, in_use: &Keyring) -> Result<(), KeyStoreError> {
        // From here on the new KEK may be the one that is needed, and nothing of it may go.
        self.made.clear();
        if let Some((next, path)) = self.replaced.take() {
            rename(&next, &path)
                .map_err(|source| KeyStoreError::NotReplaceable { path: path.clone(), source })?;
        }
        rename(&self.next, &self.to).map_err(io(&self.to))?;
        in_use.adopt(&self.keyring);
        Ok(())
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        // The keyring last: while it is there, the rest is known to be a rotation's.
        for path in self.made.iter().rev() {
            let _ = std::fs::remove_file(path);
        }
    }
}
