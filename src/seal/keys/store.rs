//! The keys of one broker on disk.
//!
//! ```text
//! keyring.json        the DEKs, wrapped by the KEK, and a note of where the KEK comes from
//! keyring.json.next   the keyring of a change that is prepared
//! KEKFILE             the KEK, if it comes from a file
//! KEKFILE.next        the KEK of a change that is prepared
//! KEKFILE.<id>        a KEK from before a rotation, which backups of that time need
//! ```
//!
//! A change writes `keyring.json.next` first. Then it replaces the KEK's file, then `keyring.json`: each by a rename, each
//! on disk before the next. So at any time the KEK opens `keyring.json`, or it opens `keyring.json.next`. In the first
//! case the change is dropped, in the second [`KeyStore::unlock`] finishes it.
//!
//! Nobody who can write these files decides what is run or read. The KEK comes from the source that the process was given,
//! or else from the file `kek` in the state directory. That source is compared with the keyring's note before anything is
//! run or read: the kinds must be the same, and so must the files if no source was given.

use std::cmp::Ordering;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::error::{KeyStoreError, KeyringError, io};
use super::id::KeyId;
use super::keyring::Keyring;
use super::keyring_file::KeyringFile;
use super::stored_keyring::StoredKeyring;
use crate::seal::kek::error::KekError;
use crate::seal::kek::source::{AskPassphrase, DEFAULT_FILE, KekSource, NotedSource};
use crate::seal::kek::{Kek, KekKind, command, not_made};
use crate::seal::{OpenError, ReadValues, RecordKey, Sealed};
use crate::sys::files::{beside, rename, replace_file};
use crate::sys::{Directory, DirectoryError};

/// The files of one broker's keys. Callers that change them hold the state directory's lock, and take turns within the
/// process.
pub struct KeyStore {
    pub(super) home: Arc<Directory>,
    /// Where the KEK comes from, if the process was given a source.
    given: Option<KekSource>,
    /// Files outside of the store that are sealed under a DEK.
    sealed_files: Vec<(RecordKey, PathBuf)>,
}

/// A keyring with the KEK that opens it. Dropping it wipes the KEK.
pub struct Unlocked {
    pub(crate) file: KeyringFile,
    pub(crate) kek: Kek,
}

impl Unlocked {
    /// Unwraps the keys.
    ///
    /// # Errors
    /// If the keyring is damaged.
    pub fn keyring(&self) -> Result<Keyring, KeyStoreError> {
        Ok(self.file.open(&self.kek)?)
    }
}

impl KeyStore {
    /// The keys in a state directory; nothing is read yet. Paths of files are relative to the directory. `source` is where
    /// the KEK comes from; the file `kek` if it is `None`.
    pub fn new(
        home: Arc<Directory>,
        source: Option<KekSource>,
        sealed_files: Vec<(RecordKey, PathBuf)>,
    ) -> Self {
        Self { home, given: source, sealed_files }
    }

    /// Gets the KEK and the keyring. A change that was cut off is finished or dropped.
    ///
    /// # Errors
    /// If the source gives no KEK or another one, or the keyring is an older copy.
    pub fn unlock(&self, ask: Option<&AskPassphrase>) -> Result<Unlocked, KeyStoreError> {
        let unlocked = || {
            let (file, kek) = self.settle(ask, true)?;
            Ok(Unlocked { file: file.current()?, kek })
        };
        unlocked().map_err(|error| self.located(error))
    }

    /// Adds the keyring's path to an error of the keyring.
    pub(super) fn located(&self, error: KeyStoreError) -> KeyStoreError {
        match error {
            KeyStoreError::Keyring(error) => {
                KeyStoreError::KeyringAt { path: self.keyring_path(), error }
            }
            error => error,
        }
    }

    /// The keyring in force, and its KEK. A prepared change is finished if it is in force, and dropped otherwise.
    ///
    /// `state_is_current`: `state.json` says the current format. A prepared keyring of that format is in force then.
    pub(super) fn settle(
        &self,
        ask: Option<&AskPassphrase>,
        state_is_current: bool,
    ) -> Result<(StoredKeyring, Kek), KeyStoreError> {
        let file = self.read()?;
        let kek = self.load(&file.source(), ask)?;
        let (next, is_its_kek) = (self.next_path(), file.check(&kek));
        let is_in_force = |prepared: &StoredKeyring| match prepared.format().cmp(&file.format()) {
            Ordering::Less => false,
            Ordering::Equal => is_its_kek.is_err(),
            Ordering::Greater => state_is_current,
        };
        if let Some(prepared) = self.prepared(&kek).filter(is_in_force) {
            tracing::info!(kek = %kek.id(), "a change of the keyring that was cut off is finished");
            prepared.check_tag(&kek)?;
            rename(&next, &self.keyring_path()).map_err(io(&next))?;
            return Ok((prepared, kek));
        }
        is_its_kek?;
        if next.exists() {
            tracing::info!("a change of the keyring was prepared and not made; it is dropped");
            if let Some(path) = self.kek_path().and_then(|path| self.locate(&path).ok()) {
                let _ = std::fs::remove_file(beside(&path, "next"));
            }
            std::fs::remove_file(&next).map_err(io(&next))?;
        }
        file.check_tag(&kek)?;
        Ok((file, kek))
    }

    /// The keyring of a prepared change, if this is its KEK.
    fn prepared(&self, kek: &Kek) -> Option<StoredKeyring> {
        let text = std::fs::read_to_string(self.next_path()).ok()?;
        StoredKeyring::parse(&text).ok().filter(|prepared| prepared.check(kek).is_ok())
    }

    /// Gets the KEK from its source, if the keyring notes the same source.
    fn load(&self, noted: &NotedSource, ask: Option<&AskPassphrase>) -> Result<Kek, KeyStoreError> {
        self.check_noted(noted)?;
        Ok(match (self.source(), noted) {
            (KekSource::Command(words), _) => command::run(&words, self.home.trust())?,
            (KekSource::File(path), _) => self.read_kek(&path)?,
            (KekSource::Passphrase, NotedSource::Passphrase(recipe)) => {
                recipe.parameters()?;
                recipe.derive(&ask.ok_or(KekError::PassphraseNotKept)?()?)?
            }
            (KekSource::Passphrase, _) => return Err(KekError::PassphraseNotKept.into()),
        })
    }

    /// Reads the KEK's file. The default file must not be a link: a user who can write the state directory could have root
    /// read any file as a key.
    fn read_kek(&self, path: &Path) -> Result<Kek, KekError> {
        let (path, trust) = (self.home.path().join(path), self.home.trust());
        if self.given.is_some() {
            return Kek::load(&path, trust);
        }
        let file = match self.home.open_file(DEFAULT_FILE) {
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                return Err(KekError::Link(path));
            }
            opened => opened.map_err(|source| KekError::File { path: path.clone(), source })?,
        };
        Kek::read(file, &path, trust)
    }

    /// The path of a file that exists or is to be made, without links. No other user can change where it leads.
    pub(super) fn locate(&self, path: &Path) -> Result<PathBuf, KekError> {
        let path = self.home.path().join(path);
        self.home.trust().locate(&path).map_err(|error| match error {
            DirectoryError::Io { source, .. } => not_made(&path, source),
            error => KekError::Place(error),
        })
    }

    fn check_noted(&self, noted: &NotedSource) -> Result<(), KeyStoreError> {
        let source = self.source();
        let is_same = match (noted, &source) {
            // A given file may differ from the noted one: it was moved. The default file may not.
            (NotedSource::File(noted), KekSource::File(path)) => {
                self.given.is_some() || self.home.path().join(noted) == self.home.path().join(path)
            }
            _ => noted.kind() == source.kind(),
        };
        if is_same {
            return Ok(());
        }
        let given = match &source {
            KekSource::File(path) => format!("the file {:?}", self.home.path().join(path)),
            KekSource::Command(_) | KekSource::Passphrase => format!("a {}", source.kind()),
        };
        let (path, noted, flag) = (self.keyring_path(), noted.kind(), noted.flag(self.home.path()));
        Err(KeyStoreError::OtherSource { path, noted, given, flag })
    }

    /// Checks that the keyring notes the KEK's source. Runs nothing and reads no KEK.
    ///
    /// # Errors
    /// If the keyring notes another source, or cannot be read.
    pub fn check_source(&self) -> Result<(), KeyStoreError> {
        let file = self.read().map_err(|error| self.located(error))?;
        self.check_noted(&file.source())
    }

    /// The file of the KEK, if it comes from one.
    pub fn kek_path(&self) -> Option<PathBuf> {
        match self.source() {
            KekSource::File(path) => Some(self.home.path().join(path)),
            KekSource::Command(_) | KekSource::Passphrase => None,
        }
    }

    /// Checks that a file holds the KEK, and returns its id. Changes nothing: [`KeyStore::unlock`] finishes what a rotation
    /// has left.
    ///
    /// # Errors
    /// If the file cannot be read or holds another key, or the keyring cannot be read.
    pub fn check_kek(&self, path: &Path) -> Result<KeyId, KeyStoreError> {
        let kek = self.read_kek(path)?;
        match self.read().map_err(|error| self.located(error))?.check(&kek) {
            Err(wrong) if self.prepared(&kek).is_none() => Err(self.located(wrong.into())),
            _ => Ok(kek.id()),
        }
    }

    /// The kind of the KEK's source.
    pub fn kek_kind(&self) -> KekKind {
        self.source().kind()
    }

    /// Seals the files outside of the store under the newest DEK, if they are under an older one.
    ///
    /// # Errors
    /// If a file cannot be read or written, or does not open.
    pub fn reseal_files(&self, keyring: &Keyring) -> Result<(), KeyStoreError> {
        for (key, path) in &self.sealed_files {
            let sealed = read_sealed(path)?;
            if sealed.dek() != keyring.newest_dek() {
                let resealed = keyring.reseal(*key, &sealed).map_err(|error| match error {
                    ReadValues::Open(OpenError) => KeyStoreError::SealedFile(path.clone()),
                    ReadValues::NoRandomness(error) => error.into(),
                })?;
                replace_file(path, 0o600, resealed.as_bytes()).map_err(io(path))?;
            }
        }
        Ok(())
    }

    /// Replaces a file outside of the store, whole or not at all. The caller keeps [`KeyStore::reseal_files`] from running
    /// meanwhile.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn replace_file(&self, key: RecordKey, sealed: &Sealed) -> Result<(), KeyStoreError> {
        let mut files = self.sealed_files.iter().filter(|(of, _)| *of == key);
        files.try_for_each(|(_, path)| {
            replace_file(path, 0o600, sealed.as_bytes()).map_err(io(path))
        })
    }

    /// The DEKs that the files outside of the store are sealed under.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn file_deks(&self) -> Result<Vec<KeyId>, KeyStoreError> {
        self.sealed_files.iter().map(|(_, path)| Ok(read_sealed(path)?.dek())).collect()
    }

    pub(super) fn read(&self) -> Result<StoredKeyring, KeyStoreError> {
        let path = self.keyring_path();
        let bytes = std::fs::read(&path).map_err(io(&path))?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| KeyringError::Damaged("it is not text".to_owned()))?;
        Ok(StoredKeyring::parse(text)?)
    }

    fn source(&self) -> KekSource {
        self.given.clone().unwrap_or_else(KekSource::by_default)
    }

    pub(super) fn keyring_path(&self) -> PathBuf {
        self.home.path().join("keyring.json")
    }

    pub(super) fn next_path(&self) -> PathBuf {
        self.home.path().join("keyring.json.next")
    }
}

fn read_sealed(path: &Path) -> Result<Sealed, KeyStoreError> {
    let bytes = std::fs::read(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => KeyStoreError::SealedFile(path.to_owned()),
        _ => KeyStoreError::Io { path: path.to_owned(), source },
    })?;
    Sealed::parse(&bytes).map_err(|_| KeyStoreError::SealedFile(path.to_owned()))
}
