//! The guard: a call must not cost more than it did, in CPU beside the bar, and in instructions and system calls beside
//! the recorded counts.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use tonic::transport::Channel;

use crate::common::{Daemon, Process};
use crate::instructions::Counter;
use crate::rows::{self, Sides, resolve_one};
use crate::seed;
use crate::system_calls::Tracer;

/// The file of the recorded counts, in benches: lines of an architecture, a count's name, and the count a call.
const RECORDED: &str = "guard.txt";
/// How far a count may be from the recorded count, on either side.
const TOLERANCE: f64 = 0.05;
/// The same in calls: three system calls of a round. The least of the rounds with 64 in flight has 16 to 18.
const FEW: f64 = 0.05;
/// The calls of each count of instructions.
const COUNTED: usize = 1_024;
/// The calls of a round, over which system calls are counted.
const ROUND: usize = 64;
/// The least of so many rounds counts: a busy machine only adds to it.
const ROUNDS: usize = 64;
/// How the names of the threads begin that serve steps.
const STEP_THREADS: &str = "step-door";
/// Long enough for all threads to stop, and for the client to send what it has.
const PAUSE: Duration = Duration::from_millis(10);

/// Fails if a call costs about twice the expected CPU, or if a count is not the recorded count any more.
pub async fn check(benches: &Path) {
    compare_times().await;
    let recorded = std::fs::read_to_string(benches.join(RECORDED)).unwrap_or_default();
    let mut failures = Vec::new();
    for (what, now) in counts().await {
        let found = recorded.lines().find_map(|line| line.strip_prefix(&name(&what)));
        let Some(was) = found.and_then(|was| was.trim().parse::<f64>().ok()) else {
            println!("{what}: {now:.3}, and none is recorded for this architecture");
            continue;
        };
        let change = now / was - 1.0;
        println!("{what}: {now:.3}, recorded {was}: {:+.1} %", change * 100.0);
        if change.abs() > TOLERANCE && (now - was).abs() > FEW {
            failures.push(what);
        }
    }
    assert!(
        failures.is_empty(),
        "{failures:?} changed by more than {} %. If they should, this command records them anew: \
         cargo bench --bench transport -- record",
        TOLERANCE * 100.0
    );
}

/// Records the counts of this architecture.
pub async fn record(benches: &Path) {
    let file = benches.join(RECORDED);
    let recorded = std::fs::read_to_string(&file).unwrap_or_default();
    let others = recorded.lines().filter(|line| !line.starts_with(std::env::consts::ARCH));
    let mut lines: Vec<_> = others.map(str::to_owned).collect();
    for (what, now) in counts().await {
        println!("{what}: {now:.3}");
        lines.push(format!("{}{now:.3}", name(&what)));
    }
    std::fs::write(file, lines.join("\n") + "\n").unwrap();
}

/// A line of the file up to the count.
fn name(what: &str) -> String {
    format!("{}\t{what}\t", std::env::consts::ARCH)
}

/// Compares both servers in one run, so the speed of the machine does not matter.
async fn compare_times() {
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

/// Instructions and system calls of a warm Resolve, with 1 and with 64 in flight.
async fn counts() -> Vec<(String, f64)> {
    let mut counts = Vec::new();
    let mut keep = |what: &str, in_flight: usize, each: f64| {
        counts.push((format!("{what} of a warm Resolve, {in_flight} in flight"), each));
    };
    match Counter::new() {
        None => skip("valgrind"),
        Some(counter) => {
            let (daemon, step) = start(&counter.instrument()).await;
            for width in [1, 64] {
                let ask = || ask(&step, COUNTED, width);
                ask().await;
                let all = counter.count(&daemon.process, ask()).await.all;
                keep("instructions", width, all / COUNTED as f64);
            }
        }
    }
    match Tracer::new() {
        None => skip("strace"),
        Some(tracer) => {
            let (daemon, step) = start(&tracer.instrument()).await;
            for width in [1, 64] {
                ask(&step, 512, width).await;
                let mut least = f64::INFINITY;
                for _ in 0..ROUNDS {
                    let round = round(&daemon.process, &step, width);
                    let count = tracer.count(&daemon.process, STEP_THREADS, round).await;
                    least = least.min(count);
                }
                keep("system calls", width, least / ROUND as f64);
            }
        }
    }
    counts
}

/// A count cannot be left out where everything must be checked.
fn skip(program: &str) {
    println!("skipped: counts: {program} is not installed");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{program} is not installed");
}

async fn start(instrument: &[String]) -> (Daemon, Channel) {
    let daemon = Daemon::start_under(instrument);
    seed::create(daemon.operator().await, "prod", "x".repeat(40)).await;
    let step = daemon.steps(1).await.remove(0);
    (daemon, step)
}

/// Asks in rounds on one connection: the requests of a round leave together, and the next round waits for all replies.
async fn ask(step: &Channel, calls: usize, in_flight: usize) {
    for _ in 0..calls / in_flight {
        join_all((0..in_flight).map(|_| resolve_one(step.clone()))).await;
    }
}

/// A round of calls. More than one in flight arrive while the daemon is stopped, so that it finds them all at once.
async fn round(daemon: &Process, step: &Channel, in_flight: usize) {
    if in_flight == 1 {
        return ask(step, ROUND, in_flight).await;
    }
    daemon.signal(Signal::STOP);
    tokio::time::sleep(PAUSE).await;
    let requests: Vec<_> = (0..in_flight).map(|_| resolve_one(step.clone())).collect();
    let replies = tokio::spawn(join_all(requests));
    tokio::time::sleep(PAUSE).await;
    daemon.signal(Signal::CONT);
    replies.await.unwrap();
}
