//! A rate for each of many keys.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;

use crate::model::Rate;

/// The rate of each key that was used recently.
#[derive(Debug)]
pub(crate) struct Rates<K>(Mutex<HashMap<K, Rate>>);

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> Rates<K> {
    /// Whether no rate is used at `now`, in milliseconds.
    pub(crate) fn are_rested(&self, now: i64) -> bool {
        self.0.lock().values().all(|rate| rate.is_rested(now))
    }

    /// Uses the rate of a key. `now` is in milliseconds of the rates' clock.
    pub(crate) fn ask<T>(&self, who: &K, now: i64, ask: impl FnOnce(&mut Rate) -> T) -> T {
        let mut rates = self.0.lock();
        if let Some(rate) = rates.get_mut(who) {
            return ask(rate);
        }
        // A full rate equals a new one.
        if rates.len() == rates.capacity() {
            rates.retain(|_, rate| !rate.is_rested(now));
        }
        ask(rates.entry(who.clone()).or_default())
    }
}
