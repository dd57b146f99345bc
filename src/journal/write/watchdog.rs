//! The watchdog: a thread that notices a write or a sync that hangs.
//!
//! Lines are written by whoever decides, under the chain's lock. A disk that hangs holds that thread, and
//! every other would wait for the lock until its deadline; once the hang is known nobody waits any more. A sync
//! that hangs holds nobody up, but nothing is added to what waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::model::limits::{DISK_DEADLINE, JOURNAL_DEADLINE};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(100);

/// What the writer and the sync thread tell the watchdog.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// How often the watchdog has looked, from 1: its own clock.
    looks: AtomicU64,
    /// Writes of lines.
    pub(crate) write: Calls,
    /// Syncs of the file.
    pub(crate) sync: Calls,
}

/// Calls of one kind, one at a time.
#[derive(Debug)]
pub(crate) struct Calls {
    what: &'static str,
    limit: Duration,
    /// At which look the call began that is under way; zero if there is none.
    since: AtomicU64,
    is_hanging: AtomicBool,
}

impl Pulse {
    /// A call begins; it ends when this is dropped.
    pub(crate) fn begin<'a>(&self, calls: &'a Calls) -> Beat<'a> {
        calls.since.store(self.looks.load(Ordering::Acquire), Ordering::Release);
        Beat(calls)
    }

    fn look(&self) {
        let now = self.looks.fetch_add(1, Ordering::AcqRel) + 1;
        self.write.look(now);
        self.sync.look(now);
    }
}

impl Calls {
    fn new(what: &'static str, limit: Duration) -> Self {
        Self { what, limit, since: AtomicU64::new(0), is_hanging: AtomicBool::new(false) }
    }

    /// Whether a call has taken longer than anybody waits for.
    pub(crate) fn are_hanging(&self) -> bool {
        self.is_hanging.load(Ordering::Acquire)
    }

    fn look(&self, now: u64) {
        let since = self.since.load(Ordering::Acquire);
        let limit = self.limit.as_millis() / LOOK.as_millis();
        let hangs = since != 0 && u128::from(now.saturating_sub(since)) > limit;
        if hangs == self.is_hanging.swap(hangs, Ordering::AcqRel) {
            return;
        }
        let what = self.what;
        if hangs {
            tracing::error!(
                "{what} the journal hangs: nothing is resolved or changed until it ends; look at the disk"
            );
        } else {
            tracing::warn!("{what} the journal hung and has ended: work goes on");
        }
    }
}

/// A call that is under way.
pub(crate) struct Beat<'a>(&'a Calls);

impl Drop for Beat<'_> {
    fn drop(&mut self) {
        self.0.since.store(0, Ordering::Release);
    }
}

/// Starts the thread; it ends when the last of the others who hold the pulse is gone.
pub(crate) fn start() -> std::io::Result<Arc<Pulse>> {
    let pulse = Arc::new(Pulse {
        looks: AtomicU64::new(1),
        write: Calls::new("a write to", JOURNAL_DEADLINE),
        sync: Calls::new("a sync of", DISK_DEADLINE),
    });
    let watched = Arc::downgrade(&pulse);
    std::thread::Builder::new().name("journal-watchdog".to_owned()).spawn(move || {
        while let Some(pulse) = watched.upgrade() {
            pulse.look();
            drop(pulse);
            std::thread::park_timeout(LOOK);
        }
    })?;
    Ok(pulse)
}
