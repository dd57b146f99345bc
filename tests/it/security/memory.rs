//! No secret stays in the daemon's memory when nobody is connected any more.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyhatch::config::Config;
use keyhatch::daemon::Daemon;
use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_service_client::ApplyServiceClient;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::secret_service_client::SecretServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::model::Clock;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::harness::{
    Found, Scanner, ServeProcess, bytes, identity_in, init_in, keyhatch_in, open_request, report,
    request, resolver, scale, secret_document, skipped, step_channel, temp_dir, wait_until,
};

/// The number of secrets that one step resolves: a third one by one, a third in a batch, the rest by Watches.
const OF_ONE_STEP: usize = 30;
/// The number of searches before a found secret counts as staying.
const SEARCHES: usize = 40;

/// The secrets of one run. They are random, and only this process and the daemon have them.
struct Secrets {
    /// Secrets that an operator writes and steps resolve.
    resolved: Vec<String>,
    /// Secrets that an operator only writes.
    written: Vec<String>,
}

impl Secrets {
    fn new(count: usize) -> Self {
        let secret = || URL_SAFE_NO_PAD.encode(keyhatch::seal::random::<48>().unwrap());
        let secrets = || (0..count).map(|_| secret()).collect();
        Self { resolved: secrets(), written: secrets() }
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.resolved.iter().chain(&self.written)
    }

    fn scanner(&self) -> Scanner {
        Scanner::new(&self.all().map(|secret| secret.clone().into_bytes()).collect::<Vec<_>>())
    }

    /// The found copies of resolved secrets and of written secrets, as text.
    fn told(&self, found: &Found) -> String {
        let resolved = found.secrets.range(..self.resolved.len()).count();
        let written = found.secrets.len() - resolved;
        format!("{} copies of {resolved} resolved and {written} written secrets", found.copies)
    }
}

/// The open connections.
struct Connected {
    channels: Vec<Channel>,
    watches: Vec<Streaming<pb::WatchResponse>>,
    runtime: tokio::runtime::Runtime,
}

impl Connected {
    /// Closes every connection.
    fn leave(self) {
        drop((self.channels, self.watches));
        self.runtime.shutdown_timeout(Duration::from_secs(20));
    }
}

/// True if the memory of other processes can be read here. Otherwise the test is reported as skipped.
fn may_look() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skipped("a search through the daemon's memory", "needs root");
    }
    is_root
}

/// Writes every secret in one of four ways, and resolves the resolved ones.
fn write_and_resolve(directory: &Path, secrets: &Secrets) -> Connected {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (mut channels, mut watches) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        let socket = directory.join("run/admin.sock");
        let identity = identity_in(&directory.join("state/operators/admin"));
        let operator = channel(&socket, identity).await.unwrap();
        write(&operator, secrets).await;
        let identity = identity_in(&directory.join("state/executors/local"));
        let executor = channel(&socket, identity).await.unwrap();
        for first in (0..secrets.resolved.len()).step_by(OF_ONE_STEP) {
            let mut client = ExecutorServiceClient::new(executor.clone());
            let opened = client.open_step(open_request("w", &format!("s{first}"))).await.unwrap();
            let step = PathBuf::from(opened.into_inner().directory);
            let step = step_channel(&step).await;
            let end = secrets.resolved.len().min(first + OF_ONE_STEP);
            watches.extend(resolve(&step, secrets, first..end).await);
            channels.push(step);
        }
        channels.extend([operator, executor]);
    });
    Connected { channels, watches, runtime }
}

/// The connection or secret that has the secret of this number.
fn reference(number: usize) -> String {
    match number % 4 {
        0 | 1 => format!("slack/c{number}"),
        2 => format!("secret:c{number}"),
        _ => format!("slack/a{number}"),
    }
}

async fn write(operator: &Channel, secrets: &Secrets) {
    let mut documents = Vec::new();
    let mut writing = tokio::task::JoinSet::new();
    for (number, secret) in secrets.all().enumerate() {
        if number % 4 == 3 {
            documents.push(document(number, secret));
            continue;
        }
        // A connection takes this many requests at once.
        if writing.len() >= 16 {
            writing.join_next().await.unwrap().unwrap();
        }
        writing.spawn(write_one(operator.clone(), number, secret.clone()));
    }
    while let Some(written) = writing.join_next().await {
        written.unwrap();
    }
    for documents in documents.chunks(100) {
        let requests = documents.iter().cloned();
        let requests = requests.map(|document| pb::ApplyRequest { document: Some(document) });
        let requests = tokio_stream::iter(requests.collect::<Vec<_>>());
        ApplyServiceClient::new(operator.clone()).apply(requests).await.unwrap();
    }
}

/// Creates a connection, creates and updates a connection, or puts a secret.
async fn write_one(operator: Channel, number: usize, secret: String) {
    let first = if number % 4 == 1 { "first" } else { &secret };
    if number % 4 == 2 {
        let name = format!("workflows/w/secrets/c{number}");
        let request =
            pb::PutSecretRequest { name, value: secret.into_bytes(), ..Default::default() };
        SecretServiceClient::new(operator).put_secret(request).await.unwrap();
        return;
    }
    let connection = |secret: &str| pb::Connection {
        name: format!("connections/slack/c{number}"),
        fields: bytes(&[("api_token", secret)]),
        access: resolver(&["workflow:w"]),
        ..Default::default()
    };
    let mut client = ConnectionServiceClient::new(operator);
    let create =
        pb::CreateConnectionRequest { connection: Some(connection(first)), ..Default::default() };
    client.create_connection(create).await.ok().unwrap();
    if number % 4 == 1 {
        let connection = Some(connection(&secret));
        let update = pb::UpdateConnectionRequest { connection, ..Default::default() };
        client.update_connection(update).await.ok().unwrap();
    }
}

fn document(number: usize, secret: &str) -> pb::apply_request::Document {
    if number % 8 == 3 {
        return secret_document("w", &format!("a{number}"), secret);
    }
    pb::apply_request::Document::Connection(pb::ConnectionDocument {
        integration: "slack".to_owned(),
        name: format!("a{number}"),
        fields: bytes(&[("api_token", secret)]),
        access: resolver(&["workflow:w"]),
        ..Default::default()
    })
}

/// Resolves secrets in all three ways, and leaves the Watches open.
async fn resolve(
    step: &Channel,
    secrets: &Secrets,
    numbers: std::ops::Range<usize>,
) -> Vec<Streaming<pb::WatchResponse>> {
    let asked = |number: usize| match number % 8 {
        3 => request(&format!("secret:a{number}")),
        _ => request(&reference(number)),
    };
    let holds = |reply: &pb::ResolveResponse, number: usize| {
        reply.fields.values().any(|value| value == secrets.resolved[number].as_bytes())
    };
    let mut client = StepServiceClient::new(step.clone());
    let (mut watches, mut batch) = (Vec::new(), Vec::new());
    for number in numbers {
        match number % 3 {
            0 => {
                let reply = client.resolve(asked(number)).await.ok().unwrap().into_inner();
                assert!(holds(&reply, number));
            }
            1 => batch.push(number),
            _ => {
                let request = pb::WatchRequest { request: Some(asked(number)) };
                let mut watch = client.watch(request).await.unwrap().into_inner();
                let first = watch.message().await.ok().unwrap().unwrap();
                assert!(holds(&first.credential.unwrap(), number));
                watches.push(watch);
            }
        }
    }
    let requests = batch.iter().map(|number| asked(*number)).collect();
    let reply = client.batch_resolve(pb::BatchResolveRequest { requests }).await;
    for (result, number) in reply.ok().unwrap().into_inner().results.into_iter().zip(batch) {
        match result.result.unwrap() {
            pb::batch_resolve_result::Result::Response(reply) => assert!(holds(&reply, number)),
            pb::batch_resolve_result::Result::Error(error) => panic!("{}", error.message),
        }
    }
    watches
}

/// Searches until nothing is found, at most [`SEARCHES`] times. Memory is freed when the tasks that held it have ended,
/// which is after the end of the connection.
fn search(scanner: &Scanner, pid: u32) -> Found {
    let mut found = scanner.scan(pid).unwrap();
    for _ in 1..SEARCHES {
        if found.copies == 0 {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(200));
        found = scanner.scan(pid).unwrap();
    }
    found
}

/// A daemon with the allocator of the C library, which wipes nothing.
struct CarelessDaemon(Child);

/// The variable with the directory of [`CarelessDaemon`].
const DIRECTORY: &str = "KEYHATCH_TEST_CARELESS_DAEMON";

impl CarelessDaemon {
    fn start(directory: &Path) -> Self {
        init_in(directory);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "security::memory::a_daemon_with_an_allocator_that_wipes_nothing"]);
        command.args(["--ignored", "--nocapture"]).env(DIRECTORY, directory);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let daemon = Self(child);
        wait_until("the daemon is ready", || {
            keyhatch_in(directory, &["status"]).output().unwrap().status.success()
        });
        daemon
    }

    fn stop(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for CarelessDaemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "run by the others in a process of its own: a daemon until its stdin is closed"]
fn a_daemon_with_an_allocator_that_wipes_nothing() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let state = directory.join("state");
    // The control: a careless daemon would hold the KEK.
    let kek = hex::decode(std::fs::read_to_string(state.join("kek")).unwrap().trim()).unwrap();
    let runtime = directory.join("run");
    let config = Config::in_directories(state, runtime);
    let daemon = Daemon::start(&config, None, Clock::system()).unwrap_or_else(|e| panic!("{e}"));
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    daemon.stop();
    assert_eq!(kek.len(), 32);
}

#[test]
fn no_secret_stays_in_memory_after_connections_close() {
    if !may_look() {
        return;
    }
    let secrets = Secrets::new(scale(100, 1000));
    let scanner = secrets.scanner();
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let pid = serving.pid().as_raw_nonzero().get().cast_unsigned();
    let connected = write_and_resolve(directory.path(), &secrets);
    let open = scanner.scan(pid).unwrap();
    connected.leave();
    let closed = search(&scanner, pid);
    assert!(serving.terminate());
    assert!(closed.bytes > 1_000_000, "it was read");
    assert_eq!(closed.copies, 0, "{:?} {:?}", closed.places, closed.secrets);

    let directory = temp_dir();
    let careless = CarelessDaemon::start(directory.path());
    write_and_resolve(directory.path(), &secrets).leave();
    let control = search(&scanner, careless.0.id());
    careless.stop();
    assert!(control.copies > secrets.resolved.len() / 10, "{:?}", control.places);
    report(
        "secrets in the daemon's memory after their connections",
        format!("{0} resolved, {0} written", secrets.resolved.len()),
        format!("0 copies ({} while connections are open)", secrets.told(&open)),
        format!("{} without the wiping allocator", secrets.told(&control)),
    );
}

#[test]
fn the_kek_is_nowhere_in_the_daemons_memory_once_it_serves() {
    if !may_look() {
        return;
    }
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let scanner = |directory: &Path| {
        let kek = std::fs::read_to_string(directory.join("state/kek")).unwrap();
        Scanner::new(&[hex::decode(kek.trim()).unwrap()])
    };
    let pid = serving.pid().as_raw_nonzero().get().cast_unsigned();
    let found = scanner(directory.path()).scan(pid).unwrap();
    assert!(serving.terminate());
    assert_eq!(found.copies, 0, "{:?}", found.places);

    let directory = temp_dir();
    let careless = CarelessDaemon::start(directory.path());
    let control = scanner(directory.path()).scan(careless.0.id()).unwrap();
    careless.stop();
    assert!(control.copies > 0);
    report(
        "the KEK in the daemon's memory once it serves",
        "32 bytes, raw and in digits",
        "0 copies",
        format!("{} where it is kept", control.copies),
    );
}
