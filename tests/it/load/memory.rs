//! Memory is bounded by bytes: half-sent messages and unread replies hold no more than a share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use h2::RecvStream;
use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_service_client::ApplyServiceClient;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use tokio_stream::StreamExt as _;
use tonic::codegen::Bytes;
use tonic::codegen::http::Response;
use tonic::transport::Channel;

use crate::harness::raw::{Raw, framed, post};
use crate::harness::{
    ServeProcess, bytes, identity_in, init_in, keyhatch_in, open_request, report, request,
    resolver, secret_document, succeeded, temp_dir, wait_until,
};

/// The most additional memory, in KiB.
const MOST_GROWTH: u64 = 150 * 1024;
const BATCH: &str = "/keyhatch.v1.StepService/BatchResolve";
const RESOLVE: &str = "/keyhatch.v1.StepService/Resolve";
const WATCH: &str = "/keyhatch.v1.StepService/Watch";

/// A connection with four fields of this size, for steps of two workflows.
fn connection(name: &str, size: usize) -> pb::Connection {
    let value = "x".repeat(size);
    let fields: Vec<_> = ["a", "b", "c", "d"].map(|name| (name, value.as_str())).into();
    pb::Connection {
        name: format!("connections/generic/{name}"),
        fields: bytes(&fields),
        access: resolver(&["workflow:v", "workflow:w"]),
        ..Default::default()
    }
}

struct Field {
    serving: ServeProcess,
    runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

impl Field {
    fn start() -> Self {
        let directory = temp_dir();
        init_in(directory.path());
        let config = directory.path().join("config.toml");
        // Limits of rates and leases are not the subject here.
        let limits = "[limits]\nstep_requests_per_second = 1000000\n\
                      step_request_burst = 1000000\nstep_live_leases = 1000000\n\
                      executor_decision_burst = 1000000\n";
        std::fs::write(&config, limits).unwrap();
        let serve = ["serve", "--config", config.to_str().unwrap()];
        let serve = keyhatch_in(directory.path(), &serve);
        let serving = ServeProcess::spawn(directory.path(), serve);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        Self { serving, runtime, _directory: directory }
    }

    /// A daemon with a connection of 254 KiB and a connection of a few bytes.
    fn with_values() -> Self {
        let field = Self::start();
        let mut client = ConnectionServiceClient::new(field.admin("operators/admin"));
        for (name, size) in [("big", 65_000), ("small", 5)] {
            let connection = Some(connection(name, size));
            let create = pb::CreateConnectionRequest { connection, ..Default::default() };
            field.runtime.block_on(client.create_connection(create)).unwrap();
        }
        field
    }

    /// Rotates the small connection to values of this size.
    fn grow(&self, size: usize) {
        let connection = Some(connection("small", size));
        let update = pb::UpdateConnectionRequest { connection, ..Default::default() };
        let mut client = ConnectionServiceClient::new(self.admin("operators/admin"));
        self.runtime.block_on(client.update_connection(update)).unwrap();
    }

    fn steps(&self, workflow: &str, count: usize) -> Vec<PathBuf> {
        let mut executor = ExecutorServiceClient::new(self.admin("executors/local"));
        let mut open = |number| {
            let opening = executor.open_step(open_request(workflow, &format!("s{number}")));
            PathBuf::from(self.runtime.block_on(opening).unwrap().into_inner().directory)
        };
        (0..count).map(&mut open).collect()
    }

    /// Sends a request as each of these steps, on its own connection, and reads only the heads of the answers.
    fn ask_and_never_read<'a>(
        &self,
        steps: impl Iterator<Item = &'a PathBuf>,
        window: u32,
        path: &str,
        asked: &[Bytes],
    ) -> Vec<(Raw, Vec<Response<RecvStream>>)> {
        // The requests run at once, and those without room wait.
        let asking = steps.map(async |step| {
            let raw = Raw::connect(&step.join("keyhatch.sock"), &identity_in(step), window).await;
            let mut answers = Vec::with_capacity(asked.len());
            for message in asked {
                let sent = raw.send(post(path).body(()).unwrap(), Some(message.clone())).await;
                answers.push(sent.unwrap());
            }
            let heads = join_all(answers).await.into_iter().map(Result::unwrap).collect();
            (raw, heads)
        });
        self.runtime.block_on(join_all(asking))
    }

    fn held_a_share(&self, what: &str, before: u64, held: &[(Raw, Vec<Response<RecvStream>>)]) {
        let heads = || held.iter().flat_map(|(_, heads)| heads);
        let is_answered = |head: &&Response<_>| !head.headers().contains_key("grpc-status");
        let answered = heads().filter(is_answered).count();
        let grown = self.most() - before;
        let outcome = format!("{answered} answered, {} MiB more", grown >> 10);
        report(what, heads().count(), outcome, "-");
        assert!(answered >= held.len() / 4, "each has its share: {answered}");
        assert!(grown < MOST_GROWTH, "{grown} KiB");
    }

    fn admin(&self, identity: &str) -> Channel {
        self.runtime.block_on(self.serving.admin(identity))
    }

    /// The most memory that the daemon has used, in KiB.
    fn most(&self) -> u64 {
        self.serving.memory("VmHWM:")
    }

    /// The daemon's own pages now, in KiB.
    fn own(&self) -> u64 {
        self.serving.memory("RssAnon:")
    }
}

#[test]
fn forty_applies_that_stop_midway_hold_one_applys_memory() {
    const DOCUMENTS: usize = 1000;
    let field = Field::start();
    let before = field.most();
    let sent = Arc::new(AtomicUsize::new(0));
    let value = "x".repeat(60 * 1024);
    let channels: Vec<_> = (0..10).map(|_| field.admin("operators/admin")).collect();
    for number in 0..40 {
        let mut client = ApplyServiceClient::new(channels[number % channels.len()].clone());
        let (sent, value) = (Arc::clone(&sent), value.clone());
        let documents = tokio_stream::iter(0..DOCUMENTS).map(move |document| {
            sent.fetch_add(1, Ordering::SeqCst);
            let document = secret_document("w", &format!("s{number}.{document}"), &value);
            pb::ApplyRequest { document: Some(document) }
        });
        let documents = documents.chain(tokio_stream::pending());
        field.runtime.spawn(async move { client.apply(documents).await.map(drop) });
    }
    wait_until("one of them is all there", || sent.load(Ordering::SeqCst) >= DOCUMENTS);
    // The daemon gives up the silent Apply, and the next gets its turn.
    wait_until("the next is there", || sent.load(Ordering::SeqCst) >= 2 * DOCUMENTS);
    let grown = field.most() - before;
    report("40 Applies of 60 MiB that stop midway", 40, format!("{} MiB more", grown >> 10), "-");
    assert!(grown < MOST_GROWTH, "{grown} KiB");
    field.serving.must(&["status"]);
}

#[test]
fn batches_that_nobody_reads_hold_a_share_of_memory() {
    let field = Field::with_values();
    let steps = field.steps("w", 5);
    let before = field.most();
    let asking = steps[1..].iter().cycle().take(16);
    let held = field.ask_and_never_read(asking, 0, BATCH, &vec![batch(); 32]);
    field.held_a_share("4 steps that read none of 128 batches of 2.8 MiB", before, &held);
    succeeded(&keyhatch_get(&steps[0], "generic/small"));
    succeeded(&keyhatch_get(&field.steps("v", 1)[0], "generic/big"));
}

#[test]
fn many_steps_that_read_no_batch_hold_a_share_of_memory() {
    let field = Field::with_values();
    let steps = field.steps("w", 80);
    let before = field.most();
    let held = field.ask_and_never_read(steps.iter(), 0, BATCH, &[batch()]);
    field.held_a_share("80 steps that read none of a batch of 2.8 MiB each", before, &held);
    succeeded(&keyhatch_get(&field.steps("v", 1)[0], "generic/big"));
}

#[test]
fn watches_that_nobody_reads_hold_a_share_when_values_grow() {
    let field = Field::with_values();
    let steps = field.steps("w", 12);
    let before = field.most();
    let watch = framed(&pb::WatchRequest { request: Some(request("generic/small")) });
    let asked = vec![watch; 32];
    // The window has room for the first delivery and the beginning of another.
    let held = field.ask_and_never_read(steps.iter().chain(&steps), 5000, WATCH, &asked);
    let reader = field.steps("v", 1).remove(0);
    let channel =
        field.runtime.block_on(channel(&reader.join("keyhatch.sock"), identity_in(&reader)));
    let mut client = StepServiceClient::new(channel.unwrap());
    let watch = pb::WatchRequest { request: Some(request("generic/small")) };
    let mut watch = field.runtime.block_on(client.watch(watch)).unwrap().into_inner();
    let mut told = || field.runtime.block_on(watch.message()).unwrap().unwrap().credential.unwrap();
    assert_eq!(told().version, 1);
    for (version, size) in [(2, 65_000), (3, 64_999), (4, 64_998)] {
        // A reading client gets a delivery while others read nothing. All clients get one change before any gets the
        // next.
        field.grow(size);
        assert_eq!(told().version, version);
    }
    field.held_a_share("768 Watches that read none of 254 KiB", before, &held);
}

#[test]
fn the_memory_of_a_load_goes_back_within_a_minute() {
    let field = Field::with_values();
    let steps = field.steps("w", 16);
    let fresh = field.own();
    let resolve = framed(&request("generic/big"));
    let asking = steps.iter().cycle().take(64);
    let held = field.ask_and_never_read(asking, 0, RESOLVE, &vec![resolve; 4]);
    let taken = field.own() - fresh;
    drop(held);
    assert!(taken > 16 * 1024, "the load takes memory: {taken} KiB");
    let left = || field.own().saturating_sub(fresh);
    // The tries are counted, not timed: 600 of them take a minute.
    let is_back = |_| {
        std::thread::park_timeout(Duration::from_millis(100));
        left() < taken / 8
    };
    assert!((0..600).any(is_back), "of {taken} KiB, {} are left", left());
    let outcome = format!("{} of {taken} KiB are left", left());
    report("256 unread values of 254 KiB, within a minute after", 256, outcome, "-");
}

fn batch() -> Bytes {
    framed(&pb::BatchResolveRequest { requests: vec![request("generic/big"); 11] })
}

fn keyhatch_get(step: &Path, reference: &str) -> std::process::Output {
    let mut command = crate::harness::keyhatch(&["get", reference]);
    command.env("KEYHATCH_DIR", step).output().unwrap()
}
