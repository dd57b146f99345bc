//! The state directory.
//!
//! ```text
//! STATE/state.json         format and name; written last by init
//! STATE/lock               held by the daemon
//! STATE/keyring.json       the DEKs, wrapped, and where the KEK comes from
//! STATE/kek                the KEK, unless it was put elsewhere
//! STATE/authority.sealed   the CA
//! STATE/broker/            the daemon's certificate and key
//! STATE/journal/  STATE/store/
//! STATE/operators/admin/  STATE/executors/local/   identities that work on this host
//! ```

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::{Authority, AuthorityError};
use crate::journal::written_formats;
use crate::model::{Formats, Id, TrustDomain};
use crate::seal::{
    KeyStore, KeyStoreError, Keyring, NoRandomness, RecordKey, RecordKind, Sealed, Unlock, Unlocked,
};
use crate::sys::{Directory, DirectoryError, Lock, Trust};

/// The format of the state directory.
pub(super) const FORMAT: u32 = Formats::CURRENT.state;
/// The format that 0.1.0 wrote. It is taken over by whoever opens the directory, and read by nobody else.
const OLDER_FORMAT: u32 = 2;

/// What a backup takes, beside journal and store.
pub(super) const BACKED_UP: [&str; 4] =
    ["state.json", "keyring.json", "authority.sealed", "ca.crt"];

/// Where the CA is bound to.
const AUTHORITY: RecordKey =
    RecordKey { kind: RecordKind::AuthorityKeys, uid: Id::from_bytes([0; Id::BYTES]) };

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The CA.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A file is not what was written.
    #[error("{} is damaged; restore the state directory from a backup", .0.display())]
    Damaged(PathBuf),
    /// It is not fit to work in.
    #[error("the state directory cannot be used: {0}")]
    Directory(#[from] DirectoryError),
    /// A file cannot be read or written.
    #[error("{}: {source}; see to its disk, and that this user may write there", .path.display())]
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
        /// The format that it had.
        written: u32,
    },
    /// Another daemon runs on it.
    #[error("another keyhatch runs on the state directory {}; stop it first", .0.display())]
    Locked(PathBuf),
    /// It was not made by init.
    #[error("{} is no state directory; make one with: keyhatch init --state {}", .0.display(), .0.display())]
    Missing(PathBuf),
    /// It was made by a newer version.
    #[error("{} has format {format}, which this version does not know; run the newer keyhatch", .path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// There is something already.
    #[error("{} is not empty; choose another directory with --state", .0.display())]
    NotEmpty(PathBuf),
    /// There is a broker already.
    #[error(
        "{} holds a broker already; start it with: keyhatch serve, get back into it with: keyhatch init \
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

/// What is worked in below it, by other rooms, which take paths. Nobody else can have these lead elsewhere: all that
/// is above them was found fit, see [`Trust`].
const WORKED_IN: [&str; 3] = ["broker", "journal", "store"];

/// A state directory that is fit to work in.
#[derive(Clone)]
pub struct StateDirectory(Arc<Directory>);

impl StateDirectory {
    /// The directory at this path.
    ///
    /// # Errors
    /// If there is none, or it or what is in it is not fit to work in.
    pub fn open(path: &Path, trust: &Trust) -> Result<Self, StateError> {
        let directory = Directory::open(path, trust).map_err(|error| match error.is_missing() {
            true => StateError::Missing(path.to_owned()),
            false => error.into(),
        })?;
        for name in WORKED_IN {
            match Directory::open(&directory.path().join(name), trust) {
                // Some of them are made later, and the others missed by who opens them.
                Err(error) if error.is_missing() => {}
                opened => drop(opened?),
            }
        }
        Ok(Self(Arc::new(directory)))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Makes the directory, or takes an empty one, and locks it.
    pub(super) fn make(path: &Path, trust: &Trust) -> Result<(Self, Lock), StateError> {
        let state = Self(Arc::new(Directory::make(path, 0o700, trust)?));
        // Twice: nothing is put into a directory that is somebody's, and nobody else fills it meanwhile.
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
    /// If somebody holds it, or the directory is none.
    pub fn lock(&self) -> Result<Lock, StateError> {
        self.0.lock("lock").map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => StateError::Locked(self.path().to_owned()),
            _ => io(&self.join("lock"), error),
        })
    }

    /// Reads `state.json`.
    ///
    /// # Errors
    /// If the directory was not made by init, or by a newer version.
    pub fn read(&self) -> Result<StateFile, StateError> {
        self.read_as("state.json")
    }

    /// The same of a file that is called otherwise.
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

    /// Writes `state.json`, in the current format: from then on the directory is one.
    pub(super) fn write_file(&self, file: &StateFile) -> Result<(), StateError> {
        let text = serde_json::to_vec_pretty(&StateFile { format: FORMAT, ..file.clone() });
        let text = text.map_err(|_| StateError::Damaged(self.join("state.json")))?;
        self.write("state.json", 0o600, &text)
    }

    /// Where the keys are. Nothing is read yet.
    pub fn keys(&self, unlock: Option<&Unlock>) -> KeyStore {
        let told = unlock.and_then(|unlock| unlock.source.clone());
        KeyStore::new(Arc::clone(&self.0), told, vec![(AUTHORITY, self.join("authority.sealed"))])
    }

    /// Gets the keys, and takes a directory of 0.1.0 over. Whoever calls it holds the lock. The KEK is wiped when
    /// what this returns is dropped.
    ///
    /// # Errors
    /// If the KEK cannot be had or is another one, or `state.json` or `keyring.json` is an older copy.
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
        // From here on 0.1.0 refuses the directory: nothing that it does not know is written before.
        self.write_file(&file)?;
        tracing::info!(from = file.format, to = FORMAT, "the state directory is taken over");
        Ok(taken.commit()?)
    }

    /// Opens the CA.
    ///
    /// # Errors
    /// If it fails authentication.
    pub fn authority(&self, keyring: &Keyring) -> Result<Authority, StateError> {
        let path = self.join("authority.sealed");
        let damaged = || StateError::Damaged(path.clone());
        let bytes = self.0.read("authority.sealed").map_err(|source| io(&path, source))?;
        let sealed = Sealed::parse(&bytes).map_err(|_| damaged())?;
        let keys = keyring.open_metadata(AUTHORITY, &sealed).map_err(|_| damaged())?;
        Ok(Authority::from_bytes(&keys)?)
    }

    pub(super) fn write_authority(
        &self,
        authority: &Authority,
        keyring: &Keyring,
    ) -> Result<(), StateError> {
        let sealed = keyring.seal(AUTHORITY, 1, &authority.to_bytes()?)?;
        self.write("authority.sealed", 0o600, sealed.as_bytes())
    }

    /// Reads a file as text.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_text(&self, name: &str) -> Result<String, StateError> {
        let path = self.join(name);
        let bytes = self.0.read(name).map_err(|source| io(&path, source))?;
        // Not text any more: the disk's doing.
        String::from_utf8(bytes).map_err(|_| StateError::Damaged(path))
    }

    /// Writes a file whole, or not at all: another name, synced, then renamed.
    pub(super) fn write(&self, name: &str, mode: u32, content: &[u8]) -> Result<(), StateError> {
        let failed = |source| io(&self.join(name), source);
        match name.rsplit_once('/') {
            None => self.0.replace(name, mode, content).map_err(failed),
            Some((below, name)) => {
                self.0.directory(below)?.replace(name, mode, content).map_err(failed)
            }
        }
    }

    /// The files beside journal and store that a backup takes as they are: nothing in them is of use without
    /// the KEK.
    pub(super) fn backed_up(&self) -> Vec<PathBuf> {
        // The keyring first: who restores with the wrong KEK is told before anything else is read.
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
