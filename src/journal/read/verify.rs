//! Verifies a journal with only its files and `ca.crt`.
//!
//! Every line contains the hash of the line before, and every file's first line that of the last line of the file
//! before. Now and then the root signs the hash of a line, which covers all lines up to it. So an edit, a missing line
//! and a missing file are found. Lines after the last signature are chained, but only the broker's keys can tell
//! whether the broker wrote them.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use super::replay::previous;
use crate::identity::RootKey;
use crate::journal::event::{Event, Signature};
use crate::journal::files::{file_name, file_numbers};
use crate::journal::write::line::{NO_PREVIOUS, Parts, Unread};
use crate::model::Timestamp;
use crate::sys::input;

/// The verified part of a journal.
#[derive(Debug)]
pub struct Proof {
    /// The number of the first file.
    pub first_file: u64,
    /// How many files.
    pub files: u64,
    /// The last line.
    pub last_line: u64,
    /// The last line's hash.
    pub last_hash: [u8; 32],
    /// The last line that is signed, and when it was signed; `None` if no line is signed.
    pub signed: Option<(u64, Timestamp)>,
    /// How many lines come after it, which are not proven.
    pub unproven: u64,
}

/// Why a journal is not verified.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The directory contains no journal.
    #[error("{} holds no journal; name the directory that holds 000001.jsonl", .0.display())]
    Missing(PathBuf),
    /// A file cannot be read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("line {line} of {}: {what}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's place in it, from 1.
        line: u64,
        /// The fault of the line.
        what: &'static str,
    },
    /// A newer keyhatch has written the line.
    #[error(
        "line {line} of {} was written by a newer keyhatch, which this version cannot read; verify it with the newer \
         keyhatch", .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The line's place in it, from 1.
        line: u64,
    },
    /// The oldest files are missing.
    #[error(
        "{} is missing: the journal begins with file {first}; if the older files are kept elsewhere, pass \
         --from {first}", .path.display()
    )]
    NotFromTheBeginning {
        /// The first that is missing.
        path: PathBuf,
        /// The first that is there.
        first: u64,
    },
    /// The journal ends too early.
    #[error("{}: {what}", .path.display())]
    Truncated {
        /// The last file.
        path: PathBuf,
        /// The missing part.
        what: String,
    },
}

const CHANGED: &str = "its hash is wrong: it was changed after it was written";
const OUT_OF_CHAIN: &str =
    "its hash of the line before is wrong: a line before it was changed, removed or inserted";
const NOT_SIGNED: &str =
    "the signature on the lines before it is not the root's, or is for other lines";
const MALFORMED: &str = "it does not have the form of a line";

/// Verifies every line of every file in a directory, from file `from` on: 1, unless older files are kept elsewhere.
/// `expected` is a line and its hash from an earlier proof; a journal without that line is refused.
///
/// # Errors
/// A fault of the journal, with its place.
pub fn verify(
    directory: &Path,
    root: &RootKey,
    from: u64,
    expected: Option<(u64, [u8; 32])>,
) -> Result<Proof, ProofError> {
    let io = |source| ProofError::Io { path: directory.to_owned(), source };
    let numbers = file_numbers(directory).map_err(io)?;
    let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else {
        return Err(ProofError::Missing(directory.to_owned()));
    };
    if *first > from {
        let path = directory.join(file_name(from));
        return Err(ProofError::NotFromTheBeginning { path, first: *first });
    }
    let mut verifier = Verifier::new(root, expected);
    for number in from..=*last {
        verifier.check_file(&directory.join(file_name(number)), number, number == from)?;
    }
    let path = directory.join(file_name(*last));
    verifier.finish(&path, (from, *last))
}

struct Verifier<'a> {
    root: &'a RootKey,
    expected: Option<(u64, [u8; 32])>,
    is_expected_seen: bool,
    last: u64,
    last_hash: [u8; 32],
    /// The hashes of the lines since the last signature.
    unsigned: Vec<(u64, [u8; 32])>,
    signed: Option<(u64, Timestamp)>,
    /// The file that comes next, if a line says so.
    next: Option<u64>,
}

/// One line with a correct hash.
struct VerifiedLine {
    n: u64,
    hash: [u8; 32],
    previous: [u8; 32],
    time: Timestamp,
    event: Event,
}

/// The state of checking one file.
struct InFile {
    number: u64,
    checkpoint: [u8; 32],
    /// The last line of this file so far. It is also the journal's last line, unless it is a copy.
    last: u64,
    last_hash: [u8; 32],
    /// Whether the lines are copies of lines of the file before.
    is_copying: bool,
}

impl<'a> Verifier<'a> {
    fn new(root: &'a RootKey, expected: Option<(u64, [u8; 32])>) -> Self {
        Self {
            root,
            expected,
            is_expected_seen: false,
            last: 0,
            last_hash: NO_PREVIOUS,
            unsigned: Vec::new(),
            signed: None,
            next: None,
        }
    }

    fn check_file(&mut self, path: &Path, number: u64, is_first: bool) -> Result<(), ProofError> {
        let io = |source| ProofError::Io { path: path.to_owned(), source };
        let mut reader = BufReader::new(input::open(path).map_err(io)?);
        let (mut text, mut place) = (Vec::new(), 0);
        let mut file: Option<InFile> = None;
        loop {
            text.clear();
            if reader.read_until(b'\n', &mut text).map_err(io)? == 0 {
                break;
            }
            place += 1;
            let fault = |what| ProofError::Line { path: path.to_owned(), line: place, what };
            let Some(whole) = text.strip_suffix(b"\n") else {
                return Err(fault(
                    "it ends in its middle: the file was cut, or the daemon was killed",
                ));
            };
            let line = match read(whole) {
                Ok(line) => line,
                Err(Fault::Newer) => {
                    return Err(ProofError::Newer { path: path.to_owned(), line: place });
                }
                Err(Fault::Wrong(what)) => return Err(fault(what)),
            };
            match &mut file {
                None => file = Some(self.check_first(&line, number, is_first).map_err(fault)?),
                Some(file) => self.check(file, &line).map_err(fault)?,
            }
        }
        match file {
            Some(file) if !file.is_copying => Ok(()),
            _ => Err(ProofError::Truncated {
                path: path.to_owned(),
                what: "it ends before its own lines begin".to_owned(),
            }),
        }
    }

    /// The first line of a file.
    fn check_first(
        &mut self,
        line: &VerifiedLine,
        number: u64,
        is_first: bool,
    ) -> Result<InFile, &'static str> {
        let Event::Checkpoint(checkpoint) = &line.event else {
            return Err("the file does not begin with a checkpoint");
        };
        if checkpoint.file != number {
            return Err("it is the first line of another file");
        }
        self.next = None;
        let mut file = InFile {
            number,
            checkpoint: line.hash,
            last: line.n,
            last_hash: line.hash,
            is_copying: number > 1,
        };
        if number == 1 {
            self.take(line);
            return Ok(file);
        }
        file.last_hash = line.previous;
        if is_first {
            // The files before are kept elsewhere.
            (self.last, self.last_hash) = (line.n, line.previous);
        } else if file.last > self.last {
            return Err("lines between the file before and this one are missing");
        }
        Ok(file)
    }

    fn check(&mut self, file: &mut InFile, line: &VerifiedLine) -> Result<(), &'static str> {
        if line.n != file.last + 1 || line.previous != file.last_hash {
            return Err(OUT_OF_CHAIN);
        }
        (file.last, file.last_hash) = (line.n, line.hash);
        if let Event::Continued { line: last, .. } = line.event {
            // If the journal begins with this file, its copies are the only lines of the file before.
            if last != self.last || line.previous != self.last_hash {
                return Err("the file before does not end where this file continues");
            }
            file.is_copying = false;
        }
        if file.is_copying && line.n <= self.last {
            return Ok(());
        }
        if let Event::Signed(signature) = &line.event {
            self.check_signature(file, signature, line.time)?;
        }
        self.next = match line.event {
            Event::Rotated { file } => Some(file),
            _ => None,
        };
        self.take(line);
        Ok(())
    }

    fn check_signature(
        &mut self,
        file: &InFile,
        signature: &Signature,
        time: Timestamp,
    ) -> Result<(), &'static str> {
        let signed =
            self.unsigned.iter().position(|line| *line == (signature.line, signature.hash));
        let is_here = signature.file == file.number && signature.checkpoint == file.checkpoint;
        // Copied lines include the signatures of the file before.
        let is_copied = file.is_copying;
        let Some(signed) = signed.filter(|_| is_here || is_copied) else { return Err(NOT_SIGNED) };
        if !signature.is_of(self.root) {
            return Err(NOT_SIGNED);
        }
        self.unsigned.drain(..=signed);
        self.signed = Some((signature.line, time));
        Ok(())
    }

    fn take(&mut self, line: &VerifiedLine) {
        (self.last, self.last_hash) = (line.n, line.hash);
        self.is_expected_seen |= self.expected == Some((line.n, line.hash));
        self.unsigned.push((line.n, line.hash));
    }

    fn finish(self, path: &Path, (first, last): (u64, u64)) -> Result<Proof, ProofError> {
        let truncated = |what: String| ProofError::Truncated { path: path.to_owned(), what };
        if let Some(next) = self.next {
            return Err(truncated(format!("the next file, {}, is missing", file_name(next))));
        }
        if let Some((line, hash)) = self.expected.filter(|_| !self.is_expected_seen) {
            let hash = hex::encode(hash);
            return Err(truncated(format!(
                "line {line} with hash {hash} was there and is not any more; the journal ends with line {}",
                self.last
            )));
        }
        Ok(Proof {
            first_file: first,
            files: last - first + 1,
            last_line: self.last,
            last_hash: self.last_hash,
            unproven: self.unsigned.len() as u64,
            signed: self.signed,
        })
    }
}

/// Why a line is wrong.
enum Fault {
    Newer,
    Wrong(&'static str),
}

fn read(text: &[u8]) -> Result<VerifiedLine, Fault> {
    let parts = Parts::split(text).ok_or(Fault::Wrong(MALFORMED))?;
    let hash = parts.verified_hash().ok_or(Fault::Wrong(CHANGED))?;
    let body = parts.parse().map_err(|unread| match unread {
        Unread::Newer => Fault::Newer,
        Unread::Malformed => Fault::Wrong(MALFORMED),
    })?;
    let previous = previous(&body.prev).ok_or(Fault::Wrong(MALFORMED))?;
    Ok(VerifiedLine { n: body.n, hash, previous, time: body.time, event: body.event })
}
