//! `keyhatch restore`: makes a broker of a backup, in quarantine.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::init::{clear, issue_daemon};
use super::reissue::reissue_into;
use super::state::{BACKED_UP, FORMAT, StateDirectory, StateError};
use super::{DaemonError, offline};
use crate::broker::{
    BACKUP_FORMAT, Hashed, MANIFEST, Manifest, ManifestEntry, Offline, STORE_RECORDS, StartError,
    read_record,
};
use crate::journal::free_bytes;
use crate::model::limits::MIN_FREE_BYTES;
use crate::model::{Clock, Timestamp};
use crate::seal::{KeyStoreError, KeyringError, Unlock, Unlocked};
use crate::store::Store;
use crate::sys::{Trust, as_owner_of, input};

/// The name of `state.json` until every other file is there: a directory that a kill leaves half made is no state
/// directory.
const UNFINISHED_STATE: &str = "restoring.json";
/// The largest entry that is neither records nor journal, in bytes.
const MAX_SMALL_BYTES: u64 = 16 * 1024 * 1024;

/// Why a backup cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup is not as it was made.
    #[error("the backup is damaged or not whole ({0}); take another copy of it")]
    Damaged(String),
    /// The archive of this path cannot be restored.
    #[error("{}: {what}", .path.display())]
    Of {
        /// The archive.
        path: PathBuf,
        /// The cause.
        what: Box<Self>,
    },
    /// The archive cannot be read, or a file cannot be written.
    #[error("the backup cannot be restored: {0}")]
    Io(#[from] std::io::Error),
    /// A newer version made the backup.
    #[error(
        "the backup is of a newer keyhatch ({0}); restore it with the keyhatch that made it, or a newer one"
    )]
    Newer(String),
    /// The disk has no room for the backup.
    #[error(
        "the backup has {bytes} bytes, and the disk of {} has room for {free}; restore it where there is more",
        .state.display()
    )]
    NoRoom {
        /// The size of the archive.
        bytes: u64,
        /// The room on the disk, in bytes.
        free: u64,
        /// The state directory.
        state: PathBuf,
    },
}

/// The options of [`restore`].
pub struct RestoreOptions {
    /// The archive.
    pub archive: PathBuf,
    /// The state directory to make; absent or empty.
    pub state: PathBuf,
    /// Directories above the state directory whose other writers are trusted.
    pub shared_parents: Vec<PathBuf>,
    /// The runtime directory, where the broker's sockets will be.
    pub runtime: PathBuf,
    /// How to get the KEK, which no backup holds.
    pub unlock: Unlock,
    /// The clock that dates the new certificates.
    pub clock: Clock,
}

/// The broker that was restored.
pub struct Restored {
    /// When the backup was made.
    pub backup_time: Timestamp,
    /// The last change in the backup.
    pub head: u64,
    /// How many bytes were read.
    pub bytes: u64,
    /// The first operator's identity directory.
    pub operator: PathBuf,
    /// The local executor's identity directory.
    pub executor: PathBuf,
}

/// Makes a state directory of a backup. The broker is in quarantine: it resolves nothing until an administrator confirms
/// it. `progress` is called with the bytes that were read, and their total.
///
/// # Errors
/// If the KEK is another one, the backup is damaged, or the directory is not empty. Everything that was made is removed
/// then.
pub fn restore(
    options: &RestoreOptions,
    progress: impl FnMut(u64, u64) + Send,
) -> Result<Restored, DaemonError> {
    let archive = input::open(&options.archive)
        .map_err(|source| StateError::Io { path: options.archive.clone(), source })?;
    let restored = || {
        let trust = Trust::of_process(&options.shared_parents);
        let (state, _lock) = StateDirectory::make(&options.state, &trust)?;
        let restored = fill(&state, archive, options, progress);
        restored.map_err(|error| {
            clear(state.path());
            located(error, &options.archive)
        })
    };
    as_owner_of(&options.state, restored).map_err(DaemonError::Threads)?
}

/// Reports an error of a file from the archive as an error of the archive.
fn located(error: DaemonError, archive: &Path) -> DaemonError {
    let of = |what| RestoreError::Of { path: archive.to_owned(), what: Box::new(what) }.into();
    let damaged = |what: &str| of(RestoreError::Damaged(what.to_owned()));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match error {
        DaemonError::Restore(what) => of(what),
        DaemonError::State(StateError::Missing(_)) => damaged("it has no state.json"),
        DaemonError::State(StateError::Damaged(path)) if name(&path) == UNFINISHED_STATE => {
            damaged("state.json")
        }
        DaemonError::State(StateError::Damaged(path)) => damaged(&name(&path)),
        DaemonError::State(StateError::Keys(KeyStoreError::KeyringAt {
            error: KeyringError::Damaged(what),
            ..
        })) => damaged(&format!("keyring.json: {what}")),
        other => other,
    }
}

fn fill(
    state: &StateDirectory,
    archive: File,
    options: &RestoreOptions,
    progress: impl FnMut(u64, u64),
) -> Result<Restored, DaemonError> {
    let (unlocked, manifest, bytes) = unpack_all(state, archive, &options.unlock, progress)?;
    let file = state.read_as(UNFINISHED_STATE)?;
    let keyring = unlocked.keyring().map_err(StateError::from)?;
    let authority = Arc::new(state.authority(&keyring)?);
    state.make_directory("broker")?;
    issue_daemon(state, &authority, (&file.name, &[]), options.clock.now())?;
    let broker = Offline {
        journal: &state.join("journal"),
        store: &state.join("store"),
        keyring,
        authority: Arc::clone(&authority),
        clock: options.clock.clone(),
    };
    offline(broker.quarantine(manifest.time))??;
    let keyring = unlocked.keyring().map_err(StateError::from)?;
    let reissued = reissue_into(state, keyring, &authority, &options.runtime, &options.clock)?;
    state.write_file(&file)?;
    std::fs::remove_file(state.join(UNFINISHED_STATE)).map_err(RestoreError::from)?;
    Ok(Restored {
        backup_time: manifest.time,
        head: manifest.head,
        bytes,
        executor: state.join(super::init::EXECUTOR_DIRECTORY),
        operator: reissued.operator,
    })
}

/// Unpacks the archive, and checks every entry against the manifest.
fn unpack_all(
    state: &StateDirectory,
    archive: File,
    unlock: &Unlock,
    mut progress: impl FnMut(u64, u64),
) -> Result<(Unlocked, Manifest, u64), DaemonError> {
    let total = archive.metadata().map_err(RestoreError::from)?.len();
    let free = free_bytes(state.path()).saturating_sub(MIN_FREE_BYTES);
    if total > free {
        let state = state.path().to_owned();
        return Err(RestoreError::NoRoom { bytes: total, free, state }.into());
    }
    state.make_directory("journal")?;
    let entries = Vec::new();
    let mut unpacking = Unpacking { state, entries, unlocked: None, manifest: None, bytes: 0 };
    let mut archive = tar::Archive::new(BufReader::new(archive));
    // Raw entries: no entry can describe another, which would have to be kept in memory.
    for entry in archive.entries().map_err(RestoreError::from)?.raw(true) {
        let entry = entry.map_err(|error| RestoreError::Damaged(printable(&error)))?;
        let name = unpacking.unpack(entry)?;
        progress(unpacking.bytes, total);
        if name == "keyring.json" {
            // A wrong KEK is reported before any other entry is read.
            unpacking.unlocked = Some(unlock_restored(state, unlock)?);
        }
    }
    let missing = || RestoreError::Damaged("its end is missing".to_owned());
    let Unpacking { entries, unlocked, manifest, bytes, .. } = unpacking;
    let unlocked = unlocked.ok_or_else(missing)?;
    let keyring = unlocked.keyring().map_err(StateError::from)?;
    let manifest = manifest.ok_or_else(missing)?;
    let manifest = Manifest::parse(&manifest, &keyring)
        .ok_or_else(|| RestoreError::Damaged("its manifest is not the broker's".to_owned()))?;
    if manifest.format != BACKUP_FORMAT {
        return Err(RestoreError::Newer(format!("format {}", manifest.format)).into());
    }
    if manifest.entries != entries {
        let text = "what is in it is not what its manifest says".to_owned();
        return Err(RestoreError::Damaged(text).into());
    }
    Ok((unlocked, manifest, bytes))
}

/// The keys of the archive. The KEK is asked for once.
fn unlock_restored(state: &StateDirectory, unlock: &Unlock) -> Result<Unlocked, DaemonError> {
    let (file, keys) = (state.read_as(UNFINISHED_STATE)?, state.keys(Some(unlock)));
    let unlocked = match file.format {
        FORMAT => keys.unlock(unlock.passphrase.as_ref()),
        // No daemon of 0.1.0 can open the directory, which has no state.json yet.
        _ => keys.take_over(unlock.passphrase.as_ref()).and_then(|taken| {
            taken.announce()?;
            taken.commit()
        }),
    };
    Ok(unlocked.map_err(StateError::from)?)
}

/// The state of unpacking.
struct Unpacking<'a> {
    state: &'a StateDirectory,
    entries: Vec<ManifestEntry>,
    /// `None` until the KEK has opened the keyring; large entries are refused before.
    unlocked: Option<Unlocked>,
    manifest: Option<Vec<u8>>,
    bytes: u64,
}

impl Unpacking<'_> {
    /// Unpacks one entry to its place, and returns its name. An entry that no backup has is an error.
    fn unpack(&mut self, entry: tar::Entry<'_, impl Read>) -> Result<String, DaemonError> {
        let damaged = |what: String| DaemonError::from(RestoreError::Damaged(what));
        let path = entry.path().map_err(|error| damaged(printable(&error)))?;
        let name = path.to_string_lossy().escape_debug().to_string();
        let bytes = entry.size();
        let is_early = self.unlocked.is_none() && !BACKED_UP.contains(&name.as_str());
        let is_known = self.entries.iter().any(|known| known.name == name);
        if self.manifest.is_some() || is_known || is_early {
            return Err(damaged(format!("{name} is not where it belongs")));
        }
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(damaged(format!("{name} is not a regular file")));
        }
        self.bytes += bytes;
        let is_small = BACKED_UP.contains(&name.as_str()) || name == MANIFEST;
        if !is_small && name != STORE_RECORDS && !is_journal(&name) {
            return Err(damaged(format!("{name} does not belong into a backup")));
        }
        if is_small && bytes > MAX_SMALL_BYTES {
            return Err(damaged(format!("{name} is too long")));
        }
        if name == MANIFEST {
            let mut text = Vec::new();
            entry.take(MAX_SMALL_BYTES).read_to_end(&mut text).map_err(RestoreError::from)?;
            self.manifest = Some(text);
            return Ok(name);
        }
        let mut hashed = Hashed::of(entry);
        if name == STORE_RECORDS {
            import_store(self.state, &mut hashed)?;
        } else {
            let mode = if name == "ca.crt" { 0o444 } else { 0o600 };
            let to = if name == "state.json" { UNFINISHED_STATE } else { name.as_str() };
            write_entry(&name, &mut hashed, &self.state.join(to), mode)?;
        }
        let sha256 = hashed.finish();
        self.entries.push(ManifestEntry { name: name.clone(), bytes, sha256 });
        Ok(name)
    }
}

/// An error that quotes the archive, shortened and escaped: the quoted bytes may be anything.
fn printable(error: &std::io::Error) -> String {
    error.to_string().chars().take(200).collect::<String>().escape_debug().to_string()
}

fn is_journal(name: &str) -> bool {
    let number = name.strip_prefix("journal/").and_then(|name| name.strip_suffix(".jsonl"));
    number.is_some_and(|number| number.len() >= 6 && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Writes an entry to a new file.
fn write_entry(
    name: &str,
    entry: &mut impl Read,
    path: &Path,
    mode: u32,
) -> Result<(), DaemonError> {
    let unwritten = |source| StateError::Io { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path).map_err(unwritten)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = entry.read(&mut buffer);
        let read = read.map_err(|error| RestoreError::Damaged(format!("{name}: {error}")))?;
        if read == 0 {
            break;
        }
        file.write_all(buffer.get(..read).unwrap_or_default()).map_err(unwritten)?;
    }
    file.sync_all().map_err(unwritten)?;
    Ok(())
}

/// Makes the store of an entry's records, one by one. Opening the store later proves that it is complete.
fn import_store(state: &StateDirectory, entry: &mut impl Read) -> Result<(), DaemonError> {
    let (mut records, mut fault) = (BufReader::new(entry), None);
    let records = std::iter::from_fn(|| match read_record(&mut records) {
        Ok(record) => record,
        Err(error) => {
            fault = Some(error);
            None
        }
    });
    Store::import(&state.join("store"), records).map_err(StartError::from)?;
    match fault {
        None => Ok(()),
        Some(error) if error.kind() == ErrorKind::Unsupported => {
            Err(RestoreError::Newer("a record of an unknown kind".to_owned()).into())
        }
        Some(error) => Err(RestoreError::Damaged(format!("{STORE_RECORDS}: {error}")).into()),
    }
}
