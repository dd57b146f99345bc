//! The published catalogue.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::Catalog;

/// The catalogue after batch `head`.
pub struct Snapshot {
    /// The last batch.
    pub head: u64,
    /// The catalogue after it.
    pub catalog: Catalog,
}

/// The newest snapshot. Readers never wait.
pub struct Snapshots {
    newest: ArcSwap<Snapshot>,
    /// Its head, for tasks that wait for the next snapshot.
    head: watch::Sender<u64>,
}

impl Snapshots {
    /// Starts with the loaded state.
    pub fn new(snapshot: Snapshot) -> Self {
        let head = watch::Sender::new(snapshot.head);
        Self { newest: ArcSwap::from_pointee(snapshot), head }
    }

    /// The newest snapshot.
    pub fn load(&self) -> Arc<Snapshot> {
        self.newest.load_full()
    }

    /// Reports the head of every new snapshot from now on; of several at once, the last.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Wakes the tasks that wait for the next snapshot, without a new one.
    pub fn wake(&self) {
        self.head.send_modify(|_| {});
    }

    /// Makes a snapshot the newest. Called only under the journal's chain lock.
    pub fn publish(&self, snapshot: Snapshot) {
        let head = snapshot.head;
        self.newest.store(Arc::new(snapshot));
        self.head.send_replace(head);
    }
}
