//! Finds the line of a decision, and the lines of runs.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use super::audience::Audience;
use super::error::ReadError;
use crate::journal::Journal;
use crate::journal::event::decision_id::{DecisionId, DecisionName};
use crate::journal::files::{file_name, file_numbers};
use crate::journal::state::index;
use crate::journal::state::usage::runs_in;
use crate::journal::state::use_counts::RunKey;
use crate::journal::write::line::{Body, Parts};
use crate::model::{ExecutorName, RunName, WorkflowName};

/// How many bytes are read at first to get one line: most lines are shorter.
const READ_BYTES: usize = 2048;

/// The runs to find.
#[derive(Clone, Copy, Debug)]
pub struct WhichRuns<'a> {
    /// Their name.
    pub run: &'a RunName,
    /// Their workflow; `None` for all.
    pub workflow: Option<&'a WorkflowName>,
    /// Their executor; `None` for all.
    pub executor: Option<&'a ExecutorName>,
}

impl WhichRuns<'_> {
    fn places<'a>(&self, runs: impl Iterator<Item = (&'a RunKey, &'a [u64])>) -> Vec<u64> {
        let own = runs.filter(|(key, _)| self.executor.is_none_or(|own| *own == key.executor));
        let mut places: Vec<u64> = own.flat_map(|(_, places)| places.iter().copied()).collect();
        places.sort_unstable();
        // A line may belong to several runs.
        places.dedup();
        places
    }
}

impl Journal {
    /// The line of a decision and its place, if it exists. Reads a little of one file: call it where blocking is
    /// allowed.
    ///
    /// # Errors
    /// If the file cannot be read, the journal hangs, or a newer keyhatch has written the line.
    pub fn find(&self, name: DecisionName) -> Result<Option<(DecisionId, Body)>, ReadError> {
        let Some(id) = name.place(&self.keyring) else { return Ok(None) };
        let (current, length, last) = {
            let chain = self.lock_to_read()?;
            (chain.number(), chain.length(), chain.last().0)
        };
        if id.file > current || id.line > last {
            return Ok(None);
        }
        let file = match File::open(self.directory.join(file_name(id.file))) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let end = if id.file == current { length } else { file.metadata()?.len() };
        let line = line_in(&file, end, id.line)?;
        let parts = line.as_deref().and_then(|line| Parts::tagged(line, &self.keyring));
        let body =
            parts.map(|parts| parts.parse().map_err(|_| ReadError::newer(id))).transpose()?;
        Ok(body.map(|body| (id, body)))
    }

    /// Every file with its length in bytes, oldest first.
    ///
    /// # Errors
    /// If the directory cannot be read, or the journal hangs.
    pub fn extent(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        let chain = self.lock_to_read()?;
        let mut files = Vec::new();
        for number in file_numbers(&self.directory)? {
            let path = self.directory.join(file_name(number));
            let length = match number == chain.number() {
                true => chain.length(),
                false => std::fs::metadata(&path)?.len(),
            };
            files.push((path, length));
        }
        Ok(files)
    }

    /// Passes the lines of some runs to `take`, oldest first, from all files. Reads files: call it where blocking is
    /// allowed.
    ///
    /// # Errors
    /// As `take`, or if a file cannot be read, a newer keyhatch has written a line, the journal hangs, or the caller no
    /// longer waits.
    pub fn run_lines<E: From<ReadError>>(
        &self,
        which: WhichRuns<'_>,
        is_cancelled: &dyn Fn() -> bool,
        mut take: impl FnMut(Body) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |error: io::Error| ReadError::from(error);
        let (current, places) = {
            let chain = self.lock_to_read().map_err(failed)?;
            let runs = chain.live().usage().runs(which.run, which.workflow);
            (chain.number(), which.places(runs))
        };
        let mut audience = Audience::new(is_cancelled);
        let files = file_numbers(&self.directory).map_err(failed)?;
        for file in files.into_iter().filter(|file| *file < current) {
            let index = index::load(&self.directory, &self.keyring, file, &mut audience);
            let index = index.map_err(ReadError::from)?;
            let places = which.places(runs_in(&index, which.run, which.workflow));
            drop(index);
            self.read_at(file, &places, &mut audience, &mut take)?;
        }
        self.read_at(current, &places, &mut audience, &mut take)
    }

    /// Passes on the lines at these offsets of a file. Lines that the broker has not written are left out.
    fn read_at<E: From<ReadError>>(
        &self,
        file: u64,
        offsets: &[u64],
        audience: &mut Audience<'_>,
        take: &mut impl FnMut(Body) -> Result<(), E>,
    ) -> Result<(), E> {
        if offsets.is_empty() {
            return Ok(());
        }
        let failed = |error: io::Error| ReadError::from(error);
        let opened = File::open(self.directory.join(file_name(file))).map_err(failed)?;
        let (mut reader, mut line, mut position) = (BufReader::new(opened), Vec::new(), 0);
        for offset in offsets {
            // Most offsets are near and ahead, so the buffer is used.
            let step = i64::try_from(*offset).unwrap_or(i64::MAX) - position;
            reader.seek_relative(step).map_err(failed)?;
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(failed)?;
            position += step + i64::try_from(read).unwrap_or(0);
            // A line that is alone in its block costs a block.
            audience.read_and_check(read.max(READ_BYTES) as u64).map_err(failed)?;
            let Some(parts) = Parts::tagged(&line, &self.keyring) else { continue };
            let newer = |_| {
                let line = number_of(&line).unwrap_or_default();
                ReadError::newer(DecisionId { file, line })
            };
            take(parts.parse().map_err(newer)?)?;
        }
        Ok(())
    }
}

/// The line of this number, without its newline, in the first `end` bytes of a file; `None` if it does not exist.
///
/// The numbers of lines go up by one, so a binary search finds any of them. The first line is no decision; it may be
/// very long, and is read once.
fn line_in(file: &File, end: u64, number: u64) -> io::Result<Option<Vec<u8>>> {
    let first = reader_at(file, 0)?.skip_until(b'\n')? as u64;
    // The line begins at `low` or later, and before `high`.
    let (mut low, mut high) = (first, end);
    while low < high {
        let middle = low + (high - low) / 2;
        let start = if middle == low { low } else { first_start(file, middle, high)? };
        if start >= high {
            high = middle;
            continue;
        }
        let line = line_at(file, start, end)?;
        match number_of(&line) {
            Some(found) if found == number => return Ok(Some(line)),
            Some(found) if found < number => low = start + line.len() as u64 + 1,
            Some(_) => high = middle,
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// The first start of a line at `from` or later, and at most `end`. `from` is not 0.
fn first_start(file: &File, from: u64, end: u64) -> io::Result<u64> {
    let before = from - 1;
    let mut reader = reader_at(file, before)?.take(end - before);
    Ok(before + reader.skip_until(b'\n')? as u64)
}

pub(super) fn line_at(file: &File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader_at(file, start)?.take(end.saturating_sub(start)).read_until(b'\n', &mut line)?;
    line.pop_if(|last| *last == b'\n');
    Ok(line)
}

fn reader_at(mut file: &File, start: u64) -> io::Result<BufReader<&File>> {
    file.seek(SeekFrom::Start(start))?;
    Ok(BufReader::with_capacity(READ_BYTES, file))
}

/// The number at the beginning of a line.
fn number_of(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"{\"n\":")?;
    let digits = rest.split(|byte| *byte == b',').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
