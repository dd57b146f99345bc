//! Turns: what must not happen twice at a time for one connection.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};

use crate::model::{Id, IdMap};

/// The turns of all connections.
#[derive(Default)]
pub(super) struct Turns {
    locks: Mutex<IdMap<Weak<AsyncMutex<()>>>>,
    taken: watch::Sender<usize>,
}

/// The turn of a connection, until it is dropped.
pub(crate) struct Turn {
    _lock: OwnedMutexGuard<()>,
    taken: watch::Sender<usize>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.taken.send_modify(|count| *count -= 1);
    }
}

impl Turns {
    /// Waits for the turn of a connection. Those who wait get it in their order.
    pub(super) async fn take(&self, connection: Id) -> Turn {
        let lock = self.lock_of(connection).lock_owned().await;
        self.taken.send_modify(|count| *count += 1);
        Turn { _lock: lock, taken: self.taken.clone() }
    }

    /// Waits until all turns that were taken are over.
    pub(super) async fn are_over(&self) {
        let _ = self.taken.subscribe().wait_for(|count| *count == 0).await;
    }

    fn lock_of(&self, connection: Id) -> Arc<AsyncMutex<()>> {
        let mut locks = self.locks.lock();
        if let Some(lock) = locks.get(&connection).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(connection, Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_connection_has_one_turn_at_a_time() {
        let (turns, one, other) =
            (Turns::default(), Id::from_bytes([1; 16]), Id::from_bytes([2; 16]));
        let first = turns.take(one).now_or_never().unwrap();
        assert!(turns.take(one).now_or_never().is_none());
        assert!(turns.take(other).now_or_never().is_some());
        assert!(turns.are_over().now_or_never().is_none());
        drop(first);
        assert!(turns.are_over().now_or_never().is_some());
        assert!(turns.take(one).now_or_never().is_some());
    }
}
