//! Why keys cannot be had or changed.

use std::path::{Path, PathBuf};

use super::id::KeyId;
use crate::model::Formats;
use crate::seal::NoRandomness;
use crate::seal::kek::KekKind;
use crate::seal::kek::error::KekError;

const FORMAT: u32 = Formats::CURRENT.keyring;

/// Why a keyring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// `keyring.json` is not what was written.
    #[error("the keyring is damaged ({0}); restore keyring.json from a backup")]
    Damaged(String),
    /// `state.json` was replaced by an older one.
    #[error(
        "the keyring has format {FORMAT}, but state.json an older one: it was replaced by an older copy; restore \
         state.json and keyring.json from one backup"
    )]
    Ahead,
    /// The keyring was replaced by an older one.
    #[error(
        "the keyring has an older format than was written here before: it was replaced by an older copy; restore \
         keyring.json from a backup"
    )]
    Older,
    /// A newer version wrote the keyring.
    #[error("the keyring has format {0}, which this version does not know; run the newer keyhatch")]
    Newer(u32),
    /// No random numbers.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The KEK is another one.
    #[error("this KEK ({given}) is not the one in use ({expected}); {}", remedy(*.kind))]
    WrongKek {
        /// The key that was given.
        given: KeyId,
        /// The key that is needed.
        expected: KeyId,
        /// Where the given key came from.
        kind: KekKind,
    },
}

fn remedy(kind: KekKind) -> &'static str {
    match kind {
        KekKind::Command => "its command printed another key: check that it gives the right one",
        KekKind::File => "give the right KEK file with --kek-file",
        KekKind::Passphrase => "the passphrase is wrong: give the right one",
    }
}

/// Why keys cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// A file cannot be read or written.
    #[error("{}: {source}; check its disk, or restore it from a backup", .path.display())]
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
    /// The KEK does not come from a file.
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
    /// The KEK command prints another key each time.
    #[error(
        "the KEK command printed two different keys when it was run twice; give one that prints the same key each time"
    )]
    NotRepeatable,
    /// The keyring in this file cannot be used.
    #[error("{}: {error}", .path.display())]
    KeyringAt {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: KeyringError,
    },
    /// The keyring notes another source than the process was given.
    #[error(
        "{} notes that the KEK comes from a {noted}, but it was to come from {given}; nothing was run or read. If that is \
         right, give {flag}; key rotate takes what is in use with --old-kek-…", .path.display()
    )]
    OtherSource {
        /// The keyring.
        path: PathBuf,
        /// The source that it notes.
        noted: KekKind,
        /// The source that the process was given.
        given: String,
        /// The flag that gives the noted source.
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

/// The error of a file, for `map_err`.
pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> KeyStoreError {
    let path = path.to_owned();
    |source| KeyStoreError::Io { path, source }
}
