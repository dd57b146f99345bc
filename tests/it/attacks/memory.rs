//! Memory is bounded by bytes: what is sent half, and what is not read, is held up to a share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_service_client::ApplyServiceClient;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use crate::harness::raw::{Raw, framed, post};
use crate::harness::{
    ServeProcess, bytes, identity_in, keyhatch_in, open_request, report, request, resolver,
    secret_document, wait_until,
};

/// What may be held more, in KiB.
const MOST_GROWTH: u64 = 150 * 1024;
const BATCH: &str = "/keyhatch.v1.StepService/BatchResolve";

struct Field {
    serving: ServeProcess,
    runtime: tokio::runtime::Runtime,
    directory: tempfile::TempDir,
}

impl Field {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
        assert!(keyhatch_in(directory.path(), &["init"]).output().unwrap().status.success());
        let config = directory.path().join("config.toml");
        // Rates and leases are other promises.
        let limits = "[limits]\nstep_requests_per_second = 1000000\n\
                      step_request_burst = 1000000\nstep_live_leases = 1000000\n";
        std::fs::write(&config, limits).unwrap();
        let serve = ["serve", "--config", config.to_str().unwrap()];
        let serve = keyhatch_in(directory.path(), &serve);
        let serving = ServeProcess::spawn(directory.path(), serve);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        Self { serving, runtime, directory }
    }

    fn admin(&self, identity: &str) -> Channel {
        let identity = identity_in(&self.directory.path().join("state").join(identity));
        let socket = self.directory.path().join("run/admin.sock");
        self.runtime.block_on(channel(&socket, identity)).unwrap()
    }

    /// The most that the daemon has held, in KiB (proc(5)).
    fn most(&self) -> u64 {
        let path = format!("/proc/{}/status", self.serving.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
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
    // It is given up for its silence, and the next has its turn.
    wait_until("the next is there", || sent.load(Ordering::SeqCst) >= 2 * DOCUMENTS);
    let grown = field.most() - before;
    report("40 Applies of 60 MiB that stop midway", 40, format!("{} MiB more", grown >> 10), "-");
    assert!(grown < MOST_GROWTH, "{grown} KiB");
    assert!(field.serving.run(&["status"]).status.success());
}

#[test]
fn batches_that_nobody_reads_hold_a_share_of_memory() {
    let field = Field::start();
    let value = "x".repeat(64 * 1024);
    let fields: Vec<_> = ["a", "b", "c", "d"].map(|name| (name, &value[..65_000])).into();
    let connection = pb::Connection {
        name: "connections/generic/big".to_owned(),
        fields: bytes(&fields),
        access: resolver(&["workflow:w"]),
        ..Default::default()
    };
    let create = pb::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
    let mut client = ConnectionServiceClient::new(field.admin("operators/admin"));
    field.runtime.block_on(client.create_connection(create)).unwrap();
    let mut executor = ExecutorServiceClient::new(field.admin("executors/local"));
    let steps: Vec<_> = (0..5)
        .map(|number| {
            let opening = executor.open_step(open_request("w", &format!("s{number}")));
            PathBuf::from(field.runtime.block_on(opening).unwrap().into_inner().directory)
        })
        .collect();
    let batch = framed(&pb::BatchResolveRequest { requests: vec![request("generic/big"); 11] });
    let before = field.most();
    let (mut held, mut answered) = (Vec::new(), 0);
    for step in &steps[1..] {
        for _ in 0..4 {
            let raw = field.runtime.block_on(deaf(step));
            for _ in 0..32 {
                let head = field.runtime.block_on(async {
                    raw.send(post(BATCH).body(()).unwrap(), Some(batch.clone())).await?.await
                });
                let head = head.unwrap();
                answered += usize::from(!head.headers().contains_key("grpc-status"));
                held.push(head);
            }
            held.last_mut().unwrap().extensions_mut().insert(Arc::new(raw));
        }
    }
    let grown = field.most() - before;
    let outcome = format!("{answered} answered, {} MiB more", grown >> 10);
    report("4 steps that read none of 128 batches of 2.8 MiB", held.len(), outcome, "-");
    assert!(answered >= steps.len() - 1, "each has its share: {answered}");
    assert!(grown < MOST_GROWTH, "{grown} KiB");
    let got = keyhatch_get(&steps[0]);
    assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
}

async fn deaf(step: &Path) -> Raw {
    Raw::connect(&step.join("keyhatch.sock"), &identity_in(step), 0).await
}

fn keyhatch_get(step: &Path) -> std::process::Output {
    let mut command = crate::harness::keyhatch(&["get", "generic/big"]);
    command.env("KEYHATCH_DIR", step).output().unwrap()
}
