//! keyhatch beside servers that a user might take instead, in turns, under the same load.
//!
//! `cargo bench --bench peers` measures those that are installed. If all are, it writes peers.json and RESULTS.md in
//! benches. README.md there says what each of them leaves out.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench measures by the machine's own clock, fails by panicking, and prints its results"
)]

#[path = "../common/mod.rs"]
mod common;
mod etcd;
mod postgres;
mod redis;
#[path = "../transport/seed.rs"]
mod seed;
mod server;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::Daemon;
use common::measure::{Load, Rounds, Sample, drive};
use common::results::{Row, Run};
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use server::{Ask, Peer};
use tonic::transport::Channel;

/// The daemon's allocator, for the bench's own part of the work.
#[global_allocator]
static ALLOCATOR: keyhatch::seal::Allocator = keyhatch::seal::ALLOCATOR;

const ROUNDS: usize = 21;
/// The connections that share 64 requests in flight: few, each with many requests at once, or one for each request.
const CONNECTIONS: [usize; 2] = [4, 64];
const WARM: Load = Load { calls: 6_000, in_flight: 64 };
const COLD: Load = Load { calls: 100, in_flight: 1 };

fn main() {
    let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut run = Run::here();
    let mut versions = Vec::new();
    runtime.block_on(async {
        let ours = Ours::start().await;
        let peers = [postgres::start().await, redis::start().await, etcd::start().await];
        for peer in peers.into_iter().flatten() {
            run.rows.extend(measure(&ours, &peer).await);
            versions.push(peer.version);
        }
    });
    if versions.len() < 3 {
        return println!("not all are installed, so nothing is written");
    }
    run.servers = versions.join(", ");
    let runs = run.keep_in(&benches.join("peers.json"));
    common::tables::write(&benches.join("RESULTS.md"), "PEERS", &runs);
}

/// The daemon with the connection `aws/prod`, and a step that may resolve it.
struct Ours {
    daemon: Daemon,
    step: PathBuf,
}

impl Ours {
    async fn start() -> Self {
        let daemon = Daemon::start();
        seed::create(daemon.operator().await, "prod", "x".repeat(40)).await;
        let executor = ExecutorServiceClient::new(daemon.executor().await);
        let step = PathBuf::from(common::open(executor, "s").await.directory);
        Self { daemon, step }
    }

    async fn connect(&self, count: usize) -> Vec<Channel> {
        let mut channels = Vec::new();
        for _ in 0..count {
            channels.push(self.daemon.connect(&self.step).await);
        }
        channels
    }

    async fn ask_warm(&self, channels: Vec<Channel>) -> Sample {
        let ask = move |n: usize| resolve(channels[n % channels.len()].clone());
        drive(&self.daemon.process, WARM, ask).await
    }

    async fn ask_cold(&self) -> Sample {
        let step = Arc::new(self.step.clone());
        let ask = move |_| {
            let step = Arc::clone(&step);
            async move { resolve(common::connect(&step.join("keyhatch.sock"), &step).await).await }
        };
        drive(&self.daemon.process, COLD, ask).await
    }
}

async fn resolve(channel: Channel) {
    let resolved = StepServiceClient::new(channel).resolve(seed::named("prod")).await;
    resolved.unwrap_or_else(|status| panic!("{}", status.message()));
}

async fn measure(ours: &Ours, peer: &Peer) -> Vec<Row> {
    let mut rows = Vec::new();
    for count in CONNECTIONS {
        let (channels, mut warm) = (ours.connect(count).await, Vec::<Arc<dyn Ask>>::new());
        for _ in 0..count {
            warm.push(peer.client.connect().await);
        }
        let rounds = Rounds::measure(
            ROUNDS,
            async || ours.ask_warm(channels.clone()).await,
            async || {
                let warm = warm.clone();
                let ask = move |n: usize| warm[n % warm.len()].ask();
                drive(&peer.server.process, WARM, ask).await
            },
        );
        let what = format!("warm, 64 in flight on {count} connections, beside {}", peer.name);
        rows.push(Row::new(&what, rounds.await, None));
    }
    let rounds = Rounds::measure(
        ROUNDS,
        async || ours.ask_cold().await,
        async || {
            let client = Arc::clone(&peer.client);
            let ask = move |_| {
                let client = Arc::clone(&client);
                async move { client.connect().await.ask().await }
            };
            drive(&peer.server.process, COLD, ask).await
        },
    );
    let what = format!("cold: connect, ask, close, beside {}", peer.name);
    rows.push(Row::new(&what, rounds.await, None));
    rows
}
