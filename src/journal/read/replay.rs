//! Reads the journal at start: checks every line, and distinguishes a torn end from an edit.
//!
//! A crash can damage only what was not synced. Sectors reach the disk in any order, so a damaged line may have whole
//! lines after it. Therefore lines contain how far the journal was known to be on disk when they were written. Damage
//! is cut off, kept beside the file and journaled if no later line knew it to be on disk. Any other damage is an edit,
//! and the broker refuses to start.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::audience::Audience;
use super::error::ReplayError;
use crate::journal::event::Event;
use crate::journal::event::decision_id::DecisionId;
use crate::journal::files::{file_name, file_numbers};
use crate::journal::state::index;
use crate::journal::state::live::Live;
use crate::journal::state::use_counts::LineAt;
use crate::journal::write::chain::{Chain, End};
use crate::journal::write::line::{Body, NO_PREVIOUS, Parts};
use crate::journal::write::watchdog::Pulse;
use crate::model::{Formats, Timestamp};
use crate::seal::Keyring;

/// The state that was found at start.
#[derive(Debug)]
pub struct Recovery {
    /// The last batch in force.
    pub head: u64,
    /// The last batch announced. The store may be as far as this batch.
    pub intent: u64,
    /// The last batch that is known never to have reached the store.
    pub abandoned: u64,
    /// When the last line was written.
    pub last_time: Timestamp,
    /// The file that keeps the cut end, if any.
    pub torn: Option<PathBuf>,
}

/// Reads the newest file and opens it for appending.
pub(crate) fn open(
    directory: &Path,
    keyring: Arc<Keyring>,
    now: Timestamp,
    pulse: Arc<Pulse>,
) -> Result<(Chain, Recovery), ReplayError> {
    let mut numbers = file_numbers(directory)?;
    let (read, number) = loop {
        let number = numbers.pop().ok_or_else(|| ReplayError::Missing(directory.to_owned()))?;
        let path = directory.join(file_name(number));
        let read = ReadFile::from(path, &keyring, now)?;
        if read.was_in_force(number, &keyring)? {
            break (read, number);
        }
        set_aside(&read.path)?;
    };
    let ReadFile { path, mut reader, rest, lines, .. } = read;
    let damaged = reader.last + 1;
    if !rest.is_empty() && was_on_disk(damaged, &rest, &keyring) || lines == 0 {
        return Err(ReplayError::Tampered { path, line: lines + 1 });
    }
    check_gaps(directory, &numbers, number)?;
    check_formats(directory, reader.live.formats())?;
    for before in numbers {
        let index = index::load(directory, &keyring, before, &mut Audience::new(&|| false))?;
        reader.live.usage_mut().add_history(&index);
    }
    let torn = (!rest.is_empty()).then(|| cut(&path, reader.length, &rest)).transpose()?;
    let heads = reader.live.heads();
    let recovery = Recovery {
        head: heads.head,
        intent: heads.intent,
        abandoned: heads.abandoned,
        last_time: reader.last_time,
        torn: torn.clone(),
    };
    let end = End {
        path,
        number,
        last: reader.last,
        last_hash: reader.last_hash,
        length: reader.length,
        synced: reader.synced,
        live: reader.live,
        checkpoint: reader.checkpoint,
    };
    let mut chain = Chain::resume(end, keyring, pulse, now)?;
    if let Some(kept) = torn {
        let kept_as = kept.file_name().map(|name| name.to_string_lossy().into_owned());
        let bytes = rest.len() as u64;
        write(&mut chain, now, &Event::Torn { kept_as: kept_as.unwrap_or_default(), bytes })?;
    }
    if chain.live().formats() != Formats::CURRENT {
        write(&mut chain, now, &Event::Formats(Formats::CURRENT))?;
    }
    Ok((chain, recovery))
}

/// Writes a line, and syncs it.
fn write(chain: &mut Chain, now: Timestamp, event: &Event) -> std::io::Result<()> {
    let written = chain.append(now, event);
    written.map_err(|_| std::io::Error::other("the journal cannot be written"))?;
    chain.file()?.sync_data()?;
    chain.synced().reach(chain.last().0);
    Ok(())
}

/// Checks that no newer formats were written here.
fn check_formats(directory: &Path, written: Formats) -> Result<(), ReplayError> {
    let current = Formats::CURRENT;
    match written.state > current.state || written.keyring > current.keyring {
        true => Err(ReplayError::NewerFormats(directory.to_owned())),
        false => Ok(()),
    }
}

/// Checks that no file is missing. The oldest ones may be kept elsewhere.
fn check_gaps(directory: &Path, before: &[u64], newest: u64) -> Result<(), ReplayError> {
    let first = before.first().copied().unwrap_or(newest);
    match (first..newest).find(|number| !before.contains(number)) {
        Some(missing) => Err(ReplayError::Gap(directory.join(file_name(missing)))),
        None => Ok(()),
    }
}

/// A file that was read up to its last good line.
struct ReadFile {
    path: PathBuf,
    reader: FileReader,
    /// The bytes after the last good line.
    rest: Vec<u8>,
    /// How many lines are good.
    lines: u64,
    /// Whether the file's own lines have begun.
    is_begun: bool,
}

impl ReadFile {
    fn from(path: PathBuf, keyring: &Keyring, now: Timestamp) -> Result<Self, ReplayError> {
        let mut file = BufReader::new(File::open(&path)?);
        let mut reader = FileReader::new(now);
        let (mut lines, mut is_begun, mut line) = (0, false, Vec::new());
        file.read_until(b'\n', &mut line)?;
        while let Some(is_continued) = reader.take(&line, keyring, lines == 0) {
            lines += 1;
            is_begun |= is_continued;
            line.clear();
            file.read_until(b'\n', &mut line)?;
        }
        let mut rest = line;
        file.read_to_end(&mut rest)?;
        match newer_line(&rest, keyring) {
            Some(place) => Err(ReplayError::Newer { path, line: lines + place }),
            None => Ok(Self { path, reader, rest, lines, is_begun }),
        }
    }

    /// Whether the file was ever in force: a crash can leave an unfinished file.
    fn was_in_force(&self, number: u64, keyring: &Keyring) -> std::io::Result<bool> {
        if number == 1 || self.is_begun {
            return Ok(true);
        }
        let text = std::fs::read(&self.path)?;
        // Own lines that know the first own line to be on disk prove it. Copies contain how far the file before was on
        // disk.
        let begun = bodies(&text, keyring)
            .find(|body| matches!(body.event, Event::Continued { .. }))
            .map(|body| body.n);
        Ok(begun.is_some_and(|n| bodies(&text, keyring).any(|body| body.synced >= n)))
    }
}

/// Renames a file that never was in force.
fn set_aside(path: &Path) -> std::io::Result<()> {
    tracing::warn!(journal.file = %path.display(), "an unfinished file of the journal is set aside");
    std::fs::rename(path, path.with_extension("jsonl.unfinished"))
}

struct FileReader {
    /// The number of the file.
    file: u64,
    last: u64,
    last_hash: [u8; 32],
    length: u64,
    synced: u64,
    last_time: Timestamp,
    live: Live,
    /// The hash of the first line.
    checkpoint: [u8; 32],
}

impl FileReader {
    fn new(now: Timestamp) -> Self {
        Self {
            file: 0,
            last: 0,
            last_hash: NO_PREVIOUS,
            length: 0,
            synced: 0,
            last_time: now,
            live: Live::default(),
            checkpoint: NO_PREVIOUS,
        }
    }

    /// Takes in a line, with its newline; `None` if it is not whole or does not follow. Returns whether the file's own
    /// lines begin with it.
    fn take(&mut self, line: &[u8], keyring: &Keyring, is_first: bool) -> Option<bool> {
        let parts = Parts::split(line.strip_suffix(b"\n")?)?;
        let hash = parts.verified_hash()?;
        if !parts.is_tagged(keyring) {
            return None;
        }
        let body = parts.parse_without_changes().ok()?;
        let follows = body.n == self.last + 1 && body.prev == hex::encode(self.last_hash);
        let begins = is_first && matches!(body.event, Event::Checkpoint(_));
        // The first line of a later file replaces the last line of the file before, which is not read.
        if !(begins || (follows && !is_first)) {
            return None;
        }
        if let Event::Checkpoint(checkpoint) = &body.event {
            self.file = checkpoint.file;
        }
        let id = DecisionId { file: self.file, line: body.n };
        self.live.apply(&body.event, body.time, LineAt { id, offset: self.length });
        self.last = body.n;
        self.last_hash = hash;
        self.synced = self.synced.max(body.synced);
        if let Event::Checkpoint(checkpoint) = &body.event {
            self.checkpoint = hash;
            if checkpoint.file > 1 {
                self.last_hash = previous(&body.prev)?;
            }
        }
        let is_continued = matches!(body.event, Event::Continued { .. });
        // The latest time, not the last: lines written under a clock that was set back prove nothing.
        self.last_time = match body.event {
            Event::ClockSetBack => body.time,
            _ if is_first => body.time,
            _ => self.last_time.max(body.time),
        };
        self.length += line.len() as u64;
        Some(is_continued)
    }
}

/// The hash of the line before, as a line contains it.
pub(super) fn previous(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).ok()?;
    Some(hash)
}

/// Whether these bytes contain a line of the broker's that knew this line to be on disk, or that comes before it.
fn was_on_disk(line: u64, rest: &[u8], keyring: &Keyring) -> bool {
    bodies(rest, keyring).any(|body| body.synced >= line || body.n <= line)
}

/// The whole lines of the broker's among these bytes.
fn bodies(text: &[u8], keyring: &Keyring) -> impl Iterator<Item = Body> {
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter_map(|line| Parts::tagged(line, keyring)?.parse().ok())
}

/// The place, from 1, of the first line among these bytes that the broker has written and this version cannot read. No
/// crash leaves such a line.
fn newer_line(text: &[u8], keyring: &Keyring) -> Option<u64> {
    let is_newer =
        |line: &[u8]| Parts::tagged(line, keyring).is_some_and(|parts| parts.parse().is_err());
    let place = text.split(|byte| *byte == b'\n').position(is_newer)?;
    Some(place as u64 + 1)
}

/// The highest formats that the newest file of a journal contains, in whatever state the file is; 0 if it contains no
/// formats. Changes nothing.
///
/// # Errors
/// If it cannot be read.
pub fn written_formats(directory: &Path, keyring: &Keyring) -> std::io::Result<Formats> {
    let Some(newest) = file_numbers(directory)?.pop() else { return Ok(Formats::default()) };
    let mut file = BufReader::new(File::open(directory.join(file_name(newest)))?);
    let (mut written, mut line) = (Formats::default(), Vec::new());
    while file.read_until(b'\n', &mut line)? > 0 {
        let body =
            Parts::tagged(&line, keyring).and_then(|parts| parts.parse_without_changes().ok());
        match body.map(|body| body.event) {
            Some(Event::Checkpoint(checkpoint)) => written = checkpoint.formats,
            Some(Event::Formats(formats)) => written = formats,
            _ => {}
        }
        line.clear();
    }
    Ok(written)
}

/// Copies the bad end into a file beside the journal, and cuts it off.
fn cut(path: &Path, length: u64, rest: &[u8]) -> std::io::Result<PathBuf> {
    let mut kept = path.with_extension("jsonl.torn");
    let mut count = 1;
    let mut file = loop {
        match OpenOptions::new().write(true).create_new(true).open(&kept) {
            Ok(file) => break file,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                count += 1;
                kept = path.with_extension(format!("jsonl.torn-{count}"));
            }
            Err(error) => return Err(error),
        }
    };
    file.write_all(rest)?;
    file.sync_all()?;
    let journal = OpenOptions::new().write(true).open(path)?;
    journal.set_len(length)?;
    journal.sync_all()?;
    Ok(kept)
}
