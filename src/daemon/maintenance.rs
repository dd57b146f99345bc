//! The daemon's periodic work.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::identity::OpenConnections;
use crate::seal::release_free_memory;

/// How often work is looked for that has become due.
const INTERVAL: Duration = Duration::from_millis(500);
/// How often refusals that were only counted are journaled.
const REFUSAL_COUNTS: Duration = Duration::from_secs(1);
/// How often to look whether a load has ended.
const LOAD_CHECKS: Duration = Duration::from_secs(5);
/// A runtime whose threads worked for less than this between two checks is idle: a hundredth of the time.
const IDLE: Duration = Duration::from_millis(50);
/// How often each thread releases memory after a load. Other threads may free blocks of a thread after its first time.
const RELEASES: u32 = 3;

/// Runs the broker's periodic work on the admin runtime, until `stop`.
pub(super) fn maintain_broker(admin: &Runtime, broker: &Arc<Broker>, stop: &CancellationToken) {
    let steps = Arc::clone(broker);
    admin.spawn(repeat(INTERVAL, stop.clone(), move || Arc::clone(&steps).run_maintenance()));
    let on_disk = |interval: Duration, name: &'static str, work: fn(&Broker)| {
        let broker = Arc::clone(broker);
        let work = move || run_blocking(Arc::clone(&broker), name, work);
        admin.spawn(repeat(interval, stop.clone(), work));
    };
    on_disk(INTERVAL, "the maintenance of the journal", Broker::maintain_journal);
    on_disk(INTERVAL, "the check of the disk", Broker::update_readiness);
    on_disk(REFUSAL_COUNTS, "the count of refusals", Broker::journal_counted_refusals);
    admin.spawn(Arc::clone(broker).run_resealing(stop.clone()));
}

/// Ends connections whose certificate has expired. Ends those of operators and executors, too, whose certificate is no
/// longer accepted.
///
/// Connections of steps need no such check: an opening that closes ends its own.
pub(super) fn maintain_connections(
    admin: &Runtime,
    broker: &Arc<Broker>,
    (steps_open, admin_open): (Arc<OpenConnections>, Arc<OpenConnections>),
    stop: &CancellationToken,
) {
    let (clock, registered) = (Arc::clone(broker), Arc::clone(&admin_open));
    admin.spawn(repeat(INTERVAL, stop.clone(), move || {
        let now = clock.now();
        steps_open.end_due(now);
        admin_open.end_due(now);
        std::future::ready(())
    }));
    let mut changes = broker.changes();
    let stop = stop.clone();
    admin.spawn(async move {
        while stop.run_until_cancelled(changes.changed()).await.is_some_and(|change| change.is_ok())
        {
            registered.end_others();
        }
    });
}

/// Returns memory to the system that a load has left behind, within half a minute after it.
///
/// Each thread keeps the blocks that it made and that were freed, and only the thread itself can release them. An idle
/// thread would keep them until its next load.
pub(super) fn release_memory_after_loads<'a>(
    runtimes: impl IntoIterator<Item = &'a Runtime>,
    stop: &CancellationToken,
) {
    for runtime in runtimes {
        let (handle, mut work) = (runtime.handle().clone(), Work::default());
        runtime.spawn(repeat(LOAD_CHECKS, stop.clone(), move || {
            let metrics = handle.metrics();
            let threads = 0..metrics.num_workers();
            if work.is_over(threads.clone().map(|n| metrics.worker_total_busy_duration(n)).sum()) {
                // Each takes a while, so that idle threads take the others.
                threads.for_each(|_| drop(handle.spawn(async { release_free_memory() })));
            }
            std::future::ready(())
        }));
    }
}

/// The work of a runtime's threads, and whether its memory was released since.
#[derive(Default)]
struct Work {
    /// All of it at the last check.
    seen: Duration,
    /// All of it at the last release.
    released: Duration,
    /// The releases to come after a load.
    due: u32,
}

impl Work {
    /// True if the threads are idle, and memory is to be released. `all` is the time that they have worked so far.
    fn is_over(&mut self, all: Duration) -> bool {
        let is_idle = all.saturating_sub(self.seen) < IDLE;
        self.seen = all;
        if all.saturating_sub(self.released) >= IDLE {
            self.due = RELEASES;
        }
        if !is_idle || self.due == 0 {
            return false;
        }
        (self.released, self.due) = (all, self.due - 1);
        true
    }
}

/// Does some work at every interval, never twice at a time, until `stop`.
async fn repeat<Work: Future<Output = ()>>(
    interval: Duration,
    stop: CancellationToken,
    mut work: impl FnMut() -> Work,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        work().await;
    }
}

/// Does work that may wait for the disk on a thread for such work.
async fn run_blocking(broker: Arc<Broker>, name: &str, work: fn(&Broker)) {
    if tokio::task::spawn_blocking(move || work(&broker)).await.is_err() {
        tracing::error!(work = name, "failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_released_after_a_load_and_not_while_it_lasts() {
        let mut work = Work::default();
        let checks = [(0, false), (9, false), (2000, false), (4000, false), (4001, true)];
        let after = [(4002, true), (4003, true), (4004, false), (4005, false)];
        for (worked, is_over) in checks.into_iter().chain(after) {
            assert_eq!(work.is_over(Duration::from_millis(worked)), is_over, "{worked}");
        }
    }
}
