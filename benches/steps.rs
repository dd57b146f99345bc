//! What steps cost: opening and closing them, keeping them open, and telling them of a new version.
//!
//! `cargo bench --bench steps`; README.md of this directory says what each row is.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench measures by the machine's own clock, fails by panicking, and prints its results"
)]
mod bare;
mod load;

use std::path::{Path, PathBuf};
use std::time::Instant;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use bare::Bare;
use load::{Daemon, Process, Spread, in_flight};

/// The daemon's own, because the bare server is this program, too.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<mimalloc::MiMalloc> =
    zeroizing_alloc::ZeroAlloc(mimalloc::MiMalloc);

const IN_FLIGHT: usize = 64;
/// How many steps are opened and closed, how often.
const PAIRS: usize = 4_000;
const PAIR_ROUNDS: usize = 5;
/// How many steps are kept open.
const OPEN: usize = 10_000;
/// How many watch.
const WATCHERS: usize = 1_000;
/// How they are spread: over how many steps, with how many connections each.
const SHAPES: [(usize, usize); 2] = [(1_000, 1), (16, 2)];
/// How many new versions a round has, and how many rounds there are.
const ROTATIONS: usize = 30;
const ROTATION_ROUNDS: usize = 9;

fn main() {
    // Cargo adds --bench; any other word names what to run.
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with('-'));
    let wanted = words.next();
    if wanted.as_deref() == Some("bare") {
        return bare::serve(Path::new(&words.next().unwrap()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
    if is_wanted("openings") {
        runtime.block_on(openings());
    }
    if is_wanted("memory") {
        runtime.block_on(memory());
    }
    if is_wanted("fan-out") {
        for (steps, each) in SHAPES {
            runtime.block_on(fan_out(steps, each));
        }
    }
}

async fn openings() {
    println!(
        "openings: {PAIRS} steps opened and closed, {IN_FLIGHT} in flight, {PAIR_ROUNDS} rounds"
    );
    let daemon = Daemon::start();
    let mut executors = Vec::new();
    for _ in 0..4 {
        executors.push(ExecutorServiceClient::new(daemon.executor().await));
    }
    let mut rates = Vec::new();
    for round in 0..=PAIR_ROUNDS {
        let begin = Instant::now();
        in_flight(PAIRS, IN_FLIGHT, |n| {
            let mut executor = executors.iter().cycle().nth(n % 4).unwrap().clone();
            async move {
                let name = load::open(executor.clone(), &format!("s{n}")).await.name;
                let request = pb::CloseStepRequest { name, ..Default::default() };
                executor.close_step(request).await.unwrap();
            }
        })
        .await;
        // The first warms up.
        if round > 0 {
            rates.push(PAIRS as f64 / begin.elapsed().as_secs_f64());
        }
    }
    println!("  OpenStep and CloseStep {}", Spread::of(rates, "/s"));
}

async fn memory() {
    println!("memory: {OPEN} open steps");
    let daemon = Daemon::start();
    create(&daemon).await;
    let executor = ExecutorServiceClient::new(daemon.executor().await);
    // What the first ones bring along is not theirs.
    load::open(executor.clone(), "first").await;
    let before = daemon.process.memory();
    let (sender, mut directories) = mpsc::unbounded_channel();
    let mut memory = vec![before];
    // In halves: what the first is given of memory that was free already, the second is not.
    for half in 0..2 {
        in_flight(OPEN / 2, IN_FLIGHT, |n| {
            let (executor, sender) = (executor.clone(), sender.clone());
            async move {
                let opened = load::open(executor, &format!("s{half}-{n}")).await;
                sender.send(PathBuf::from(opened.directory)).unwrap();
            }
        })
        .await;
        memory.push(daemon.process.memory());
    }
    drop(sender);
    let each = |now: f64| (now - before) / OPEN as f64;
    let halves = memory.windows(2).map(|pair| (pair[1] - pair[0]) / (OPEN / 2) as f64);
    println!(
        "  opened {:.1} KiB each, by halves {:.1?} (VmRSS {before} KiB before)",
        each(daemon.process.memory()),
        halves.collect::<Vec<_>>()
    );
    let mut all = Vec::new();
    while let Some(directory) = directories.recv().await {
        all.push(directory);
    }
    for directory in &all {
        let mut client = StepServiceClient::new(daemon.connect(directory).await);
        client.resolve(request()).await.unwrap();
    }
    println!("  after one Resolve of each {:.1} KiB each", each(daemon.process.memory()));
}

/// The same watchers at the daemon and at a server that only streams, told of new versions in turns.
async fn fan_out(steps: usize, each: usize) {
    println!(
        "fan-out: server CPU of a new version for {WATCHERS} watchers of {steps} steps with {each} \
         connections each, {ROTATION_ROUNDS} rounds of {ROTATIONS}, in turns"
    );
    let daemon = Daemon::start();
    create(&daemon).await;
    let (channels, admin) = (step_channels(&daemon, steps, each).await, daemon.operator().await);
    let mut at_broker = watch_all(&channels).await;
    let bare = Bare::start();
    let mut channels = Vec::new();
    for _ in 0..steps * each + 1 {
        channels.push(load::connect(&bare.socket(), bare.directory()).await);
    }
    // One is kept for telling it of another version.
    let trigger = channels.pop().unwrap();
    let mut at_bare = watch_all(&channels).await;
    let (mut broker_costs, mut bare_costs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROTATION_ROUNDS {
        let broker_cost = cost(&daemon.process, &mut at_broker, |n| rotate(&admin, n)).await;
        let bare_cost = cost(&bare.process, &mut at_bare, |_| tell(trigger.clone())).await;
        if round > 0 {
            broker_costs.push(broker_cost);
            bare_costs.push(bare_cost);
            ratios.push(broker_cost / bare_cost);
        }
    }
    println!(
        "  keyhatch {}   bare {}   ratio {}",
        Spread::of(broker_costs, " ms"),
        Spread::of(bare_costs, " ms"),
        Spread::of(ratios, "×")
    );
}

/// The server's CPU for each of so many new versions, in milliseconds.
async fn cost<F: Future<Output = ()>>(
    server: &Process,
    deliveries: &mut mpsc::UnboundedReceiver<()>,
    new_version: impl Fn(usize) -> F,
) -> f64 {
    let before = server.cpu();
    for n in 0..ROTATIONS {
        new_version(n).await;
        for _ in 0..WATCHERS {
            deliveries.recv().await.unwrap();
        }
    }
    (server.cpu() - before).as_secs_f64() * 1e3 / ROTATIONS as f64
}

async fn step_channels(daemon: &Daemon, steps: usize, each: usize) -> Vec<Channel> {
    let executor = ExecutorServiceClient::new(daemon.executor().await);
    let mut channels = Vec::new();
    // An opening has at most 64 Watches, and a connection 32 streams.
    for n in 0..steps {
        let opened = load::open(executor.clone(), &format!("s{n}")).await;
        for _ in 0..each {
            channels.push(daemon.connect(Path::new(&opened.directory)).await);
        }
    }
    channels
}

/// Opens every Watch and takes its first delivery; says so of each one after that.
async fn watch_all(channels: &[Channel]) -> mpsc::UnboundedReceiver<()> {
    let (sender, deliveries) = mpsc::unbounded_channel();
    for n in 0..WATCHERS {
        let mut client = StepServiceClient::new(channels.get(n % channels.len()).unwrap().clone());
        let watch = pb::WatchRequest { request: Some(request()) };
        let mut stream = client.watch(watch).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Ok(Some(_)) = stream.message().await {
                if sender.send(()).is_err() {
                    return;
                }
            }
        });
    }
    deliveries
}

fn request() -> pb::ResolveRequest {
    let target = pb::ConnectionTarget { integration: "aws".to_owned(), name: "prod".to_owned() };
    let target = Some(pb::resolve_request::Target::Connection(target));
    pb::ResolveRequest { target, ..Default::default() }
}

fn connection(secret: String) -> pb::Connection {
    let principals = vec!["workflow:bench".to_owned()];
    pb::Connection {
        name: "connections/aws/prod".to_owned(),
        fields: bare::fields(secret),
        access: vec![pb::AccessBinding { relation: pb::Relation::Resolver.into(), principals }],
        ..Default::default()
    }
}

async fn create(daemon: &Daemon) {
    let connection = Some(connection("x".repeat(40)));
    let request = pb::CreateConnectionRequest { connection, ..Default::default() };
    let mut client = ConnectionServiceClient::new(daemon.operator().await);
    client.create_connection(request).await.unwrap();
}

async fn rotate(admin: &Channel, n: usize) {
    let connection = Some(connection(format!("{n:040}")));
    let mut client = ConnectionServiceClient::new(admin.clone());
    let request = pb::UpdateConnectionRequest { connection, ..Default::default() };
    client.update_connection(request).await.unwrap();
}

/// The bare server tells of another version when it is asked for anything.
async fn tell(channel: Channel) {
    StepServiceClient::new(channel).resolve(request()).await.unwrap();
}
