//! Where the KEK comes from: a file, a passphrase, or a command.

use std::fmt;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Kek, KekError};
use crate::model::hex_bytes;
use crate::seal::cipher::on_wiped_stack;
use crate::seal::memory::secret_memory::SecretKey;
use crate::seal::{NoRandomness, random};

/// Where the KEK comes from, as whoever starts this process says it. Nothing in the state directory says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KekSource {
    /// A program and its arguments; what it prints is the key.
    Command(Vec<String>),
    /// A file; relative to the state directory, or absolute.
    File(PathBuf),
    /// A passphrase that is given at every start.
    Passphrase,
}

/// What the keyring notes of the source, to be compared with what is said: it decides neither what is run nor what is
/// read. Holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NotedSource {
    /// A command. Which is not noted.
    Command,
    /// A file; relative to the state directory, or absolute.
    File(PathBuf),
    /// A passphrase, and how it becomes a key.
    Passphrase(Recipe),
}

/// The file that the KEK is in where nothing else is said, in the state directory.
pub(crate) const DEFAULT_FILE: &str = "kek";

/// The kinds of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KekKind {
    /// See [`KekSource::Command`].
    Command,
    /// See [`KekSource::File`].
    File,
    /// See [`KekSource::Passphrase`].
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

/// How a passphrase becomes a key: Argon2id (RFC 9106).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    #[serde(with = "hex_bytes")]
    salt: [u8; 16],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// The second of RFC 9106's recommendations, with one lane: it is computed once at a start.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;
/// A keyring that asks for more was not written by us.
const MAX_MEMORY_KIB: u32 = 1024 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;

/// A passphrase, as bytes. Wiped on drop.
pub struct Passphrase(Zeroizing<Vec<u8>>);

/// The shortest passphrase that a keyring is made with, in bytes.
const MIN_PASSPHRASE_BYTES: usize = 12;

impl Passphrase {
    /// What was typed, or what a file holds: a newline at its end is no part of it.
    pub fn new(mut bytes: Zeroizing<Vec<u8>>) -> Self {
        while bytes.last().is_some_and(|last| [b'\n', b'\r'].contains(last)) {
            bytes.pop();
        }
        Self(bytes)
    }

    /// Whether both are the same, so that one that was typed twice holds no slip.
    pub fn is(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }

    /// Whether a keyring may be made with it.
    ///
    /// # Errors
    /// If it is too short.
    pub fn check_new(&self) -> Result<(), KekError> {
        match self.0.len() {
            0..MIN_PASSPHRASE_BYTES => Err(KekError::PassphraseShort(MIN_PASSPHRASE_BYTES)),
            _ => Ok(()),
        }
    }
}

/// What the KEK is to be from now on.
pub enum NewKek {
    /// What a command prints.
    Command(Vec<String>),
    /// In a file, which is made unless it is there.
    File(PathBuf),
    /// From this passphrase.
    Passphrase(Passphrase),
}

/// Gives the passphrase, when it is needed.
pub type AskPassphrase = Box<dyn Fn() -> Result<Passphrase, KekError> + Send + Sync>;

/// What is said of the KEK by whoever starts this process.
#[derive(Default)]
pub struct Unlock {
    /// Where it comes from; a file in the state directory if unset.
    pub source: Option<KekSource>,
    /// Who knows the passphrase.
    pub passphrase: Option<AskPassphrase>,
}

impl KekSource {
    /// The source where nothing is said.
    pub(crate) fn by_default() -> Self {
        Self::File(PathBuf::from(DEFAULT_FILE))
    }

    /// Of which kind it is.
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

    /// The flag that says the same. A path is quoted: anybody may have written it.
    pub(crate) fn flag(&self, directory: &Path) -> String {
        match self {
            Self::Command => "--kek-command COMMAND, with the command that you know".to_owned(),
            Self::File(path) => format!("--kek-file {:?}", directory.join(path)),
            Self::Passphrase(_) => "--kek-passphrase, or --kek-passphrase-file FILE".to_owned(),
        }
    }
}

impl Recipe {
    pub(crate) fn new() -> Result<Self, NoRandomness> {
        Ok(Self { salt: random()?, memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES })
    }

    /// What it asks for, if that is no more than we ever wrote: a keyring cannot keep a start busy.
    pub(crate) fn parameters(&self) -> Result<Params, KekError> {
        let Self { memory_kib, passes, lanes, .. } = *self;
        if memory_kib > MAX_MEMORY_KIB || passes > MAX_PASSES || lanes > MAX_LANES {
            return Err(KekError::Recipe(format!(
                "it asks for {memory_kib} KiB of memory, {passes} passes and {lanes} lanes"
            )));
        }
        Params::new(memory_kib, passes, lanes, Some(32))
            .map_err(|error| KekError::Recipe(error.to_string()))
    }

    pub(crate) fn derive(&self, passphrase: &Passphrase) -> Result<Kek, KekError> {
        let refused = |error: argon2::Error| KekError::Recipe(error.to_string());
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.parameters()?);
        on_wiped_stack(|| {
            let mut key = Zeroizing::new([0; 32]);
            argon2.hash_password_into(&passphrase.0, &self.salt, &mut *key).map_err(refused)?;
            Ok(Kek::new(SecretKey::new(&key), KekKind::Passphrase))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe { salt: [7; 16], memory_kib: 64, passes: 3, lanes: 1 }
    }

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn a_passphrase_gives_the_same_key_again_and_another_one_another_key() {
        let id = |text: &str| recipe().derive(&passphrase(text)).unwrap().id();
        assert_eq!(id("correct horse battery"), id("correct horse battery\n"));
        assert_ne!(id("correct horse battery"), id("correct horse batterY"));
        let other = Recipe { salt: [8; 16], ..recipe() };
        assert_ne!(other.derive(&passphrase("x")).unwrap().id(), id("x"));
    }

    #[test]
    fn a_greedy_recipe_and_a_short_passphrase_are_refused() {
        for greedy in [
            Recipe { memory_kib: u32::MAX, ..recipe() },
            Recipe { passes: u32::MAX, ..recipe() },
            Recipe { lanes: 1024, memory_kib: 8 * 1024, ..recipe() },
        ] {
            assert!(matches!(greedy.derive(&passphrase("x")), Err(KekError::Recipe(_))));
        }
        assert!(passphrase("eleven-char").check_new().is_err());
        assert!(passphrase("twelve-chars").check_new().is_ok());
    }
}
