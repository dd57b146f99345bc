//! `keyhatch key rotate` while no daemon runs: a new KEK from any source, or a new DEK.

use std::path::PathBuf;
use std::sync::Arc;

use super::DaemonError;
use super::state::{StateDirectory, StateError};
use crate::broker::Offline;
use crate::journal::RotatedKey;
use crate::model::Clock;
use crate::seal::{KeyId, NewKek, Unlock};
use crate::sys::{Trust, as_owner_of};

/// The options of [`rotate_offline`].
pub struct RotateOptions {
    /// The state directory.
    pub state: PathBuf,
    /// Directories above the state directory whose other writers are trusted.
    pub shared_parents: Vec<PathBuf>,
    /// How to get the KEK that is in use.
    pub unlock: Unlock,
    /// The new key.
    pub what: OfflineRotation,
    /// The clock that dates the new key.
    pub clock: Clock,
}

/// The key to make.
pub enum OfflineRotation {
    /// A DEK. The next daemon seals all records again under it.
    Dek,
    /// A KEK in the same file.
    Kek,
    /// A KEK from this source.
    KekFrom(NewKek),
}

/// The keys of a rotation.
pub struct RotatedOffline {
    /// The key that was in use.
    pub old: KeyId,
    /// The key that is in use now.
    pub new: KeyId,
    /// The file that the old KEK is kept in, if it was in a file.
    pub kept: Option<PathBuf>,
}

/// Rotates a key of a broker that is not running.
///
/// # Errors
/// If a daemon runs, the KEK is another one, or a file cannot be read or written.
pub fn rotate_offline(options: RotateOptions) -> Result<RotatedOffline, DaemonError> {
    let state = options.state.clone();
    as_owner_of(&state, || rotate(options)).map_err(DaemonError::Threads)?
}

fn rotate(options: RotateOptions) -> Result<RotatedOffline, DaemonError> {
    let RotateOptions { state, shared_parents, unlock, what, clock } = options;
    let state = StateDirectory::open(&state, &Trust::of_process(&shared_parents))?;
    state.read()?;
    let _lock = state.lock()?;
    let (unlocked, keys) = (state.unlock(Some(&unlock))?, state.keys(Some(&unlock)));
    let keyring = unlocked.keyring().map_err(StateError::from)?;
    let (key, rotation) = match what {
        OfflineRotation::Dek => (RotatedKey::Dek, keys.add_dek(unlocked, clock.now())),
        OfflineRotation::Kek => (RotatedKey::Kek, keys.rotate_in_place(unlocked)),
        OfflineRotation::KekFrom(new) => (RotatedKey::Kek, keys.change_kek(unlocked, &new)),
    };
    let rotation = rotation.map_err(StateError::from)?;
    let authority = Arc::new(state.authority(&keyring)?);
    let (journal, store) = (state.join("journal"), state.join("store"));
    let offline = Offline { journal: &journal, store: &store, keyring, authority, clock };
    let rotated =
        RotatedOffline { old: rotation.old, new: rotation.new, kept: rotation.kept.clone() };
    super::offline(offline.rotate(key, rotation))??;
    Ok(rotated)
}
