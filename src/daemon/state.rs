//! The state directory.
//!
//! ```text
//! STATE/state.json         format and name; written last by init
//! STATE/lock               held by the daemon
//! STATE/keyring.json       the DEKs, wrapped, and a note of the KEK's source
//! STATE/kek                the KEK, unless it comes from elsewhere
//! STATE/authority.sealed   the CA
//! STATE/issuer.sealed      the keys that sign tokens of steps
//! STATE/broker/            the daemon's certificate and key
//! STATE/journal/  STATE/store/
//! STATE/operators/admin/  STATE/executors/local/   identities that work on this host
//! ```

use std::ffi::CString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::identity::{Authority, AuthorityError, Issuer, IssuerError, IssuerKeys, IssuerUrl};
use crate::journal::written_formats;
use crate::model::{Formats, Timestamp, TrustDomain};
use crate::seal::{
    KeyStore, KeyStoreError, Keyring, NoRandomness, RecordKey, Sealed, Unlock, Unlocked,
};
use crate::sys::{Directory, DirectoryError, Lock, Trust};

/// The format of the state directory.
pub(super) const FORMAT: u32 = Formats::CURRENT.state;
/// The format that 0.1.0 wrote. [`StateDirectory::unlock`] takes it over.
const OLDER_FORMAT: u32 = 2;

/// The files of a backup, beside journal and store.
pub(super) const BACKED_UP: [&str; 5] = ["state.json", "keyring.json", AUTHORITY, ISSUER, "ca.crt"];

const AUTHORITY: &str = "authority.sealed";
const ISSUER: &str = "issuer.sealed";

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The CA.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A file is not as it was written.
    #[error("{} is damaged; restore the state directory from a backup", .0.display())]
    Damaged(PathBuf),
    /// The issuer's keys.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// The directory is not safe to work in.
    #[error("the state directory cannot be used: {0}")]
    Directory(#[from] DirectoryError),
    /// A file cannot be read or written.
    #[error("{}: {source}; check its disk, and that this user may write there", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// `state.json` was replaced by an older one.
    #[error(
        "{} has format {format} by its state.json, but the journal says that it had format {written}: state.json was \
         replaced by an older copy; restore the state directory from a backup", .path.display()
    )]
    Older {
        /// The directory.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The format that the journal notes.
        written: u32,
    },
    /// Another process has locked the directory.
    #[error("another keyhatch runs on the state directory {}; stop it first", .0.display())]
    Locked(PathBuf),
    /// The directory was not made by init.
    #[error("{} is not a state directory; make one with: keyhatch init --state {}", .0.display(), .0.display())]
    Missing(PathBuf),
    /// A newer version made the directory.
    #[error("{} has format {format}, which this version does not know; run the newer keyhatch", .path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// The directory holds other files.
    #[error("{} is not empty; choose another directory with --state", .0.display())]
    NotEmpty(PathBuf),
    /// The directory holds a broker.
    #[error(
        "{} holds a broker already; start it with: keyhatch serve, get a new administrator with: keyhatch init \
         --reissue-admin, or choose another directory with --state", .0.display()
    )]
    Made(PathBuf),
    /// KEK and keyring.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// No random numbers.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateFile {
    /// The format of the directory.
    pub format: u32,
    /// The broker's name, in its SPIFFE ID.
    pub name: String,
    /// The trust domain.
    pub trust_domain: TrustDomain,
}

/// The directories below that other rooms open by path. No other user can change where these paths lead: every
/// directory above them was checked, see [`Trust`].
const WORKED_IN: [&str; 3] = ["broker", "journal", "store"];

/// A state directory that is safe to work in.
#[derive(Clone)]
pub struct StateDirectory(Arc<Directory>);

impl StateDirectory {
    /// Opens the directory at a path.
    ///
    /// # Errors
    /// If there is none, or it or a directory in it is not safe to work in.
    pub fn open(path: &Path, trust: &Trust) -> Result<Self, StateError> {
        let directory = Directory::open(path, trust).map_err(|error| match error.is_missing() {
            true => StateError::Missing(path.to_owned()),
            false => error.into(),
        })?;
        for name in WORKED_IN {
            match Directory::open(&directory.path().join(name), trust) {
                // Some of them are made later. The room that opens a missing one reports it.
                Err(error) if error.is_missing() => {}
                opened => drop(opened?),
            }
        }
        Ok(Self(Arc::new(directory)))
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of a file in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Makes the directory, or opens an empty one, and locks it.
    pub(super) fn make(path: &Path, trust: &Trust) -> Result<(Self, Lock), StateError> {
        let state = Self(Arc::new(Directory::make(path, 0o700, trust)?));
        // Twice: no lock is put into a directory in use, and no other process fills it before the lock is taken.
        state.check_is_empty()?;
        let lock = state.lock()?;
        state.check_is_empty()?;
        state.0.set_mode(0o700).map_err(|source| io(path, source))?;
        Ok((state, lock))
    }

    fn check_is_empty(&self) -> Result<(), StateError> {
        let path = self.path().to_owned();
        let names: Result<Vec<CString>, _> = self.0.names().and_then(Iterator::collect);
        let names = names.map_err(|error| io(&path, error.into()))?;
        match names.iter().find(|name| name.as_c_str() != c"lock") {
            None => Ok(()),
            Some(_) if names.iter().any(|name| name.as_c_str() == c"state.json") => {
                Err(StateError::Made(path))
            }
            Some(_) => Err(StateError::NotEmpty(path)),
        }
    }

    /// Takes the lock.
    ///
    /// # Errors
    /// If another process holds it, or the file cannot be made.
    pub fn lock(&self) -> Result<Lock, StateError> {
        self.0.lock("lock").map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => StateError::Locked(self.path().to_owned()),
            _ => io(&self.join("lock"), error),
        })
    }

    /// Reads `state.json`.
    ///
    /// # Errors
    /// If the directory was not made by init, or a newer version made it.
    pub fn read(&self) -> Result<StateFile, StateError> {
        self.read_as("state.json")
    }

    /// Reads a `state.json` that has another name.
    pub(super) fn read_as(&self, name: &str) -> Result<StateFile, StateError> {
        let path = self.join(name);
        let text = match self.0.read(name) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StateError::Missing(self.path().to_owned()));
            }
            Err(source) => return Err(io(&path, source)),
        };
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = || StateError::Damaged(path.clone());
        let Format { format } = serde_json::from_slice(&text).map_err(|_| damaged())?;
        match format {
            OLDER_FORMAT..=FORMAT => serde_json::from_slice(&text).map_err(|_| damaged()),
            newer if newer > FORMAT => {
                Err(StateError::Newer { path: self.path().to_owned(), format })
            }
            _ => Err(damaged()),
        }
    }

    /// Writes `state.json` in the current format. From then on the directory is a state directory.
    pub(super) fn write_file(&self, file: &StateFile) -> Result<(), StateError> {
        let text = serde_json::to_vec_pretty(&StateFile { format: FORMAT, ..file.clone() });
        let text = text.map_err(|_| StateError::Damaged(self.join("state.json")))?;
        self.write("state.json", 0o600, &text)
    }

    /// The files of the keys. Nothing is read yet.
    pub fn keys(&self, unlock: Option<&Unlock>) -> KeyStore {
        let source = unlock.and_then(|unlock| unlock.source.clone());
        let files = [(RecordKey::AUTHORITY, AUTHORITY), (RecordKey::ISSUER, ISSUER)];
        let files = files.map(|(key, name)| (key, self.join(name)));
        KeyStore::new(Arc::clone(&self.0), source, files.into())
    }

    /// Gets the KEK and the keyring, and takes over a directory of 0.1.0. The caller holds the lock.
    ///
    /// # Errors
    /// If the source gives no KEK or another one, or `state.json` or `keyring.json` is an older copy.
    pub fn unlock(&self, unlock: Option<&Unlock>) -> Result<Unlocked, StateError> {
        let (file, keys) = (self.read()?, self.keys(unlock));
        let ask = unlock.and_then(|unlock| unlock.passphrase.as_ref());
        if file.format == FORMAT {
            return Ok(keys.unlock(ask)?);
        }
        let taken = keys.take_over(ask)?;
        let journal = self.join("journal");
        let written = written_formats(&journal, &taken.keyring()?);
        let written = written.map_err(|source| io(&journal, source))?;
        if written.state > file.format {
            let (path, format, written) = (self.path().to_owned(), file.format, written.state);
            return Err(StateError::Older { path, format, written });
        }
        taken.announce()?;
        // From here on 0.1.0 refuses the directory. Nothing in a format that it does not know is written before.
        self.write_file(&file)?;
        tracing::info!(from = file.format, to = FORMAT, "the state directory is taken over");
        Ok(taken.commit()?)
    }

    /// Opens the CA.
    ///
    /// # Errors
    /// If the file cannot be read or fails authentication.
    pub fn authority(&self, keyring: &Keyring) -> Result<Authority, StateError> {
        Ok(Authority::from_bytes(&self.open_sealed(AUTHORITY, RecordKey::AUTHORITY, keyring)?)?)
    }

    fn open_sealed(
        &self,
        name: &str,
        key: RecordKey,
        keyring: &Keyring,
    ) -> Result<Zeroizing<Vec<u8>>, StateError> {
        let path = self.join(name);
        let damaged = || StateError::Damaged(path.clone());
        let bytes = self.0.read(name).map_err(|source| io(&path, source))?;
        let sealed = Sealed::parse(&bytes).map_err(|_| damaged())?;
        keyring.open_metadata(key, &sealed).map_err(|_| damaged())
    }

    pub(super) fn write_authority(
        &self,
        authority: &Authority,
        keyring: &Keyring,
    ) -> Result<(), StateError> {
        let sealed = keyring.seal(RecordKey::AUTHORITY, 1, &authority.to_bytes()?)?;
        self.write(AUTHORITY, 0o600, sealed.as_bytes())
    }

    /// The issuer at a URL. 0.1.0 made no keys for it: then there are new ones.
    ///
    /// # Errors
    /// If the file of the keys cannot be read or written, or fails authentication.
    pub(super) fn issuer(
        &self,
        url: Option<IssuerUrl>,
        authority: &Authority,
        keyring: &Keyring,
        now: Timestamp,
    ) -> Result<Issuer, StateError> {
        let keys = match self.open_sealed(ISSUER, RecordKey::ISSUER, keyring) {
            Ok(keys) => IssuerKeys::from_bytes(&keys)?,
            Err(StateError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                self.make_issuer_keys(keyring, now)?
            }
            Err(error) => return Err(error),
        };
        Ok(Issuer::new(url, authority.domain().clone(), keys))
    }

    pub(super) fn make_issuer_keys(
        &self,
        keyring: &Keyring,
        now: Timestamp,
    ) -> Result<IssuerKeys, StateError> {
        let keys = IssuerKeys::create(now)?;
        let sealed = keyring.seal(RecordKey::ISSUER, 1, &keys.to_bytes()?)?;
        self.write(ISSUER, 0o600, sealed.as_bytes())?;
        Ok(keys)
    }

    /// Reads a file as text.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_text(&self, name: &str) -> Result<String, StateError> {
        let path = self.join(name);
        let bytes = self.0.read(name).map_err(|source| io(&path, source))?;
        // It was written as text: the disk has changed it.
        String::from_utf8(bytes).map_err(|_| StateError::Damaged(path))
    }

    /// Writes a file whole or not at all: under another name, synced, then renamed.
    pub(super) fn write(&self, name: &str, mode: u32, content: &[u8]) -> Result<(), StateError> {
        let failed = |source| io(&self.join(name), source);
        match name.rsplit_once('/') {
            None => self.0.replace(name, mode, content).map_err(failed),
            Some((below, name)) => {
                self.0.directory(below)?.replace(name, mode, content).map_err(failed)
            }
        }
    }

    /// The files beside journal and store that a backup copies. They are of no use without the KEK.
    pub(super) fn backed_up(&self) -> Vec<PathBuf> {
        // The keyring comes early: a restore reports a wrong KEK before it reads the rest.
        BACKED_UP.iter().map(|name| self.join(name)).collect()
    }

    pub(super) fn make_directory(&self, name: &str) -> Result<(), StateError> {
        self.0.make_directory(name, 0o700)?;
        Ok(())
    }
}

fn io(path: &Path, source: std::io::Error) -> StateError {
    StateError::Io { path: path.to_owned(), source }
}
