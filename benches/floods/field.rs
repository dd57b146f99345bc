//! The clients that nobody floods: steps that ask for a connection, and an executor that opens, renews and closes
//! steps.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use keyhatch::identity::ClientIdentity;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::Status;
use tonic::transport::Channel;

use crate::common;
use crate::common::Daemon;
use crate::doors;
use crate::doors::{Door, Doors};

/// The number of good steps, and the requests a second of each.
pub const GOOD_STEPS: usize = 8;
pub const GOOD_RATE: f64 = 25.0;
/// How often a second an executor renews one step, and opens and closes another.
const EXECUTOR_RATE: f64 = 10.0;
/// The longest wait for a new client after a flood.
const PATIENCE: Duration = Duration::from_secs(120);

/// The measured methods.
pub const CALLS: [&str; 4] = ["Resolve", "RenewStep", "OpenStep", "CloseStep"];
const RESOLVE: usize = 0;
const RENEW: usize = 1;
const OPEN: usize = 2;
const CLOSE: usize = 3;

/// The outcomes of one method's calls.
#[derive(Default)]
pub struct Answers {
    /// The times of the answered calls, in milliseconds.
    pub took: Vec<f64>,
    /// The reasons of the refused calls.
    pub failed: Vec<String>,
}

/// The outcomes of each method, in the order of [`CALLS`].
pub type Asked = [Answers; CALLS.len()];

/// The outcome of one call, with its method's index in [`CALLS`].
type Outcome = (usize, Result<f64, String>);

pub fn extend(all: &mut Asked, more: Asked) {
    for (all, more) in all.iter_mut().zip(more) {
        all.took.extend(more.took);
        all.failed.extend(more.failed);
    }
}

/// A daemon with connected good steps, and doors to flood.
pub struct Field {
    pub daemon: Daemon,
    good: Vec<Channel>,
    /// The measured executor, if there is one, and the step that it renews.
    executor: Option<(ExecutorServiceClient<Channel>, String)>,
    opened: Arc<AtomicUsize>,
    /// A good step that is not connected.
    new: PathBuf,
    pub flooded: Vec<Door>,
    /// The flooded door that is checked after a flood, with an identity that it serves.
    own: Door,
}

impl Field {
    pub async fn start(doors: Doors, files: Option<u32>) -> Self {
        let daemon = Daemon::start_with(doors.configuration(), files);
        let fields = [("access_key_id", "AKIAIOSFODNN7EXAMPLE"), ("secret_access_key", "x")];
        doors::create(&daemon, ("aws", "prod"), &fields, &["bench", doors::LIMITED]).await;
        let executor = ExecutorServiceClient::new(daemon.executor().await);
        let mut good = Vec::new();
        for n in 0..GOOD_STEPS {
            let opened = common::open(executor.clone(), &format!("good{n}")).await;
            good.push(daemon.connect(Path::new(&opened.directory)).await);
        }
        let new = common::open(executor.clone(), "new").await;
        let flooded = doors.open(&daemon, &executor).await;
        let own = match doors {
            Doors::RemovedOperator => {
                (daemon.admin_socket(), daemon.state().join("operators/admin"))
            }
            _ => flooded[0].clone(),
        };
        let executor = doors.are_both().then_some((executor, new.name));
        let new = PathBuf::from(new.directory);
        Self { daemon, good, executor, opened: Arc::default(), new, flooded, own }
    }

    /// The outcomes of the good requests. The time of each counts from the moment when it was due.
    pub async fn ask(&self, how_long: Duration) -> Asked {
        let mut asking = JoinSet::new();
        let begin = Instant::now();
        for (n, channel) in self.good.iter().cloned().enumerate() {
            let every = Duration::from_secs_f64(1.0 / GOOD_RATE);
            // The steps do not start at the same moment.
            let first = begin + every.mul_f64(n as f64 / GOOD_STEPS as f64);
            let resolve = move |due| resolve(channel.clone(), due);
            asking.spawn(in_time(first, every, begin + how_long, resolve));
        }
        if let Some((client, renewed)) = self.executor.clone() {
            let every = Duration::from_secs_f64(1.0 / EXECUTOR_RATE);
            let opened = Arc::clone(&self.opened);
            let round = move |due| {
                let step = format!("round{}", opened.fetch_add(1, Ordering::SeqCst));
                open_and_close(client.clone(), renewed.clone(), step, due)
            };
            asking.spawn(in_time(begin, every, begin + how_long, round));
        }
        let mut asked = Asked::default();
        for (call, outcome) in asking.join_all().await.into_iter().flatten() {
            match outcome {
                Ok(took) => asked[call].took.push(took),
                Err(refusal) => asked[call].failed.push(refusal),
            }
        }
        asked
    }

    /// The time until a new client is served, in milliseconds: at another step's door, at the admin door, at a flooded
    /// door.
    pub async fn serves_again(&self) -> [f64; 3] {
        let operator = self.daemon.state().join("operators/admin");
        let (socket, identity) = &self.own;
        [
            serves(&self.new.join("keyhatch.sock"), &self.new).await,
            serves(&self.daemon.admin_socket(), &operator).await,
            serves(socket, identity).await,
        ]
    }
}

/// Starts a piece of work whenever one is due, even if the last one is not done.
async fn in_time<W: Future<Output = Vec<Outcome>> + Send + 'static>(
    first: Instant,
    every: Duration,
    end: Instant,
    work: impl Fn(Instant) -> W,
) -> Vec<Outcome> {
    let mut ticks = tokio::time::interval_at(first.into(), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut answers = JoinSet::new();
    loop {
        let due = ticks.tick().await.into_std();
        if due >= end {
            break;
        }
        answers.spawn(work(due));
    }
    answers.join_all().await.into_iter().flatten().collect()
}

async fn resolve(channel: Channel, due: Instant) -> Vec<Outcome> {
    let mut client = StepServiceClient::new(channel);
    let (outcome, _) = timed(due, client.resolve(request())).await;
    vec![(RESOLVE, outcome)]
}

async fn open_and_close(
    mut client: ExecutorServiceClient<Channel>,
    renewed: String,
    step: String,
    due: Instant,
) -> Vec<Outcome> {
    let renew = pb::RenewStepRequest { name: renewed, ..Default::default() };
    let (outcome, _) = timed(due, client.renew_step(renew)).await;
    let mut outcomes = vec![(RENEW, outcome)];
    let opening = client.open_step(common::opening("bench", &step));
    let (outcome, opened) = timed(Instant::now(), opening).await;
    outcomes.push((OPEN, outcome));
    if let Some(opened) = opened {
        let name = opened.into_inner().name;
        let close = pb::CloseStepRequest { name, ..Default::default() };
        let (outcome, _) = timed(Instant::now(), client.close_step(close)).await;
        outcomes.push((CLOSE, outcome));
    }
    outcomes
}

/// The time of a call since `begin`, in milliseconds, or the reason of its refusal; and its answer.
async fn timed<T>(
    since: Instant,
    call: impl Future<Output = Result<T, Status>>,
) -> (Result<f64, String>, Option<T>) {
    match call.await {
        Ok(answer) => (Ok(since.elapsed().as_secs_f64() * 1e3), Some(answer)),
        Err(status) => (Err(format!("{:?}: {}", status.code(), status.message())), None),
    }
}

async fn serves(socket: &Path, identity: &Path) -> f64 {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if asks_anew(socket, identity).await.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    begin.elapsed().as_secs_f64() * 1e3
}

async fn asks_anew(socket: &Path, identity: &Path) -> Option<()> {
    let read = |name: &str| std::fs::read_to_string(identity.join(name)).unwrap();
    let client = ClientIdentity {
        ca_pem: read("ca.crt"),
        chain_pem: read("tls.crt"),
        key_pem: read("tls.key").into(),
    };
    let asked = async {
        let channel = channel(socket, client).await.ok()?;
        if identity.join("keyhatch.sock").exists() {
            StepServiceClient::new(channel).resolve(request()).await.ok().map(drop)
        } else {
            let mut client = SystemServiceClient::new(channel);
            client.get_status(pb::GetStatusRequest {}).await.ok().map(drop)
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
}

fn request() -> pb::ResolveRequest {
    let target = pb::ConnectionTarget { integration: "aws".to_owned(), name: "prod".to_owned() };
    let target = Some(pb::resolve_request::Target::Connection(target));
    pb::ResolveRequest { target, ..Default::default() }
}
