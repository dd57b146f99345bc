//! The names of the connections that were changed last, so that an index of all follows at low cost.

use std::collections::BTreeSet;

use rpds::ListSync;

use crate::model::ConnectionRef;

/// How many names each of the two parts has.
const NAMES: usize = 2048;

/// The last changes of connections. Older names are dropped, many at a time.
#[derive(Clone, Default)]
pub(crate) struct RecentChanges {
    /// How many changes there were.
    count: u64,
    young: ListSync<ConnectionRef>,
    old: ListSync<ConnectionRef>,
}

impl RecentChanges {
    /// Notes that the connection of this name was put or removed.
    pub(crate) fn note(&mut self, name: ConnectionRef) {
        if self.young.len() >= NAMES {
            self.old = std::mem::take(&mut self.young);
        }
        self.count += 1;
        self.young.push_front_mut(name);
    }

    /// How many changes there were.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The names that were changed since there were `count` changes; `None` if they are no longer known.
    pub(super) fn since(&self, count: u64) -> Option<BTreeSet<&ConnectionRef>> {
        let changes = usize::try_from(self.count.checked_sub(count)?).ok()?;
        let known = self.young.iter().chain(self.old.iter());
        (changes <= self.young.len() + self.old.len()).then(|| known.take(changes).collect())
    }
}
