//! Reads the journal in batches, as it grows.
//!
//! A reader is asked for the next batch again and again, so that no thread is held while a client is slow.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize as _;

use super::backward::Search;
use super::batch::{LinePosition, ReadBatch, Stopped};
use super::find::line_at;
use super::tail_filter::{KnownSteps, OfSteps, ReadLine, TailFilter, TailLine};
use crate::journal::Journal;
use crate::journal::files::{file_name, file_numbers};
use crate::model::Timestamp;
use crate::seal::Keyring;

/// The head of a line contains its number and its time.
const HEAD_BYTES: u64 = 128;

/// The result of reading one batch.
#[derive(Debug, Default)]
pub struct TailRead {
    /// The lines that pass the filter.
    pub lines: Vec<TailLine>,
    /// Where the reader has stopped, if there is more that it may not read.
    pub stopped: Option<Stopped>,
    /// Nothing more is written yet; with `stopped`, the reader reads no more.
    pub is_end: bool,
}

/// A reader of the journal.
pub struct TailReader {
    phase: Phase,
    /// Reads the lines that follow, when the other phases are over.
    follower: Follower,
    /// How many more bytes may be read.
    left: u64,
}

enum Phase {
    /// Searches for the positions of the last lines.
    Search(Box<Search>),
    /// Reads the lines at these positions, oldest first.
    Places(std::vec::IntoIter<LinePosition>),
    Forward,
}

impl Journal {
    /// A reader of the last `count` lines that pass a filter, or of all lines since its time, and of those that follow.
    /// It reads at most `bytes` of what is written already.
    ///
    /// # Errors
    /// If a file cannot be read, or the journal hangs.
    pub fn begin_tail(
        &self,
        filter: &TailFilter,
        count: usize,
        bytes: u64,
    ) -> io::Result<TailReader> {
        let files = file_numbers(&self.directory)?;
        if let Some(since) = filter.since {
            let file = self.first_since(&files, since)?;
            let follower = self.follow_from(filter, file);
            return Ok(TailReader { phase: Phase::Forward, follower, left: bytes });
        }
        let follower = self.follow_from_end(filter)?;
        let (file, offset) = (follower.file, follower.offset);
        let before = files.into_iter().filter(|other| *other < file).collect();
        let (directory, keyring) = (self.directory.clone(), Arc::clone(&self.keyring));
        let (known, end) = (follower.known.clone(), (before, file, offset));
        let search = Search::new(directory, keyring, filter.clone(), count, end, known)?;
        Ok(TailReader { phase: Phase::Search(Box::new(search)), follower, left: bytes })
    }

    /// The file that contains the first line since a time.
    fn first_since(&self, files: &[u64], since: Timestamp) -> io::Result<u64> {
        let mut file = files.last().copied().unwrap_or(1);
        for before in files.iter().rev().skip(1) {
            // If this file begins before that time, older files are not needed.
            if first_time(&self.directory, file)?.is_some_and(|time| time < since) {
                break;
            }
            file = *before;
        }
        Ok(file)
    }

    fn follow_from(&self, filter: &TailFilter, file: u64) -> Follower {
        Follower {
            directory: self.directory.clone(),
            keyring: Arc::clone(&self.keyring),
            filter: filter.clone(),
            known: KnownSteps::default(),
            file,
            offset: 0,
            last: 0,
        }
    }

    /// A reader that begins with the next line that is written.
    fn follow_from_end(&self, filter: &TailFilter) -> io::Result<Follower> {
        let chain = self.lock_to_read()?;
        let mut known = KnownSteps::default();
        for key in chain.live().openings().map(|opening| opening.record()) {
            if filter.has_steps() && filter.is_of(key.key.workflow.as_str(), key.key.run.as_str()) {
                known.insert(key.id);
            }
        }
        let (offset, last) = (chain.length(), chain.last().0);
        let follower = self.follow_from(filter, chain.number());
        Ok(Follower { known, offset, last, ..follower })
    }
}

/// When a file was begun; `None` if its first line does not contain it.
fn first_time(directory: &Path, file: u64) -> io::Result<Option<Timestamp>> {
    let mut head = Vec::new();
    File::open(directory.join(file_name(file)))?.take(HEAD_BYTES).read_to_end(&mut head)?;
    let text = String::from_utf8_lossy(&head);
    let time = text.split_once("\"time\":\"").and_then(|(_, rest)| rest.split_once('"'));
    Ok(time.and_then(|(time, _)| Timestamp::deserialize(&serde_json::Value::from(time)).ok()))
}

impl TailReader {
    /// The number of the last line that was read, once the reader follows.
    pub fn last(&self) -> u64 {
        self.follower.last
    }

    /// Reads one batch. Reads files: call it where blocking is allowed.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn read(&mut self, is_cancelled: &dyn Fn() -> bool) -> io::Result<TailRead> {
        let mut batch = ReadBatch::new(self.left, is_cancelled);
        let mut read = TailRead::default();
        match &mut self.phase {
            Phase::Search(search) => {
                let is_found = search.step(&mut batch)?;
                self.left = self.left.saturating_sub(batch.bytes);
                if is_found || self.left == 0 {
                    let (places, reached) = search.take_found();
                    read.stopped = reached.filter(|_| !is_found);
                    self.phase = Phase::Places(places.into_iter());
                }
            }
            Phase::Places(places) => {
                self.follower.read_at(places, &mut batch)?;
                if places.as_slice().is_empty() {
                    self.phase = Phase::Forward;
                    self.left = u64::MAX;
                    read.is_end = true;
                }
            }
            Phase::Forward => {
                let (is_end, reached) = self.follower.read(&mut batch)?;
                self.left = self.left.saturating_sub(batch.bytes - batch.skipped);
                // From here on there is only as much to read as is written.
                self.left = if is_end { u64::MAX } else { self.left };
                read.stopped = reached.filter(|_| self.left == 0);
                read.is_end = is_end || self.left == 0;
            }
        }
        read.lines = batch.lines;
        Ok(read)
    }
}

/// Reads lines in order, from file to file.
struct Follower {
    directory: PathBuf,
    keyring: Arc<Keyring>,
    filter: TailFilter,
    known: KnownSteps,
    file: u64,
    offset: u64,
    /// The last line that was read. Copies of it in the next file are left out.
    last: u64,
}

impl Follower {
    /// Reads on. Returns whether the end is reached, and the last line that was read.
    fn read(&mut self, batch: &mut ReadBatch<'_>) -> io::Result<(bool, Option<Stopped>)> {
        let mut reached = None;
        loop {
            // Checked before the file is read: a file that has a next file gets no more lines.
            let has_next = self.directory.join(file_name(self.file + 1)).exists();
            let mut reader = BufReader::new(File::open(self.directory.join(file_name(self.file)))?);
            reader.seek(SeekFrom::Start(self.offset))?;
            let mut line = Vec::new();
            while !batch.is_full() {
                line.clear();
                let read = reader.read_until(b'\n', &mut line)? as u64;
                // The end, or a line that is still being written.
                let Some(text) = line.strip_suffix(b"\n") else { break };
                self.offset += read;
                batch.read(read);
                let Some(line) = ReadLine::parse(text, &self.keyring) else { continue };
                // These lines do not count. They are fewer than a file has, because reading begins where a file begins.
                if self.filter.since.is_some_and(|since| line.time < since) {
                    batch.skipped += read;
                }
                let id = format!("{}.{}", self.file, line.n);
                reached = Some(Stopped { id, time: line.time });
                self.take(line, batch);
            }
            if batch.is_full() {
                return Ok((false, reached));
            }
            if !has_next {
                return Ok((true, reached));
            }
            (self.file, self.offset) = (self.file + 1, 0);
        }
    }

    fn take(&mut self, line: ReadLine, batch: &mut ReadBatch<'_>) {
        // A later file's first line has the number of a line before it.
        let is_new = line.n > self.last || (line.event == "checkpoint" && line.n >= self.last);
        self.last = self.last.max(line.n);
        // From every line, because lines that do not pass the filter tell which step an opening is.
        self.known.learn(&self.filter, &line, false);
        let is_asked_for = is_new
            && self.filter.admits(&line)
            && self.filter.steps(&line, &self.known) == OfSteps::Yes;
        if is_asked_for {
            batch.push(line.into_tail_line(self.file));
        }
    }

    /// Reads the lines at these positions, which pass the filter.
    fn read_at(
        &self,
        places: &mut std::vec::IntoIter<LinePosition>,
        batch: &mut ReadBatch<'_>,
    ) -> io::Result<()> {
        let mut open: Option<(u64, File)> = None;
        while !batch.is_full()
            && let Some(place) = places.next()
        {
            let file = match open.take().filter(|(number, _)| *number == place.file) {
                Some((_, file)) => file,
                None => File::open(self.directory.join(file_name(place.file)))?,
            };
            let line = line_at(&file, place.offset, u64::MAX)?;
            batch.read(line.len() as u64);
            open = Some((place.file, file));
            if let Some(line) = ReadLine::parse(&line, &self.keyring) {
                batch.push(line.into_tail_line(place.file));
            }
        }
        Ok(())
    }
}
