//! Parts that several benches use: a daemon as a process, requests in flight, spreads.

#![allow(dead_code, reason = "no bench uses all of it")]

pub mod machine;
pub mod measure;
pub mod process;
pub mod results;
pub mod tables;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub use self::process::Process;
use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::identity::{ClientIdentity, ConnectError};
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Channel;
use zeroize::Zeroizing;

/// A configuration with high rate limits. The checks still run, but no bench reaches a limit.
pub const CONFIG: &str = "
[limits]
executor_opens_per_second = 1000000
executor_open_burst = 1000000
executor_decisions_per_second = 1000000
executor_decision_burst = 1000000
admin_requests_per_second = 1000000
admin_request_burst = 1000000
step_connections = 1024
step_new_connections_per_second = 1000000
step_new_connection_burst = 1000000
step_requests_per_second = 1000000
step_read_kib_per_second = 1000000
step_request_burst = 1000000
step_live_leases = 1000000
";

/// The starts of a daemon under an instrument until one must succeed.
const INSTRUMENTED_STARTS: usize = 4;

/// A `keyhatch serve` process in its own directory.
pub struct Daemon {
    pub process: Process,
    places: Places,
    /// The limit of open files, if any.
    files: Option<u32>,
}

/// The directories of a daemon.
struct Places {
    /// State, configuration and log.
    disk: tempfile::TempDir,
    /// The runtime directory: in memory, as /run is. ext4 searches long for an inode after many were freed.
    runtime: tempfile::TempDir,
}

impl Places {
    fn new() -> Self {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("kh");
        let runtime = builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir());
        Self { disk: builder.tempdir().unwrap(), runtime: runtime.unwrap() }
    }
}

impl Daemon {
    /// Makes a broker and serves it. The daemon is ready when this returns.
    pub fn start() -> Self {
        Self::start_with(CONFIG, None)
    }

    /// Starts a daemon under an instrument, given by its words. An instrument runs one thread at a time, and at times lets
    /// none but the store's spin: then the daemon is started anew.
    pub fn start_under(instrument: &[String]) -> Self {
        let mut starts = (0..INSTRUMENTED_STARTS).map(|_| Self::try_make(CONFIG, None, instrument));
        starts
            .find_map(|daemon| daemon)
            .unwrap_or_else(|| panic!("the daemon does not come up under its instrument"))
    }

    /// Starts a daemon with this configuration and this limit of open files.
    pub fn start_with(configuration: &str, files: Option<u32>) -> Self {
        Self::make(configuration, files, &[])
    }

    fn make(configuration: &str, files: Option<u32>, instrument: &[String]) -> Self {
        Self::try_make(configuration, files, instrument)
            .unwrap_or_else(|| panic!("the daemon does not come up"))
    }

    /// `None` if the daemon does not answer within 20 seconds.
    fn try_make(configuration: &str, files: Option<u32>, instrument: &[String]) -> Option<Self> {
        let places = Places::new();
        std::fs::write(places.disk.path().join("config.toml"), configuration).unwrap();
        let init = command(&places, files, &[], &["init"]).status();
        assert!(init.unwrap().success());
        let process = serve(&places, files, instrument);
        let daemon = Self { process, places, files };
        let begin = Instant::now();
        let asks = ["timeout", "2"].map(str::to_owned);
        while !command(&daemon.places, files, &asks, &["status"]).status().unwrap().success() {
            if begin.elapsed() > Duration::from_secs(20) {
                return None;
            }
        }
        Some(daemon)
    }

    /// Runs a command on the daemon's broker. It must succeed.
    pub fn run(&self, arguments: &[&str]) {
        let status = command(&self.places, None, &[], arguments).stdin(Stdio::null()).status();
        assert!(status.unwrap().success(), "{arguments:?}");
    }

    /// Stops the daemon with SIGTERM.
    pub fn stop(&mut self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        self.process.wait();
    }

    /// True if the daemon's log says that it serves.
    pub fn says_that_it_serves(&self) -> bool {
        let log = std::fs::read_to_string(self.places.disk.path().join("log")).unwrap();
        log.lines().any(|line| line.contains(": serving "))
    }

    /// Serves the same state again under an instrument. The daemon may not be ready when this returns.
    pub fn serve(&mut self, instrument: &[String]) {
        self.process = serve(&self.places, self.files, instrument);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.places.disk.path().join("log")).unwrap()
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.places.runtime.path().join("run/admin.sock")
    }

    pub fn state(&self) -> PathBuf {
        self.places.disk.path().join("state")
    }

    pub async fn operator(&self) -> Channel {
        self.connect(&self.state().join("operators/admin")).await
    }

    pub async fn executor(&self) -> Channel {
        self.connect(&self.state().join("executors/local")).await
    }

    /// A channel with the identity in this directory.
    pub async fn connect(&self, identity: &Path) -> Channel {
        let own = identity.join("keyhatch.sock");
        let admin = self.admin_socket();
        connect(if own.exists() { &own } else { &admin }, identity).await
    }

    /// This many channels to the socket of a step of workflow bench.
    pub async fn steps(&self, connections: usize) -> Vec<Channel> {
        let client = ExecutorServiceClient::new(self.executor().await);
        let opened = open(client, "s").await;
        let mut channels = Vec::new();
        for _ in 0..connections {
            channels.push(self.connect(Path::new(&opened.directory)).await);
        }
        channels
    }

    /// A channel to each of these steps of workflow bench.
    pub async fn step_each(&self, names: &[&str]) -> Vec<Channel> {
        let client = ExecutorServiceClient::new(self.executor().await);
        let mut channels = Vec::new();
        for name in names {
            let opened = open(client.clone(), name).await;
            channels.push(self.connect(Path::new(&opened.directory)).await);
        }
        channels
    }
}

/// The measured program: the one that was built with the bench, or another in KEYHATCH_BENCH_PROGRAM.
fn program() -> OsString {
    let built = || env!("CARGO_BIN_EXE_keyhatch").into();
    std::env::var_os("KEYHATCH_BENCH_PROGRAM").unwrap_or_else(built)
}

/// A command of the program on this broker, under an instrument.
fn command(
    places: &Places,
    files: Option<u32>,
    instrument: &[String],
    arguments: &[&str],
) -> Command {
    let limit = files.map(|files| format!("ulimit -n {files} && ")).unwrap_or_default();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limit}exec \"$@\""), "sh"]);
    command.args(instrument).arg(program()).args(arguments);
    command.env("KEYHATCH_STATE", places.disk.path().join("state"));
    command.env("KEYHATCH_RUNTIME", places.runtime.path().join("run"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn serve(places: &Places, files: Option<u32>, instrument: &[String]) -> Process {
    let log = std::fs::File::create(places.disk.path().join("log")).unwrap();
    let config = places.disk.path().join("config.toml");
    let mut command =
        command(places, files, instrument, &["serve", "--config", config.to_str().unwrap()]);
    Process::spawn(command.stderr(log))
}

/// Opens a step of workflow bench.
pub async fn open(executor: ExecutorServiceClient<Channel>, step: &str) -> pb::OpenedStep {
    open_of(executor, "bench", step).await
}

/// Opens a step of this workflow.
pub async fn open_of(
    mut executor: ExecutorServiceClient<Channel>,
    workflow: &str,
    step: &str,
) -> pb::OpenedStep {
    let opened = executor.open_step(opening(workflow, step)).await;
    opened.unwrap_or_else(|status| panic!("{}", status.message())).into_inner()
}

pub fn opening(workflow: &str, step: &str) -> pb::OpenStepRequest {
    pb::OpenStepRequest {
        workflow: workflow.to_owned(),
        run: "1".to_owned(),
        step: step.to_owned(),
        mount_path: "host".to_owned(),
        ..Default::default()
    }
}

/// A channel to this socket with this identity.
pub async fn connect(socket: &Path, identity: &Path) -> Channel {
    try_connect(socket, identity).await.unwrap()
}

/// Connects to a socket on which nobody may listen yet.
pub async fn try_connect(socket: &Path, identity: &Path) -> Result<Channel, ConnectError> {
    let read = |name: &str| std::fs::read_to_string(identity.join(name)).unwrap();
    let client = ClientIdentity {
        ca_pem: read("ca.crt"),
        chain_pem: read("tls.crt"),
        key_pem: Zeroizing::new(read("tls.key")),
    };
    channel(socket, client).await
}

/// Does `count` pieces of work, `width` at a time.
pub async fn in_flight<W: Future<Output = ()> + Send + 'static>(
    count: usize,
    width: usize,
    mut work: impl FnMut(usize) -> W,
) {
    let mut running = tokio::task::JoinSet::new();
    for n in 0..count {
        if running.len() == width {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(work(n));
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

/// The store's engine alone. Writers wait, and one thread commits up to 256 of their values of 512 bytes with one
/// batch, flush and fdatasync.
pub struct Committer(mpsc::Sender<oneshot::Sender<()>>);

impl Committer {
    /// Starts the committing thread, which ends when this is dropped.
    pub fn start(directory: &Path) -> Self {
        let db = sled::Config::new().path(directory).flush_every_ms(None).open().unwrap();
        let data = std::fs::File::open(directory.join("db")).unwrap();
        let (sender, mut jobs) = mpsc::channel::<oneshot::Sender<()>>(256);
        std::thread::spawn(move || {
            let (mut taken, mut key) = (Vec::new(), 0_u64);
            while let Some(first) = jobs.blocking_recv() {
                taken.push(first);
                while taken.len() < 256
                    && let Ok(job) = jobs.try_recv()
                {
                    taken.push(job);
                }
                let mut batch = sled::Batch::default();
                for _ in &taken {
                    key += 1;
                    batch.insert(&key.to_be_bytes(), &[7_u8; 512][..]);
                }
                db.apply_batch(batch).unwrap();
                db.flush().unwrap();
                data.sync_data().unwrap();
                for done in taken.drain(..) {
                    let _ = done.send(());
                }
            }
        });
        Self(sender)
    }

    /// Writes a value. Returns when it is on disk.
    pub async fn commit(&self) {
        let (done, waited) = oneshot::channel();
        self.0.send(done).await.unwrap();
        waited.await.unwrap();
    }
}

/// The median of some measurements with their least and most.
pub struct Spread {
    low: f64,
    pub middle: f64,
    high: f64,
    unit: &'static str,
}

impl Spread {
    pub fn of(mut values: Vec<f64>, unit: &'static str) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        Self { low: at(0), middle: at(values.len() / 2), high: at(values.len() - 1), unit }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.middle < 10.0 { 3 } else { 1 };
        let Self { low, middle, high, unit } = self;
        write!(f, "{middle:.digits$}{unit} ({low:.digits$} to {high:.digits$})")
    }
}
