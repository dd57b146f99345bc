//! Where the keys of a broker are on disk, and how they are changed so that a kill at any moment leaves a
//! keyring that opens.
//!
//! ```text
//! keyring.json        the DEKs, wrapped by the KEK, and a note of where the KEK comes from
//! keyring.json.next   what it is about to be
//! KEKFILE             the KEK, if it comes from a file
//! KEKFILE.next        what it is about to be
//! KEKFILE.<id>        a KEK from before a rotation: backups of then need it
//! ```
//!
//! `keyring.json.next` is written first. Then the KEK in its file is replaced, then `keyring.json`: each by a
//! rename, each on disk before the next. So the KEK opens one of the two at any moment: `keyring.json`, and
//! what is to come is dropped, or `keyring.json.next`, and the rename is done now.
//!
//! Whoever can write these files decides neither what is run nor what is read. The KEK comes from where the process was
//! told, else from the file `kek` in the state directory. The keyring's note is compared with that first: another kind,
//! or another file where nothing was told, and nothing is run or read.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::keyring::Keyring;
use super::keyring_file::{KeyId, KeyringError, KeyringFile, StoredKeyring};
use super::rotation::Rotation;
use crate::model::Timestamp;
use crate::seal::kek::command;
use crate::seal::kek::source::{
    AskPassphrase, DEFAULT_FILE, KekKind, KekSource, NewKek, NotedSource, Recipe,
};
use crate::seal::kek::{Kek, KekError, not_made};
use crate::seal::{NoRandomness, OpenError, ReadValues, RecordKey, Sealed};
use crate::sys::files::{beside, rename, replace_file, sync_directory_of, write_new};
use crate::sys::{Directory, DirectoryError};

/// Why keys cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// A file cannot be read or written.
    #[error("{}: {source}; see to its disk, or restore it from a backup", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The KEK.
    #[error(transparent)]
    Kek(#[from] KekError),
    /// The keyring.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The KEK is in no file that could be replaced.
    #[error(
        "the KEK comes from a {0}, which cannot be changed from here; stop the daemon and give the broker \
         another KEK with: keyhatch key rotate --kek-file FILE (or --kek-passphrase, or --kek-command COMMAND)"
    )]
    NotAFile(KekKind),
    /// The KEK's file cannot be replaced.
    #[error(
        "the KEK file {} cannot be replaced ({source}); stop the daemon and give the broker another KEK \
         with: keyhatch key rotate --kek-file FILE (or --kek-passphrase, or --kek-command COMMAND)",
        .path.display()
    )]
    NotReplaceable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The command prints another key each time.
    #[error(
        "the KEK command printed two different keys when it was run twice; give one that prints the same key each time"
    )]
    NotRepeatable,
    /// The same, of the keyring in this file.
    #[error("{}: {error}", .path.display())]
    KeyringAt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: KeyringError,
    },
    /// The keyring notes another source than the process was told.
    #[error(
        "{} notes that the KEK comes from a {noted}, but it was to come from {told}; nothing was run or read. If that is \
         right, give {flag}; key rotate takes what is in use with --old-kek-…", .path.display()
    )]
    OtherSource {
        /// The keyring.
        path: PathBuf,
        /// What it notes.
        noted: KekKind,
        /// What was told.
        told: String,
        /// The flag that says what it notes.
        flag: String,
    },
    /// A sealed file does not open.
    #[error("{} is damaged; restore the state directory from a backup", .0.display())]
    SealedFile(PathBuf),
}

impl From<NoRandomness> for KeyStoreError {
    fn from(error: NoRandomness) -> Self {
        Self::Kek(error.into())
    }
}

/// Where the keys of one broker are. One at a time changes them: whoever does holds the state directory's
/// lock, and takes turns within the process.
pub struct KeyStore {
    home: Arc<Directory>,
    /// Where the KEK comes from, if the process was told.
    told: Option<KekSource>,
    /// What is sealed outside of the store.
    sealed_files: Vec<(RecordKey, PathBuf)>,
}

/// A keyring with the KEK that opens it, until both are dropped.
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
    /// The keys in this state directory. Files are relative to it. `told` is where the KEK comes from; the file `kek`
    /// where nothing is told.
    pub fn new(
        home: Arc<Directory>,
        told: Option<KekSource>,
        sealed_files: Vec<(RecordKey, PathBuf)>,
    ) -> Self {
        Self { home, told, sealed_files }
    }

    /// Makes the keys of a new broker: the keyring, and the KEK's file if one was made.
    ///
    /// # Errors
    /// If the KEK's file exists, its command fails, or something cannot be written.
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
        let filled = || {
            let file = KeyringFile::create(&kek, source, now)?;
            let (path, keyring) = (self.keyring_path(), file.open(&kek)?);
            replace_file(&path, 0o600, file.to_text(&keyring)?.as_bytes()).map_err(io(&path))?;
            Ok(keyring)
        };
        let keyring = filled().inspect_err(|_: &KeyStoreError| {
            // A key that was made for nothing; the next attempt would find it in its way.
            let _ = made.as_ref().map(std::fs::remove_file);
        });
        Ok((keyring?, made))
    }

    /// Gets the KEK, and finishes or drops what a rotation has left when it was killed.
    ///
    /// # Errors
    /// If the KEK cannot be had, or is another one, or the keyring is an older one.
    pub fn unlock(&self, ask: Option<&AskPassphrase>) -> Result<Unlocked, KeyStoreError> {
        let unlocked = || {
            let (file, kek) = self.settle(ask, true)?;
            Ok(Unlocked { file: file.current()?, kek })
        };
        unlocked().map_err(|error| self.located(error))
    }

    /// What is wrong with the keyring is said with where it is.
    pub(crate) fn located(&self, error: KeyStoreError) -> KeyStoreError {
        match error {
            KeyStoreError::Keyring(error) => {
                KeyStoreError::KeyringAt { path: self.keyring_path(), error }
            }
            error => error,
        }
    }

    /// The keyring that is in force, as it was written, and its KEK. `is_announced`: `state.json` says the current
    /// format, so that a keyring on its way there is in force.
    pub(crate) fn settle(
        &self,
        ask: Option<&AskPassphrase>,
        is_announced: bool,
    ) -> Result<(StoredKeyring, Kek), KeyStoreError> {
        let file = self.read()?;
        let kek = self.load(&file.source(), ask)?;
        let (next, is_its_kek) = (self.next_path(), file.check(&kek));
        let is_in_force = |begun: &StoredKeyring| match begun.format().cmp(&file.format()) {
            Ordering::Less => false,
            Ordering::Equal => is_its_kek.is_err(),
            Ordering::Greater => is_announced,
        };
        if let Some(begun) = self.begun(&kek).filter(is_in_force) {
            tracing::info!(kek = %kek.id(), "a change of the keyring is finished");
            begun.check_tag(&kek)?;
            rename(&next, &self.keyring_path()).map_err(io(&next))?;
            return Ok((begun, kek));
        }
        is_its_kek?;
        if next.exists() {
            tracing::info!("a change of the keyring was begun and not done: it counts for nothing");
            if let Some(path) = self.kek_path().and_then(|path| self.locate(&path).ok()) {
                let _ = std::fs::remove_file(beside(&path, "next"));
            }
            std::fs::remove_file(&next).map_err(io(&next))?;
        }
        file.check_tag(&kek)?;
        Ok((file, kek))
    }

    /// What a change of the keyring has begun, if this is its KEK.
    fn begun(&self, kek: &Kek) -> Option<StoredKeyring> {
        let text = std::fs::read_to_string(self.next_path()).ok()?;
        StoredKeyring::parse(&text).ok().filter(|begun| begun.check(kek).is_ok())
    }

    /// The KEK, from where the process was told, if the keyring notes the same.
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

    /// Reads the KEK's file. The default is a file in the state directory itself: by a link, who can write there would
    /// have root read any key.
    fn read_kek(&self, path: &Path) -> Result<Kek, KekError> {
        let (path, trust) = (self.home.path().join(path), self.home.trust());
        if self.told.is_some() {
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

    /// Where a file is, or would be, by a path that nobody else can have lead elsewhere.
    fn locate(&self, path: &Path) -> Result<PathBuf, KekError> {
        let path = self.home.path().join(path);
        self.home.trust().locate(&path).map_err(|error| match error {
            DirectoryError::Io { source, .. } => not_made(&path, source),
            error => KekError::Place(error),
        })
    }

    fn check_noted(&self, noted: &NotedSource) -> Result<(), KeyStoreError> {
        let source = self.source();
        let is_same = match (noted, &source) {
            // A file that was moved is told; which file it is by default is not for the keyring to say.
            (NotedSource::File(noted), KekSource::File(path)) => {
                self.told.is_some() || self.home.path().join(noted) == self.home.path().join(path)
            }
            _ => noted.kind() == source.kind(),
        };
        if is_same {
            return Ok(());
        }
        let told = match &source {
            KekSource::File(path) => format!("the file {:?}", self.home.path().join(path)),
            KekSource::Command(_) | KekSource::Passphrase => format!("a {}", source.kind()),
        };
        let (path, noted, flag) = (self.keyring_path(), noted.kind(), noted.flag(self.home.path()));
        Err(KeyStoreError::OtherSource { path, noted, told, flag })
    }

    /// Whether the keyring notes the source that the process was told. Nothing is run, and no KEK is read.
    ///
    /// # Errors
    /// If not, or the keyring cannot be read.
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

    /// Whether the KEK in this file is the one, and which. Changes nothing: what a rotation has left is for
    /// [`KeyStore::unlock`].
    ///
    /// # Errors
    /// If it cannot be read or is another one, or the keyring cannot be read.
    pub fn check_kek(&self, path: &Path) -> Result<KeyId, KeyStoreError> {
        let kek = self.read_kek(path)?;
        match self.read().map_err(|error| self.located(error))?.check(&kek) {
            Err(wrong) if self.begun(&kek).is_none() => Err(self.located(wrong.into())),
            _ => Ok(kek.id()),
        }
    }

    /// Where the KEK comes from.
    pub fn kek_kind(&self) -> KekKind {
        self.source().kind()
    }

    /// Prepares a new KEK in the same file.
    ///
    /// # Errors
    /// If the KEK is in no file, or files cannot be written beside it.
    pub fn rotate_in_place(&self, unlocked: Unlocked) -> Result<Rotation, KeyStoreError> {
        let Unlocked { file, kek: old } = unlocked;
        let path = self.kek_path().ok_or(KeyStoreError::NotAFile(self.kek_kind()))?;
        let noted = self.note_file(&path);
        let not_replaceable = |source| KeyStoreError::NotReplaceable { path: path.clone(), source };
        // Behind a link is the file that counts.
        let path =
            self.home.trust().locate(&path).map_err(|error| not_replaceable(error.into()))?;
        let new = Kek::generate()?;
        let file = file.rewrapped(&old, &new, noted)?;
        let mut rotation = self.prepare(&file, &new, old.id(), new.id())?;
        let next = beside(&path, "next");
        rotation.made.push(next.clone());
        new.write(&next).map_err(not_replaceable)?;
        let kept = beside(&path, &old.id().to_string());
        // One that is there already is of a rotation that came to nothing.
        if !Kek::load(&kept, self.home.trust()).is_ok_and(|kept| kept.id() == old.id()) {
            rotation.made.push(kept.clone());
            old.write(&kept).map_err(not_replaceable)?;
        }
        rotation.replaced = Some((next, path));
        rotation.kept = Some(kept);
        Ok(rotation)
    }

    /// Prepares another KEK, from where it says.
    ///
    /// # Errors
    /// If it cannot be had, or something cannot be written.
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
    /// If something cannot be written.
    pub fn add_dek(&self, unlocked: Unlocked, now: Timestamp) -> Result<Rotation, KeyStoreError> {
        let Unlocked { mut file, kek } = unlocked;
        let (old, new) = file.add_dek(&kek, now)?;
        self.prepare(&file, &kek, old, new)
    }

    /// Drops DEKs that nothing is sealed under.
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
        let path = self.keyring_path();
        replace_file(&path, 0o600, file.to_text(keyring)?.as_bytes()).map_err(io(&path))?;
        keyring.retire(|id| dropped.contains(id));
        Ok(())
    }

    /// Seals what is outside of the store under the newest DEK, where it is under an older one.
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

    /// Which DEKs the files outside of the store are sealed under.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn file_deks(&self) -> Result<Vec<KeyId>, KeyStoreError> {
        self.sealed_files.iter().map(|(_, path)| Ok(read_sealed(path)?.dek())).collect()
    }

    /// Gets a KEK that is to be the one from now on. A file that is not there is made, whole or not at all.
    fn take(&self, new: &NewKek) -> Result<(NotedSource, Kek), KeyStoreError> {
        match new {
            NewKek::Command(words) => {
                let kek = command::run(words, self.home.trust())?;
                // A command that prints another key each time would lock everything up for ever.
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

    /// Below the state directory the note stays right when that is moved.
    fn note_file(&self, path: &Path) -> NotedSource {
        NotedSource::File(path.strip_prefix(self.home.path()).unwrap_or(path).to_owned())
    }

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
        // Its name is on disk before the KEK's file changes, which may be in another directory.
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

    fn read(&self) -> Result<StoredKeyring, KeyStoreError> {
        let path = self.keyring_path();
        let bytes = std::fs::read(&path).map_err(io(&path))?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| KeyringError::Damaged("it is no text".to_owned()))?;
        Ok(StoredKeyring::parse(text)?)
    }

    fn source(&self) -> KekSource {
        self.told.clone().unwrap_or_else(KekSource::by_default)
    }

    pub(super) fn keyring_path(&self) -> PathBuf {
        self.home.path().join("keyring.json")
    }

    pub(super) fn next_path(&self) -> PathBuf {
        self.home.path().join("keyring.json.next")
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| std::fs::canonicalize(path).ok();
    one == other || (canonical(one).is_some() && canonical(one) == canonical(other))
}

fn read_sealed(path: &Path) -> Result<Sealed, KeyStoreError> {
    let bytes = std::fs::read(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => KeyStoreError::SealedFile(path.to_owned()),
        _ => KeyStoreError::Io { path: path.to_owned(), source },
    })?;
    Sealed::parse(&bytes).map_err(|_| KeyStoreError::SealedFile(path.to_owned()))
}

pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> KeyStoreError {
    let path = path.to_owned();
    |source| KeyStoreError::Io { path, source }
}
