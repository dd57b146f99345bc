//! The end of the journal: where the next line goes.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::event::{Checkpoint, Event};
use super::live::Live;
use super::sync::Synced;
use super::{Position, Unavailable, line};
use crate::model::Timestamp;
use crate::seal::Keyring;

/// The format of the lines.
pub(super) const FORMAT: u32 = 1;

/// The name of a file by its number.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:06}.jsonl")
}

/// Makes the first file, with its checkpoint, on disk when this returns.
pub(super) fn create(directory: &Path, keyring: &Keyring, now: Timestamp) -> std::io::Result<()> {
    let path = directory.join(file_name(1));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let checkpoint = Checkpoint { format: FORMAT, file: 1, ..Checkpoint::default() };
    let event = Event::Checkpoint(Box::new(checkpoint));
    let mut buffer = Vec::new();
    line::write(&mut buffer, keyring, 1, now, &event, &line::NO_PREVIOUS, 0)?;
    file.write_all(&buffer)?;
    file.sync_all()?;
    File::open(directory)?.sync_all()
}

/// The open end of the chain, and what is live by it.
pub(super) struct Chain {
    file: File,
    path: PathBuf,
    number: u64,
    /// The last line's number.
    last: u64,
    last_hash: [u8; 32],
    /// How many bytes of the file are whole lines.
    length: u64,
    synced: Synced,
    buffer: Vec<u8>,
    keyring: Arc<Keyring>,
    live: Live,
    /// A line was torn and could not be cut off: nothing may follow it.
    is_torn: bool,
}

/// Where reading ended.
pub(super) struct End {
    pub(super) path: PathBuf,
    pub(super) number: u64,
    pub(super) last: u64,
    pub(super) last_hash: [u8; 32],
    pub(super) length: u64,
    pub(super) synced: u64,
    pub(super) live: Live,
}

impl Chain {
    /// Opens the file for appending where reading ended.
    pub(super) fn resume(end: End, keyring: Arc<Keyring>) -> std::io::Result<Self> {
        let file = OpenOptions::new().append(true).open(&end.path)?;
        Ok(Self {
            file,
            path: end.path,
            number: end.number,
            last: end.last,
            last_hash: end.last_hash,
            length: end.length,
            synced: Synced::from(end.synced),
            buffer: Vec::with_capacity(4096),
            keyring,
            live: end.live,
            is_torn: false,
        })
    }

    /// Writes one line, with one write(2), and applies it to what is live.
    pub(super) fn append(
        &mut self,
        now: Timestamp,
        event: &Event,
    ) -> Result<Position, Unavailable> {
        self.append_all(now, std::slice::from_ref(event))
    }

    /// Writes lines, with one write(2) for all of them, and applies them to what is live: all or none.
    /// Returns where the first of them stands.
    pub(super) fn append_all(
        &mut self,
        now: Timestamp,
        events: &[Event],
    ) -> Result<Position, Unavailable> {
        if self.is_torn {
            return Err(Unavailable);
        }
        self.buffer.clear();
        let (first, mut n, mut hash) = (self.last + 1, self.last, self.last_hash);
        let mut offsets = Vec::with_capacity(events.len());
        for event in events {
            offsets.push(self.length + self.buffer.len() as u64);
            n += 1;
            let (buffer, synced) = (&mut self.buffer, self.synced.line());
            hash = line::write(buffer, &self.keyring, n, now, event, &hash, synced)
                .map_err(|_| Unavailable)?;
        }
        match self.file.write(&self.buffer) {
            Ok(written) if written == self.buffer.len() => {}
            outcome => {
                self.cut_back(outcome.err());
                return Err(Unavailable);
            }
        }
        self.length += self.buffer.len() as u64;
        (self.last, self.last_hash) = (n, hash);
        for (event, offset) in events.iter().zip(offsets) {
            self.live.apply(event, now, offset);
        }
        Ok(Position(first))
    }

    /// Cuts off what a failed write left. If that fails too, nothing is written from then on.
    fn cut_back(&mut self, error: Option<std::io::Error>) {
        let cause = error.map_or_else(|| "short write".to_owned(), |error| error.to_string());
        self.is_torn = self.file.set_len(self.length).is_err();
        tracing::error!(
            journal.file = %self.path.display(),
            error = %cause,
            final_failure = self.is_torn,
            "the journal cannot be written: nothing is resolved or changed; free space on its disk"
        );
    }

    pub(super) fn is_torn(&self) -> bool {
        self.is_torn
    }

    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    pub(super) fn live_mut(&mut self) -> &mut Live {
        &mut self.live
    }

    /// The same open file, for the sync thread.
    pub(super) fn file(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }

    /// How far the file is known to be on disk.
    pub(super) fn synced(&self) -> &Synced {
        &self.synced
    }

    /// The file's number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn last(&self) -> Position {
        Position(self.last)
    }

    pub(super) fn decision_id(&self, position: Position) -> String {
        format!("{}.{}", self.number, position.0)
    }

    pub(super) fn last_id(&self) -> String {
        format!("{}.{}", self.number, self.last)
    }
}
