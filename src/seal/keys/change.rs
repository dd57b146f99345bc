//! New keys, and changes of keys.
//!
//! A change is prepared beside the files in use, and takes effect by [`Rotation::commit`]. [`KeyStore`] says in which
//! order files are replaced, so that a kill at any time leaves a keyring that opens.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::error::{KeyStoreError, io};
use super::id::KeyId;
use super::keyring::Keyring;
use super::keyring_file::KeyringFile;
use super::store::{KeyStore, Unlocked};
use crate::model::Timestamp;
use crate::seal::kek::passphrase::Recipe;
use crate::seal::kek::source::{NewKek, NotedSource};
use crate::seal::kek::{Kek, command, not_made};
use crate::sys::files::{beside, rename, replace_file, sync_directory_of, write_new};

/// A change of keys that is prepared. Dropping it removes what was prepared.
pub struct Rotation {
    /// The key that is in use until then.
    pub old: KeyId,
    /// The key that is in use from then on.
    pub new: KeyId,
    /// Where the old KEK is kept, if it is in a file.
    pub kept: Option<PathBuf>,
    keyring: Keyring,
    /// The new KEK's file, and the file that it replaces.
    replaced: Option<(PathBuf, PathBuf)>,
    /// The new keyring, and the keyring that it replaces.
    next: PathBuf,
    to: PathBuf,
    /// The files that a dropped change removes.
    made: Vec<PathBuf>,
}

impl Rotation {
    /// Puts the change in force: on disk, and then in the keyring that is in use.
    ///
    /// # Errors
    /// If a file cannot be replaced. The change may be half done then: [`KeyStore::unlock`] does the rest.
    pub fn commit(mut self, in_use: &Keyring) -> Result<(), KeyStoreError> {
        // From here on the new KEK may be needed: none of its files may be removed.
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
        // The keyring goes last: while it is there, the other files are known to be a rotation's.
        for path in self.made.iter().rev() {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl KeyStore {
    /// Makes the keys of a new broker. Returns the keyring, and the KEK's file if one was made.
    ///
    /// # Errors
    /// If the KEK's file exists, its command fails, or a file cannot be written.
    pub fn create(
        &self,
        new: &NewKek,
        now: Timestamp,
    ) -> Result<(Keyring, Option<PathBuf>), KeyStoreError> {
        let made = match new {
            NewKek::File(path) => Some(self.locate(path)?),
            NewKek::Command(_) | NewKek::Passphrase(_) => None,
        };
        let (source, kek) = match (new, &made) {
            (NewKek::File(path), Some(file)) => (self.note_file(path), Kek::create(file)?),
            _ => self.take(new)?,
        };
        let write = || {
            let file = KeyringFile::create(&kek, source, now)?;
            let keyring = file.open(&kek)?;
            self.write(&file, &keyring)?;
            Ok(keyring)
        };
        let keyring = write().inspect_err(|_: &KeyStoreError| {
            // The next attempt would find the file of this KEK in its way.
            let _ = made.as_ref().map(std::fs::remove_file);
        })?;
        Ok((keyring, made))
    }

    /// Prepares a new KEK in the same file.
    ///
    /// # Errors
    /// If the KEK is not in a file, or files cannot be written beside it.
    pub fn rotate_in_place(&self, unlocked: Unlocked) -> Result<Rotation, KeyStoreError> {
        let Unlocked { file, kek: old } = unlocked;
        let path = self.kek_path().ok_or(KeyStoreError::NotAFile(self.kek_kind()))?;
        let noted = self.note_file(&path);
        let not_replaceable = |source| KeyStoreError::NotReplaceable { path: path.clone(), source };
        // The file that a link leads to is replaced, not the link.
        let path =
            self.home.trust().locate(&path).map_err(|error| not_replaceable(error.into()))?;
        let new = Kek::generate()?;
        let file = file.rewrapped(&old, &new, noted)?;
        let mut rotation = self.prepare(&file, &new, old.id(), new.id())?;
        let next = beside(&path, "next");
        rotation.made.push(next.clone());
        new.write(&next).map_err(not_replaceable)?;
        let kept = beside(&path, &old.id().to_string());
        // A copy that is there already is of a rotation that failed.
        if !Kek::load(&kept, self.home.trust()).is_ok_and(|kept| kept.id() == old.id()) {
            rotation.made.push(kept.clone());
            old.write(&kept).map_err(not_replaceable)?;
        }
        rotation.replaced = Some((next, path));
        rotation.kept = Some(kept);
        Ok(rotation)
    }

    /// Prepares a KEK from another source.
    ///
    /// # Errors
    /// If the source gives no KEK, or a file cannot be written.
    pub fn change_kek(&self, unlocked: Unlocked, new: &NewKek) -> Result<Rotation, KeyStoreError> {
        let own = self.kek_path();
        if let (NewKek::File(path), Some(own)) = (new, &own)
            && is_same_file(&self.home.path().join(path), own)
        {
            return self.rotate_in_place(unlocked);
        }
        let made = match new {
            NewKek::File(path) => Some(self.locate(path)?).filter(|path| !path.exists()),
            NewKek::Command(_) | NewKek::Passphrase(_) => None,
        };
        let (source, kek) = self.take(new)?;
        let file = unlocked.file.rewrapped(&unlocked.kek, &kek, source)?;
        let mut rotation = self.prepare(&file, &kek, unlocked.kek.id(), kek.id())?;
        rotation.made.extend(made);
        rotation.kept = own;
        Ok(rotation)
    }

    /// Prepares a new DEK.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn add_dek(&self, unlocked: Unlocked, now: Timestamp) -> Result<Rotation, KeyStoreError> {
        let Unlocked { mut file, kek } = unlocked;
        let old = file.newest_dek()?;
        let new = file.add_dek(&kek, now)?;
        self.prepare(&file, &kek, old, new)
    }

    /// Drops DEKs that no record is sealed under.
    ///
    /// # Errors
    /// If the keyring cannot be read or written.
    pub fn drop_deks(
        &self,
        keyring: &Keyring,
        dropped: &BTreeSet<KeyId>,
    ) -> Result<(), KeyStoreError> {
        let mut file = self.read()?.current()?;
        file.check_tag(keyring)?;
        file.drop_deks(dropped);
        self.write(&file, keyring)?;
        keyring.retire(|id| dropped.contains(id));
        Ok(())
    }

    /// Gets a new KEK. A file that does not exist is made, whole or not at all.
    fn take(&self, new: &NewKek) -> Result<(NotedSource, Kek), KeyStoreError> {
        match new {
            NewKek::Command(words) => {
                let kek = command::run(words, self.home.trust())?;
                // If a command printed another key each time, the keyring could never be opened again.
                match command::run(words, self.home.trust())?.id() == kek.id() {
                    true => Ok((NotedSource::Command, kek)),
                    false => Err(KeyStoreError::NotRepeatable),
                }
            }
            NewKek::Passphrase(passphrase) => {
                passphrase.check_new()?;
                let recipe = Recipe::new()?;
                let kek = recipe.derive(passphrase)?;
                Ok((NotedSource::Passphrase(recipe), kek))
            }
            NewKek::File(path) => {
                let file = self.locate(path)?;
                if !file.exists() {
                    let next = beside(&file, "next");
                    let made = Kek::generate()?.write(&next).and_then(|()| rename(&next, &file));
                    made.map_err(|error| not_made(&file, error))?;
                }
                Ok((self.note_file(path), Kek::load(&file, self.home.trust())?))
            }
        }
    }

    /// Notes a file; below the state directory by a relative path, which stays right when the directory is moved.
    fn note_file(&self, path: &Path) -> NotedSource {
        NotedSource::File(path.strip_prefix(self.home.path()).unwrap_or(path).to_owned())
    }

    fn write(&self, file: &KeyringFile, keyring: &Keyring) -> Result<(), KeyStoreError> {
        let path = self.keyring_path();
        replace_file(&path, 0o600, file.to_text(keyring)?.as_bytes()).map_err(io(&path))
    }

    /// Writes the keyring of a change beside the one in use. `old` and `new` are the keys that the change replaces.
    fn prepare(
        &self,
        file: &KeyringFile,
        kek: &Kek,
        old: KeyId,
        new: KeyId,
    ) -> Result<Rotation, KeyStoreError> {
        let next = self.next_path();
        let keyring = file.open(kek)?;
        let text = file.to_text(&keyring)?;
        let written = write_new(&next, 0o600, text.as_bytes());
        // The new keyring is on disk before the KEK's file changes, which may be in another directory.
        written.and_then(|()| sync_directory_of(&next)).map_err(io(&next))?;
        Ok(Rotation {
            old,
            new,
            kept: None,
            keyring,
            replaced: None,
            to: self.keyring_path(),
            made: vec![next.clone()],
            next,
        })
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| std::fs::canonicalize(path).ok();
    one == other || (canonical(one).is_some() && canonical(one) == canonical(other))
}
