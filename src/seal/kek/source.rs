//! Where the KEK comes from: a file, a passphrase, or a command.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::KekKind;
use super::error::KekError;
use super::passphrase::{Passphrase, Recipe};

/// The source of the KEK, as the process was given it. Nothing in the state directory decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KekSource {
    /// A program and its arguments; it prints the key.
    Command(Vec<String>),
    /// A file; relative to the state directory, or absolute.
    File(PathBuf),
    /// A passphrase that is given at every start.
    Passphrase,
}

/// The keyring's note of the source, which is compared with the given source. It decides neither what is run nor what is
/// read, and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NotedSource {
    /// A command, which is not noted itself.
    Command,
    /// A file; relative to the state directory, or absolute.
    File(PathBuf),
    /// A passphrase, and how it becomes a key.
    Passphrase(Recipe),
}

/// The default file of the KEK, in the state directory.
pub(crate) const DEFAULT_FILE: &str = "kek";

/// The source of a new KEK.
pub enum NewKek {
    /// The output of a command.
    Command(Vec<String>),
    /// A file, which is made if it does not exist.
    File(PathBuf),
    /// A passphrase.
    Passphrase(Passphrase),
}

/// Returns the passphrase, when it is needed.
pub type AskPassphrase = Box<dyn Fn() -> Result<Passphrase, KekError> + Send + Sync>;

/// How this process gets the KEK.
#[derive(Default)]
pub struct Unlock {
    /// The source; the file `kek` in the state directory if `None`.
    pub source: Option<KekSource>,
    /// Asks for the passphrase.
    pub passphrase: Option<AskPassphrase>,
}

impl KekSource {
    /// The source if none is given.
    pub(crate) fn by_default() -> Self {
        Self::File(PathBuf::from(DEFAULT_FILE))
    }

    /// The kind of the source.
    pub fn kind(&self) -> KekKind {
        match self {
            Self::Command(_) => KekKind::Command,
            Self::File(_) => KekKind::File,
            Self::Passphrase => KekKind::Passphrase,
        }
    }
}

impl NotedSource {
    pub(crate) fn kind(&self) -> KekKind {
        match self {
            Self::Command => KekKind::Command,
            Self::File(_) => KekKind::File,
            Self::Passphrase(_) => KekKind::Passphrase,
        }
    }

    /// The flag that gives the same source. A path is quoted: it may be anything.
    pub(crate) fn flag(&self, directory: &Path) -> String {
        match self {
            Self::Command => "--kek-command COMMAND, with the command that you know".to_owned(),
            Self::File(path) => format!("--kek-file {:?}", directory.join(path)),
            Self::Passphrase(_) => "--kek-passphrase, or --kek-passphrase-file FILE".to_owned(),
        }
    }
}
