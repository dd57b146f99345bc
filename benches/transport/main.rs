//! The cost of the broker beyond its transport. The bench drives each load at the daemon and at a bare server of the
//! same shape, in turns.
//!
//! `cargo bench --bench transport`, or `-- PART…`. README.md in this directory explains each row. Without a word the
//! bench also writes results.json and results.svg in this directory.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench measures by the machine's own clock, fails by panicking, and prints its results"
)]

mod bare;
#[path = "../common/mod.rs"]
mod common;
mod instructions;
mod measure;
mod picture;
mod results;
mod rows;
mod scale;
mod seed;

use std::path::Path;

use common::{Daemon, in_flight};
use instructions::Counter;
use results::{Figure, Results};
use rows::{ROUNDS, Sides};

/// The daemon's allocator, because the bare server is this program.
#[global_allocator]
static ALLOCATOR: keyhatch::seal::Allocator = keyhatch::seal::ALLOCATOR;

fn main() {
    // Cargo adds --bench. Other words name parts to run.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [bare, directory] = words.as_slice()
        && bare == "bare"
    {
        return bare::serve(Path::new(directory));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if words == ["guard"] {
        return runtime.block_on(guard());
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut results = runtime.block_on(run(&words));
    let save = |results: &Results| {
        if words.is_empty() {
            results.write(repository);
        }
    };
    // The last part takes the longest, so the earlier results are saved first.
    save(&results);
    if words.is_empty() || words.iter().any(|word| word == "sizes") {
        runtime.block_on(scale::sizes(|figures| {
            results.figures.extend(figures);
            save(&results);
        }));
    }
}

/// Fails if a call costs about twice the expected CPU. It compares both servers in one run, so the speed of the machine
/// does not matter.
async fn guard() {
    const ROUNDS: usize = 5;
    let sides = Sides::start().await;
    let [_, credential] = rows::batch(&sides, 1_000, ROUNDS).await;
    let rows = [
        (rows::warm(&sides, 64, 10_000, ROUNDS).await, 2.0),
        (rows::cold(&sides, 200, ROUNDS).await, 1.6),
        (credential, 0.8),
    ];
    for (row, most) in rows {
        let (what, ratio) = (&row.what, row.ratio());
        assert!(ratio <= most, "{what}: {ratio:.2} times the bar's CPU, where {most} is the most");
    }
}

async fn run(words: &[String]) -> Results {
    let is_wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    let mut results = Results { date: today(), machine: machine(), ..Results::default() };
    let sides = Sides::start().await;
    if is_wanted("warm") {
        for (in_flight, calls) in [(1, 1_200), (64, 6_000)] {
            results.rows.push(rows::warm(&sides, in_flight, calls, ROUNDS).await);
        }
    }
    if is_wanted("batch") {
        results.rows.extend(rows::batch(&sides, 1_200, ROUNDS).await);
    }
    if is_wanted("cold") {
        results.rows.push(rows::cold(&sides, 160, ROUNDS).await);
    }
    if is_wanted("openings") {
        results.rows.push(rows::openings(&sides, 640).await);
    }
    if is_wanted("fan-out") {
        results.rows.push(rows::fan_out().await);
    }
    if is_wanted("writes") {
        for (in_flight, calls) in [(1, 64), (64, 1_280)] {
            results.rows.push(rows::writes(&sides, in_flight, calls).await);
        }
    }
    if is_wanted("journal") {
        for (in_flight, calls) in [(1, 160), (64, 3_200)] {
            results.rows.push(rows::journal(in_flight, calls).await);
        }
    }
    drop(sides);
    if is_wanted("groups") {
        results.rows.extend(scale::groups().await);
    }
    if is_wanted("breakdown") {
        results.figures.extend(breakdown().await);
    }
    if is_wanted("open-steps") {
        results.figures.extend(scale::open_steps().await);
    }
    results
}

/// The instructions of a warm Resolve by part. Valgrind's processor has no SHA-256 instructions, so the journal weighs
/// more here than it does on hardware.
async fn breakdown() -> Vec<Figure> {
    const CALLS: usize = 2_000;
    let (Some(at_daemon), Some(at_bare)) = (Counter::new(), Counter::new()) else {
        println!("no valgrind: no instructions are counted");
        return Vec::new();
    };
    let daemon = Daemon::start_under(&at_daemon.instrument());
    let sides = Sides::of(daemon, bare::Bare::start_under(&at_bare.instrument())).await;
    let ask = |channels: &[tonic::transport::Channel]| {
        let channels = channels.to_vec();
        in_flight(CALLS, 64, move |n| rows::resolve_one(channels[n % channels.len()].clone()))
    };
    ask(&sides.ours).await;
    ask(&sides.bar).await;
    let ours = at_daemon.count(&sides.daemon.process, ask(&sides.ours)).await;
    let bar = at_bare.count(&sides.bare.process, ask(&sides.bar)).await;
    let line = ours.of(&["keyhatch::journal::write::line::write"]);
    let parts = [
        ("all of it", ours.all),
        ("the bar", bar.all),
        (
            "access: find, decide, propose a lease",
            ours.of(&["Broker>::authorize_now", "Broker>::resolution"]),
        ),
        ("journal: the line", line),
        ("journal: lock, write(2), lease", ours.of(&["Journal>::commit"]) - line),
        ("open the record: decipher, wipe the stack", ours.of(&["cipher::on_wiped_stack"])),
        (
            "reply: convert, pad, encode",
            ours.of(&["convert::resolved", "padding::padding", "MessageEncoder"]),
        ),
    ];
    let each = |count: f64| count / CALLS as f64 / 1000.0;
    let figure = |(what, count): (&str, f64)| {
        Figure::new(
            &format!("instructions of a warm Resolve: {what}"),
            each(count),
            " thousand",
            None,
        )
    };
    parts.map(figure).into()
}

fn today() -> String {
    keyhatch::model::Clock::system().now().to_string().chars().take(10).collect()
}

/// The processor and kernel of this machine.
fn machine() -> String {
    let of = |path: &str, field: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(field)).map(str::to_owned);
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split('-').next().unwrap_or_default().trim();
    format!("{cores} cores ({}), Linux {kernel}", of("/proc/cpuinfo", "model name"))
}
