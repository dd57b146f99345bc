//! What strangers can have said in the log, as often as they like, is said ten times a second at most.

use crate::model::Quiet;

static STRANGERS: Quiet = Quiet::new(10);

/// Whether something more may be said, and how much was not since the last time.
pub(crate) fn next() -> Option<u64> {
    STRANGERS.next()
}
