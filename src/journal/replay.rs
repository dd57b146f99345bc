//! Reading the journal at start: every line is checked, and a torn end is told from an edit.
//!
//! A crash can damage only what was not synced, and it can leave a line that was not synced whole after one
//! that it damaged: sectors reach the disk in any order. So lines say how far the journal was known to be on
//! disk when they were written. Damage that no later line knows to have been on disk is cut, kept beside
//! the file and journaled. Any other is somebody's doing, and the broker refuses to start.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chain::{Chain, End, file_name};
use super::event::Event;
use super::line::{Body, NO_PREVIOUS, Parts};
use super::live::Live;
use crate::model::Timestamp;
use crate::seal::Keyring;

/// Why the journal cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A file cannot be read or written.
    #[error("the journal: {0}")]
    Io(#[from] std::io::Error),
    /// There is no file.
    #[error("the journal directory {} holds no journal; restore it from a backup", .0.display())]
    Missing(PathBuf),
    /// A line was changed, removed or inserted.
    #[error(
        "line {line} of {} was changed, removed or inserted after it was written, so the journal proves \
         nothing; restore the state directory from a backup", .path.display()
    )]
    Tampered {
        /// The file.
        path: PathBuf,
        /// The line's number in it, from 1.
        line: u64,
    },
}

/// What reading found.
#[derive(Debug)]
pub struct Recovery {
    /// The last batch in force.
    pub head: u64,
    /// The last batch announced; the store may be as far as this.
    pub intent: u64,
    /// The last batch that is known never to have reached the store.
    pub abandoned: u64,
    /// When the last line was written.
    pub last_time: Timestamp,
    /// Where the cut end is kept, if there was one.
    pub torn: Option<PathBuf>,
}

/// Reads the newest file and opens it for appending.
pub(super) fn open(
    directory: &Path,
    keyring: Arc<Keyring>,
    now: Timestamp,
) -> Result<(Chain, Recovery), ReplayError> {
    let number = newest(directory)?.ok_or_else(|| ReplayError::Missing(directory.to_owned()))?;
    let path = directory.join(file_name(number));
    let mut text = Vec::new();
    File::open(&path)?.read_to_end(&mut text)?;

    let mut reader = Reader {
        last: 0,
        last_hash: NO_PREVIOUS,
        length: 0,
        synced: 0,
        last_time: now,
        live: Live::default(),
    };
    let mut lines = 0;
    let mut rest = text.as_slice();
    while let Some(taken) = reader.take(rest, &keyring, lines == 0) {
        rest = rest.get(taken..).unwrap_or_default();
        lines += 1;
    }
    let damaged = reader.last + 1;
    if !rest.is_empty() && was_on_disk(damaged, rest, &keyring) || lines == 0 {
        return Err(ReplayError::Tampered { path, line: lines + 1 });
    }
    let torn = (!rest.is_empty()).then(|| cut(&path, reader.length, rest)).transpose()?;
    let recovery = Recovery {
        head: reader.live.epoch(),
        intent: reader.live.intent(),
        abandoned: reader.live.abandoned(),
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
    };
    let mut chain = Chain::resume(end, keyring)?;
    if let Some(kept) = torn {
        let kept_as = kept.file_name().map(|name| name.to_string_lossy().into_owned());
        let event = Event::Torn { kept_as: kept_as.unwrap_or_default(), bytes: rest.len() as u64 };
        chain
            .append(now, &event)
            .map_err(|_| std::io::Error::other("the journal cannot be written"))?;
        chain.file()?.sync_data()?;
        chain.synced().reach(chain.last().0);
    }
    Ok((chain, recovery))
}

fn newest(directory: &Path) -> std::io::Result<Option<u64>> {
    let mut newest = None;
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jsonl")?.parse().ok());
        newest = newest.max(number);
    }
    Ok(newest)
}

struct Reader {
    last: u64,
    last_hash: [u8; 32],
    length: u64,
    synced: u64,
    last_time: Timestamp,
    live: Live,
}

impl Reader {
    /// Takes the first line of `rest`, if it is whole and follows on. Returns its length, with newline.
    fn take(&mut self, rest: &[u8], keyring: &Keyring, is_first: bool) -> Option<usize> {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let parts = Parts::split(rest.get(..end)?)?;
        let hash = parts.verified_hash()?;
        if !parts.is_tagged(keyring) {
            return None;
        }
        let body = parts.parse()?;
        let follows = body.n == self.last + 1 && body.prev == hex::encode(self.last_hash);
        let begins = is_first && matches!(body.event, Event::Checkpoint(_));
        // The first line of a later file names the last line of the one before, which is not read.
        if !(begins || (follows && !is_first)) {
            return None;
        }
        self.live.apply(&body.event, body.time, self.length);
        self.last = body.n;
        self.last_hash = hash;
        self.synced = self.synced.max(body.synced);
        // The latest, not the last: lines written under a clock that was set back prove nothing.
        self.last_time = match body.event {
            Event::ClockSetBack => body.time,
            _ if is_first => body.time,
            _ => self.last_time.max(body.time),
        };
        self.length += end as u64 + 1;
        Some(end + 1)
    }
}

/// Whether among these bytes stands a line that the broker wrote when it knew this line to be on disk, or
/// that stands before anything that can be missing.
fn was_on_disk(line: u64, rest: &[u8], keyring: &Keyring) -> bool {
    rest.split(|byte| *byte == b'\n').filter_map(Parts::split).any(|parts| {
        let vouches = |body: Body| body.synced >= line || body.n <= line;
        parts.is_tagged(keyring) && parts.parse().is_some_and(vouches)
    })
}

/// Keeps the bad end in a file of its own and cuts it off.
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
