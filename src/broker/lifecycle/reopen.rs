//! The open steps of a daemon that has stopped get their sockets back.

use std::collections::HashSet;
use std::sync::Arc;

use super::start::StartError;
use crate::broker::Broker;
use crate::journal::{CloseReason, Event, Recovery};
use crate::model::Id;
use crate::model::limits::MAX_CLOCK_STEP_BACK;

impl Broker {
    /// Makes open steps listen again. Closes steps that lost their directory, and removes directories without a step.
    pub(super) async fn restore_openings(&self, recovery: &Recovery) -> Result<(), StartError> {
        let now = self.now();
        if recovery.last_time.since(now) > MAX_CLOCK_STEP_BACK {
            tracing::error!(
                journal.time = %recovery.last_time, clock.time = %now,
                "the clock is behind the journal: all steps and leases are closed"
            );
            // One line for all: a line for each could be cut off, and leave steps open too long.
            let (position, _) = self.journal.append(now, &Event::ClockSetBack)?;
            self.journal.synced(position).await?;
        }
        self.journal.expire(now);
        let openings =
            self.journal.with_live(|live| live.openings().cloned().collect::<Vec<_>>())?;
        for opening in &openings {
            let id = opening.record().id;
            let reason = if now >= opening.record().expire_time {
                CloseReason::Expired
            } else {
                match self.reopen(Arc::clone(opening)) {
                    Ok(()) => continue,
                    Err(error) if is_temporary(&error) => return Err(StartError::OutOf(error)),
                    Err(error) => {
                        tracing::warn!(opening.id = %id, %error, "a step has lost its directory");
                        CloseReason::DirectoryGone
                    }
                }
            };
            if let Err(error) = self.close_opening(id, reason).await {
                tracing::error!(opening.id = %id, %error, "a step could not be closed");
            }
        }
        let open: HashSet<Id> = openings.iter().map(|opening| opening.record().id).collect();
        let strays = self.runtime.step_ids().unwrap_or_default();
        for id in strays.into_iter().filter(|id| !open.contains(id)) {
            if let Err(error) = self.runtime.remove(id) {
                tracing::warn!(opening.id = %id, %error, "a stray directory could not be removed");
            }
        }
        Ok(())
    }
}

/// True if the error is the machine's and not the directory's: closing a step for it would be wrong.
fn is_temporary(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{OutOfMemory, StorageFull};
    let files = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    let is_out_of_files =
        files.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
    is_out_of_files || matches!(error.kind(), OutOfMemory | StorageFull)
}
