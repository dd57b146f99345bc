//! The sealed store on disk. The only room that knows sled.
//!
//! sled 0.34.7 is used as a log of batches and nothing more: one tree, one writer, no transactions, no
//! merge operators, and no reads while serving. Its faults, measured at this version, are fenced here:
//!
//! - `flush()` calls `sync_file_range`, which is not power-safe, so every batch ends with our own
//!   `fdatasync` of the data file, on one descriptor that stays open.
//! - Values above some 7 KiB go to `blobs/` files that are never synced, so records are cut into
//!   [chunks](key) of 4 KiB.
//! - A kill while a snapshot is written leaves `snap.*.generating`, on which every later open fails; it
//!   holds nothing and is removed.
//! - Damage can make `open` panic, or bring back older values silently. The panic is caught, and a
//!   [commit record](digest) in every batch proves the whole state.

mod digest;
mod key;
mod records;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
        /// What was found.
        what: String,
    },
    /// A newer version has written here, and this one cannot read what.
    #[error(
        "the store in {} has a record of a kind that only a newer keyhatch knows, which has written it; run the newer \
         keyhatch", .0.display()
    )]
    Newer(PathBuf),
    /// A write or sync failed. What the disk holds is not known, so it is final.
    #[error("the store cannot be written: {0}")]
    Failed(String),
    /// No random numbers.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The file system is in the way.
    #[error("the store in {} cannot be opened ({source}); free space on its disk, or mend it", .path.display())]
    Unreadable {
        /// The store's directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// One change to the store.
pub enum Operation {
    /// Adds a record that was never there, which spares looking for an older form.
    Add(RecordKey, Sealed),
    /// Puts a record in place of whatever was there.
    Put(RecordKey, Sealed),
    /// Removes a record.
    Remove(RecordKey),
}

/// What a batch does to one record.
struct Change<'a> {
    sealed: Option<&'a Sealed>,
    is_new: bool,
}

/// What the store holds.
pub struct Contents {
    /// The last batch.
    pub sequence: u64,
    /// Every record, the commit record included, still sealed.
    pub records: Vec<(RecordKey, Sealed)>,
}

/// The open store.
pub struct Store {
    db: sled::Db,
    /// For fdatasync; never reopened, because an error is reported once per open file.
    data_file: File,
    path: PathBuf,
    state: Mutex<State>,
    /// Who commits waits here for an export, which takes as long as it takes and is no fault of the disk.
    turn: tokio::sync::Mutex<()>,
    is_given_up: AtomicBool,
}

#[derive(Default)]
struct State {
    digest: Digest,
    /// How many records are sealed under each DEK.
    deks: BTreeMap<KeyId, u64>,
    failed: bool,
}

/// Where the commit record lives.
const COMMIT: RecordKey =
    RecordKey { kind: RecordKind::Commit, uid: Id::from_bytes([0; Id::BYTES]) };

/// Imported records are written so many bytes at a time.
const IMPORT_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// sled's cache, in bytes: reads come from our own memory, so it need not be large.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

impl Store {
    /// Makes an empty store in a directory that does not exist yet.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(path: &Path, keyring: &Keyring) -> Result<(), StoreError> {
        make_directory(path)?;
        let store = Self::open_sled(path)?;
        store.commit(keyring, 0, &[])?;
        sync_new(path)
    }

    /// Opens the store, hands its records over, still sealed, values before what they belong to, and proves that it is
    /// whole and the one that was written last: with it, the sequence of the last batch. What was handed over is worth
    /// nothing before.
    ///
    /// # Errors
    /// If it is damaged.
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
        *store.state.lock() = State { digest, deks, failed: false };
        Ok((store, commit.version()))
    }

    /// Writes one batch. When this returns, it is on disk.
    ///
    /// # Errors
    /// If the disk refuses: the store takes no batch from then on.
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
        // Until it is known to be good: sled can panic, and then holds half of something.
        state.failed = true;
        let (digest, deks) = self.write(keyring, sequence, operations, &state)?;
        *state = State { digest, deks, failed: false };
        Ok(())
    }

    /// What it holds between two batches; `meanwhile` is run at that moment. Batches wait until it is done. Call it
    /// where waiting is allowed.
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

    /// Makes a store of exported records in a directory that does not exist yet. Whether they are whole is for
    /// [`Store::open`] to prove.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn import(
        path: &Path,
        records: impl Iterator<Item = (RecordKey, Sealed)>,
    ) -> Result<(), StoreError> {
        let unreadable = |source| StoreError::Unreadable { path: path.to_owned(), source };
        let failed = |error: sled::Error| StoreError::Failed(error.to_string());
        make_directory(path)?;
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
        sync_new(path)
    }

    /// Waits until no export keeps batches waiting, and keeps exports waiting.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Takes no batch from now on, whatever becomes of one that hangs.
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
    }

    /// Whether batches are still taken. It never waits: one that is under way has not failed yet.
    pub fn is_writable(&self) -> bool {
        let is_failed = self.state.try_lock().is_some_and(|state| state.failed);
        !is_failed && !self.is_given_up.load(Ordering::Acquire)
    }

    /// How many records are sealed under each DEK, the commit record included.
    pub fn deks(&self) -> BTreeMap<KeyId, u64> {
        self.state.lock().deks.clone()
    }

    fn open_sled(path: &Path) -> Result<Self, StoreError> {
        let damaged = |what: String| StoreError::Damaged { path: path.to_owned(), what };
        remove_unfinished_snapshots(path).map_err(|error| damaged(error.to_string()))?;
        // sled panics on some kinds of damage; what it leaves behind is dropped with the result.
        let open = || {
            catch_unwind(AssertUnwindSafe(|| {
                sled::Config::new()
                    .path(path)
                    .mode(sled::Mode::LowSpace)
                    .cache_capacity(CACHE_BYTES)
                    .flush_every_ms(None)
                    .use_compression(false)
                    .open()
            }))
        };
        let mut opened = open();
        // The state directory is locked, so nobody else has it open; a child that this process has just
        // forked can hold sled's lock until it execs.
        for _ in 0..100 {
            if !matches!(&opened, Ok(Err(error)) if error.to_string().contains("could not acquire lock"))
            {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(10));
            opened = open();
        }
        // A snapshot is a cache of the log: without it the log is read, and the digest proves the result.
        if !matches!(&opened, Ok(Ok(_) | Err(sled::Error::Io(_)))) {
            set_snapshots_aside(path).map_err(|error| damaged(error.to_string()))?;
            opened = open();
        }
        let db = match opened {
            Ok(Ok(db)) => db,
            Ok(Err(sled::Error::Io(source))) => {
                return Err(StoreError::Unreadable { path: path.to_owned(), source });
            }
            Ok(Err(error)) => return Err(damaged(error.to_string())),
            Err(_) => return Err(damaged("its log cannot be read".to_owned())),
        };
        let data_file = File::open(path.join("db")).map_err(|error| damaged(error.to_string()))?;
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
        before: &State,
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
        // A batch may touch one record more than once; the last word counts.
        let mut latest = BTreeMap::<RecordKey, Change<'_>>::new();
        for operation in operations {
            let (key, sealed) = match operation {
                Operation::Add(key, sealed) | Operation::Put(key, sealed) => (*key, Some(sealed)),
                Operation::Remove(key) => (*key, None),
            };
            // What is added stays new, whatever else the batch does to it.
            let is_new = matches!(operation, Operation::Add(..));
            latest.entry(key).or_insert(Change { sealed, is_new }).sealed = sealed;
        }
        for (key, Change { sealed, is_new }) in latest {
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

    /// The bytes that a record has now, and in how many chunks.
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

fn make_directory(path: &Path) -> Result<(), StoreError> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(|error| StoreError::Failed(error.to_string()))
}

/// sled does not sync these; without them the directory may be empty after a power cut.
fn sync_new(path: &Path) -> Result<(), StoreError> {
    for entry in [path.join("conf"), path.to_owned()] {
        let synced = File::open(entry).and_then(|file| file.sync_all());
        synced.map_err(|error| StoreError::Failed(error.to_string()))?;
    }
    Ok(())
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

/// Renames snapshots so that sled does not see them, and somebody who wants to look still can.
fn set_snapshots_aside(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") {
            tracing::warn!(snapshot = %name, "a damaged snapshot is set aside; the log is read instead");
            std::fs::rename(entry.path(), path.join(format!("aside-{name}")))?;
        }
    }
    Ok(())
}

fn remove_unfinished_snapshots(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
