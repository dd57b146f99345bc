//! The cost of the broker beyond its transport. The bench drives each load at the daemon and at a bare server of the
//! same shape, in turns.
//!
//! `cargo bench --bench transport`, or `-- PART…`. README.md in benches explains each row. Without a word, or after
//! `keep`, the bench also writes results.json, results.svg and RESULTS.md there.

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
mod breakdown;
#[path = "../common/mod.rs"]
mod common;
mod guard;
mod instructions;
mod minted;
mod picture;
mod postgres;
mod rows;
mod scale;
mod seed;
mod sends;
mod system_calls;

use std::path::Path;

use common::results::Run;
use common::tables;
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
    let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match words.as_slice() {
        [word] if word == "guard" => runtime.block_on(guard::check(&benches)),
        [word] if word == "record" => runtime.block_on(guard::record(&benches)),
        [] => {
            assert!(instructions::Counter::new().is_some(), "a full run needs valgrind");
            keep(runtime.block_on(run(&[])), &benches);
        }
        [word, parts @ ..] if word == "keep" => keep(runtime.block_on(run(parts)), &benches),
        parts => drop(runtime.block_on(run(parts))),
    }
}

/// Writes a run into the files of results.
fn keep(run: Run, benches: &Path) {
    picture::draw(&benches.join("results.svg"), &run).unwrap();
    let runs = run.keep_in(&benches.join("results.json"));
    tables::write(&benches.join("RESULTS.md"), "BENCH RESULTS", &runs);
}

/// Measures these parts, or all.
async fn run(parts: &[String]) -> Run {
    let is_wanted = |part: &str| parts.is_empty() || parts.iter().any(|one| one == part);
    let mut run = Run::here();
    let sides = Sides::start().await;
    if is_wanted("warm") {
        for (in_flight, calls) in [(1, 1_200), (64, 6_000)] {
            run.rows.push(rows::warm(&sides, in_flight, calls, ROUNDS).await);
        }
        let [ours, bar] =
            [&sides.daemon.process, &sides.bare.process].map(|one| one.busy_threads());
        run.servers = format!("keyhatch: {ours}; the bar: {bar}");
        println!("threads that worked: {}", run.servers);
    }
    if is_wanted("batch") {
        run.rows.extend(rows::batch(&sides, 1_200, ROUNDS).await);
    }
    if is_wanted("cold") {
        run.rows.push(rows::cold(&sides, 160, ROUNDS).await);
    }
    if is_wanted("openings") {
        run.rows.push(rows::openings(&sides, 640).await);
    }
    if is_wanted("fan-out") {
        run.rows.push(rows::fan_out().await);
    }
    if is_wanted("writes") {
        for (in_flight, calls) in [(1, 64), (64, 1_280)] {
            run.rows.push(rows::writes(&sides, in_flight, calls).await);
        }
    }
    if is_wanted("journal") {
        for (in_flight, calls) in [(1, 160), (64, 3_200)] {
            run.rows.push(rows::journal(in_flight, calls).await);
        }
    }
    drop(sides);
    if is_wanted("minted") {
        run.rows.extend(minted::cached().await);
        run.figures.extend(minted::cold().await);
    }
    if is_wanted("sends") {
        run.figures.extend(sends::sends().await);
    }
    sizes(is_wanted, &mut run).await;
    run
}

/// The parts that need daemons of their own: sizes of all kinds.
async fn sizes(is_wanted: impl Fn(&str) -> bool, run: &mut Run) {
    if is_wanted("groups") {
        run.rows.extend(scale::groups().await);
    }
    if is_wanted("breakdown") {
        run.figures.extend(breakdown::breakdown().await);
    }
    if is_wanted("open-steps") {
        run.figures.extend(scale::open_steps().await);
    }
    if is_wanted("idle") {
        run.figures.extend(scale::idle().await);
    }
    if is_wanted("sizes") {
        run.figures.extend(scale::sizes().await);
    }
}
