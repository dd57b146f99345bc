//! The published catalogue.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Catalog;

/// One published state: the catalogue after batch `head`.
pub struct Snapshot {
    /// The batch that made it.
    pub head: u64,
    /// What is known.
    pub catalog: Catalog,
}

/// The place where the newest snapshot is found. Readers never wait.
pub struct Snapshots(ArcSwap<Snapshot>);

impl Snapshots {
    /// Starts with the state that was loaded.
    pub fn new(snapshot: Snapshot) -> Self {
        Self(ArcSwap::from_pointee(snapshot))
    }

    /// The newest snapshot.
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Makes a snapshot the newest. Called under the journal's chain lock only.
    pub fn publish(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }
}
