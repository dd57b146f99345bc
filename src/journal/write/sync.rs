//! The sync thread: brings lines to disk, many at a time.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::watchdog::Pulse;

/// The disk refused a sync. What it holds of the last lines is not known, so this is final: a second
/// sync that succeeds would prove nothing (the kernel drops the dirty pages that it could not write).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncFailed;

/// The last line that is known to be on disk, or to be written: a clone is told what the other is told.
#[derive(Clone)]
pub(crate) struct Synced(Arc<AtomicU64>);

impl Synced {
    /// It is known up to this line.
    pub(crate) fn from(line: u64) -> Self {
        Self(Arc::new(AtomicU64::new(line)))
    }

    /// The last line.
    pub(crate) fn line(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// It is known up to this line now.
    pub(crate) fn reach(&self, line: u64) {
        self.0.fetch_max(line, Ordering::AcqRel);
    }
}

#[derive(Clone, Copy, Debug)]
enum SyncProgress {
    Failed,
    Synced(u64),
}

/// What is to be synced.
struct Targets {
    file: Arc<File>,
    /// Once, and before the file: what a new file rests on.
    before: Vec<File>,
}

/// How long a sync waits for more to join it when the one before had several who waited: about half of what a sync
/// takes on a fast disk. Whoever is alone for longer than that never waits.
const GATHER: Duration = Duration::from_micros(100);

/// What is waited for.
#[derive(Default)]
struct SyncGoal {
    /// The highest line.
    line: AtomicU64,
    /// How many have come since the last sync began.
    waiting: AtomicU64,
}

pub(crate) struct SyncThread {
    wanted: Arc<SyncGoal>,
    targets: Arc<Mutex<Targets>>,
    wake: std::sync::mpsc::SyncSender<()>,
    progress: watch::Receiver<SyncProgress>,
}

impl SyncThread {
    /// Starts the thread, which tells `synced` and `pulse`; it ends when this is dropped.
    pub(crate) fn start(file: File, synced: Synced, pulse: Arc<Pulse>) -> Self {
        let wanted = Arc::new(SyncGoal::default());
        let targets = Targets { file: Arc::new(file), before: Vec::new() };
        let targets = Arc::new(Mutex::new(targets));
        // One waiting wake-up is enough: whoever finds it there is covered by it.
        let (wake, woken) = std::sync::mpsc::sync_channel(1);
        let (report, progress) = watch::channel(SyncProgress::Synced(0));
        let (goal, to_sync) = (Arc::clone(&wanted), Arc::clone(&targets));
        let started = std::thread::Builder::new().name("journal-sync".to_owned()).spawn(move || {
            let mut is_crowded = false;
            while woken.recv().is_ok() {
                if is_crowded {
                    std::thread::sleep(GATHER);
                }
                // Who has come meanwhile is covered.
                while woken.try_recv().is_ok() {}
                is_crowded = goal.waiting.swap(0, Ordering::AcqRel) > 1;
                // Read before the sync, and before the file: whatever was written up to here is in it, and
                // is covered.
                let line = goal.line.load(Ordering::Acquire);
                let done = {
                    let _beat = pulse.begin(&pulse.sync);
                    sync_once(&to_sync)
                };
                match done {
                    Ok(()) => {
                        synced.reach(line);
                        report.send_replace(SyncProgress::Synced(line))
                    }
                    Err(error) => {
                        tracing::error!(%error, "the journal cannot be synced: no secrets from now on");
                        report.send_replace(SyncProgress::Failed);
                        return;
                    }
                };
            }
        });
        if let Err(error) = started {
            // Without the thread the channel is closed, and every wait reports failure.
            tracing::error!(%error, "the journal's sync thread cannot be started");
        }
        Self { wanted, targets, wake, progress }
    }

    /// Goes on with another file, which rests on `before`: these are synced once, first. Called while no line
    /// can be written.
    pub(crate) fn switch(&self, file: File, before: Vec<File>) {
        let mut targets = self.targets.lock();
        targets.file = Arc::new(file);
        targets.before.extend(before);
        drop(targets);
        let _ = self.wake.try_send(());
    }

    pub(crate) fn has_failed(&self) -> bool {
        matches!(*self.progress.borrow(), SyncProgress::Failed)
            || self.progress.has_changed().is_err()
    }

    /// Waits until this line is on disk, however long that takes: each request has a deadline of its own.
    pub(crate) async fn synced(&self, line: u64) -> Result<(), SyncFailed> {
        self.wanted.line.fetch_max(line, Ordering::AcqRel);
        self.wanted.waiting.fetch_add(1, Ordering::AcqRel);
        let _ = self.wake.try_send(());
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(|progress| match progress {
            SyncProgress::Failed => true,
            SyncProgress::Synced(synced) => *synced >= line,
        });
        match reached.await.as_deref() {
            Ok(SyncProgress::Synced(_)) => Ok(()),
            Ok(SyncProgress::Failed) | Err(_) => Err(SyncFailed),
        }
    }
}

fn sync_once(targets: &Mutex<Targets>) -> std::io::Result<()> {
    let (file, before) = {
        let mut targets = targets.lock();
        (Arc::clone(&targets.file), std::mem::take(&mut targets.before))
    };
    before.iter().try_for_each(File::sync_all)?;
    file.sync_data()
}
