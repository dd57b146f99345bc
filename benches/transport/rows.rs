//! The rows: the requests to both servers, and their number.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::bare::Bare;
use crate::common::measure::{Load, Rounds, Sample, drive};
use crate::common::results::{Goal, Row};
use crate::common::{self, CONFIG, Daemon, Process};
use crate::seed;

/// The rounds of each side. They are many and short, because the speed of a machine changes from second to second and
/// is nearly equal in two rounds in a row.
pub const ROUNDS: usize = 61;
/// The connections that share the requests in flight.
pub const CONNECTIONS: usize = 4;
/// The credentials of a BatchResolve, each of another connection.
const BATCH: usize = 10;
/// The number of watchers, and the steps and connections of each that they share.
const WATCHERS: usize = 1_000;
const WATCHING: (usize, usize) = (16, 2);
/// New versions in a round.
const VERSIONS: usize = 7;

/// Both servers, with the connection `aws/prod`, the connections of a batch, and a step of workflow bench.
pub struct Sides {
    pub daemon: Daemon,
    pub bare: Bare,
    pub ours: Vec<Channel>,
    pub bar: Vec<Channel>,
}

impl Sides {
    pub async fn start() -> Self {
        Self::of(Daemon::start(), Bare::start()).await
    }

    pub async fn of(daemon: Daemon, bare: Bare) -> Self {
        seed::create(daemon.operator().await, "prod", "x".repeat(40)).await;
        seed::fill(&daemon.operator().await, BATCH).await;
        let (ours, mut bar) = (daemon.steps(CONNECTIONS).await, Vec::new());
        for _ in 0..CONNECTIONS {
            bar.push(common::connect(&bare.socket(), bare.directory()).await);
        }
        Self { daemon, bare, ours, bar }
    }
}

pub async fn warm(sides: &Sides, in_flight: usize, calls: usize, rounds: usize) -> Row {
    let load = Load { calls, in_flight };
    let rounds = Rounds::measure(
        rounds,
        async || resolve(&sides.daemon.process, &sides.ours, load).await,
        async || resolve(&sides.bare.process, &sides.bar, load).await,
    );
    let goal = match in_flight {
        1 => Goal::AtMost(1.4),
        _ => Goal::AtMostOr(1.3, 5.0),
    };
    Row::new(&format!("warm Resolve, {in_flight} in flight"), rounds.await, Some(goal))
}

async fn resolve(server: &Process, channels: &[Channel], load: Load) -> Sample {
    let channels = channels.to_vec();
    drive(server, load, move |n| resolve_one(channels[n % channels.len()].clone())).await
}

/// Asks for `aws/prod`.
pub async fn resolve_one(channel: Channel) {
    resolve_this(channel, seed::named("prod")).await;
}

pub async fn resolve_this(channel: Channel, request: pb::ResolveRequest) {
    let resolved = StepServiceClient::new(channel).resolve(request).await;
    resolved.unwrap_or_else(|status| panic!("{}", status.message()));
}

/// Measures a batch of ten beside the echo of such a batch, and a tenth of it beside the echo of one credential.
pub async fn batch(sides: &Sides, calls: usize, rounds: usize) -> [Row; 2] {
    let load = Load { calls, in_flight: 64 };
    let ask = async |server: &Process, channels: &[Channel]| {
        let channels = channels.to_vec();
        let ask_one = move |n: usize| {
            let mut client = StepServiceClient::new(channels[n % channels.len()].clone());
            async move {
                let reply = client.batch_resolve(seed::batch(BATCH)).await.unwrap().into_inner();
                assert_eq!(reply.results.len(), BATCH);
            }
        };
        drive(server, load, ask_one).await
    };
    let batches = Rounds::measure(
        rounds,
        async || ask(&sides.daemon.process, &sides.ours).await,
        async || ask(&sides.bare.process, &sides.bar).await,
    )
    .await;
    let single = Load { calls: calls * 4, in_flight: 64 };
    let credentials = Rounds::measure(
        rounds,
        async || ask(&sides.daemon.process, &sides.ours).await.shared_by(BATCH),
        async || resolve(&sides.bare.process, &sides.bar, single).await,
    )
    .await;
    let each = "a credential of BatchResolve of 10, beside the echo of one, 64 in flight";
    [
        Row::new("BatchResolve of 10, 64 in flight", batches, None),
        Row::new(each, credentials, Some(Goal::AtMost(0.4))),
    ]
}

/// Measures a connection with one request.
pub async fn cold(sides: &Sides, calls: usize, rounds: usize) -> Row {
    let load = Load { calls, in_flight: 1 };
    let step = ExecutorServiceClient::new(sides.daemon.executor().await);
    let directory = PathBuf::from(common::open(step, "cold").await.directory);
    let ask = async |server: &Process, directory: &Path| {
        let directory = Arc::<Path>::from(directory);
        let ask_one = move |_| {
            let directory = Arc::clone(&directory);
            async move {
                let socket = directory.join("keyhatch.sock");
                resolve_one(common::connect(&socket, &directory).await).await;
            }
        };
        drive(server, load, ask_one).await
    };
    let rounds = Rounds::measure(
        rounds,
        async || ask(&sides.daemon.process, &directory).await,
        async || ask(&sides.bare.process, sides.bare.directory()).await,
    );
    Row::new("cold: connect, Resolve, close", rounds.await, Some(Goal::AtMost(1.1)))
}

/// Measures opening and closing steps.
pub async fn openings(sides: &Sides, calls: usize) -> Row {
    let load = Load { calls, in_flight: 64 };
    let mut executors = Vec::new();
    for _ in 0..CONNECTIONS {
        executors.push(sides.daemon.executor().await);
    }
    let ask = async |server: &Process, channels: &[Channel]| {
        let channels = channels.to_vec();
        let ask_one = move |n: usize| {
            let mut client = ExecutorServiceClient::new(channels[n % channels.len()].clone());
            async move {
                let name = common::open(client.clone(), &format!("s{n}")).await.name;
                let request = pb::CloseStepRequest { name, ..Default::default() };
                client.close_step(request).await.unwrap();
            }
        };
        drive(server, load, ask_one).await
    };
    let rounds = Rounds::measure(
        ROUNDS,
        async || ask(&sides.daemon.process, &executors).await,
        async || ask(&sides.bare.process, &sides.bar).await,
    );
    Row::new("OpenStep and CloseStep, 64 in flight", rounds.await, None)
}

/// Measures new connections. The bar commits as many values by the same engine.
pub async fn writes(sides: &Sides, in_flight: usize, calls: usize) -> Row {
    let load = Load { calls, in_flight };
    let mut operators = Vec::new();
    for _ in 0..CONNECTIONS {
        operators.push(sides.daemon.operator().await);
    }
    let mut made = 0;
    let rounds = Rounds::measure(
        ROUNDS,
        async || {
            made += 1;
            create(&sides.daemon.process, &operators, load, format!("w{in_flight}-{made}")).await
        },
        async || create(&sides.bare.process, &sides.bar, load, "w".to_owned()).await,
    );
    Row::new(&format!("CreateConnection, durable, {in_flight} in flight"), rounds.await, None)
}

async fn create(server: &Process, channels: &[Channel], load: Load, prefix: String) -> Sample {
    let channels = channels.to_vec();
    let create_one = move |n: usize| {
        let channel = channels[n % channels.len()].clone();
        let name = format!("{prefix}-{n}");
        async move { seed::create(channel, &name, "x".repeat(40)).await }
    };
    drive(server, load, create_one).await
}

/// Measures a journal that is synced before an answer, beside a journal that is only written.
pub async fn journal(in_flight: usize, calls: usize) -> Row {
    let load = Load { calls, in_flight };
    let start = async |mode: &str| {
        let daemon = Daemon::start_with(&format!("journal = \"{mode}\"\n{CONFIG}"), None);
        seed::create(daemon.operator().await, "prod", "x".repeat(40)).await;
        let channels = daemon.steps(CONNECTIONS).await;
        (daemon, channels)
    };
    let (synced, written) = (start("synced").await, start("written").await);
    let rounds = Rounds::measure(
        ROUNDS,
        async || resolve(&synced.0.process, &synced.1, load).await,
        async || resolve(&written.0.process, &written.1, load).await,
    );
    let what = format!("journal synced, beside written, {in_flight} in flight");
    let goal = (in_flight == 64).then_some(Goal::RateAtLeast(0.5));
    Row::new(&what, rounds.await, goal)
}

/// Measures new versions for watchers. A call is a delivery, and its time counts from the write.
pub async fn fan_out() -> Row {
    let sides = Sides::start().await;
    let (steps, each) = WATCHING;
    let executor = ExecutorServiceClient::new(sides.daemon.executor().await);
    let (mut ours, mut bar) = (Vec::new(), Vec::new());
    for n in 0..steps {
        let opened = common::open(executor.clone(), &format!("w{n}")).await;
        for _ in 0..each {
            ours.push(sides.daemon.connect(Path::new(&opened.directory)).await);
            bar.push(common::connect(&sides.bare.socket(), sides.bare.directory()).await);
        }
    }
    let (mut ours, mut bar) = (watch_all(&ours).await, watch_all(&bar).await);
    let (admin, trigger) = (sides.daemon.operator().await, sides.bar[0].clone());
    let rounds = Rounds::measure(
        ROUNDS,
        async || {
            let rotate = |n: usize| seed::update(admin.clone(), "prod", format!("{n:040}"));
            deliver(&sides.daemon.process, &mut ours, rotate).await
        },
        // Any request makes the bar deliver another version.
        async || deliver(&sides.bare.process, &mut bar, |_| resolve_one(trigger.clone())).await,
    );
    let what = format!("Watch: a new version for {WATCHERS} on {} connections", steps * each);
    Row::new(&what, rounds.await, Some(Goal::AtMost(1.5)))
}

/// Opens every Watch and takes its first delivery. The receiver gets the time of each later delivery.
async fn watch_all(channels: &[Channel]) -> mpsc::UnboundedReceiver<Instant> {
    let (sender, deliveries) = mpsc::unbounded_channel();
    for n in 0..WATCHERS {
        let mut client = StepServiceClient::new(channels[n % channels.len()].clone());
        let watch = pb::WatchRequest { request: Some(seed::named("prod")) };
        let mut stream = client.watch(watch).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Ok(Some(_)) = stream.message().await {
                if sender.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
    }
    deliveries
}

async fn deliver<F: Future<Output = ()>>(
    server: &Process,
    deliveries: &mut mpsc::UnboundedReceiver<Instant>,
    new_version: impl Fn(usize) -> F,
) -> Sample {
    let (before, begin, mut took) = (server.cpu(), Instant::now(), Vec::new());
    for n in 0..VERSIONS {
        let told = Instant::now();
        new_version(n).await;
        for _ in 0..WATCHERS {
            took.push(deliveries.recv().await.unwrap() - told);
        }
    }
    Sample::of(took, begin.elapsed(), server.cpu() - before)
}

/// Connects to the admin door and asks for the status, as a watchdog does. True if both work.
pub async fn is_ready(daemon: &Daemon) -> bool {
    let identity = daemon.state().join("operators/admin");
    let Ok(channel) = common::try_connect(&daemon.admin_socket(), &identity).await else {
        return false;
    };
    // List calls are served only when all records are read.
    let mut client = ConnectionServiceClient::new(channel);
    client.list_connections(pb::ListConnectionsRequest::default()).await.is_ok()
}
