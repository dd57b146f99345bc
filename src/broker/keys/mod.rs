//! The broker's keys, and their rotation while the broker runs.
//!
//! The KEK is not kept: a rotation reads it again from its source, and drops it at the end. No RPC names the source of
//! a key.

pub(super) mod issuer;
pub(super) mod reseal;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Mutex, Notify};

use super::Broker;
use super::changes::writer::WriterParts;
use super::error::Error;
use super::registry::operators::{require_operator, require_role};
use crate::access::{Principal, Role};
use crate::identity::Issuer;
use crate::journal::{Event, Journal, RotatedKey};
use crate::model::{Clock, Timestamp};
use crate::seal::{KekKind, KeyId, KeyStore, KeyStoreError, Keyring, Rotation, Unlocked};
use crate::store::Store;

/// The parts that list and change keys.
pub(super) struct Keys {
    pub(super) key_store: KeyStore,
    /// The source of the KEK. It changes only while no daemon runs.
    pub(super) kek_kind: KekKind,
    pub(super) keyring: Arc<Keyring>,
    pub(super) issuer: Arc<Issuer>,
    pub(super) journal: Arc<Journal>,
    pub(super) store: Arc<Store>,
    pub(super) clock: Clock,
    /// Held while keys change.
    pub(super) turn: Mutex<()>,
    /// Wakes the task that seals records again.
    pub(super) wake: Notify,
}

impl Keys {
    pub(super) fn new(key_store: KeyStore, issuer: Arc<Issuer>, parts: WriterParts) -> Self {
        let WriterParts { journal, store, keyring, clock, .. } = parts;
        let (turn, wake, kek_kind) = (Mutex::default(), Notify::new(), key_store.kek_kind());
        Self { key_store, kek_kind, keyring, issuer, journal, store, clock, turn, wake }
    }
}

/// The broker's keys.
pub struct ListedKeys {
    /// The key that wraps the others.
    pub kek: KeyId,
    /// Its source.
    pub kek_kind: KekKind,
    /// The keys that records are sealed under, oldest first. The last one is in use.
    pub deks: Vec<ListedDek>,
}

/// A key that records are sealed under.
pub struct ListedDek {
    /// Its id.
    pub id: KeyId,
    /// When it was made, if that is known.
    pub create_time: Option<Timestamp>,
    /// The number of records sealed under it.
    pub records: u64,
}

/// A KEK that was replaced.
pub struct RotatedKek {
    /// The id of the old KEK.
    pub old: KeyId,
    /// The id of the KEK in force.
    pub new: KeyId,
    /// The file that keeps the old KEK.
    pub kept: Option<PathBuf>,
}

impl Broker {
    /// The broker's keys, and the number of records under each. Reads files.
    ///
    /// # Errors
    /// If the caller is no operator, or the keyring cannot be read.
    pub fn list_keys(&self, caller: &Principal) -> Result<ListedKeys, Error> {
        require_operator(caller)?;
        let keys = &self.keys;
        let counts = keys.counts().map_err(|error| Error::KeyringUnwritable(error.to_string()))?;
        let listed = keys.keyring.deks().into_iter().map(|dek| ListedDek {
            id: dek.id,
            create_time: dek.create_time,
            records: counts.get(&dek.id).copied().unwrap_or(0),
        });
        Ok(ListedKeys {
            kek: keys.keyring.kek_id(),
            kek_kind: keys.kek_kind,
            deks: listed.collect(),
        })
    }

    /// Replaces the KEK in its file by a new one.
    ///
    /// # Errors
    /// See `SystemService.RotateKek`.
    pub async fn rotate_kek(&self, caller: &Principal) -> Result<RotatedKek, Error> {
        require_role(caller, Role::Administrator)?;
        let prepare = |keys: &Keys, unlocked| keys.key_store.rotate_in_place(unlocked);
        self.rotate(caller, RotatedKey::Kek, prepare).await
    }

    /// Adds a DEK, seals under it from then on, and has the present records sealed again.
    ///
    /// # Errors
    /// See `SystemService.RotateDek`.
    pub async fn rotate_dek(&self, caller: &Principal) -> Result<KeyId, Error> {
        require_role(caller, Role::Administrator)?;
        let prepare = |keys: &Keys, unlocked| keys.key_store.add_dek(unlocked, keys.clock.now());
        let rotated = self.rotate(caller, RotatedKey::Dek, prepare).await?;
        self.keys.wake.notify_one();
        Ok(rotated.new)
    }

    async fn rotate(
        &self,
        caller: &Principal,
        key: RotatedKey,
        prepare: impl FnOnce(&Keys, Unlocked) -> Result<Rotation, KeyStoreError> + Send + 'static,
    ) -> Result<RotatedKek, Error> {
        let (keys, principal) = (Arc::clone(&self.keys), caller.to_string());
        // A task of its own: a caller who disconnects leaves no half-done rotation.
        let rotated = tokio::spawn(keys.rotate(principal, key, prepare)).await;
        rotated.map_err(|error| Error::Internal(error.to_string()))?
    }
}

impl Keys {
    async fn rotate(
        self: Arc<Self>,
        principal: String,
        key: RotatedKey,
        prepare: impl FnOnce(&Self, Unlocked) -> Result<Rotation, KeyStoreError> + Send + 'static,
    ) -> Result<RotatedKek, Error> {
        let _turn = self.turn.lock().await;
        let keys = Arc::clone(&self);
        let rotation = blocking(move || {
            let unlocked =
                keys.key_store.unlock(None).map_err(|error| unlock_error(key, &error))?;
            prepare(&keys, unlocked).map_err(|error| rotation_error(&error))
        });
        let rotation = rotation.await??;
        let (old, new, kept) = (rotation.old, rotation.new, rotation.kept.clone());
        let event = Event::KeyRotated { principal, key, old, new };
        let (position, _) = self.journal.append(self.clock.now(), &event)?;
        self.journal.synced(position).await?;
        let keyring = Arc::clone(&self.keyring);
        blocking(move || rotation.commit(&keyring))
            .await?
            .map_err(|error| rotation_error(&error))?;
        tracing::info!(?key, %old, %new, "a key is rotated");
        Ok(RotatedKek { old, new, kept })
    }

    /// The number of records under each DEK, in the store and beside it. Reads files.
    pub(super) fn counts(&self) -> Result<BTreeMap<KeyId, u64>, KeyStoreError> {
        let mut counts = self.store.deks();
        for dek in self.key_store.file_deks()? {
            *counts.entry(dek).or_default() += 1;
        }
        Ok(counts)
    }

    /// Drops the DEKs that no record is sealed under. Returns the number of records that are left under older DEKs.
    pub(super) async fn drop_unused(self: &Arc<Self>) -> Result<u64, Error> {
        let _turn = self.turn.lock().await;
        let keys = Arc::clone(self);
        let dropped = blocking(move || {
            let (counts, newest) = (keys.counts()?, keys.keyring.newest_dek());
            let old: Vec<KeyId> = keys.keyring.deks().iter().map(|dek| dek.id).collect();
            let is_old = |id: &KeyId| *id != newest;
            let (used, unused): (BTreeSet<_>, BTreeSet<_>) =
                old.into_iter().filter(is_old).partition(|id| counts.contains_key(id));
            if !unused.is_empty() {
                keys.key_store.drop_deks(&keys.keyring, &unused)?;
                tracing::info!(dropped = unused.len(), "everything is sealed under a newer DEK");
            }
            Ok(used.iter().filter_map(|id| counts.get(id)).sum())
        });
        dropped.await?.map_err(|error: KeyStoreError| Error::KeyringUnwritable(error.to_string()))
    }
}

/// The error of a key that cannot be unlocked. A KEK that is not available is no fault of the disk.
fn unlock_error(key: RotatedKey, error: &KeyStoreError) -> Error {
    match (key, error) {
        (_, KeyStoreError::Io { .. } | KeyStoreError::SealedFile(_)) => {
            Error::KeyringUnwritable(error.to_string())
        }
        (RotatedKey::Dek | RotatedKey::Issuer, _) => Error::KekNotAtHand(error.to_string()),
        (RotatedKey::Kek, _) => Error::KekNotReplaceable(format!(
            "the KEK is not available ({error}); stop the daemon and give the broker another KEK with: keyhatch key \
             rotate --kek-file FILE (or --kek-passphrase, or --kek-command COMMAND)"
        )),
    }
}

fn rotation_error(error: &KeyStoreError) -> Error {
    match error {
        KeyStoreError::NotAFile(_) | KeyStoreError::NotReplaceable { .. } => {
            Error::KekNotReplaceable(error.to_string())
        }
        KeyStoreError::Io { .. }
        | KeyStoreError::Kek(_)
        | KeyStoreError::Keyring(_)
        | KeyStoreError::KeyringAt { .. }
        | KeyStoreError::OtherSource { .. }
        | KeyStoreError::NotRepeatable
        | KeyStoreError::SealedFile(_) => Error::KeyringUnwritable(error.to_string()),
    }
}

/// Runs work that waits, for files or for a command.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal(error.to_string()))
}
