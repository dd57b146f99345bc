//! Gauges: read from the broker and the system at every scrape.

use crate::broker::{Broker, Health, State};
use crate::metrics::{Gauge, Unit};
use crate::model::{ResourceName, Timestamp};

/// The most operators and executors whose certificates are listed, those that expire first. Nothing else bounds their
/// number.
const MAX_REGISTRATIONS: usize = 100;

/// All gauges.
pub(super) fn read(broker: &Broker) -> Vec<Gauge> {
    let health = broker.health();
    let mut gauges = vec![
        state(health.state),
        Gauge::of("start_time", "When the daemon started.", health.start_time.seconds())
            .in_unit(Unit::Seconds),
        Gauge::of("store_head", "The last batch of changes in force.", number(health.head)),
        certificate_ends(&health, broker.registration_ends()),
    ];
    gauges.extend(counts(&health));
    gauges.extend(endings(&health, broker.now()));
    gauges.extend(journal(&health));
    gauges.extend(process());
    gauges
}

fn state(state: State) -> Gauge {
    let help = "1 for what the broker does: serving, read-only (the store takes no writes), quarantined (it was \
                restored and not confirmed), no-secrets (the journal takes no lines) or draining.";
    let is_it = |one: State| (one.to_string(), i64::from(one == state));
    Gauge::by("state", help, "state", State::ALL.map(is_it))
}

/// The names of operators and executors are the only names of this deployment among the metrics.
fn certificate_ends(health: &Health, mut registered: Vec<(ResourceName, Timestamp)>) -> Gauge {
    registered.sort_by_key(|(_, end)| *end);
    let registered = registered.into_iter().take(MAX_REGISTRATIONS);
    let registered = registered.map(|(name, end)| (name.to_string(), end));
    let own = [("daemon", health.certificate_end), ("ca", health.authority_end)];
    let own = own.map(|(name, end)| (name.to_owned(), end));
    let ends = own.into_iter().chain(registered).map(|(name, end)| (name, end.seconds()));
    let help = "When the newest certificate ends of the daemon, the CA, and each operator and executor, in seconds \
                since 1970.";
    Gauge::by("certificate_end_time", help, "who", ends).in_unit(Unit::Seconds)
}

fn counts(health: &Health) -> impl Iterator<Item = Gauge> {
    let counts = health.counts;
    [
        ("connections", "Stored connections.", counts.connections),
        ("groups", "Connection groups.", counts.groups),
        ("secrets", "Secrets of workflows.", counts.secrets),
        ("open_steps", "Steps that are open.", counts.open_steps),
        ("live_leases", "Leases that are live.", counts.live_leases),
        ("watches", "Watches that steps have open.", counts.watches),
        (
            "reauthorizations_required",
            "Connections whose refresh token is of no use until another is written.",
            counts.reauthorizations,
        ),
    ]
    .into_iter()
    .map(|(name, help, count)| Gauge::of(name, help, number(count)))
}

fn endings(health: &Health, now: Timestamp) -> [Gauge; 3] {
    let endings = health.endings;
    let oldest = endings.oldest.map_or(0, |oldest| now.since(oldest).as_secs());
    [
        Gauge::of(
            "endings_pending",
            "Credentials that upstreams still accept although nobody may use them.",
            number(endings.pending),
        ),
        Gauge::of("endings_oldest_pending", "For how long the oldest of them is.", number(oldest))
            .in_unit(Unit::Seconds),
        Gauge::of(
            "endings_left_disabled",
            "Credentials that cannot be used, of which something stays upstream.",
            number(endings.left_disabled),
        ),
    ]
}

/// Empty while the journal is blocked: no number is better than an old number.
fn journal(health: &Health) -> Vec<Gauge> {
    let Some(journal) = &health.journal else { return Vec::new() };
    let unsynced_seconds = number(journal.unsynced_for.as_secs());
    vec![
        Gauge::of("journal_file", "The journal's file that is written.", number(journal.file)),
        Gauge::of("journal_line", "The journal's last line.", number(journal.line)),
        Gauge::of(
            "journal_unsynced_lines",
            "Lines of the journal that are not known to be on disk.",
            number(journal.unsynced_lines),
        ),
        Gauge::of(
            "journal_unsynced",
            "How long ago the oldest of them was written, at least.",
            unsynced_seconds,
        )
        .in_unit(Unit::Seconds),
    ]
}

/// Gauges of this process; those that the system does not report are left out.
fn process() -> impl Iterator<Item = Gauge> {
    let memory = resident_bytes().map(|bytes| {
        let help = "Memory of the daemon that is in RAM.";
        Gauge::of("resident_memory", help, number(bytes)).in_unit(Unit::Bytes)
    });
    let files = open_files().map(|files| {
        Gauge::of("open_files", "File descriptors that the daemon has open.", number(files))
    });
    memory.into_iter().chain(files)
}

/// "VmRSS: 1234 kB" (proc(5)).
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kib * 1024)
}

fn open_files() -> Option<usize> {
    // The descriptor that reads the directory is counted, too.
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}

fn number(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
