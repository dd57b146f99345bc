//! A KEK that is made of a passphrase, by Argon2id (RFC 9106).

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::KekError;
use super::{Kek, KekKind};
use crate::model::hex_bytes;
use crate::seal::cipher::on_wiped_stack;
use crate::seal::memory::secret_memory::SecretKey;
use crate::seal::{NoRandomness, random};

/// The salt and cost that make a key of a passphrase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    #[serde(with = "hex_bytes")]
    salt: [u8; 16],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// The second recommendation of RFC 9106, with one lane: a start computes it once.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;
/// The most that a keyring may ask for: this program never wrote more.
const MAX_MEMORY_KIB: u32 = 1024 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;

/// A passphrase, as bytes. Wiped on drop.
pub struct Passphrase(Zeroizing<Vec<u8>>);

/// The shortest passphrase that a keyring is made with, in bytes.
const MIN_PASSPHRASE_BYTES: usize = 12;

impl Passphrase {
    /// A passphrase as it was typed or as a file holds it. All line ends (`\n`, `\r`) at its end are removed.
    pub fn new(mut bytes: Zeroizing<Vec<u8>>) -> Self {
        while bytes.last().is_some_and(|last| [b'\n', b'\r'].contains(last)) {
            bytes.pop();
        }
        Self(bytes)
    }

    /// True if both are the same: a passphrase that is typed twice has no typing error.
    pub fn is(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }

    /// Checks that a keyring may be made with the passphrase.
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

impl Recipe {
    pub(crate) fn new() -> Result<Self, NoRandomness> {
        Ok(Self { salt: random()?, memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES })
    }

    /// The parameters of Argon2id.
    ///
    /// # Errors
    /// If they ask for more than the limits: a keyring must not keep a start busy.
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
    fn a_passphrase_always_gives_the_same_key() {
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
