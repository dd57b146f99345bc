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
/// How often an idle thread releases memory.
const RELEASES: Duration = Duration::from_secs(10);
/// A runtime whose threads worked for less than this between two releases is idle: a two hundredth of the time.
const IDLE: Duration = Duration::from_millis(50);

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
/// Each thread keeps the blocks that it made and that were freed, and only the thread itself can release them. Idle
/// threads release every time, because blocks may be freed long after the load: when its connections close.
pub(super) fn release_memory_after_loads<'a>(
    runtimes: impl IntoIterator<Item = &'a Runtime>,
    stop: &CancellationToken,
) {
    for runtime in runtimes {
        let (handle, mut before) = (runtime.handle().clone(), Duration::ZERO);
        runtime.spawn(repeat(RELEASES, stop.clone(), move || {
            let metrics = handle.metrics();
            let threads = 0..metrics.num_workers();
            let worked: Duration =
                threads.clone().map(|n| metrics.worker_total_busy_duration(n)).sum();
            let is_idle = worked.saturating_sub(std::mem::replace(&mut before, worked)) < IDLE;
            if is_idle {
                // Each takes a while, so that idle threads take the others.
                threads.for_each(|_| drop(handle.spawn(async { release_free_memory() })));
            }
            std::future::ready(())
        }));
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
