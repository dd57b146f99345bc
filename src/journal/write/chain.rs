//! The end of the journal, where the next line is written.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};

use super::disk_reserve::{DiskReserve, free_bytes};
use super::line;
use super::line::NO_PREVIOUS;
use super::signature::SignedRange;
use super::status::Unsynced;
use super::sync::Synced;
use super::watchdog::Pulse;
use crate::journal::event::{Checkpoint, Event, FORMAT};
use crate::journal::files::file_name;
use crate::journal::state::live::Live;
use crate::journal::state::use_counts::LineAt;
use crate::journal::{DecisionId, Position, Unavailable};
use crate::model::limits::MIN_FREE_BYTES;
use crate::model::{Formats, LogLimit, Timestamp};
use crate::seal::Keyring;

/// With less room than this after the last line, the disk counts as full.
const LINES_BYTES: u64 = 64 * 1024;

/// Makes the first file, with its checkpoint, and syncs it.
pub(crate) fn create(directory: &Path, keyring: &Keyring, now: Timestamp) -> std::io::Result<()> {
    let path = directory.join(file_name(1));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let formats = Formats::CURRENT;
    let checkpoint = Checkpoint { format: FORMAT, file: 1, formats, ..Checkpoint::default() };
    let event = Event::Checkpoint(Box::new(checkpoint));
    let mut buffer = Vec::new();
    line::write(&mut buffer, keyring, 1, now, &event, &NO_PREVIOUS, 0)?;
    file.write_all(&buffer)?;
    file.sync_all()?;
    File::open(directory)?.sync_all()
}

/// The open end of the chain, and the state that its lines add up to.
pub(crate) struct Chain {
    file: File,
    path: PathBuf,
    number: u64,
    /// The number of the last line.
    last: u64,
    last_hash: [u8; 32],
    /// The length of all whole lines, in bytes.
    length: u64,
    synced: Synced,
    written: Synced,
    unsynced: Unsynced,
    buffer: Vec<u8>,
    keyring: Arc<Keyring>,
    live: Live,
    /// The hash of the file's first line.
    checkpoint: [u8; 32],
    reserve: DiskReserve,
    pulse: Arc<Pulse>,
    /// Why lines are refused that are not for the reserve.
    trouble: Option<Trouble>,
    /// Nothing may be written any more: a torn line could not be cut off, or the file is gone.
    is_over: bool,
}

/// A fault of the disk, for as long as it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// The last write has failed; the next may succeed.
    Failing,
    /// There is no room for more lines.
    Full,
}

/// A file that is ready to be the next.
pub(crate) struct NextFile {
    pub(crate) file: File,
    /// Its path until then.
    pub(crate) unfinished: PathBuf,
    pub(crate) path: PathBuf,
    pub(crate) number: u64,
    pub(crate) length: u64,
    /// The hash of its first line.
    pub(crate) checkpoint: [u8; 32],
}

/// Where reading has ended.
pub(crate) struct End {
    pub(crate) path: PathBuf,
    pub(crate) number: u64,
    pub(crate) last: u64,
    pub(crate) last_hash: [u8; 32],
    pub(crate) length: u64,
    pub(crate) synced: u64,
    pub(crate) live: Live,
    pub(crate) checkpoint: [u8; 32],
}

impl Chain {
    /// Opens the file for appending.
    pub(crate) fn resume(
        end: End,
        keyring: Arc<Keyring>,
        pulse: Arc<Pulse>,
        now: Timestamp,
    ) -> std::io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).open(&end.path)?;
        let reserve = DiskReserve::open(end.path.parent().unwrap_or(&end.path));
        Ok(Self {
            file,
            path: end.path,
            number: end.number,
            last: end.last,
            last_hash: end.last_hash,
            length: end.length,
            synced: Synced::from(end.synced),
            written: Synced::from(end.last),
            unsynced: Unsynced::new(now),
            buffer: Vec::with_capacity(4096),
            keyring,
            live: end.live,
            checkpoint: end.checkpoint,
            reserve,
            pulse,
            trouble: None,
            is_over: false,
        })
    }

    /// Writes one line, with one write(2), and applies it.
    pub(crate) fn append(
        &mut self,
        now: Timestamp,
        event: &Event,
    ) -> Result<Position, Unavailable> {
        self.append_all(now, std::slice::from_ref(event))
    }

    /// Writes lines, with one write(2) for all of them, and applies them: all or none. Returns the position of the
    /// first.
    pub(crate) fn append_all(
        &mut self,
        now: Timestamp,
        events: &[Event],
    ) -> Result<Position, Unavailable> {
        if events.is_empty() {
            return Ok(Position(self.last + 1));
        }
        if self.is_over || !self.may_write(events) {
            return Err(Unavailable);
        }
        self.buffer.clear();
        let (first, mut n, mut hash) = (self.last + 1, self.last, self.last_hash);
        let mut places = Vec::with_capacity(events.len());
        for event in events {
            let offset = self.length + self.buffer.len() as u64;
            n += 1;
            places.push(LineAt { id: DecisionId { file: self.number, line: n }, offset });
            let (buffer, synced) = (&mut self.buffer, self.synced.line());
            hash = line::write(buffer, &self.keyring, n, now, event, &hash, synced)
                .map_err(|_| Unavailable)?;
        }
        self.write_buffer(events)?;
        self.length += self.buffer.len() as u64;
        (self.last, self.last_hash) = (n, hash);
        self.written.reach(n);
        self.unsynced.wrote(first, self.synced.line(), now);
        for (event, at) in events.iter().zip(places) {
            self.live.apply(event, now, at);
        }
        Ok(Position(first))
    }

    /// The rest of a full disk is for lines that take access away.
    fn may_write(&self, events: &[Event]) -> bool {
        let is_full = self.reserve.is_given_up() || self.trouble == Some(Trouble::Full);
        !is_full || events.iter().all(Event::is_for_reserve)
    }

    /// Writes the buffer to the file. On a full disk, lines that may use the reserve release it.
    fn write_buffer(&mut self, events: &[Event]) -> Result<(), Unavailable> {
        let may_use_reserve = events.iter().all(Event::is_for_reserve);
        loop {
            let written = {
                let _beat = self.pulse.begin(&self.pulse.write);
                self.file.write(&self.buffer)
            };
            let error = match written {
                Ok(length) if length == self.buffer.len() => {
                    self.trouble.take_if(|trouble| *trouble == Trouble::Failing);
                    return Ok(());
                }
                // A disk that is nearly full takes a part of it.
                Ok(_) => ErrorKind::StorageFull.into(),
                Err(error) => error,
            };
            let is_full = is_full(&error);
            self.trouble = Some(if is_full { Trouble::Full } else { Trouble::Failing });
            self.cut_back(&error);
            if !(is_full && may_use_reserve && !self.is_over && self.reserve.release()) {
                return Err(Unavailable);
            }
        }
    }

    /// Cuts off what a failed write left. If that fails too, nothing is written from then on.
    fn cut_back(&mut self, error: &std::io::Error) {
        static LIMIT: LogLimit = LogLimit::new(1);
        self.is_over |= self.file.set_len(self.length).is_err();
        if let Some(suppressed) = LIMIT.allow() {
            tracing::error!(
                journal.file = %self.path.display(),
                %error,
                final_failure = self.is_over,
                suppressed,
                "the journal cannot be written: nothing is resolved or changed; free space on its disk"
            );
        }
    }

    /// Writes nothing from now on.
    pub(crate) fn stop(&mut self) {
        self.is_over = true;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether any line can be written, and not only lines that the reserve is for.
    pub(crate) fn is_open_to_all(&self) -> bool {
        !self.is_over && !self.reserve.is_given_up() && self.trouble.is_none()
    }

    /// Takes the reserve again if there is room, and checks that there is room for lines. Returns whether the last
    /// write failed for another cause: only another write shows that the fault is gone.
    pub(crate) fn check_disk(&mut self) -> bool {
        self.reserve.restore();
        let is_known_full = self.trouble == Some(Trouble::Full);
        if is_known_full || free_bytes(self.path.parent().unwrap_or(&self.path)) < MIN_FREE_BYTES {
            // Allocated, because root may use more of the disk than others see as free.
            match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.length, LINES_BYTES) {
                Err(error) if is_full(&error.into()) => self.trouble = Some(Trouble::Full),
                _ if is_known_full => self.trouble = None,
                _ => {}
            }
        }
        !self.is_over && self.trouble == Some(Trouble::Failing)
    }

    pub(super) fn reserve_mut(&mut self) -> &mut DiskReserve {
        &mut self.reserve
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The length of all whole lines, in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The lines that a signature covers: everything up to here.
    pub(crate) fn signed_range(&self) -> SignedRange {
        SignedRange {
            file: self.number,
            checkpoint: self.checkpoint,
            line: self.last,
            hash: self.last_hash,
        }
    }

    /// Continues in another file, which has copies of the last lines, and writes there that it does. If that fails, the
    /// chain stays in the old file.
    pub(super) fn continue_in(
        &mut self,
        next: NextFile,
        now: Timestamp,
    ) -> Result<File, Unavailable> {
        let (before, line) = (self.number, self.last);
        let old = (
            std::mem::replace(&mut self.file, next.file),
            std::mem::replace(&mut self.path, next.path),
            std::mem::replace(&mut self.number, next.number),
            std::mem::replace(&mut self.length, next.length),
            std::mem::replace(&mut self.checkpoint, next.checkpoint),
        );
        let (last, last_hash) = (self.last, self.last_hash);
        let continued = self.append(now, &Event::Continued { file: before, line });
        if continued.is_ok() && std::fs::rename(next.unfinished, &self.path).is_ok() {
            return Ok(old.0);
        }
        (self.file, self.path, self.number, self.length, self.checkpoint) = old;
        (self.last, self.last_hash) = (last, last_hash);
        Err(Unavailable)
    }

    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    pub(crate) fn live_mut(&mut self) -> &mut Live {
        &mut self.live
    }

    /// The descriptor of the file in this process.
    pub(crate) fn descriptor(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// The same open file, for the sync thread.
    pub(crate) fn file(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }

    /// How far lines are known to be on disk.
    pub(crate) fn synced(&self) -> &Synced {
        &self.synced
    }

    /// How far lines are written.
    pub(crate) fn written(&self) -> &Synced {
        &self.written
    }

    /// Since when lines wait for the disk.
    pub(crate) fn unsynced(&self) -> Unsynced {
        self.unsynced
    }

    /// The number of the file.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn last(&self) -> Position {
        Position(self.last)
    }

    /// The place of the next line.
    pub(crate) fn next_decision_id(&self) -> DecisionId {
        self.decision_id(Position(self.last + 1))
    }

    pub(crate) fn decision_id(&self, position: Position) -> DecisionId {
        DecisionId { file: self.number, line: position.0 }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
