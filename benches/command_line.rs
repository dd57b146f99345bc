//! The cost of the command line to a step: `get` and `exec` as whole processes, and masking.
//!
//! `cargo bench --bench command_line`. README.md in this directory explains each row.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench measures by the machine's own clock, fails by panicking, and prints its results"
)]
mod common;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;

use common::{Daemon, Spread};

const KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "not-a-real-secret-access-key-of-40-bytes";
/// The runs of each process.
const PROCESSES: usize = 300;
/// The bytes of output through the masks, and the rounds.
const OUTPUT_BYTES: u64 = 1_000_000_000;
const OUTPUT_ROUNDS: usize = 5;
/// A typical log line.
const LINE: &str =
    "2026-11-22T12:00:00.000Z INFO step build: uploaded artifact 42 of 117 to s3://bucket/key";

/// A configuration without the limit of 20 new connections a second for a step. The check still runs.
const CONFIG: &str = "
[limits]
step_new_connections_per_second = 1000000
step_new_connection_burst = 1000000
step_live_leases = 1000000
";

fn main() {
    let daemon = Daemon::start_with(CONFIG, None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let step = runtime.block_on(async {
        let connection = pb::Connection {
            name: "connections/aws/prod".to_owned(),
            fields: [("access_key_id", KEY_ID), ("secret_access_key", SECRET)]
                .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
                .into(),
            access: vec![pb::AccessBinding {
                relation: pb::Relation::Resolver.into(),
                principals: vec!["workflow:*".to_owned()],
            }],
            ..Default::default()
        };
        let request =
            pb::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        let mut operator = ConnectionServiceClient::new(daemon.operator().await);
        operator.create_connection(request).await.unwrap();
        common::open(ExecutorServiceClient::new(daemon.executor().await), "s").await
    });
    let step = Path::new(&step.directory);
    whole_processes(step);
    masking(step);
}

fn keyhatch(step: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyhatch"));
    command.args(arguments).env("KEYHATCH_DIR", step).stdin(Stdio::null());
    command
}

/// Measures whole processes in turns, each from its start to its end.
fn whole_processes(step: &Path) {
    let port = plain_http(KEY_ID.as_bytes());
    let get = || keyhatch(step, &["get", "aws/prod", "--field", "access_key_id"]);
    let curl = || {
        let mut command = Command::new("curl");
        command.args(["-s", &format!("http://127.0.0.1:{port}/")]);
        command
    };
    let nothing = || Command::new("true");
    let exec = || keyhatch(step, &["exec", "--no-mask", "--env", "aws/prod", "--", "true"]);
    let masked = || keyhatch(step, &["exec", "--mask", "--env", "aws/prod", "--", "true"]);
    let rows: [(&str, &dyn Fn() -> Command); 5] = [
        ("get aws/prod --field access_key_id", &get),
        ("curl of the same bytes over plain HTTP", &curl),
        ("exec --no-mask --env aws/prod -- true", &exec),
        ("exec --mask --env aws/prod -- true", &masked),
        ("true", &nothing),
    ];
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); rows.len()];
    for _ in 0..PROCESSES {
        for (row, (_, command)) in rows.iter().enumerate() {
            let mut command = command();
            let begin = Instant::now();
            let ran = command.stdout(Stdio::piped()).output().unwrap();
            times[row].push(begin.elapsed());
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
            assert!(row > 1 || ran.stdout == KEY_ID.as_bytes());
        }
    }
    println!("whole processes, {PROCESSES} of each in turns: wall time, p50 and p99");
    for ((name, _), times) in rows.iter().zip(&mut times) {
        times.sort_unstable();
        let (middle, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!("  {name}: {:.2} ms, {:.2} ms", milliseconds(middle), milliseconds(late));
    }
}

/// Measures a billion bytes of log lines through the masks, and through a plain pipe.
fn masking(step: &Path) {
    let script = format!("yes '{LINE}' | head -c {OUTPUT_BYTES}");
    let plain = || {
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        command
    };
    let masked =
        || keyhatch(step, &["exec", "--mask", "--env", "aws/prod", "--", "sh", "-c", &script]);
    let rows: [(&str, &dyn Fn() -> Command); 2] = [("masked", &masked), ("a plain pipe", &plain)];
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..OUTPUT_ROUNDS {
        for (row, (_, command)) in rows.iter().enumerate() {
            let begin = Instant::now();
            let mut child = command().stdout(Stdio::piped()).spawn().unwrap();
            let read =
                std::io::copy(&mut child.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
            assert!(child.wait().unwrap().success() && read == OUTPUT_BYTES);
            rates[row].push(OUTPUT_BYTES as f64 / begin.elapsed().as_secs_f64() / 1e6);
        }
    }
    println!(
        "output, {OUTPUT_ROUNDS} rounds of {OUTPUT_BYTES} bytes in turns: middle, least and most"
    );
    for ((name, _), rates) in rows.iter().zip(rates) {
        println!("  {name}: {}", Spread::of(rates, " MB/s"));
    }
}

/// A server that answers each request with these bytes. Returns its port.
fn plain_http(body: &'static [u8]) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), body].concat());
        }
    });
    port
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
