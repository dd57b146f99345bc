//! Connections to upstreams that are kept for the next request of the same step with the same version of the same connection.
//! Steps share none: a request of one step can never be answered with the answer to another's, whatever an upstream takes
//! for the end of a request.
//!
//! A connection is kept for 30 s. A request that must not be sent twice takes only one that was used a moment ago, because an
//! upstream may close the others at any time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::body::SentBody;
use crate::model::Id;

/// How long a connection is kept.
const LIFE: Duration = Duration::from_secs(30);
/// How long ago a connection was used for a request that must not be sent twice.
const FRESH: Duration = Duration::from_secs(2);
/// The most connections that are kept of one key, and in all.
const MOST_OF_ONE: usize = 16;
const MOST: usize = 512;
/// How often old connections are dropped.
const SWEEP: Duration = Duration::from_secs(5);

/// Which requests may share a connection: those of one step, with the same certificates to the same place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    pub(super) opening: Id,
    pub(super) connection: Id,
    pub(super) version: u64,
    pub(super) address: String,
}

/// A connection to an upstream. When this is dropped, it ends at once, whatever is under way on it.
pub(super) struct Line {
    pub(super) sender: SendRequest<SentBody>,
    pub(super) task: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Kept {
    line: Line,
    since: Instant,
}

/// The kept connections.
#[derive(Default)]
pub(in crate::egress) struct Pool(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    by_key: HashMap<PoolKey, Vec<Kept>>,
    count: usize,
}

impl Pool {
    /// A connection that is free; `None` if there is none. `is_repeatable` if the request may be sent twice.
    pub(super) fn take(&self, key: &PoolKey, is_repeatable: bool) -> Option<Line> {
        let oldest = if is_repeatable { LIFE } else { FRESH };
        let mut lines = self.0.lock();
        let mut found = None;
        while let Some(kept) = lines.by_key.get_mut(key).and_then(Vec::pop) {
            lines.count -= 1;
            if kept.line.sender.is_ready() && kept.since.elapsed() < oldest {
                found = Some(kept.line);
                break;
            }
        }
        if lines.by_key.get(key).is_some_and(Vec::is_empty) {
            lines.by_key.remove(key);
        }
        found
    }

    /// Keeps a connection whose answer was read to its end. It is dropped if too many are kept.
    pub(super) fn keep(self: &Arc<Self>, key: PoolKey, line: Line) {
        if line.sender.is_closed() {
            return;
        }
        let mut lines = self.0.lock();
        let is_first = lines.count == 0;
        let of_key = lines.by_key.get(&key).map_or(0, Vec::len);
        if lines.count == MOST || of_key == MOST_OF_ONE {
            return;
        }
        lines.count += 1;
        lines.by_key.entry(key).or_default().push(Kept { line, since: Instant::now() });
        drop(lines);
        if is_first {
            tokio::spawn(sweep(Arc::clone(self)));
        }
    }

    /// Drops what is old. Returns whether something is left.
    fn drop_old(&self) -> bool {
        let mut lines = self.0.lock();
        for kept in lines.by_key.values_mut() {
            kept.retain(|one| one.since.elapsed() < LIFE && !one.line.sender.is_closed());
        }
        lines.by_key.retain(|_, kept| !kept.is_empty());
        lines.count = lines.by_key.values().map(Vec::len).sum();
        lines.count > 0
    }
}

/// Drops old connections as long as there are connections.
async fn sweep(pool: Arc<Pool>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        if !pool.drop_old() {
            return;
        }
    }
}
