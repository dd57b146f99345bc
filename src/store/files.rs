//! sled's files: how they are opened, and made safe against a power cut.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::StoreError;

/// sled's cache, in bytes: reads come from our own memory, so it need not be large.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// How often, and how long each time, to wait for sled's lock.
const LOCK_RETRIES: usize = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Opens sled, and its data file for our own syncs. A missing directory or file is created.
///
/// # Errors
/// [`StoreError::Unreadable`] if the file system refuses, [`StoreError::Damaged`] if sled does.
pub(super) fn open(path: &Path) -> Result<(sled::Db, File), StoreError> {
    let damaged = |what: String| StoreError::Damaged { path: path.to_owned(), what };
    let unreadable = |source| StoreError::Unreadable { path: path.to_owned(), source };
    remove_unfinished_snapshots(path).map_err(|error| damaged(error.to_string()))?;
    wait_for_lock(&path.join("db")).map_err(unreadable)?;
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
    // A snapshot is a cache of the log: without it the log is read, and the digest proves the result.
    if !matches!(&opened, Ok(Ok(_) | Err(sled::Error::Io(_)))) {
        set_snapshots_aside(path).map_err(|error| damaged(error.to_string()))?;
        opened = open();
    }
    let db = match opened {
        Ok(Ok(db)) => db,
        Ok(Err(sled::Error::Io(source))) => return Err(unreadable(source)),
        Ok(Err(error)) => return Err(damaged(error.to_string())),
        Err(_) => return Err(damaged("its log cannot be read".to_owned())),
    };
    let data_file = File::open(path.join("db")).map_err(|error| damaged(error.to_string()))?;
    Ok((db, data_file))
}

/// Waits until nobody holds sled's lock on its data file. The state directory is locked, so no other daemon has the
/// store open; but a child that this process has just forked holds the lock until it calls exec. After the last retry
/// sled itself reports the lock.
fn wait_for_lock(data_file: &Path) -> std::io::Result<()> {
    let file = match File::open(data_file) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for _ in 0..LOCK_RETRIES {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::park_timeout(LOCK_PAUSE),
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(flock(&file, FlockOperation::Unlock)?),
        }
    }
    Ok(())
}

/// Makes the store's directory.
pub(super) fn make_directory(path: &Path) -> Result<(), StoreError> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(|error| StoreError::Failed(error.to_string()))
}

/// Syncs a new store's names. sled does not: after a power cut the directory could be empty.
pub(super) fn sync_new(path: &Path) -> Result<(), StoreError> {
    for entry in [path.join("conf"), path.to_owned()] {
        let synced = File::open(entry).and_then(|file| file.sync_all());
        synced.map_err(|error| StoreError::Failed(error.to_string()))?;
    }
    Ok(())
}

/// Renames snapshots so that sled does not read them, and people still can.
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

/// Removes the snapshots that a kill left half written: sled would refuse to open.
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
