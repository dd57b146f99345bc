//! What the broker costs beyond its transport: every load is driven at the daemon and at a bare server of the same
//! shape, in turns.
//!
//! `cargo bench --bench transport`, or `-- PART…`; README.md of this directory says what each row is. Without a word
//! it also writes results.json and results.svg of this directory.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench measures by the machine's own clock, fails by panicking, and prints its results"
)]

#[path = "../bare.rs"]
mod bare;
#[path = "../load.rs"]
mod load;
mod instructions;
mod measure;
mod results;
mod rows;
mod seed;

use std::path::Path;

use results::Results;
use rows::{ROUNDS, Sides};

/// The daemon's own, because the bare server is this program, too.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<mimalloc::MiMalloc> =
    zeroizing_alloc::ZeroAlloc(mimalloc::MiMalloc);

fn main() {
    // Cargo adds --bench; other words name what to run.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [bare, directory] = words.as_slice()
        && bare == "bare"
    {
        return bare::serve(Path::new(directory));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let results = runtime.block_on(run(&words));
    println!("{}", results.tables());
}

async fn run(words: &[String]) -> Results {
    let is_wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    let mut results = Results::default();
    let sides = Sides::start().await;
    if is_wanted("warm") {
        for (in_flight, calls) in [(1, 4_000), (64, 20_000)] {
            results.rows.push(rows::warm(&sides, in_flight, calls, ROUNDS).await);
        }
    }
    if is_wanted("batch") {
        results.rows.extend(rows::batch(&sides, 4_000, ROUNDS).await);
    }
    if is_wanted("cold") {
        results.rows.push(rows::cold(&sides, 500, ROUNDS).await);
    }
    if is_wanted("openings") {
        results.rows.push(rows::openings(&sides, 2_000).await);
    }
    if is_wanted("fan-out") {
        results.rows.push(rows::fan_out().await);
    }
    if is_wanted("writes") {
        for (in_flight, calls) in [(1, 200), (64, 4_000)] {
            results.rows.push(rows::writes(&sides, in_flight, calls).await);
        }
    }
    if is_wanted("journal") {
        for (in_flight, calls) in [(1, 500), (64, 10_000)] {
            results.rows.push(rows::journal(in_flight, calls).await);
        }
    }
    results
}
