//! The last lines of a tail, found from the journal's end: blocks of the newest file first.
//!
//! Only the positions of lines are kept. Many lines contain the id of an opening only. An earlier line names the step,
//! at the latest the checkpoint of the file.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::batch::{LinePosition, ReadBatch, Stopped};
use super::tail_filter::{KnownSteps, OfSteps, ReadLine, TailFilter};
use crate::journal::files::file_name;
use crate::model::Id;
use crate::seal::Keyring;

/// How many bytes are read at once; longer lines need more.
const BLOCK_BYTES: u64 = 64 * 1024;

/// A search for the last lines that pass a filter.
pub(super) struct Search {
    directory: PathBuf,
    keyring: Arc<Keyring>,
    filter: TailFilter,
    /// How many lines are wanted.
    count: usize,
    /// The files before the one that is read, oldest first.
    files: Vec<u64>,
    file: u64,
    lines: Backward,
    known: KnownSteps,
    found: Vec<LinePosition>,
    /// Lines that pass the filter, of openings that are not known yet.
    unsettled: HashMap<Id, Vec<LinePosition>>,
    /// Whether the rest of the file is copied from the file before.
    is_copied: bool,
    /// The last line that was read.
    reached: Option<Stopped>,
}

impl Search {
    pub(super) fn new(
        directory: PathBuf,
        keyring: Arc<Keyring>,
        filter: TailFilter,
        count: usize,
        (files, file, length): (Vec<u64>, u64, u64),
        known: KnownSteps,
    ) -> io::Result<Self> {
        let lines = Backward::of(File::open(directory.join(file_name(file)))?, length);
        let (found, unsettled) = (Vec::new(), HashMap::new());
        let (is_copied, reached) = (false, None);
        Ok(Self {
            directory,
            keyring,
            filter,
            count,
            files,
            file,
            lines,
            known,
            found,
            unsettled,
            is_copied,
            reached,
        })
    }

    /// Searches further back. Returns whether the search is complete.
    pub(super) fn step(&mut self, batch: &mut ReadBatch<'_>) -> io::Result<bool> {
        while self.found.len() < self.count || !self.unsettled.is_empty() {
            // Lines that are in memory already are searched first.
            if !self.lines.hold_one() && batch.is_full() {
                return Ok(false);
            }
            let Some((offset, text)) = self.lines.before(batch)? else {
                if !self.open_file_before()? {
                    return Ok(true);
                }
                continue;
            };
            if let Some(line) = ReadLine::parse(text, &self.keyring) {
                self.take(&line, LinePosition { file: self.file, offset });
            }
        }
        Ok(true)
    }

    /// The positions of the lines that were found, oldest first, and the last line that was read.
    pub(super) fn take_found(&mut self) -> (Vec<LinePosition>, Option<Stopped>) {
        let mut found = std::mem::take(&mut self.found);
        found.sort_unstable();
        let more = found.len().saturating_sub(self.count);
        (found.split_off(more), self.reached.take())
    }

    fn open_file_before(&mut self) -> io::Result<bool> {
        // The checkpoint was read: openings that are still unknown do not exist.
        self.unsettled.clear();
        self.known.clear();
        self.is_copied = false;
        let Some(file) = self.files.pop() else { return Ok(false) };
        let opened = File::open(self.directory.join(file_name(file)))?;
        let length = opened.metadata()?.len();
        (self.file, self.lines) = (file, Backward::of(opened, length));
        Ok(true)
    }

    fn take(&mut self, line: &ReadLine, place: LinePosition) {
        self.known.learn(&self.filter, line, true);
        self.settle(line);
        // A later file's checkpoint and first lines repeat what is in the file before.
        let has_before = !self.files.is_empty();
        let is_copied = self.is_copied || (has_before && line.event == "checkpoint");
        if !is_copied && self.filter.admits(line) {
            match self.filter.steps(line, &self.known) {
                OfSteps::Yes => self.found.push(place),
                OfSteps::No => {}
                OfSteps::Unknown(id) => self.unsettled.entry(id).or_default().push(place),
            }
        }
        self.reached = Some(Stopped { id: format!("{}.{}", self.file, line.n), time: line.time });
        self.is_copied |= has_before && line.event == "continued";
    }

    /// Places earlier lines whose openings are known now.
    fn settle(&mut self, line: &ReadLine) {
        if self.unsettled.is_empty() {
            return;
        }
        let ids: Vec<Id> = match line.event.as_str() {
            "checkpoint" => self.unsettled.keys().copied().collect(),
            _ => line.opening().into_iter().collect(),
        };
        for id in ids {
            let Some(is_one) = self.known.get(id) else { continue };
            let places = self.unsettled.remove(&id).unwrap_or_default();
            self.found.extend(places.into_iter().filter(|_| is_one));
        }
    }
}

/// The lines of a file, last line first.
pub(super) struct Backward {
    file: File,
    /// The end of the lines that were not read yet.
    end: u64,
    /// The block that was read last, and its start.
    block: Vec<u8>,
    start: u64,
}

impl Backward {
    /// Begins at `end`, which is the end of a line.
    pub(super) fn of(file: File, end: u64) -> Self {
        Self { file, end, block: Vec::new(), start: end }
    }

    /// Whether the next line is in memory.
    fn hold_one(&self) -> bool {
        let before_newline = (self.end - self.start).saturating_sub(1);
        self.block.get(..length(before_newline)).is_some_and(|unread| unread.contains(&b'\n'))
    }

    /// The next line, without its newline, and where it begins.
    fn before(&mut self, batch: &mut ReadBatch<'_>) -> io::Result<Option<(u64, &[u8])>> {
        if self.end == 0 {
            return Ok(None);
        }
        let begin = loop {
            let before_newline = (self.end - self.start).saturating_sub(1);
            let unread = self.block.get(..length(before_newline)).unwrap_or_default();
            match unread.iter().rposition(|byte| *byte == b'\n') {
                Some(newline) => break self.start + newline as u64 + 1,
                None if self.start == 0 => break 0,
                None => self.read_block(batch)?,
            }
        };
        let line = length(begin - self.start)..length((self.end - self.start).saturating_sub(1));
        self.end = begin;
        Ok(Some((begin, self.block.get(line).unwrap_or_default())))
    }

    /// Reads the block before. For a line that is longer than a block, each block is twice as long.
    fn read_block(&mut self, batch: &mut ReadBatch<'_>) -> io::Result<()> {
        let held = self.end - self.start;
        let bytes = BLOCK_BYTES.max(2 * held).min(self.end);
        self.start = self.end - bytes;
        self.block.resize(length(bytes), 0);
        self.block.shrink_to(length(BLOCK_BYTES.max(bytes)));
        self.file.read_exact_at(&mut self.block, self.start)?;
        batch.read(bytes);
        Ok(())
    }
}

fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
