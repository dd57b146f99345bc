//! The sync thread, which brings lines to disk, many at a time.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::watchdog::Pulse;

/// A sync has failed. The contents of the disk are unknown from then on, so this is final. A second sync that succeeds
/// would prove nothing: the kernel drops dirty pages that it could not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncFailed;

/// The number of the last line that is on disk, or written. Clones share it.
#[derive(Clone)]
pub(crate) struct Synced(Arc<AtomicU64>);

impl Synced {
    /// Begins with this line.
    pub(crate) fn from(line: u64) -> Self {
        Self(Arc::new(AtomicU64::new(line)))
    }

    /// The number of the last line.
    pub(crate) fn line(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Advances to this line.
    pub(crate) fn reach(&self, line: u64) {
        self.0.fetch_max(line, Ordering::AcqRel);
    }
}

#[derive(Clone, Copy, Debug)]
enum SyncProgress {
    Failed,
    Synced(u64),
}

/// The files to sync.
struct Targets {
    file: Arc<File>,
    /// Files that a new file depends on. They are synced once, before it.
    before: Vec<File>,
}

/// How long a sync waits for more callers if the sync before had several: about half of what a sync takes on a fast
/// disk. A caller that is alone for longer never waits.
const GATHER: Duration = Duration::from_micros(100);

/// The goal of the next sync.
#[derive(Default)]
struct SyncGoal {
    /// The highest line that they wait for.
    line: AtomicU64,
    /// How many callers have come since the last sync began.
    waiting: AtomicU64,
}

pub(crate) struct SyncThread {
    wanted: Arc<SyncGoal>,
    targets: Arc<Mutex<Targets>>,
    wake: std::sync::mpsc::SyncSender<()>,
    progress: watch::Receiver<SyncProgress>,
}

impl SyncThread {
    /// Starts the thread, which updates `synced` and `pulse`. It ends when this is dropped.
    pub(crate) fn start(file: File, synced: Synced, pulse: Arc<Pulse>) -> Self {
        let wanted = Arc::new(SyncGoal::default());
        let targets = Targets { file: Arc::new(file), before: Vec::new() };
        let targets = Arc::new(Mutex::new(targets));
        // One waiting wake-up is enough: it serves every caller that finds it.
        let (wake, woken) = std::sync::mpsc::sync_channel(1);
        let (report, progress) = watch::channel(SyncProgress::Synced(0));
        let (goal, to_sync) = (Arc::clone(&wanted), Arc::clone(&targets));
        let started = std::thread::Builder::new().name("journal-sync".to_owned()).spawn(move || {
            let mut is_crowded = false;
            while woken.recv().is_ok() {
                if is_crowded {
                    std::thread::sleep(GATHER);
                }
                // These callers are served by this sync.
                while woken.try_recv().is_ok() {}
                is_crowded = goal.waiting.swap(0, Ordering::AcqRel) > 1;
                // Read before the sync, and before the file: all lines up to here are in the file, and are synced.
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

    /// Continues with another file. Files in `before` are synced once, before it. Called while no line can be written.
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
