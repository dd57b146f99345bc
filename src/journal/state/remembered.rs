//! A memory of what was done last, with a fair share for each registration.

use std::hash::Hash;
use std::sync::Arc;

use rpds::{HashTrieMapSync, QueueSync, RedBlackTreeSetSync};

use crate::model::Id;

/// The last `MOST` things that registrations did, by key. Clones share their contents.
///
/// Beyond `MOST`, the registration with the most entries forgets its oldest, so that a busy registration never
/// displaces a quiet one. The cost of an insert grows with the logarithm of the number of registrations only.
#[derive(Clone, Debug)]
pub struct Remembered<K: Eq + Hash, V, const MOST: usize> {
    shares: HashTrieMapSync<Id, Share<K, V>>,
    by_size: RedBlackTreeSetSync<(usize, Id)>,
    count: usize,
    next: u64,
}

/// The entries of one registration.
#[derive(Clone, Debug)]
struct Share<K: Eq + Hash, V> {
    known: HashTrieMapSync<Arc<K>, (u64, V)>,
    /// The keys in the order of insertion. A key that was inserted again is in it twice, and counts twice.
    by_age: QueueSync<(u64, Arc<K>)>,
}

impl<K: Clone + Eq + Hash, V: Clone, const MOST: usize> Remembered<K, V, MOST> {
    /// The entry of a registration under this key.
    pub fn find(&self, registration: Id, key: &K) -> Option<&V> {
        self.shares.get(&registration)?.known.get(key).map(|(_, value)| value)
    }

    /// Inserts an entry.
    pub fn insert(&mut self, registration: Id, key: K, value: V) {
        let key = Arc::new(key);
        self.change(registration, |share, next| {
            share.by_age.enqueue_mut((next, Arc::clone(&key)));
            share.known.insert_mut(key, (next, value));
        });
        if self.count > MOST
            && let Some((_, fullest)) = self.by_size.last().copied()
        {
            self.change(fullest, |share, _| share.forget_oldest());
        }
    }

    /// All entries, oldest first for each registration.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &K, &V)> {
        self.shares.iter().flat_map(|(registration, share)| {
            share.by_age.iter().filter_map(move |(age, key)| {
                let (newest, value) = share.known.get(key)?;
                (newest == age).then_some((*registration, &**key, value))
            })
        })
    }

    fn change(&mut self, registration: Id, change: impl FnOnce(&mut Share<K, V>, u64)) {
        let mut share = self.shares.get(&registration).cloned().unwrap_or_default();
        let before = share.by_age.len();
        change(&mut share, self.next);
        self.next += 1;
        let after = share.by_age.len();
        self.count = self.count + after - before;
        self.by_size.remove_mut(&(before, registration));
        if after == 0 {
            self.shares.remove_mut(&registration);
        } else {
            self.by_size.insert_mut((after, registration));
            self.shares.insert_mut(registration, share);
        }
    }
}

impl<K: Eq + Hash, V: Clone> Share<K, V> {
    fn forget_oldest(&mut self) {
        let Some((age, key)) = self.by_age.peek().cloned() else { return };
        self.by_age.dequeue_mut();
        if self.known.get(&key).is_some_and(|(newest, _)| *newest == age) {
            self.known.remove_mut(&key);
        }
    }
}

impl<K: Eq + Hash, V, const MOST: usize> Default for Remembered<K, V, MOST> {
    fn default() -> Self {
        Self {
            shares: HashTrieMapSync::default(),
            by_size: RedBlackTreeSetSync::default(),
            count: 0,
            next: 0,
        }
    }
}

impl<K: Eq + Hash, V> Default for Share<K, V> {
    fn default() -> Self {
        Self { known: HashTrieMapSync::default(), by_age: QueueSync::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(n: u8) -> Id {
        Id::from_bytes([n; 16])
    }

    #[test]
    fn a_busy_registration_forgets_only_its_own_entries() {
        let mut remembered = Remembered::<u32, u32, 10>::default();
        remembered.insert(registration(1), 0, 7);
        (0..100).for_each(|n| remembered.insert(registration(2), n, n));
        assert_eq!(remembered.find(registration(1), &0), Some(&7));
        let kept: Vec<u32> =
            remembered.iter().filter(|one| one.0 == registration(2)).map(|one| *one.1).collect();
        assert_eq!(kept, (91..100).collect::<Vec<_>>());
        // Two registrations that insert as much come to have as much.
        (0..100).for_each(|n| remembered.insert(registration(1), n, n));
        let of_first = remembered.iter().filter(|one| one.0 == registration(1)).count();
        assert!((4..=6).contains(&of_first), "{of_first}");
    }

    #[test]
    fn an_entry_that_is_inserted_again_has_its_last_value() {
        let mut remembered = Remembered::<&str, u32, 3>::default();
        for value in 0..10 {
            remembered.insert(registration(1), "again", value);
        }
        assert_eq!(remembered.find(registration(1), &"again"), Some(&9));
        assert_eq!(remembered.iter().count(), 1);
        assert_eq!(remembered.find(registration(2), &"again"), None);
    }
}
