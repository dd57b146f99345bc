//! How often each of some may have something.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;

use crate::model::limits::Rate;

/// The rate of each that has asked of late.
pub(crate) struct Rates<K>(Mutex<HashMap<K, Rate>>);

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> Rates<K> {
    /// Asks the rate of this one. `now` is in milliseconds of the clock that the rates go by.
    pub(crate) fn ask<T>(&self, who: &K, now: i64, ask: impl FnOnce(&mut Rate) -> T) -> T {
        let mut rates = self.0.lock();
        if let Some(rate) = rates.get_mut(who) {
            return ask(rate);
        }
        // Of those that asked long ago nothing need be known.
        if rates.len() == rates.capacity() {
            rates.retain(|_, rate| !rate.is_rested(now));
        }
        ask(rates.entry(who.clone()).or_default())
    }
}
