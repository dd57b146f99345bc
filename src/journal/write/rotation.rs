//! Continues a full file in the next file.
//!
//! ```text
//! 000001.jsonl   … m ………………… L            L says "rotated"
//! 000002.jsonl   checkpoint   (what was live after line m; n = m, prev = hash of m)
//!                m+1 … L      (copies)
//!                L+1          (continued: the file's first own line)
//! ```
//!
//! The checkpoint is written while lines are still written to the old file. Only lines that come meanwhile are copied,
//! and only the last few of them under the chain lock. The old file is in force until the new file has its name. A new
//! file without "continued", left by a crash, never was in force.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::chain::NextFile;
use super::line;
use super::signature::SignedRange;
use crate::journal::Journal;
use crate::journal::event::{Checkpoint, Event};
use crate::journal::files::file_name;
use crate::journal::state::index;
use crate::model::Timestamp;

/// How many bytes are copied at once.
const PIECE_BYTES: usize = 256 * 1024;
/// How many bytes may be left to be copied under the lock.
const LAST_BYTES: u64 = 64 * 1024;

impl Journal {
    /// Continues in a new file if the current file is full. Returns whether it did. Reads and writes files: call it
    /// where blocking is allowed, and never twice at once.
    ///
    /// # Errors
    /// If the new file cannot be written. The old file stays in use then.
    pub fn rotate_if_full(&self, now: Timestamp) -> std::io::Result<bool> {
        let unavailable = |_| std::io::Error::other("the journal cannot be written");
        let (checkpoint, range, old, offset) = {
            let chain = self.lock().map_err(unavailable)?;
            if chain.length() < self.options.file_bytes {
                return Ok(false);
            }
            let checkpoint = chain.live().checkpoint(chain.number() + 1);
            (checkpoint, chain.signed_range(), chain.file()?, chain.length())
        };
        let number = checkpoint.file;
        let ready = self.begin_file(checkpoint, range, now)?;
        let mut next = Copying { old, offset, ready };
        next.catch_up(|| Ok(self.lock().map_err(unavailable)?.length()))?;

        let mut chain = self.lock().map_err(unavailable)?;
        chain.append(now, &Event::Rotated { file: number }).map_err(unavailable)?;
        next.copy_to(chain.length())?;
        let old_number = chain.number();
        let Copying { old, ready, .. } = next;
        let finished = chain.live_mut().usage_mut().take_file();
        if let Err(error) = chain.continue_in(ready, now) {
            chain.live_mut().usage_mut().put_back(finished);
            return Err(unavailable(error));
        }
        chain.live_mut().usage_mut().add_history(&finished);
        self.sync.switch(chain.file()?, vec![old, File::open(&self.directory)?]);
        drop(chain);
        tracing::info!(journal.file = number, "the journal continues in a new file");
        index::save(&self.directory, &self.keyring, old_number, &finished)?;
        Ok(true)
    }

    /// Makes a new file with its checkpoint, which replaces all lines up to the end of `range`.
    fn begin_file(
        &self,
        checkpoint: Checkpoint,
        range: SignedRange,
        now: Timestamp,
    ) -> std::io::Result<NextFile> {
        let number = checkpoint.file;
        let path = self.directory.join(file_name(number));
        let unfinished = path.with_extension("jsonl.new");
        let mut file = create(&unfinished)?;
        let (mut buffer, event) = (Vec::new(), Event::Checkpoint(Box::new(checkpoint)));
        let keyring = &self.keyring;
        let hash = line::write(&mut buffer, keyring, range.line, now, &event, &range.hash, 0)?;
        file.write_all(&buffer)?;
        // The bulk of it is synced while no line waits.
        file.sync_all()?;
        let length = buffer.len() as u64;
        Ok(NextFile { file, unfinished, path, number, length, checkpoint: hash })
    }
}

/// A new file with the lines copied so far.
struct Copying {
    old: File,
    /// How far the old file is copied, in bytes.
    offset: u64,
    ready: NextFile,
}

impl Copying {
    /// Copies lines that are written meanwhile, until little is left.
    fn catch_up(&mut self, length: impl Fn() -> std::io::Result<u64>) -> std::io::Result<()> {
        loop {
            let end = length()?;
            if end - self.offset <= LAST_BYTES {
                return Ok(());
            }
            self.copy_to(end)?;
            self.ready.file.sync_data()?;
        }
    }

    fn copy_to(&mut self, end: u64) -> std::io::Result<()> {
        let mut buffer = vec![0; PIECE_BYTES];
        while self.offset < end {
            let left = usize::try_from(end - self.offset).unwrap_or(PIECE_BYTES);
            let piece = buffer.get_mut(..left.min(PIECE_BYTES)).unwrap_or_default();
            self.old.read_exact_at(piece, self.offset)?;
            self.ready.file.write_all(piece)?;
            self.offset += piece.len() as u64;
            self.ready.length += piece.len() as u64;
        }
        Ok(())
    }
}

fn create(path: &Path) -> std::io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(path)
}
