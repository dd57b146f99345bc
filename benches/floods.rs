//! What a flood against one door costs those at the other doors.
//!
//! `cargo bench --bench floods`, or `-- KIND…`; README.md of this directory says what each row is. With
//! KEYHATCH_FULL=1 each part takes a minute instead of seconds; rows are added to the file that
//! KEYHATCH_RESULTS names.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench measures by the machine's own clock, fails by panicking, and prints its results"
)]
mod children;
mod flood;
mod load;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use keyhatch::identity::ClientIdentity;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;

use children::{Flood, SHARE, Sink};
use flood::{Kind, Tally};
use load::Daemon;

/// The steps that are not flooded, and what each asks a second.
const GOOD_STEPS: usize = 8;
const GOOD_RATE: f64 = 25.0;
/// The steps over which slow clients are spread, beside the admin door.
const SLOW_STEPS: usize = 100;
/// As many files as the daemon may have, where it is to run out of them.
const FEW_FILES: u32 = 128;
/// How long somebody new is waited for after a flood.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is flooded.
#[derive(Clone, Copy, PartialEq)]
enum Doors {
    /// One step's socket.
    Step,
    /// The admin socket.
    Admin,
    /// Many steps' sockets and the admin socket.
    Many,
}

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

const PARTS: [Part; 14] = [
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
];

fn main() {
    // Cargo adds --bench; any other word names what to run.
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
    for part in &PARTS {
        if words.is_empty() || words.iter().any(|word| part.what.contains(word.as_str())) {
            runtime.block_on(measure(part));
        }
    }
}

fn full() -> bool {
    std::env::var_os("KEYHATCH_FULL").is_some_and(|value| value == "1")
}

/// How long one flood lasts, and how often it is made in turns with its control.
fn scale(kind: Kind) -> (Duration, usize) {
    match (full(), kind) {
        (true, _) => (Duration::from_secs(10), 3),
        // The slow ones take a while to be there.
        (false, Kind::SlowClients) => (Duration::from_secs(8), 1),
        (false, _) => (Duration::from_secs(2), 2),
    }
}

/// A daemon with good steps that are connected, and doors to be flooded.
struct Field {
    daemon: Daemon,
    good: Vec<Channel>,
    /// A good step that is not connected.
    new: PathBuf,
    flooded: Vec<(PathBuf, PathBuf)>,
}

impl Field {
    async fn start(part: &Part) -> Self {
        let daemon = Daemon::start_with("", part.files);
        create(&daemon).await;
        let executor = ExecutorServiceClient::new(daemon.executor().await);
        let mut good = Vec::new();
        for n in 0..GOOD_STEPS {
            let opened = load::open(executor.clone(), &format!("good{n}")).await;
            good.push(daemon.connect(Path::new(&opened.directory)).await);
        }
        let new = PathBuf::from(load::open(executor.clone(), "new").await.directory);
        let mut flooded = Vec::new();
        let steps = match part.doors {
            Doors::Step => 1,
            Doors::Admin => 0,
            Doors::Many => SLOW_STEPS,
        };
        for n in 0..steps {
            let opened = load::open(executor.clone(), &format!("bad{n}")).await;
            let directory = PathBuf::from(opened.directory);
            flooded.push((directory.join("keyhatch.sock"), directory));
        }
        if part.doors != Doors::Step {
            flooded.push((daemon.admin_socket(), daemon.state().join("operators/admin")));
        }
        Self { daemon, good, new, flooded }
    }

    /// What each good request took, from the moment that it was due, in milliseconds.
    async fn ask(&self, how_long: Duration) -> Vec<f64> {
        let mut asking = JoinSet::new();
        let begin = Instant::now();
        for (n, channel) in self.good.iter().cloned().enumerate() {
            let every = Duration::from_secs_f64(1.0 / GOOD_RATE);
            // Not all at the same moment.
            let first = begin + every.mul_f64(n as f64 / GOOD_STEPS as f64);
            asking.spawn(ask_in_time(channel, first, every, begin + how_long));
        }
        let mut all = Vec::new();
        while let Some(took) = asking.join_next().await {
            all.extend(took.unwrap());
        }
        all
    }

    /// How long it takes until somebody new is served there, in milliseconds.
    async fn serves(&self, socket: &Path, identity: &Path) -> f64 {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if asks_anew(socket, identity).await.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        begin.elapsed().as_secs_f64() * 1e3
    }
}

/// A request whenever one is due, whether the one before was answered or not.
async fn ask_in_time(channel: Channel, first: Instant, every: Duration, end: Instant) -> Vec<f64> {
    let mut ticks = tokio::time::interval_at(first.into(), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut answers = JoinSet::new();
    loop {
        let due = ticks.tick().await;
        if due.into_std() >= end {
            break;
        }
        let mut client = StepServiceClient::new(channel.clone());
        answers.spawn(async move {
            client.resolve(request()).await.unwrap_or_else(|status| panic!("{status}"));
            due.elapsed().as_secs_f64() * 1e3
        });
    }
    answers.join_all().await
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

/// What came of one kind of flood.
#[derive(Default)]
struct Found {
    control: Vec<f64>,
    flooded: Vec<f64>,
    tally: Tally,
    /// The daemon's share of a core in each flood.
    cpu: f64,
    /// Until somebody new was served after it, in milliseconds: at another step's door, at the admin door,
    /// at the flooded one.
    again: [f64; 3],
}

async fn measure(part: &Part) {
    let field = Field::start(part).await;
    let sink = Sink::start();
    let (how_long, rounds) = scale(part.kind);
    // The first requests warm up; then there is what nobody floods.
    field.ask(Duration::from_secs(1)).await;
    let quiet = field.ask(how_long).await;
    let before = field.daemon.process.memory();
    field.daemon.process.forget_most_memory();
    let mut found = Found::default();
    for _ in 0..rounds {
        let (took, _) = flood(part, &field, Some(&sink), how_long).await;
        found.control.extend(took);
        let cpu = field.daemon.process.cpu();
        let (took, tally) = flood(part, &field, None, how_long).await;
        let had = field.daemon.process.cpu() - cpu;
        found.flooded.extend(took);
        found.cpu += had.as_secs_f64() / how_long.as_secs_f64() / rounds as f64;
        found.tally = add(found.tally, tally);
        let operator = field.daemon.state().join("operators/admin");
        let (socket, identity) = &field.flooded[0];
        let again = [
            field.serves(&field.new.join("keyhatch.sock"), &field.new).await,
            field.serves(&field.daemon.admin_socket(), &operator).await,
            field.serves(socket, identity).await,
        ];
        found.again = std::array::from_fn(|n| found.again[n].max(again[n]));
    }
    assert!(!field.daemon.log().contains("panicked"), "{}", field.daemon.log());
    let memory = (before, field.daemon.process.most_memory(), field.daemon.process.memory());
    state(part.what, quiet, found, memory);
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
) -> (Vec<f64>, Tally) {
    let targets = field.flooded.iter().map(|(socket, identity)| {
        (sink.map_or(socket.as_path(), |sink| &sink.socket), identity.as_path())
    });
    // A little longer than it is looked at.
    let flood = Flood::start(part.kind, how_long + Duration::from_millis(400), targets);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let took = field.ask(how_long).await;
    (took, flood.tally())
}

/// The middle and the 99th of a hundred, and the most.
fn percentiles(mut took: Vec<f64>) -> [f64; 3] {
    took.sort_by(f64::total_cmp);
    [took.len() / 2, took.len() * 99 / 100, took.len() - 1].map(|place| took[place])
}

fn state(what: &str, quiet: Vec<f64>, found: Found, (before, most, after): (f64, f64, f64)) {
    let asked = found.flooded.len();
    let [_, quiet_p99, _] = percentiles(quiet);
    let [control_p50, control_p99, _] = percentiles(found.control);
    let [p50, p99, _] = percentiles(found.flooded);
    let Tally { sent, connected, ended, turned_away, held } = found.tally;
    let [other, admin, own] = found.again;
    let count = format!(
        "{sent} sent, {connected} connected, {ended} ended, {turned_away} turned away, {held} held"
    );
    let outcome = format!(
        "{asked} of {asked} served, p50 {p50:.2} ms, p99 {p99:.2} ms, {:.2}× the control's p99; \
         daemon {:.0} % of a core, memory {:.1}, at most {:.1}, then {:.1} MiB; somebody new is served \
         {other:.0} ms after (admin {admin:.0} ms, flooded door {own:.0} ms)",
        p99 / control_p99,
        found.cpu * 100.0,
        before / 1024.0,
        most / 1024.0,
        after / 1024.0,
    );
    let control = format!(
        "p50 {control_p50:.2} ms, p99 {control_p99:.2} ms; without any flood {quiet_p99:.2} ms"
    );
    println!("{what}: {count}\n  {outcome}\n  control: {control}");
    if let Some(path) = std::env::var_os("KEYHATCH_RESULTS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "flood: {what}\t{count}\t{outcome}\t{control}").unwrap();
    }
}

fn request() -> pb::ResolveRequest {
    let target = pb::ConnectionTarget { integration: "aws".to_owned(), name: "prod".to_owned() };
    let target = Some(pb::resolve_request::Target::Connection(target));
    pb::ResolveRequest { target, ..Default::default() }
}

async fn create(daemon: &Daemon) {
    let principals = vec!["workflow:bench".to_owned()];
    let fields = [("access_key_id", "AKIAIOSFODNN7EXAMPLE"), ("secret_access_key", "x")];
    let connection = pb::Connection {
        name: "connections/aws/prod".to_owned(),
        fields: fields.map(|(name, value)| (name.to_owned(), value.into())).into(),
        access: vec![pb::AccessBinding { relation: pb::Relation::Resolver.into(), principals }],
        ..Default::default()
    };
    let connection = Some(connection);
    let request = pb::CreateConnectionRequest { connection, ..Default::default() };
    let mut client = ConnectionServiceClient::new(daemon.operator().await);
    client.create_connection(request).await.unwrap();
}
