//! The parts of a limit that callers have each for themselves.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// The share of each caller who holds something of it.
pub(crate) struct Shares<K, T>(Mutex<HashMap<K, Arc<T>>>);

impl<K, T> Default for Shares<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, T> Shares<K, T> {
    /// A caller's share: a new one if the caller holds nothing.
    pub(crate) fn of(&self, caller: K, new: impl FnOnce() -> T) -> Arc<T> {
        let mut shares = self.0.lock();
        // Shares that nobody holds are dropped: they equal new ones.
        shares.retain(|_, share| Arc::strong_count(share) > 1);
        Arc::clone(shares.entry(caller).or_insert_with(|| Arc::new(new())))
    }
}
