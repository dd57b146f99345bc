//! The cost of a flood against one door, or both, to clients at the other doors, and the traces that it leaves.
//!
//! `cargo bench --bench floods`, or `-- KIND…`. README.md in this directory explains each row. With KEYHATCH_FULL=1
//! each part takes a minute instead of seconds. The bench adds its rows to the file that KEYHATCH_RESULTS names.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench measures by the machine's own clock, fails by panicking, and prints its results"
)]
mod bounds;
mod children;
#[path = "../common/mod.rs"]
mod common;
mod doors;
mod field;
mod flood;

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use children::{Flood, SHARE, Sink};
use doors::Doors;
use field::{Asked, CALLS, Field, GOOD_RATE, GOOD_STEPS};
use flood::{Kind, Tally};

/// The file limit of a daemon that is to run out of descriptors.
const FEW_FILES: u32 = 128;

/// One row of the table.
struct Part {
    what: &'static str,
    kind: Kind,
    doors: Doors,
    files: Option<u32>,
}

const fn part(what: &'static str, kind: Kind, doors: Doors) -> Part {
    Part { what, kind, doors, files: None }
}

const PARTS: [Part; 19] = [
    part("rapid reset", Kind::RapidReset, Doors::Step),
    part("header lists of 64 KiB", Kind::HeaderLists, Doors::Step),
    part("CONTINUATION without end", Kind::Continuations, Doors::Step),
    part("empty DATA", Kind::EmptyData, Doors::Step),
    part("PING", Kind::Pings, Doors::Step),
    part("SETTINGS", Kind::Settings, Doors::Step),
    part("connections closed at once, step", Kind::Connections, Doors::Step),
    part("connections closed at once, admin", Kind::Connections, Doors::Admin),
    part("half hellos, step", Kind::HalfHellos, Doors::Step),
    part("half hellos, admin", Kind::HalfHellos, Doors::Admin),
    part("handshakes, step", Kind::Handshakes, Doors::Step),
    part("handshakes, admin", Kind::Handshakes, Doors::Admin),
    part("slow clients", Kind::SlowClients, Doors::Many),
    Part {
        what: "no file descriptor left",
        kind: Kind::IdleClients,
        doors: Doors::Admin,
        files: Some(FEW_FILES),
    },
    part("both doors, a removed operator", Kind::Heads, Doors::RemovedOperator),
    part("both doors, a limited executor and its steps", Kind::Heads, Doors::LimitedExecutor),
    part("both doors, a viewer", Kind::Viewer, Doors::Viewer),
    part("a viewer who lists connections", Kind::Lists, Doors::Lister),
    part("both doors, slow readers of batches", Kind::Unread, Doors::SlowReader),
];

fn main() {
    // Cargo adds --bench. Any other word names a kind to run.
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    match words.first().map(String::as_str) {
        Some("flood") => return children::flood_as_told(&words[1..]),
        Some("sink") => return children::sink(Path::new(&words[1])),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!(
        "{GOOD_STEPS} steps ask {GOOD_RATE} times a second each, over connections of their own, while \
         another process, with {SHARE} of a core by its own duty cycle, floods another door"
    );
    let is_wanted =
        |what: &str| words.is_empty() || words.iter().any(|word| what.contains(word.as_str()));
    let mut refused = Vec::new();
    for part in PARTS.iter().filter(|part| is_wanted(part.what)) {
        refused.extend(runtime.block_on(measure(part)));
    }
    if is_wanted(bounds::JOURNAL) {
        runtime.block_on(bounds::journal());
    }
    if is_wanted(bounds::APPLIES) {
        runtime.block_on(bounds::applies());
    }
    assert!(refused.is_empty(), "not everything was answered: {refused:?}");
}

fn full() -> bool {
    std::env::var_os("KEYHATCH_FULL").is_some_and(|value| value == "1")
}

/// The length of one flood, and the number of rounds with its control.
fn scale(kind: Kind) -> (Duration, usize) {
    match (full(), kind) {
        (true, _) => (Duration::from_secs(10), 3),
        // Slow clients need a while to connect, and heads wait for five seconds before they are refused.
        (false, Kind::SlowClients | Kind::Heads | Kind::Viewer | Kind::Lists | Kind::Unread) => {
            (Duration::from_secs(8), 1)
        }
        (false, _) => (Duration::from_secs(2), 2),
    }
}

/// The outcome of one kind of flood.
#[derive(Default)]
struct Found {
    control: Asked,
    flooded: Asked,
    tally: Tally,
    /// The daemon's share of a core in each flood.
    cpu: f64,
    /// The time until a new client was served afterwards, in milliseconds: at another step's door, at the admin door,
    /// at the flooded door.
    again: [f64; 3],
}

/// Measures a part. Returns the reasons of good requests that were refused.
async fn measure(part: &Part) -> Vec<String> {
    let field = Field::start(part.doors, part.files).await;
    let sink = Sink::start();
    let (how_long, rounds) = scale(part.kind);
    // The first requests warm up. The next measure the daemon without a flood.
    field.ask(Duration::from_secs(1)).await;
    let quiet = field.ask(how_long).await;
    let before = field.daemon.process.memory();
    field.daemon.process.forget_most_memory();
    let mut found = Found::default();
    for _ in 0..rounds {
        let (asked, _) = flood(part, &field, Some(&sink), how_long).await;
        field::extend(&mut found.control, asked);
        let cpu = field.daemon.process.cpu();
        let (asked, tally) = flood(part, &field, None, how_long).await;
        let had = field.daemon.process.cpu() - cpu;
        field::extend(&mut found.flooded, asked);
        found.cpu += had.as_secs_f64() / how_long.as_secs_f64() / rounds as f64;
        found.tally = add(found.tally, tally);
        let again = field.serves_again().await;
        found.again = std::array::from_fn(|n| found.again[n].max(again[n]));
    }
    assert!(!field.daemon.log().contains("panicked"), "{}", field.daemon.log());
    let memory = (before, field.daemon.process.most_memory(), field.daemon.process.memory());
    state(part.what, quiet, &found, memory);
    found.flooded.into_iter().flat_map(|answers| answers.failed).collect()
}

fn add(one: Tally, other: Tally) -> Tally {
    Tally {
        sent: one.sent + other.sent,
        connected: one.connected + other.connected,
        ended: one.ended + other.ended,
        turned_away: one.turned_away + other.turned_away,
        held: one.held.max(other.held),
    }
}

/// Floods the doors, or the sink in their place, while the good steps ask.
async fn flood(
    part: &Part,
    field: &Field,
    sink: Option<&Sink>,
    how_long: Duration,
) -> (Asked, Tally) {
    let targets = field.flooded.iter().map(|(socket, identity)| {
        (sink.map_or(socket.as_path(), |sink| &sink.socket), identity.as_path())
    });
    // The flood lasts a little longer than the measurement.
    let flood = Flood::start(part.kind, how_long + Duration::from_millis(400), targets);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = field.ask(how_long).await;
    (asked, flood.tally())
}

/// The median and the 99th percentile, if there are any values.
fn percentiles(took: &[f64]) -> [f64; 2] {
    let mut took = took.to_vec();
    took.sort_by(f64::total_cmp);
    [took.len() / 2, took.len() * 99 / 100]
        .map(|place| took.get(place).copied().unwrap_or(f64::NAN))
}

/// The outcomes of each requested method, as text.
fn fared(Found { control, flooded, .. }: &Found) -> String {
    let calls = CALLS.iter().zip(control.iter().zip(flooded));
    let calls = calls.map(|(call, (control, flooded))| {
        let (answered, failed) = (flooded.took.len(), flooded.failed.len());
        let [_, control] = percentiles(&control.took);
        let [p50, p99] = percentiles(&flooded.took);
        let asked = answered + failed;
        let ratio = p99 / control;
        let text = format!(
            "{call}: {answered} of {asked} served, p50 {p50:.2} ms, p99 {p99:.2} ms, {ratio:.2}× the control's"
        );
        (asked > 0).then_some(text)
    });
    calls.flatten().collect::<Vec<_>>().join("; ")
}

fn state(what: &str, quiet: Asked, found: &Found, (before, most, after): (f64, f64, f64)) {
    let [quiet, ..] = quiet;
    let [control, ..] = &found.control;
    let [_, quiet_p99] = percentiles(&quiet.took);
    let [control_p50, control_p99] = percentiles(&control.took);
    let Tally { sent, connected, ended, turned_away, held } = found.tally;
    let [other, admin, own] = found.again;
    let count = format!(
        "{sent} sent, {connected} connected, {ended} ended, {turned_away} turned away, {held} held"
    );
    let outcome = format!(
        "{}; daemon {:.0} % of a core, memory {:.1}, at most {:.1}, then {:.1} MiB ({:.1} MiB more at most); \
         somebody new is served {other:.0} ms after (admin {admin:.0} ms, flooded door {own:.0} ms)",
        fared(found),
        found.cpu * 100.0,
        before / 1024.0,
        most / 1024.0,
        after / 1024.0,
        (most - before) / 1024.0,
    );
    let control = format!(
        "Resolve p50 {control_p50:.2} ms, p99 {control_p99:.2} ms; without any flood {quiet_p99:.2} ms"
    );
    record(what, &count, &outcome, &control);
}

/// Prints a row, and adds it to the results.
fn record(what: &str, count: &str, outcome: &str, control: &str) {
    println!("{what}: {count}\n  {outcome}\n  control or bar: {control}");
    if let Some(path) = std::env::var_os("KEYHATCH_RESULTS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "flood: {what}\t{count}\t{outcome}\t{control}").unwrap();
    }
}
