//! The published catalogue.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::Catalog;

/// One published state: the catalogue after batch `head`.
pub struct Snapshot {
    /// The batch that made it.
    pub head: u64,
    /// What is known.
    pub catalog: Catalog,
}

/// The place where the newest snapshot is found. Readers never wait.
pub struct Snapshots {
    newest: ArcSwap<Snapshot>,
    /// Its head, for whoever waits for another.
    head: watch::Sender<u64>,
}

impl Snapshots {
    /// Starts with the state that was loaded.
    pub fn new(snapshot: Snapshot) -> Self {
        let head = watch::Sender::new(snapshot.head);
        Self { newest: ArcSwap::from_pointee(snapshot), head }
    }

    /// The newest snapshot.
    pub fn load(&self) -> Arc<Snapshot> {
        self.newest.load_full()
    }

    /// Tells of every new snapshot from now on; of several at once, of the last.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Wakes whoever waits for another snapshot, though there is none.
    pub fn wake(&self) {
        self.head.send_modify(|_| {});
    }

    /// Makes a snapshot the newest. Called under the journal's chain lock only.
    pub fn publish(&self, snapshot: Snapshot) {
        let head = snapshot.head;
        self.newest.store(Arc::new(snapshot));
        self.head.send_replace(head);
    }
}
