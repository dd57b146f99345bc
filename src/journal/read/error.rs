//! Why the journal cannot be read.

use std::io;
use std::path::PathBuf;

use crate::journal::event::decision_id::DecisionId;

/// Why the journal cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A file cannot be read or written.
    #[error("the journal: {0}")]
    Io(#[from] io::Error),
    /// The same, in this directory.
    #[error("the journal in {}: {source}; see to its disk, and that this user may write there", .path.display())]
    At {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("the journal's watchdog cannot be started: {0}")]
    Threads(io::Error),
    /// There is no file.
    #[error("the journal directory {} holds no journal; restore it from a backup", .0.display())]
    Missing(PathBuf),
    /// A file between others is not there.
    #[error("{} is missing; put it back, or restore the state directory from a backup", .0.display())]
    Gap(PathBuf),
    /// A newer version has written here, and this one cannot read what.
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
    /// The formats that were written here are newer than this version's.
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

/// Why lines cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file cannot be read, the journal hangs, or nobody waits ([`io::ErrorKind::Interrupted`]).
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What the broker wrote is told as a whole, or not at all, and this version cannot read all of it.
    #[error("{0} was written by a newer keyhatch")]
    Newer(String),
}

impl ReadError {
    /// For a line that the broker wrote.
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
