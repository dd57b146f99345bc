//! Whether anybody waits for what is read, and why it cannot be told.

use std::io;

use super::replay::ReplayError;
use crate::journal::event::decision::DecisionId;

/// How many bytes are read before it is asked again.
const ASK_BYTES: u64 = 64 * 1024;

/// Who waits for what is read. It is asked once a block.
pub(crate) struct Audience<'a> {
    is_gone: &'a dyn Fn() -> bool,
    unasked: u64,
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

impl<'a> Audience<'a> {
    /// It is asked first after the first block.
    pub(crate) fn new(is_gone: &'a dyn Fn() -> bool) -> Self {
        Self { is_gone, unasked: 0 }
    }

    /// It is asked at once.
    pub(super) fn of_long_ago(is_gone: &'a dyn Fn() -> bool) -> Self {
        Self { is_gone, unasked: ASK_BYTES }
    }

    /// So much was read.
    pub(crate) fn read(&mut self, bytes: u64) {
        self.unasked += bytes;
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_gone(&mut self) -> bool {
        if self.unasked < ASK_BYTES {
            return false;
        }
        self.unasked = 0;
        (self.is_gone)()
    }

    /// So much was read, and more is to be.
    ///
    /// # Errors
    /// [`io::ErrorKind::Interrupted`] if nobody waits any more.
    pub(crate) fn go_on(&mut self, bytes: u64) -> io::Result<()> {
        self.read(bytes);
        if self.is_gone() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
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
