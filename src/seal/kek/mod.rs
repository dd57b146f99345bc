//! The KEK: the key that wraps the keyring, and the file outside the store that it comes from by default.

pub(super) mod command;
pub(super) mod source;

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::keys::keyring_file::KeyId;
use super::memory::secret_memory::SecretKey;
use super::{NoRandomness, random_key};
use crate::sys::files::{create_new, sync_directory_of, write_new};
use crate::sys::{DirectoryError, Trust};
use source::KekKind;

/// The key-encryption key. Wiped on drop.
pub struct Kek {
    key: SecretKey,
    kind: KekKind,
}

/// Why there is no KEK.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// The command gives no key.
    #[error("the KEK command {program} {what}")]
    Command {
        /// The program, without its arguments.
        program: String,
        /// What went wrong. Never what it printed.
        what: String,
    },
    /// It does not hold one key.
    #[error("the KEK file {} does not hold 64 hexadecimal digits; restore it from your copy", .0.display())]
    Malformed(PathBuf),
    /// The command has no words.
    #[error("the KEK command is empty; write a program and its arguments")]
    NoCommand,
    /// Others than its owner can read it.
    #[error(
        "{} has mode {mode:04o}, so that others can read it; run: chmod 0400 {}",
        .path.display(), .path.display()
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else could replace it.
    #[error(
        "{} belongs to uid {owner} or can be written by others, who could put theirs in its place; make it root's or \
         the daemon's, and writable by nobody else", .path.display()
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// It cannot be read or written.
    #[error(
        "the KEK file {}: {source}; say where the key is with --kek-file, or restore the file from your copy",
        .path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It cannot be made.
    #[error(
        "the KEK file {} cannot be made ({source}); make its directory for the broker's user first: \
         install -d -m 0700 -o {user} {}", .path.display(), .path.parent().unwrap_or(.path).display()
    )]
    NotMade {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
        /// Who was to make it, by the number.
        user: u32,
    },
    /// The default file is a link.
    #[error(
        "{} is a symbolic link: whoever writes the state directory could have it lead anywhere; say where the key is \
         with --kek-file", .0.display()
    )]
    Link(PathBuf),
    /// Somebody else could put another thing in its place.
    #[error("the KEK cannot come from there: {0}")]
    Place(DirectoryError),
    /// No random numbers.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// Nobody is there to ask.
    #[error(
        "the KEK comes from a passphrase: run this on a terminal, or give a file that holds it with {0}"
    )]
    PassphraseNotGiven(&'static str),
    /// Nobody can be asked.
    #[error("the KEK comes from a passphrase, which is not kept")]
    PassphraseNotKept,
    /// The passphrase cannot be read.
    #[error("the passphrase: {0}")]
    PassphraseUnreadable(String),
    /// The passphrase is easily guessed.
    #[error("the passphrase is too short; take one of at least {0} bytes")]
    PassphraseShort(usize),
    /// The keyring says what cannot be done.
    #[error("the KEK cannot be made from the passphrase ({0}); restore keyring.json from a backup")]
    Recipe(String),
}

impl Kek {
    pub(super) fn new(key: SecretKey, kind: KekKind) -> Self {
        Self { key, kind }
    }

    /// Makes a new key, which is nowhere yet.
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
        // Without this a power cut could leave everything but the key.
        sync_directory_of(path).map_err(|error| not_made(path, error))?;
        Ok(kek)
    }

    /// Writes the key to a file, with mode 0400, in place of what is there.
    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        write_new(path, 0o400, &*self.digits())?;
        sync_directory_of(path)
    }

    /// As the file holds it. As long as the file, so that it never grows and leaves a copy behind.
    fn digits(&self) -> Zeroizing<[u8; 65]> {
        let mut digits = Zeroizing::new([b'\n'; 65]);
        if let Some(text) = digits.get_mut(..64) {
            // 64 digits are what 32 bytes come to.
            let _ = hex::encode_to_slice(*self.key.copy(), text);
        }
        digits
    }

    /// Reads the key.
    ///
    /// # Errors
    /// If the file cannot be read, is somebody else's or could be replaced by somebody else, can be read by others, or
    /// holds no key.
    pub fn load(path: &Path, trust: &Trust) -> Result<Self, KekError> {
        Self::read(trust.open_file(path).map_err(not_found(path))?, path, trust)
    }

    /// The same of a file that is open.
    pub(super) fn read(mut file: File, path: &Path, trust: &Trust) -> Result<Self, KekError> {
        let file_error = |source| KekError::File { path: path.to_owned(), source };
        let metadata = file.metadata().map_err(file_error)?;
        check_private(path, &metadata)?;
        check_owner(path, &metadata, trust)?;
        // One byte more than the digits and a newline, to notice a file that is longer.
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

    /// Names the key without giving anything of it away.
    pub fn id(&self) -> KeyId {
        let mut id = [0; 8];
        id.copy_from_slice(self.derive(b"keyhatch/v1/kek id").get(..8).unwrap_or(&[0; 8]));
        KeyId(id)
    }

    /// Proves that the key is the one, before anything is unwrapped with it.
    pub(super) fn check_value(&self) -> [u8; 32] {
        self.derive(b"keyhatch/v1/kek check")
    }

    pub(super) fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Where it came from.
    pub(super) fn kind(&self) -> KekKind {
        self.kind
    }

    fn derive(&self, label: &[u8]) -> [u8; 32] {
        super::keys::keyring::prf(&hmac::Key::new(hmac::HMAC_SHA256, &*self.key.copy()), &[label])
    }
}

/// A key from 64 hexadecimal digits.
pub(super) fn decode_digits(digits: &[u8]) -> Option<SecretKey> {
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, &mut *key).ok()?;
    Some(SecretKey::new(&key))
}

/// Whether a file that opens everything can be read by whom it belongs to only.
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

/// Whether a file that a key comes from, or that is run for it, is in the hands of root or of the broker's user only.
///
/// # Errors
/// If it is somebody else's, or others can write it.
pub fn check_owner(path: &Path, file: &Metadata, trust: &Trust) -> Result<(), KekError> {
    match trust.is_in_our_hands(file) {
        true => Ok(()),
        false => Err(KekError::NotOurs { path: path.to_owned(), owner: file.uid() }),
    }
}

/// Why a KEK file is not made, and what to do. One that is there is for its reader to say.
pub(super) fn not_made(path: &Path, source: std::io::Error) -> KekError {
    let path = path.to_owned();
    match source.kind() {
        std::io::ErrorKind::AlreadyExists => KekError::File { path, source },
        _ => KekError::NotMade { path, source, user: rustix::process::geteuid().as_raw() },
    }
}

/// What is said of a file that a key comes from, and that is not there or could be replaced.
pub(super) fn not_found(path: &Path) -> impl FnOnce(DirectoryError) -> KekError {
    let path = path.to_owned();
    |error| match error {
        DirectoryError::Io { source, .. } => KekError::File { path, source },
        error => KekError::Place(error),
    }
}

/// Whether root lets our group read a file that we could not read otherwise. So Kubernetes mounts a secret
/// for a pod that is not root (`fsGroup`): it cannot make it the user's own.
fn is_lent(file: &Metadata) -> bool {
    let others = rustix::process::getgroups().unwrap_or_default();
    let ours = others.into_iter().chain([rustix::process::getegid()]);
    file.uid() == 0
        && !rustix::process::geteuid().is_root()
        && ours.map(rustix::process::Gid::as_raw).any(|gid| gid == file.gid())
}
