//! The published catalogue.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::Catalog;
use crate::access::Blocks;
use crate::journal::Epoch;

/// The catalogue after batch `head`.
pub struct Snapshot {
    /// The last batch.
    pub head: u64,
    /// The last publication on which a decision may depend.
    pub epoch: Epoch,
    /// The catalogue after it.
    pub catalog: Catalog,
    /// What is blocked.
    pub blocks: Arc<Blocks>,
}

/// What decisions about steps are made by.
#[derive(Clone, Copy)]
pub struct InForce<'a> {
    /// The catalogue.
    pub catalog: &'a Catalog,
    /// What is blocked.
    pub blocks: &'a Blocks,
}

impl Snapshot {
    /// What decisions about steps are made by.
    pub fn in_force(&self) -> InForce<'_> {
        InForce { catalog: &self.catalog, blocks: &self.blocks }
    }
}

/// The newest snapshot. Readers never wait.
pub struct Snapshots {
    newest: ArcSwap<Snapshot>,
    /// Its epoch, for tasks that wait for the next.
    epoch: watch::Sender<Epoch>,
}

impl Snapshots {
    /// Starts with the loaded state.
    pub fn new(snapshot: Snapshot) -> Self {
        let epoch = watch::Sender::new(snapshot.epoch);
        Self { newest: ArcSwap::from_pointee(snapshot), epoch }
    }

    /// The newest snapshot.
    pub fn load(&self) -> Arc<Snapshot> {
        self.newest.load_full()
    }

    /// Reports every new epoch from now on; of several at once, the last.
    pub fn subscribe(&self) -> watch::Receiver<Epoch> {
        self.epoch.subscribe()
    }

    /// Wakes the tasks that wait for the next epoch, without a new one.
    pub fn wake(&self) {
        self.epoch.send_modify(|_| {});
    }

    /// Makes a snapshot the newest. Called only under the journal's chain lock.
    pub fn publish(&self, snapshot: Snapshot) {
        let epoch = snapshot.epoch;
        self.newest.store(Arc::new(snapshot));
        self.epoch.send_if_modified(|before| std::mem::replace(before, epoch) != epoch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_epoch_wakes_those_who_wait() {
        let snapshot = |head, epoch| {
            let epoch = Epoch::of_batch(epoch);
            Snapshot { head, epoch, catalog: Catalog::default(), blocks: Arc::default() }
        };
        let snapshots = Snapshots::new(snapshot(1, 1));
        let epochs = snapshots.subscribe();
        snapshots.publish(snapshot(2, 1));
        assert_eq!((snapshots.load().head, epochs.has_changed().ok()), (2, Some(false)));
        snapshots.publish(snapshot(3, 3));
        assert_eq!((snapshots.load().head, epochs.has_changed().ok()), (3, Some(true)));
    }
}
