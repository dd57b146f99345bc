//! The sync thread: brings lines to disk, many at a time.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// The disk refused a sync. What it holds of the last lines is not known, so this is final: a second
/// sync that succeeds would prove nothing (the kernel drops the dirty pages that it could not write).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncFailed;

/// The last line that is known to be on disk: a clone is told what the other is told.
#[derive(Clone)]
pub(super) struct Synced(Arc<AtomicU64>);

impl Synced {
    /// It is known up to this line.
    pub(super) fn from(line: u64) -> Self {
        Self(Arc::new(AtomicU64::new(line)))
    }

    /// The last line.
    pub(super) fn line(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// It is known up to this line now.
    pub(super) fn reach(&self, line: u64) {
        self.0.fetch_max(line, Ordering::AcqRel);
    }
}

#[derive(Clone, Copy, Debug)]
enum Progress {
    Failed,
    Synced(u64),
}

pub(super) struct SyncThread {
    /// The highest line anybody waits for.
    wanted: Arc<AtomicU64>,
    wake: std::sync::mpsc::SyncSender<()>,
    progress: watch::Receiver<Progress>,
}

impl SyncThread {
    /// Starts the thread, which tells `synced`; it ends when this is dropped.
    pub(super) fn start(file: File, synced: Synced) -> Self {
        let wanted = Arc::new(AtomicU64::new(0));
        // One waiting wake-up is enough: whoever finds it there is covered by it.
        let (wake, woken) = std::sync::mpsc::sync_channel(1);
        let (report, progress) = watch::channel(Progress::Synced(0));
        let goal = Arc::clone(&wanted);
        let started = std::thread::Builder::new().name("journal-sync".to_owned()).spawn(move || {
            while woken.recv().is_ok() {
                // Read before the sync: whatever was written up to here is covered by it.
                let line = goal.load(Ordering::Acquire);
                match file.sync_data() {
                    Ok(()) => {
                        synced.reach(line);
                        report.send_replace(Progress::Synced(line))
                    }
                    Err(error) => {
                        tracing::error!(%error, "the journal cannot be synced: no secrets from now on");
                        report.send_replace(Progress::Failed);
                        return;
                    }
                };
            }
        });
        if let Err(error) = started {
            // Without the thread the channel is closed, and every wait reports failure.
            tracing::error!(%error, "the journal's sync thread cannot be started");
        }
        Self { wanted, wake, progress }
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(*self.progress.borrow(), Progress::Failed) || self.progress.has_changed().is_err()
    }

    /// Waits until this line is on disk.
    pub(super) async fn synced(&self, line: u64) -> Result<(), SyncFailed> {
        self.wanted.fetch_max(line, Ordering::AcqRel);
        let _ = self.wake.try_send(());
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(|progress| match progress {
            Progress::Failed => true,
            Progress::Synced(synced) => *synced >= line,
        });
        match reached.await.as_deref() {
            Ok(Progress::Synced(_)) => Ok(()),
            Ok(Progress::Failed) | Err(_) => Err(SyncFailed),
        }
    }
}
