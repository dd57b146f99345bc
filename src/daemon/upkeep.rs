//! What has to be done as time goes by.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::identity::OpenConnections;

/// How often ends and renewals are looked for.
const HOUSEKEEPING: Duration = Duration::from_millis(500);

/// How often it is told how many were refused without a word.
const UNSAID: Duration = Duration::from_secs(1);

/// Has the broker do it.
pub(super) fn keep_broker(admin: &Runtime, broker: &Arc<Broker>, stop: &CancellationToken) {
    let house = Arc::clone(broker);
    admin.spawn(keep_up(HOUSEKEEPING, stop.clone(), move || Arc::clone(&house).run_maintenance()));
    let keep_disk = |every: Duration, what: &'static str, work: fn(&Broker)| {
        let broker = Arc::clone(broker);
        let work = move || wait_for_disk(Arc::clone(&broker), what, work);
        admin.spawn(keep_up(every, stop.clone(), work));
    };
    keep_disk(HOUSEKEEPING, "the upkeep of the journal", Broker::maintain_journal);
    keep_disk(HOUSEKEEPING, "a look at the disk", Broker::update_readiness);
    keep_disk(UNSAID, "a count of refusals", Broker::journal_counted_refusals);
    admin.spawn(Arc::clone(broker).run_resealing(stop.clone()));
}

/// Ends connections whose certificates end, or are accepted no more: of steps, and of operators and executors.
///
/// An opening that closes ends its own connections, and a certificate of a step is never taken away before.
pub(super) fn keep_connections(
    admin: &Runtime,
    broker: &Arc<Broker>,
    (steps_open, admin_open): (Arc<OpenConnections>, Arc<OpenConnections>),
    stop: &CancellationToken,
) {
    let (clock, registered) = (Arc::clone(broker), Arc::clone(&admin_open));
    admin.spawn(keep_up(HOUSEKEEPING, stop.clone(), move || {
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

/// Does this now and then, one at a time, until `stop`.
async fn keep_up<Work: Future<Output = ()>>(
    every: Duration,
    stop: CancellationToken,
    mut work: impl FnMut() -> Work,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        work().await;
    }
}

/// Does something that waits for the disk where waiting is allowed.
async fn wait_for_disk(broker: Arc<Broker>, what: &str, work: fn(&Broker)) {
    if tokio::task::spawn_blocking(move || work(&broker)).await.is_err() {
        tracing::error!(what, "failed");
    }
}
