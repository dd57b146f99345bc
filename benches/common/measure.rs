//! Loads in turns: the daemon, the bar, the daemon, the bar.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Process;

/// The result of one round of a load. Times are in microseconds.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Sample {
    pub rate: f64,
    pub p50: f64,
    pub p99: f64,
    /// CPU of the server for each call.
    pub cpu: f64,
}

/// The calls of a round, and the most in flight.
#[derive(Clone, Copy)]
pub struct Load {
    pub calls: usize,
    pub in_flight: usize,
}

/// The rounds of a row: the daemon's and the bar's, in pairs.
pub struct Rounds {
    pub ours: Vec<Sample>,
    pub bar: Vec<Sample>,
}

impl Rounds {
    /// Measures in turns. The first round of each server warms up and does not count.
    pub async fn measure(
        count: usize,
        mut ours: impl AsyncFnMut() -> Sample,
        mut bar: impl AsyncFnMut() -> Sample,
    ) -> Self {
        let mut rounds = Self { ours: Vec::new(), bar: Vec::new() };
        for round in 0..=count {
            let pair = (ours().await, bar().await);
            if round > 0 {
                rounds.ours.push(pair.0);
                rounds.bar.push(pair.1);
            }
        }
        rounds
    }
}

/// Drives a server with a load, and times each call.
pub async fn drive<F>(
    server: &Process,
    load: Load,
    call: impl Fn(usize) -> F + Send + Sync + 'static,
) -> Sample
where
    F: Future<Output = ()> + Send + 'static,
{
    let (call, next) = (Arc::new(call), Arc::new(AtomicUsize::new(0)));
    let (before, begin) = (server.cpu(), Instant::now());
    let mut workers = JoinSet::new();
    for _ in 0..load.in_flight {
        let (call, next) = (Arc::clone(&call), Arc::clone(&next));
        workers.spawn(async move {
            let mut took = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= load.calls {
                    return took;
                }
                let begin = Instant::now();
                call(n).await;
                took.push(begin.elapsed());
            }
        });
    }
    let took = workers.join_all().await.concat();
    Sample::of(took, begin.elapsed(), server.cpu() - before)
}

impl Sample {
    /// Computes a sample from the time of each call, the total time and the server's CPU.
    pub fn of(mut took: Vec<Duration>, time: Duration, cpu: Duration) -> Self {
        took.sort_unstable();
        let at = |percent: usize| {
            took.get((took.len() - 1) * percent / 100).map_or(f64::NAN, |took| micros(*took))
        };
        let calls = took.len() as f64;
        Self {
            rate: calls / time.as_secs_f64(),
            p50: at(50),
            p99: at(99),
            cpu: micros(cpu) / calls,
        }
    }

    /// The share of each of `count` parts of a call.
    pub fn shared_by(self, count: usize) -> Self {
        let count = count as f64;
        Self { rate: self.rate * count, cpu: self.cpu / count, ..self }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
