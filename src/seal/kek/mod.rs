//! The KEK: the key that wraps the keyring, and the file outside the store that it comes from by default.

pub(super) mod command;
pub(super) mod error;
pub(super) mod passphrase;
pub(super) mod source;

use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use self::error::KekError;
use super::keys::id::KeyId;
use super::memory::secret_memory::SecretKey;
use super::prf::prf;
use super::{NoRandomness, random_key};
use crate::sys::files::{create_new, sync_directory_of, write_new};
use crate::sys::{DirectoryError, Trust};

/// The key-encryption key. Wiped on drop.
pub struct Kek {
    key: SecretKey,
    kind: KekKind,
}

/// The kinds of sources of a KEK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KekKind {
    /// The output of a command.
    Command,
    /// A file.
    File,
    /// A passphrase.
    Passphrase,
}

impl fmt::Display for KekKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Command => "command",
            Self::File => "file",
            Self::Passphrase => "passphrase",
        })
    }
}

impl Kek {
    pub(super) fn new(key: SecretKey, kind: KekKind) -> Self {
        Self { key, kind }
    }

    /// Makes a new key, which no file holds yet.
    pub(super) fn generate() -> Result<Self, NoRandomness> {
        Ok(Self::new(random_key()?, KekKind::File))
    }

    /// Makes a new key and writes it to a file of its own, with mode 0400.
    ///
    /// # Errors
    /// If the file exists, or cannot be written.
    pub fn create(path: &Path) -> Result<Self, KekError> {
        let kek = Self::generate()?;
        create_new(path, 0o400, &*kek.digits()).map_err(|error| not_made(path, error))?;
        // Otherwise a power cut could leave everything but the key.
        sync_directory_of(path).map_err(|error| not_made(path, error))?;
        Ok(kek)
    }

    /// Writes the key to a file, with mode 0400, in place of what is there.
    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        write_new(path, 0o400, &*self.digits())?;
        sync_directory_of(path)
    }

    /// The text of the key's file. The buffer has its full length from the start: one that grows leaves copies behind.
    fn digits(&self) -> Zeroizing<[u8; 65]> {
        let mut digits = Zeroizing::new([b'\n'; 65]);
        if let Some(text) = digits.get_mut(..64) {
            // 32 bytes make 64 digits.
            let _ = hex::encode_to_slice(*self.key.copy(), text);
        }
        digits
    }

    /// Reads the key from a file.
    ///
    /// # Errors
    /// If the file cannot be read or holds no key, if another user owns it or could replace it, or if others can read it.
    pub fn load(path: &Path, trust: &Trust) -> Result<Self, KekError> {
        Self::read(trust.open_file(path).map_err(not_found(path))?, path, trust)
    }

    /// Reads the key from an open file; see [`Kek::load`].
    pub(super) fn read(mut file: File, path: &Path, trust: &Trust) -> Result<Self, KekError> {
        let file_error = |source| KekError::File { path: path.to_owned(), source };
        let metadata = file.metadata().map_err(file_error)?;
        check_private(path, &metadata)?;
        check_owner(path, &metadata, trust)?;
        // One byte more than the digits and a newline, to detect a longer file.
        let mut text = Zeroizing::new([0_u8; 66]);
        let mut length = 0;
        while let Some(free) = text.get_mut(length..).filter(|free| !free.is_empty()) {
            match file.read(free).map_err(file_error)? {
                0 => break,
                read => length += read,
            }
        }
        let key = decode_digits(text.get(..length).unwrap_or_default().trim_ascii_end());
        let key = key.ok_or_else(|| KekError::Malformed(path.to_owned()))?;
        Ok(Self::new(key, KekKind::File))
    }

    /// The id of the key, which reveals nothing of the key.
    pub fn id(&self) -> KeyId {
        let mut id = [0; 8];
        id.copy_from_slice(self.derive(b"keyhatch/v1/kek id").get(..8).unwrap_or(&[0; 8]));
        KeyId(id)
    }

    /// A value that proves the key to be the right one, before anything is unwrapped with it.
    pub(super) fn check_value(&self) -> [u8; 32] {
        self.derive(b"keyhatch/v1/kek check")
    }

    pub(super) fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Where the key came from.
    pub(super) fn kind(&self) -> KekKind {
        self.kind
    }

    fn derive(&self, label: &[u8]) -> [u8; 32] {
        prf(&hmac::Key::new(hmac::HMAC_SHA256, &*self.key.copy()), &[label])
    }
}

/// The key of 64 hexadecimal digits; `None` if they are not that.
pub(super) fn decode_digits(digits: &[u8]) -> Option<SecretKey> {
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, &mut *key).ok()?;
    Some(SecretKey::new(&key))
}

/// Checks that only its owner can read a file that opens everything.
///
/// # Errors
/// If others can read it.
pub fn check_private(path: &Path, file: &Metadata) -> Result<(), KekError> {
    let mode = file.mode() & 0o7777;
    match mode & 0o077 == 0 || (mode & 0o037 == 0 && is_lent(file)) {
        true => Ok(()),
        false => Err(KekError::OpenToOthers { path: path.to_owned(), mode }),
    }
}

/// Checks that a file which holds a key, or is run for one, belongs to root or the broker's user.
///
/// # Errors
/// If another user owns it or can write it.
pub fn check_owner(path: &Path, file: &Metadata, trust: &Trust) -> Result<(), KekError> {
    match trust.is_in_our_hands(file) {
        true => Ok(()),
        false => Err(KekError::NotOurs { path: path.to_owned(), owner: file.uid() }),
    }
}

/// The error of a KEK file that could not be made.
pub(super) fn not_made(path: &Path, source: std::io::Error) -> KekError {
    let path = path.to_owned();
    match source.kind() {
        std::io::ErrorKind::AlreadyExists => KekError::File { path, source },
        _ => KekError::NotMade { path, source, user: rustix::process::geteuid().as_raw() },
    }
}

/// The error of a KEK file that could not be opened, for `map_err`.
pub(super) fn not_found(path: &Path) -> impl FnOnce(DirectoryError) -> KekError {
    let path = path.to_owned();
    |error| match error {
        DirectoryError::Io { source, .. } => KekError::File { path, source },
        error => KekError::Place(error),
    }
}

/// True if the file is root's and our group may read it. Kubernetes mounts a secret like that for a pod that is not root
/// (`fsGroup`): it cannot make the file the user's own.
fn is_lent(file: &Metadata) -> bool {
    let others = rustix::process::getgroups().unwrap_or_default();
    let ours = others.into_iter().chain([rustix::process::getegid()]);
    file.uid() == 0
        && !rustix::process::geteuid().is_root()
        && ours.map(rustix::process::Gid::as_raw).any(|gid| gid == file.gid())
}
