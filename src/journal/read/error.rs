//! The errors of reading the journal.

use std::io;
use std::path::PathBuf;

use crate::journal::event::decision_id::DecisionId;

/// Why the journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A file cannot be read or written.
    #[error("the journal: {0}")]
    Io(#[from] io::Error),
    /// A file in this directory cannot be read or written.
    #[error("the journal in {}: {source}; check its disk, and that this user may write there", .path.display())]
    At {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The watchdog's thread cannot be started.
    #[error("the journal's watchdog cannot be started: {0}")]
    Threads(io::Error),
    /// The directory contains no journal.
    #[error("the journal directory {} holds no journal; restore it from a backup", .0.display())]
    Missing(PathBuf),
    /// A file between others is missing.
    #[error("{} is missing; put it back, or restore the state directory from a backup", .0.display())]
    Gap(PathBuf),
    /// A newer keyhatch has written a line that this version cannot read.
    #[error(
        "line {line} of {} was written by a newer keyhatch, which this version cannot read; run the newer keyhatch",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The line's place in it, from 1.
        line: u64,
    },
    /// A newer keyhatch has written formats that this version cannot read.
    #[error(
        "the journal in {} says that a newer keyhatch has written the state directory, but state.json and keyring.json \
         are older copies; restore both from a backup, and run the newer keyhatch", .0.display()
    )]
    NewerFormats(PathBuf),
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

/// Why lines cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file cannot be read, the journal hangs, or the caller no longer waits ([`io::ErrorKind::Interrupted`]).
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A newer keyhatch has written a line. Lines are returned whole, or not at all.
    #[error("{0} was written by a newer keyhatch")]
    Newer(String),
}

impl ReadError {
    /// The error for a line that a newer keyhatch has written.
    pub(crate) fn newer(id: DecisionId) -> Self {
        Self::Newer(format!("line {id} of the journal"))
    }
}

impl From<ReplayError> for ReadError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Io(source) => Self::Io(source),
            ReplayError::Newer { path, line } => {
                Self::Newer(format!("line {line} of {}", path.display()))
            }
            error => Self::Io(io::Error::other(error)),
        }
    }
}
