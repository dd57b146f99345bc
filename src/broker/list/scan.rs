//! One scan over all items of a list.

use super::choice::{Candidate, Choice};
use super::{EXACT_TOTAL, Total};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::journal::{Live, Use};

/// The number of items between two looks at the journal.
pub(crate) const CHUNK: usize = 128;

/// What the journal knows of an item.
#[derive(Clone, Copy, Default)]
pub(crate) struct Look {
    /// Whether the journal could be read.
    pub(crate) is_known: bool,
    /// Its uses; `None` if there were none.
    pub(crate) used: Option<Use>,
    /// How many leases are live on it.
    pub(crate) live_leases: usize,
    /// How many of them are on an older version.
    pub(crate) stale_leases: usize,
}

/// Looks at an item.
type LookAt<'s, T> = dyn Fn(&Live, T) -> Look + 's;

/// Makes an item a candidate.
type Judge<'s, T, C, N> = dyn Fn(T, &Look) -> Option<Candidate<C, N>> + 's;

/// A scan: the items, which of them are wanted, and how each is ordered.
pub(crate) struct Scan<'s, T, C, N> {
    /// Whether an item is wanted, by what the catalogue knows.
    pub(crate) admits: &'s mut dyn FnMut(T) -> bool,
    /// What the journal knows of an item. `None` if nobody wants to know it.
    pub(crate) look: Option<&'s LookAt<'s, T>>,
    /// The item as a candidate; `None` if it is not wanted, by what the journal knows.
    pub(crate) candidate: &'s Judge<'s, T, C, N>,
    /// Whether the items come in the order of the page.
    pub(crate) is_sorted: bool,
    /// Whether to count.
    pub(crate) counts: bool,
}

impl Broker {
    /// What the journal knows of each item, looked up in chunks. It is for information only, so it is nothing while the journal
    /// hangs, which status reports.
    pub(crate) fn looks<T>(&self, items: &[T], look: impl Fn(&Live, &T) -> Look) -> Vec<Look> {
        let mut looks = Vec::with_capacity(items.len());
        for chunk in items.chunks(CHUNK) {
            let looked = self
                .journal
                .with_live(|live| chunk.iter().map(|one| look(live, one)).collect::<Vec<_>>());
            looks.extend(looked.unwrap_or_else(|_| vec![Look::default(); chunk.len()]));
        }
        looks
    }

    /// Looks at items one after the other until the page is complete, and as many are counted as are to be. Returns how
    /// many are wanted in all; the number means nothing if the scan does not count.
    ///
    /// # Errors
    /// [`Error::Draining`] if the caller is gone.
    pub(crate) fn scan<T: Copy, C, N: Ord>(
        &self,
        mut items: impl ExactSizeIterator<Item = T>,
        scan: Scan<'_, T, C, N>,
        choice: &mut Choice<C, N>,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Total, Error> {
        let Scan { admits, mut look, candidate, is_sorted, counts } = scan;
        let all = items.len();
        let (mut scanned, mut matched) = (0, 0);
        let mut chunk = Vec::with_capacity(CHUNK);
        while scanned < all {
            if is_cancelled() {
                return Err(Error::Draining);
            }
            chunk.clear();
            for item in items.by_ref().take(CHUNK) {
                scanned += 1;
                if admits(item) {
                    chunk.push(item);
                }
            }
            let looks = look.and_then(|look| {
                let looked = |live: &Live| chunk.iter().map(|one| look(live, *one)).collect();
                self.journal.with_live(looked).ok()
            });
            // A journal that hangs is asked once: it is not waited for at every chunk.
            if looks.is_none() {
                look = None;
            }
            let looks: Vec<Look> = looks.unwrap_or_default();
            for (at, item) in chunk.iter().enumerate() {
                let look = looks.get(at).copied().unwrap_or_default();
                if let Some(found) = candidate(*item, &look) {
                    matched += 1;
                    choice.take(found);
                }
            }
            let is_counted = !counts || matched > EXACT_TOTAL;
            if is_sorted && choice.is_full() && is_counted {
                break;
            }
            std::thread::yield_now();
        }
        Ok(match scanned < all {
            false => Total { size: matched, is_estimate: false },
            true => Total { size: matched.saturating_mul(all) / scanned.max(1), is_estimate: true },
        })
    }
}
