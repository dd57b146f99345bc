//! An operator reads the journal.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::Broker;
use super::error::Error;
use super::operators::require_role;
use crate::access::{Principal, Role};
use crate::journal::{Follower, TailFilter, TailLine};

/// How often a reader looks whether there is more.
const LOOK: Duration = Duration::from_millis(200);
/// The most lines to begin with.
const MAX_LAST: usize = 100_000;

/// What a reader asks for.
pub struct TailRequest {
    /// How many of the newest lines to begin with, unless the filter says since when.
    pub last: usize,
    /// Whether it goes on with lines as they are written.
    pub follow: bool,
    /// Which lines.
    pub filter: TailFilter,
}

/// How many read at a time: each takes a thread.
pub(super) const MAX_READERS: usize = 8;

impl Broker {
    /// Leave to read the journal, until it is dropped.
    ///
    /// # Errors
    /// [`Error::TooManyReaders`] if as many read it as may.
    pub fn begin_reading(&self) -> Result<OwnedSemaphorePermit, Error> {
        let reader = Arc::clone(&self.readers).try_acquire_owned();
        reader.map_err(|_| Error::TooManyReaders(MAX_READERS))
    }

    /// Reads lines, until the end or, if it follows, until `may_go_on` says no; `send` says whether it took one.
    /// Reads files, and waits: call it on a thread of its own.
    ///
    /// # Errors
    /// [`Error::OperatorRequired`], or if a file cannot be read.
    pub fn tail_journal(
        self: &Arc<Self>,
        caller: &Principal,
        request: &TailRequest,
        send: impl Fn(TailLine) -> bool,
        may_go_on: impl Fn() -> bool,
    ) -> Result<(), Error> {
        require_role(caller, Role::Viewer)?;
        let unreadable = |error: std::io::Error| Error::Internal(format!("the journal: {error}"));
        let mut follower = self.begin_tail(request, &send).map_err(unreadable)?;
        let mut seen = follower.last();
        while request.follow && may_go_on() {
            if self.journal.last_line().is_ok_and(|last| last > seen) {
                follower.read(&send).map_err(unreadable)?;
                seen = follower.last();
            } else {
                std::thread::park_timeout(LOOK);
            }
        }
        Ok(())
    }

    fn begin_tail(
        &self,
        request: &TailRequest,
        send: impl Fn(TailLine) -> bool,
    ) -> std::io::Result<Follower> {
        if request.filter.since.is_some() {
            let mut follower = self.journal.follow(request.filter.clone())?;
            follower.read(send)?;
            return Ok(follower);
        }
        let (last, follower) =
            self.journal.last_lines(request.last.min(MAX_LAST), &request.filter)?;
        for line in last {
            if !send(line) {
                break;
            }
        }
        Ok(follower)
    }
}
