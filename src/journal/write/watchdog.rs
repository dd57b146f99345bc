//! The watchdog: a thread that notices a write or a sync that hangs.
//!
//! The thread that decides writes the line, under the chain lock. If the disk hangs, so does that thread, and every
//! other thread would wait for the lock until its deadline. Once the hang is known, no thread waits. A sync that hangs
//! holds up no thread, but no more lines are added to those that wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::model::limits::{DISK_DEADLINE, JOURNAL_DEADLINE};

/// How often the watchdog checks.
const INTERVAL: Duration = Duration::from_millis(100);

/// The state that the writer and the sync thread share with the watchdog.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// How often the watchdog has checked, from 1: its own clock.
    checks: AtomicU64,
    /// Whether a write hangs.
    write_hangs: watch::Sender<bool>,
    /// Writes of lines.
    pub(crate) write: Calls,
    /// Syncs of the file.
    pub(crate) sync: Calls,
}

/// Calls of one kind, of which one is under way at a time.
#[derive(Debug)]
pub(crate) struct Calls {
    what: &'static str,
    limit: Duration,
    /// The check during which the current call began; 0 if there is no call.
    since: AtomicU64,
    is_hanging: AtomicBool,
}

impl Pulse {
    /// Begins a call, which ends when the result is dropped.
    pub(crate) fn begin<'a>(&self, calls: &'a Calls) -> Beat<'a> {
        calls.since.store(self.checks.load(Ordering::Acquire), Ordering::Release);
        Beat(calls)
    }

    fn check(&self) {
        let now = self.checks.fetch_add(1, Ordering::AcqRel) + 1;
        self.write.check(now);
        self.sync.check(now);
        let hangs = self.write.are_hanging();
        self.write_hangs.send_if_modified(|before| std::mem::replace(before, hangs) != hangs);
    }

    /// Follows whether a write hangs.
    pub(crate) fn write_hangs(&self) -> watch::Receiver<bool> {
        self.write_hangs.subscribe()
    }
}

impl Calls {
    fn new(what: &'static str, limit: Duration) -> Self {
        Self { what, limit, since: AtomicU64::new(0), is_hanging: AtomicBool::new(false) }
    }

    /// Whether a call has taken longer than its limit.
    pub(crate) fn are_hanging(&self) -> bool {
        self.is_hanging.load(Ordering::Acquire)
    }

    fn check(&self, now: u64) {
        let since = self.since.load(Ordering::Acquire);
        let limit = self.limit.as_millis() / INTERVAL.as_millis();
        let hangs = since != 0 && u128::from(now.saturating_sub(since)) > limit;
        if hangs == self.is_hanging.swap(hangs, Ordering::AcqRel) {
            return;
        }
        let what = self.what;
        if hangs {
            tracing::error!(
                "{what} the journal hangs: nothing is resolved or changed until it returns; check the disk"
            );
        } else {
            tracing::warn!("{what} the journal hung and has returned: work continues");
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

/// Starts the thread, which ends when all other holders of the pulse are gone.
pub(crate) fn start() -> std::io::Result<Arc<Pulse>> {
    let pulse = Arc::new(Pulse {
        checks: AtomicU64::new(1),
        write_hangs: watch::Sender::new(false),
        write: Calls::new("a write to", JOURNAL_DEADLINE),
        sync: Calls::new("a sync of", DISK_DEADLINE),
    });
    let watched = Arc::downgrade(&pulse);
    std::thread::Builder::new().name("journal-watchdog".to_owned()).spawn(move || {
        while let Some(pulse) = watched.upgrade() {
            pulse.check();
            drop(pulse);
            std::thread::park_timeout(INTERVAL);
        }
    })?;
    Ok(pulse)
}
