//! Keys, and everything that is encrypted at rest. The only room that knows chacha20poly1305.
//!
//! - A random **DEK** seals records with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03): the 192-bit
//!   nonce is random, so nothing has to be counted.
//! - The **KEK** wraps the DEKs and is forgotten once they are unwrapped. It comes from a file, a passphrase or a command.
//!   [`KeyStore`] reads and changes the keys on disk. Keys in use are in [`key_memory`].
//! - The associated data names the record, so that no ciphertext can be moved to another record,
//!   another version or another kind: see [`aad`].
//! - Metadata and values are two records. Metadata can be opened without a permit; [`Keyring::open_values`] has exactly one
//!   caller, the journal's `Permit`.

pub mod aad;
mod cipher;
mod kek;
mod keys;
mod memory;
mod permutation;
mod prf;
mod record;
mod values;

use aws_lc_rs::rand;
use zeroize::Zeroizing;

pub use kek::error::KekError;
pub use kek::passphrase::{Passphrase, Recipe};
pub use kek::source::{AskPassphrase, KekSource, NewKek, Unlock};
pub use kek::{Kek, KekKind, check_owner, check_private};
pub use keys::change::Rotation;
pub use keys::error::{KeyStoreError, KeyringError};
pub use keys::id::{Dek, KeyId};
pub use keys::keyring::Keyring;
pub use keys::store::{KeyStore, Unlocked};
pub use keys::take_over::TakeOver;
pub use memory::allocator::{ALLOCATOR, Allocator, release_free_memory};
pub use memory::protection::{MemoryProtection, note_wiping_allocator};
pub use memory::secret_memory::{KeyMemory, key_memory};
pub use record::{RecordKey, RecordKind, Sealed};
pub use values::{FieldChange, OpenedFields, ReadValues};

use crate::model::Id;
use memory::secret_memory::SecretKey;

/// A sealed record that cannot be opened. The error gives no cause: an attacker who changes bytes learns nothing from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed record fails authentication")]
pub struct OpenError;

/// The operating system gave no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random numbers")]
pub struct NoRandomness;

/// Random bytes from the provider.
///
/// # Errors
/// If the operating system gives none.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// A random key. No copy of it is left elsewhere.
fn random_key() -> Result<SecretKey, NoRandomness> {
    cipher::on_wiped_stack(|| {
        let mut key = Zeroizing::new([0; 32]);
        rand::fill(&mut *key).map_err(|_| NoRandomness)?;
        Ok(SecretKey::new(&key))
    })
}

/// A random identifier.
///
/// # Errors
/// As [`random`].
pub fn random_id() -> Result<Id, NoRandomness> {
    random().map(Id::from_bytes)
}

#[cfg(test)]
mod tests_support {
    use super::{Keyring, RecordKey, Sealed};

    pub(super) fn every_flipped_bit_is_refused(
        keyring: &Keyring,
        key: RecordKey,
        sealed: &Sealed,
    ) -> bool {
        (0..sealed.as_bytes().len()).all(|position| {
            (0..8).all(|bit| {
                let mut bytes = sealed.as_bytes().to_vec();
                bytes[position] ^= 1 << bit;
                match Sealed::parse(&bytes) {
                    Ok(flipped) => keyring.open_values(key, &flipped).is_err(),
                    Err(_) => true,
                }
            })
        })
    }
}

#[cfg(test)]
mod samples;
