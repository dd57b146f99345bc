//! Looking a line up again, for whoever asks why.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use super::Journal;
use super::chain::file_name;
use super::index::{self, RunKey};
use super::line::{Body, Parts, Unread};
use super::replay::file_numbers;
use super::usage::runs_in;
use crate::model::{ExecutorName, RunName, WorkflowName};
use crate::seal::Keyring;

/// Which runs somebody asks for.
#[derive(Clone, Copy, Debug)]
pub struct WhichRuns<'a> {
    /// Their name.
    pub run: &'a RunName,
    /// Of one workflow, or all.
    pub workflow: Option<&'a WorkflowName>,
    /// Of one executor, or all.
    pub executor: Option<&'a ExecutorName>,
}

impl WhichRuns<'_> {
    fn places<'a>(&self, runs: impl Iterator<Item = (&'a RunKey, &'a [u64])>) -> Vec<u64> {
        let own = runs.filter(|(key, _)| self.executor.is_none_or(|own| *own == key.executor));
        let mut places: Vec<u64> = own.flat_map(|(_, places)| places.iter().copied()).collect();
        places.sort_unstable();
        places
    }
}

impl Journal {
    /// The line of a decision id, "FILE.LINE", if there is one. Reads the file: call it where waiting is
    /// allowed.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn find(&self, decision_id: &str) -> std::io::Result<Option<Body>> {
        match parse_id(decision_id) {
            Some(place) => find(&self.directory, &self.keyring, place),
            None => Ok(None),
        }
    }

    /// Every file, oldest first, and how long it is now.
    ///
    /// # Errors
    /// If the directory cannot be read, or the journal hangs.
    pub fn extent(&self) -> std::io::Result<Vec<(PathBuf, u64)>> {
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

    /// The lines of some runs, from all files, oldest first; none if there are no such runs. Reads files: call
    /// it where waiting is allowed.
    ///
    /// # Errors
    /// If a file cannot be read, or the journal hangs.
    pub fn run_lines(&self, which: WhichRuns<'_>) -> std::io::Result<Vec<Body>> {
        let (current, places) = {
            let chain = self.lock_to_read()?;
            let runs = chain.live().usage().runs(which.run, which.workflow);
            (chain.number(), which.places(runs))
        };
        let mut lines = Vec::new();
        for file in file_numbers(&self.directory)?.into_iter().filter(|file| *file < current) {
            let index =
                index::load(&self.directory, &self.keyring, file).map_err(std::io::Error::other)?;
            let places = which.places(runs_in(&index, which.run, which.workflow));
            lines.extend(read_at(&self.directory, &self.keyring, file, &places)?);
        }
        lines.extend(read_at(&self.directory, &self.keyring, current, &places)?);
        Ok(lines)
    }
}

/// The line of a decision id, "FILE.LINE"; none if there is no such line, or it is not one that the broker
/// wrote. Reads the file up to the line: call it where waiting is allowed.
///
/// # Errors
/// If the file cannot be read.
fn find(
    directory: &Path,
    keyring: &Keyring,
    (file, number): (u64, u64),
) -> std::io::Result<Option<Body>> {
    let path = directory.join(file_name(file));
    let mut reader = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let start = format!("{{\"n\":{number},");
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.starts_with(start.as_bytes()) {
            let parts = Parts::split(line.strip_suffix(b"\n").unwrap_or(&line));
            return parts
                .filter(|parts| parts.is_tagged(keyring))
                .map(|parts| parts.parse().map_err(unreadable))
                .transpose();
        }
    }
}

/// The lines that start at these offsets of a file; what is no line of the broker's is left out.
///
/// # Errors
/// If the file cannot be read.
fn read_at(
    directory: &Path,
    keyring: &Keyring,
    file: u64,
    offsets: &[u64],
) -> std::io::Result<Vec<Body>> {
    if offsets.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = BufReader::new(File::open(directory.join(file_name(file)))?);
    let (mut lines, mut line) = (Vec::new(), Vec::new());
    let mut position = 0;
    for offset in offsets {
        // Mostly forward and near: what is buffered is used.
        let step = i64::try_from(*offset).unwrap_or(i64::MAX) - position;
        reader.seek_relative(step)?;
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        position += step + i64::try_from(read).unwrap_or(0);
        let parts = Parts::split(line.strip_suffix(b"\n").unwrap_or(&line));
        let parts = parts.filter(|parts| parts.is_tagged(keyring));
        lines.extend(parts.map(|parts| parts.parse().map_err(unreadable)).transpose()?);
    }
    Ok(lines)
}

/// What the broker wrote is told as a whole, or not at all.
fn unreadable(error: Unread) -> std::io::Error {
    std::io::Error::other(format!("the line cannot be told ({error}); run the newer keyhatch"))
}

/// The file and line of a decision id.
fn parse_id(text: &str) -> Option<(u64, u64)> {
    let (file, line) = text.split_once('.')?;
    Some((file.parse().ok()?, line.parse().ok()?))
}
