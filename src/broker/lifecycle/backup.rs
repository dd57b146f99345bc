//! A consistent, sealed copy of the broker's state, made while the broker serves.
//!
//! ```text
//! state.json  keyring.json  authority.sealed  issuer.sealed  ca.crt     copied as they are: useless without the KEK
//! store.records                                          every record, as of one change
//! journal/NNNNNN.jsonl …                                 up to that change
//! manifest.json                                          names, lengths and hashes of these, and a keyed tag
//! ```
//!
//! The archive is a POSIX ustar. The store is read between two batches, and the journal's length is taken at that
//! moment. So head ≤ store ≤ last intent holds in the copy, as a start requires.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use crate::access::{Principal, Role};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::registry::operators::require_role;
use crate::journal::Event;
use crate::model::Timestamp;
use crate::seal::{Keyring, RecordKey, Sealed};

/// The format of archives.
pub const BACKUP_FORMAT: u32 = 1;
/// The last entry: the list of the other entries.
pub const MANIFEST: &str = "manifest.json";
/// The entry with the store's records.
pub const STORE_RECORDS: &str = "store.records";
/// The approximate overhead of an entry in a tar archive, in bytes.
const ENTRY_BYTES: u64 = 1024;

/// The contents of an archive.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format of the archive.
    pub format: u32,
    /// The daemon's version.
    pub version: String,
    /// When the archive was made.
    pub time: Timestamp,
    /// The store's last change.
    pub head: u64,
    /// Every other entry, in order.
    pub entries: Vec<ManifestEntry>,
}

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestEntry {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// A manifest with its tag, which only a holder of the keys can make.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaggedManifest {
    manifest: String,
    tag: String,
}

impl Manifest {
    fn to_bytes(&self, keyring: &Keyring) -> std::io::Result<Vec<u8>> {
        let manifest = serde_json::to_string(self)?;
        let tag = hex::encode(keyring.backup_tag(manifest.as_bytes()));
        Ok(serde_json::to_vec_pretty(&TaggedManifest { manifest, tag })?)
    }

    /// The manifest. `None` if it is malformed, or its maker did not have the keys.
    pub fn parse(bytes: &[u8], keyring: &Keyring) -> Option<Self> {
        let tagged: TaggedManifest = serde_json::from_slice(bytes).ok()?;
        let tag = hex::decode(tagged.tag).ok()?;
        let is_genuine = keyring.is_backup_tag(tagged.manifest.as_bytes(), &tag);
        is_genuine.then(|| serde_json::from_str(&tagged.manifest).ok()).flatten()
    }
}

/// The contents of a backup, as of one change.
pub struct Backup {
    /// Small files that could be replaced at any moment: name and content.
    sealed: Vec<(String, Vec<u8>)>,
    journal: Vec<(String, PathBuf, u64)>,
    records: Vec<(RecordKey, Sealed)>,
    manifest: Manifest,
    /// Only one backup runs at a time: each holds a copy of the store in memory.
    only: OwnedSemaphorePermit,
}

impl Broker {
    /// Collects the contents of a backup. Changes wait while the store is read. Waits for the disk.
    ///
    /// # Errors
    /// See `SystemService.Backup`.
    pub fn backup(&self, caller: &Principal) -> Result<Backup, Error> {
        require_role(caller, Role::Administrator)?;
        let only = Arc::clone(&self.backups).try_acquire_owned().map_err(|_| Error::BackupRuns)?;
        let now = self.now();
        self.writer.budgets.take(caller, "Backup", now)?;
        self.journal.append(now, &Event::BackedUp { principal: caller.to_string() })?;
        let unreadable =
            |error: &dyn std::fmt::Display| Error::Internal(format!("backup: {error}"));
        // Keys do not change meanwhile: every record of the copy is sealed under a key of the copied keyring.
        let keys_rest = self.keys.turn.blocking_lock();
        let (contents, held) = self
            .store
            .export(|| Ok::<_, std::io::Error>((self.read_sealed()?, self.journal.extent()?)))
            .map_err(|error| unreadable(&error))?;
        drop(keys_rest);
        let (sealed, extent) = held.map_err(|error| unreadable(&error))?;
        let journal = extent
            .into_iter()
            .map(|(path, length)| (format!("journal/{}", file_name(&path)), path, length));
        let manifest = Manifest {
            format: BACKUP_FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: now,
            head: contents.sequence,
            entries: Vec::new(),
        };
        let (journal, records) = (journal.collect(), contents.records);
        Ok(Backup { sealed, journal, records, manifest, only })
    }

    fn read_sealed(&self) -> std::io::Result<Vec<(String, Vec<u8>)>> {
        let read = |path: &PathBuf| Ok((file_name(path), std::fs::read(path)?));
        self.sealed_files.iter().map(read).collect()
    }

    /// Writes a backup. Waits for the disk and for the reader of `out`.
    ///
    /// # Errors
    /// If a file cannot be read, or `out` cannot be written.
    pub fn write_backup(&self, backup: Backup, out: impl Write) -> std::io::Result<()> {
        let Backup { sealed, journal, records, mut manifest, only: _only } = backup;
        let mut archive = tar::Builder::new(out);
        for (name, content) in sealed {
            let length = content.len() as u64;
            manifest.entries.push(append(&mut archive, &name, length, content.as_slice())?);
        }
        for (name, path, length) in journal {
            let file = File::open(&path)?;
            manifest.entries.push(append(&mut archive, &name, length, file.take(length))?);
        }
        let length = records_bytes(&records);
        let reader = RecordReader { records: records.iter(), piece: Vec::new(), at: 0 };
        manifest.entries.push(append(&mut archive, STORE_RECORDS, length, reader)?);
        let text = manifest.to_bytes(&self.keyring)?;
        append(&mut archive, MANIFEST, text.len() as u64, text.as_slice())?;
        archive.into_inner()?.flush()
    }
}

impl Backup {
    /// The approximate length of the archive, in bytes.
    pub fn total_bytes(&self) -> u64 {
        let journal: u64 = self.journal.iter().map(|(.., length)| length + ENTRY_BYTES).sum();
        let sealed = self.sealed.iter().map(|(_, content)| content.len() as u64 + ENTRY_BYTES);
        sealed.sum::<u64>() + journal + records_bytes(&self.records) + ENTRY_BYTES
    }
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    bytes: u64,
    content: impl Read,
) -> std::io::Result<ManifestEntry> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes);
    header.set_mode(0o600);
    let mut hashed = Hashed::of(content);
    archive.append_data(&mut header, name, &mut hashed)?;
    if hashed.bytes != bytes {
        return Err(std::io::Error::other(format!("{name} was cut while it was read")));
    }
    Ok(ManifestEntry { name: name.to_owned(), bytes, sha256: hashed.finish() })
}

/// A reader that hashes its content.
pub struct Hashed<R> {
    content: R,
    hash: Context,
    bytes: u64,
}

impl<R> Hashed<R> {
    /// A reader at the start of the content.
    pub fn of(content: R) -> Self {
        Self { content, hash: Context::new(&SHA256), bytes: 0 }
    }

    /// The SHA-256 of the content read so far, in hexadecimal.
    pub fn finish(self) -> String {
        hex::encode(self.hash.finish())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.hash.update(buffer.get(..read).unwrap_or_default());
        self.bytes += read as u64;
        Ok(read)
    }
}

// The form of a record: kind 1 | uid 16 | length 4 BE | sealed …
const RECORD_HEAD_BYTES: u64 = 1 + 16 + 4;

fn records_bytes(records: &[(RecordKey, Sealed)]) -> u64 {
    records.iter().map(|(_, sealed)| RECORD_HEAD_BYTES + sealed.as_bytes().len() as u64).sum()
}

/// Records as bytes, one after the other.
struct RecordReader<'a> {
    records: std::slice::Iter<'a, (RecordKey, Sealed)>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for RecordReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.piece.len() {
            let Some((key, sealed)) = self.records.next() else { return Ok(0) };
            let bytes = sealed.as_bytes();
            let length = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
            self.piece.clear();
            self.piece.push(key.kind.byte());
            self.piece.extend_from_slice(key.uid.as_bytes());
            self.piece.extend_from_slice(&length.to_be_bytes());
            self.piece.extend_from_slice(bytes);
            self.at = 0;
        }
        let left = self.piece.get(self.at..).unwrap_or_default();
        let read = left.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..read), left.get(..read)) {
            to.copy_from_slice(from);
        }
        self.at += read;
        Ok(read)
    }
}

/// The next record of a backup; `None` at the end.
///
/// # Errors
/// If the records are cut, or a record is malformed or longer than the limit; [`std::io::ErrorKind::Unsupported`] if it
/// is of a kind that this version does not know.
pub fn read_record(records: &mut impl Read) -> std::io::Result<Option<(RecordKey, Sealed)>> {
    use crate::model::Id;
    use crate::seal::RecordKind;
    const MAX_RECORD_BYTES: usize = 4 * 1024 * 1024;
    let malformed = || std::io::Error::other("a record is malformed");
    let mut kind = [0; 1];
    if records.read(&mut kind)? == 0 {
        return Ok(None);
    }
    let (mut uid, mut length) = ([0; Id::BYTES], [0; 4]);
    records.read_exact(&mut uid)?;
    records.read_exact(&mut length)?;
    let kind = u8::from_be_bytes(kind);
    let kind = match RecordKind::from_byte(kind) {
        Some(kind) => kind,
        None if kind.is_ascii_alphabetic() => return Err(std::io::ErrorKind::Unsupported.into()),
        None => return Err(malformed()),
    };
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(std::io::Error::other)?;
    if length > MAX_RECORD_BYTES {
        return Err(malformed());
    }
    let mut bytes = vec![0; length];
    records.read_exact(&mut bytes)?;
    let sealed = Sealed::parse(&bytes).map_err(|_| malformed())?;
    Ok(Some((RecordKey { kind, uid: Id::from_bytes(uid) }, sealed)))
}
