//! The watchdog: a thread that notices a write that hangs.
//!
//! Lines are written by whoever decides, under the chain's lock. A disk that hangs holds that thread, and
//! every other would wait for the lock until its deadline; once the hang is known nobody waits any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::model::limits::JOURNAL_DEADLINE;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(100);

/// What the writer tells the watchdog.
#[derive(Debug)]
pub(super) struct Pulse {
    /// How often the watchdog has looked, from 1: its own clock.
    looks: AtomicU64,
    /// At which look the write began that is under way; zero if there is none.
    since: AtomicU64,
    is_hanging: AtomicBool,
}

impl Pulse {
    /// A write begins; it ends when this is dropped.
    pub(super) fn begin(&self) -> Beat<'_> {
        self.since.store(self.looks.load(Ordering::Acquire), Ordering::Release);
        Beat(self)
    }

    /// Whether a write has taken longer than anybody waits for.
    pub(super) fn is_hanging(&self) -> bool {
        self.is_hanging.load(Ordering::Acquire)
    }

    fn look(&self) {
        let since = self.since.load(Ordering::Acquire);
        let now = self.looks.fetch_add(1, Ordering::AcqRel) + 1;
        let limit = JOURNAL_DEADLINE.as_millis() / LOOK.as_millis();
        let hangs = since != 0 && u128::from(now.saturating_sub(since)) > limit;
        if hangs == self.is_hanging.swap(hangs, Ordering::AcqRel) {
            return;
        }
        if hangs {
            tracing::error!(
                "a write to the journal hangs: nothing is resolved or changed until it ends; look at the disk"
            );
        } else {
            tracing::warn!("the write to the journal that hung has ended: work goes on");
        }
    }
}

/// A write that is under way.
pub(super) struct Beat<'a>(&'a Pulse);

impl Drop for Beat<'_> {
    fn drop(&mut self) {
        self.0.since.store(0, Ordering::Release);
    }
}

/// Starts the thread; it ends when the last of the others who hold the pulse is gone.
pub(super) fn start() -> std::io::Result<Arc<Pulse>> {
    let pulse = Arc::new(Pulse {
        looks: AtomicU64::new(1),
        since: AtomicU64::new(0),
        is_hanging: AtomicBool::new(false),
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
