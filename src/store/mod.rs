//! The sealed store on disk. The only room that knows sled.
//!
//! sled 0.34.7 is used only as a log of batches: one tree, one writer, no transactions, no merge operators, and no
//! reads while serving. Its faults, measured at this version, are fenced here:
//!
//! - `flush()` calls `sync_file_range`, which is not power-safe, so every batch ends with our own
//!   `fdatasync` of the data file, on one descriptor that stays open.
//! - Values above some 7 KiB go to `blobs/` files that are never synced, so records are cut into
//!   [chunks](key) of 4 KiB.
//! - A kill while a snapshot is written leaves `snap.*.generating`, on which every later open fails; it
//!   holds nothing and is [removed](files).
//! - Damage can make `open` panic, or silently return older values. The panic is caught, and a
//!   [commit record](digest) in every batch proves the whole state.

mod digest;
mod files;
mod key;
mod records;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::model::Id;
use crate::seal::{KeyId, Keyring, NoRandomness, RecordKey, RecordKind, Sealed};
use digest::Digest;
use records::Records;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// sled cannot open or read it.
    #[error("the store in {} is damaged ({what}); restore the state directory from a backup", .path.display())]
    Damaged {
        /// The store's directory.
        path: PathBuf,
        /// The damage.
        what: String,
    },
    /// A newer version wrote a record that this version cannot read.
    #[error(
        "the store in {} has a record of a kind that only a newer keyhatch knows; run the newer keyhatch", .0.display()
    )]
    Newer(PathBuf),
    /// A write or sync failed. The state of the disk is unknown, so the failure is final.
    #[error("the store cannot be written: {0}")]
    Failed(String),
    /// No random numbers.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The file system refuses.
    #[error("the store in {} cannot be opened ({source}); free space on its disk, or repair the disk", .path.display())]
    Unreadable {
        /// The store's directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// One change to the store.
pub enum Operation {
    /// Adds a record whose key was never used: the store looks for no older form.
    Add(RecordKey, Sealed),
    /// Puts a record in place of its older form, if there is one.
    Put(RecordKey, Sealed),
    /// Removes a record.
    Remove(RecordKey),
}

/// The last operation of a batch on one record.
struct LastOperation<'a> {
    sealed: Option<&'a Sealed>,
    is_new: bool,
}

/// The contents of the store.
pub struct Contents {
    /// The last batch.
    pub sequence: u64,
    /// Every record, the commit record included, still sealed.
    pub records: Vec<(RecordKey, Sealed)>,
}

/// The open store.
pub struct Store {
    db: sled::Db,
    /// For fdatasync. Never reopened: the kernel reports an error once per open file.
    data_file: File,
    path: PathBuf,
    state: Mutex<StoreState>,
    /// Commits wait here for an export, which may take long and is no fault of the disk.
    turn: tokio::sync::Mutex<()>,
    is_given_up: AtomicBool,
}

/// The state after the last batch.
#[derive(Default)]
struct StoreState {
    digest: Digest,
    /// How many records are sealed under each DEK.
    deks: BTreeMap<KeyId, u64>,
    failed: bool,
}

/// The key of the commit record.
const COMMIT: RecordKey =
    RecordKey { kind: RecordKind::Commit, uid: Id::from_bytes([0; Id::BYTES]) };

/// The bytes of imported records in one write.
const IMPORT_BATCH_BYTES: usize = 4 * 1024 * 1024;

impl Store {
    /// Makes an empty store in a directory that does not exist yet.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(path: &Path, keyring: &Keyring) -> Result<(), StoreError> {
        files::make_directory(path)?;
        let store = Self::open_sled(path)?;
        store.commit(keyring, 0, &[])?;
        files::sync_new(path)
    }

    /// Opens the store, passes its sealed records to `take`, and proves that they are complete and unchanged since the
    /// last batch. Values come before their metadata. Returns the store and the sequence of its last batch; the records
    /// must not be used before.
    ///
    /// # Errors
    /// If the store is damaged or cannot be read.
    pub fn open(
        path: &Path,
        keyring: &Keyring,
        mut take: impl FnMut(RecordKey, Sealed),
    ) -> Result<(Self, u64), StoreError> {
        let damaged =
            |what: &str| StoreError::Damaged { path: path.to_owned(), what: what.to_owned() };
        if !path.join("db").is_file() {
            return Err(damaged("it has no data file"));
        }
        let store = Self::open_sled(path)?;
        let (mut digest, mut deks) = (Digest::default(), BTreeMap::<KeyId, u64>::new());
        let mut commit = None;
        for record in Records::by_resource(&store.db, path) {
            let (key, sealed) = record?;
            *deks.entry(sealed.dek()).or_default() += 1;
            if key == COMMIT {
                commit = Some(sealed);
            } else {
                digest.add(&keyring.digest_share(key, sealed.as_bytes()));
                take(key, sealed);
            }
        }
        let commit = commit.ok_or_else(|| damaged("no commit record"))?;
        let proven =
            keyring.open_metadata(COMMIT, &commit).map_err(|_| damaged("commit record"))?;
        if !digest.is(&proven) {
            return Err(damaged("a record was lost, added, changed or replaced by an older one"));
        }
        *store.state.lock() = StoreState { digest, deks, failed: false };
        Ok((store, commit.version()))
    }

    /// Writes one batch. When this returns, the batch is on disk.
    ///
    /// # Errors
    /// If the disk refuses: the store then takes no more batches.
    pub fn commit(
        &self,
        keyring: &Keyring,
        sequence: u64,
        operations: &[Operation],
    ) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        if state.failed || self.is_given_up.load(Ordering::Acquire) {
            return Err(StoreError::Failed("an earlier write failed".to_owned()));
        }
        // Until the batch is known to be good: sled can panic, and then holds half a batch.
        state.failed = true;
        let (digest, deks) = self.write(keyring, sequence, operations, &state)?;
        *state = StoreState { digest, deks, failed: false };
        Ok(())
    }

    /// The contents between two batches, and the result of `meanwhile`, which runs at that moment. Batches wait until
    /// both are done. Blocks.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn export<T>(&self, meanwhile: impl FnOnce() -> T) -> Result<(Contents, T), StoreError> {
        let _turn = self.turn.blocking_lock();
        let _between_batches = self.state.lock();
        let records = Records::of(&self.db, &self.path).collect::<Result<Vec<_>, _>>()?;
        let commit = records.iter().find(|(key, _)| *key == COMMIT);
        let sequence = commit.map_or(0, |(_, sealed)| sealed.version());
        Ok((Contents { sequence, records }, meanwhile()))
    }

    /// Makes a store of exported records in a directory that does not exist yet. [`Store::open`] proves that the
    /// records are complete.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn import(
        path: &Path,
        records: impl Iterator<Item = (RecordKey, Sealed)>,
    ) -> Result<(), StoreError> {
        let unreadable = |source| StoreError::Unreadable { path: path.to_owned(), source };
        let failed = |error: sled::Error| StoreError::Failed(error.to_string());
        files::make_directory(path)?;
        let store = Self::open_sled(path)?;
        let (mut batch, mut bytes) = (sled::Batch::default(), 0);
        for (key, sealed) in records {
            put(&mut batch, key, sealed.as_bytes(), 0);
            bytes += sealed.as_bytes().len();
            if bytes > IMPORT_BATCH_BYTES {
                store.db.apply_batch(std::mem::take(&mut batch)).map_err(failed)?;
                bytes = 0;
            }
        }
        store.db.apply_batch(batch).map_err(failed)?;
        store.db.flush().map_err(failed)?;
        store.data_file.sync_data().map_err(unreadable)?;
        files::sync_new(path)
    }

    /// Waits for a running export, and keeps the next export waiting.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Refuses batches from now on, whether a hanging batch completes or not.
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
    }

    /// True if the store takes batches. Never waits: a batch that is being written has not failed yet.
    pub fn is_writable(&self) -> bool {
        let is_failed = self.state.try_lock().is_some_and(|state| state.failed);
        !is_failed && !self.is_given_up.load(Ordering::Acquire)
    }

    /// The number of records under each DEK, the commit record included.
    pub fn deks(&self) -> BTreeMap<KeyId, u64> {
        self.state.lock().deks.clone()
    }

    fn open_sled(path: &Path) -> Result<Self, StoreError> {
        let (db, data_file) = files::open(path)?;
        Ok(Self {
            db,
            data_file,
            path: path.to_owned(),
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            is_given_up: AtomicBool::new(false),
        })
    }

    fn write(
        &self,
        keyring: &Keyring,
        sequence: u64,
        operations: &[Operation],
        before: &StoreState,
    ) -> Result<(Digest, BTreeMap<KeyId, u64>), StoreError> {
        let (mut digest, mut deks) = (before.digest.clone(), before.deks.clone());
        let mut move_dek = |from: Option<KeyId>, to: Option<KeyId>| {
            if let Some(count) = from.and_then(|from| deks.get_mut(&from)) {
                *count = count.saturating_sub(1);
            }
            if let Some(to) = to {
                *deks.entry(to).or_default() += 1;
            }
        };
        let mut batch = sled::Batch::default();
        // A batch may write a record more than once; the last operation counts.
        let mut latest = BTreeMap::<RecordKey, LastOperation<'_>>::new();
        for operation in operations {
            let (key, sealed) = match operation {
                Operation::Add(key, sealed) | Operation::Put(key, sealed) => (*key, Some(sealed)),
                Operation::Remove(key) => (*key, None),
            };
            // An added record stays new, whatever the batch does to it later.
            let is_new = matches!(operation, Operation::Add(..));
            latest.entry(key).or_insert(LastOperation { sealed, is_new }).sealed = sealed;
        }
        for (key, LastOperation { sealed, is_new }) in latest {
            let (old, chunks) = if is_new { (None, 0) } else { self.stored(key)? };
            let old_dek = old.as_deref().and_then(|old| Sealed::parse(old).ok());
            move_dek(old_dek.map(|old| old.dek()), sealed.map(Sealed::dek));
            if let Some(old) = old {
                digest.subtract(&keyring.digest_share(key, &old));
            }
            let new = sealed.map_or(&[][..], Sealed::as_bytes);
            if sealed.is_some() {
                digest.add(&keyring.digest_share(key, new));
            }
            put(&mut batch, key, new, chunks);
        }
        let commit = keyring.seal(COMMIT, sequence, &digest.to_bytes())?;
        let (old_commit, _) = self.stored(COMMIT)?;
        let old_commit = old_commit.and_then(|old| Sealed::parse(&old).ok());
        move_dek(old_commit.map(|old| old.dek()), Some(commit.dek()));
        put(&mut batch, COMMIT, commit.as_bytes(), 0);
        let failed = |error: sled::Error| StoreError::Failed(error.to_string());
        self.db.apply_batch(batch).map_err(failed)?;
        self.db.flush().map_err(failed)?;
        self.data_file.sync_data().map_err(|error| StoreError::Failed(error.to_string()))?;
        deks.retain(|_, count| *count > 0);
        Ok((digest, deks))
    }

    /// The present bytes of a record, and the number of their chunks.
    fn stored(&self, key: RecordKey) -> Result<(Option<Vec<u8>>, usize), StoreError> {
        let mut bytes: Option<Vec<u8>> = None;
        let mut chunks = 0;
        for chunk in self.db.scan_prefix(key::prefix(key)) {
            let (_, chunk) = chunk.map_err(|error| StoreError::Failed(error.to_string()))?;
            bytes.get_or_insert_default().extend_from_slice(&chunk);
            chunks += 1;
        }
        Ok((bytes, chunks))
    }
}

/// Adds a record's chunks to a batch, and removes those that its older, longer form had.
fn put(batch: &mut sled::Batch, record: RecordKey, bytes: &[u8], old_chunks: usize) {
    let mut chunks = 0;
    for chunk in bytes.chunks(key::CHUNK_BYTES) {
        batch.insert(key::chunk(record, chunks).as_slice(), chunk);
        chunks += 1;
    }
    for number in chunks..old_chunks {
        batch.remove(key::chunk(record, number).as_slice());
    }
}
