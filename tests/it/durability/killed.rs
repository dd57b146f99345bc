//! The daemon is killed again and again while steps come and go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};

use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{
    ServeProcess, block_on, identity_in, open_request, report, request, resolve_on,
};

const STEPS: usize = 200;
const WORKERS: usize = 4;

/// What workers and the killer share.
struct Shared {
    directory: PathBuf,
    next: AtomicUsize,
    acknowledged: AtomicUsize,
    /// Held for writing while there is no daemon.
    serving: RwLock<()>,
    /// What each step was given, by its name: leases.
    given: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Shared {
    fn executor(&self) -> PathBuf {
        self.directory.join("state/executors/local")
    }

    /// Asks until there is an answer: a client that was cut off connects again and goes on.
    async fn until_answered<T, F: Future<Output = Result<T, Status>>>(
        &self,
        socket: &Path,
        identity: &Path,
        call: impl Fn(Channel) -> F,
    ) -> Result<T, Status> {
        for _ in 0..2000 {
            // There is one now; it may be killed at any moment after this.
            drop(self.serving.read().unwrap());
            if let Ok(channel) = channel(socket, identity_in(identity)).await {
                let outcome = call(channel).await;
                let is_answer = match &outcome {
                    Ok(_) => true,
                    Err(status) => {
                        status.get_error_details().error_info().is_some()
                            && status.code() != Code::Unavailable
                    }
                };
                if is_answer {
                    self.acknowledged.fetch_add(1, Ordering::SeqCst);
                    return outcome;
                }
            }
        }
        panic!("nobody answers at {}", socket.display());
    }

    /// Opens a step under one request id, however often it has to ask. A daemon that was killed between the
    /// line and the directory closes the step when it comes back, and says so: then it is another request.
    async fn open(&self, admin: &Path, number: usize) -> pb::OpenedStep {
        for request in 0..100 {
            let mut asked = open_request("deploy", &format!("s{number}"));
            asked.request_id = format!("request-{number}-{request}");
            let executor = self.executor();
            let opened = self.until_answered(admin, &executor, |channel| {
                let asked = asked.clone();
                async move { ExecutorServiceClient::new(channel).open_step(asked).await }
            });
            match opened.await {
                Ok(opened) => return opened.into_inner(),
                Err(status) => assert_eq!(status.code(), Code::Aborted, "{}", status.message()),
            }
        }
        panic!("never opened");
    }

    async fn work(&self) {
        let admin = self.directory.join("run/admin.sock");
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            if number >= STEPS {
                return;
            }
            let opened = self.open(&admin, number).await;
            let directory = PathBuf::from(&opened.directory);
            let mut leases = Vec::new();
            for ttl in [100, 200, 300] {
                let asked = pb::ResolveRequest {
                    ttl: Some(prost_types::Duration { seconds: ttl, nanos: 0 }),
                    ..request("aws/prod")
                };
                let got = self
                    .until_answered(&directory.join("keyhatch.sock"), &directory, |channel| {
                        resolve_on(channel, asked.clone())
                    })
                    .await
                    .unwrap();
                leases.push(got.lease.name);
            }
            self.given.lock().unwrap().insert(opened.name.clone(), leases);
            let close = pb::CloseStepRequest { name: opened.name, ..Default::default() };
            self.until_answered(&admin, &self.executor(), |channel| {
                let close = close.clone();
                async move { ExecutorServiceClient::new(channel).close_step(close).await }
            })
            .await
            .unwrap();
            assert!(!directory.exists());
        }
    }
}

/// A daemon with a connection that workflow deploy may resolve.
fn seeded(directory: &Path) -> ServeProcess {
    let serving = ServeProcess::start(directory);
    let seed = directory.join("seed.yaml");
    let document = "connections: {\"aws/prod\": {accessKeyID: A, secretAccessKey: s}}\n";
    std::fs::write(&seed, document).unwrap();
    assert!(serving.run(&["apply", "-f", seed.to_str().unwrap()]).status.success());
    let bound =
        ["access", "add", "aws/prod", "--relation", "resolver", "--principal", "workflow:deploy"];
    assert!(serving.run(&bound).status.success());
    serving
}

/// Kills and starts the daemon until it is over; how often.
fn kill_again_and_again(mut serving: ServeProcess, shared: &Shared, is_over: &AtomicBool) -> usize {
    let mut kills = 0;
    while !is_over.load(Ordering::SeqCst) {
        // After so many answers: at any moment of what the next ones do.
        let until = shared.acknowledged.load(Ordering::SeqCst) + kills * 7 % 13;
        while shared.acknowledged.load(Ordering::SeqCst) < until && !is_over.load(Ordering::SeqCst)
        {
            std::thread::yield_now();
        }
        let nobody = shared.serving.write().unwrap();
        serving.kill();
        serving = ServeProcess::start(&shared.directory);
        drop(nobody);
        kills += 1;
    }
    kills
}

async fn what_is_left(directory: &Path) -> (pb::Status, pb::Run) {
    let socket = directory.join("run/admin.sock");
    let admin = identity_in(&directory.join("state/operators/admin"));
    let channel = channel(&socket, admin).await.unwrap();
    let mut system = SystemServiceClient::new(channel.clone());
    let status = system.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
    let run = pb::GetRunRequest { workflow: String::new(), run: "1".to_owned() };
    let run = ExecutorServiceClient::new(channel).get_run(run).await.unwrap().into_inner();
    (status, run)
}

#[test]
fn two_hundred_steps_come_and_go_under_kill_9_and_nothing_is_left_over_or_lost() {
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    let serving = seeded(directory.path());
    let shared = Shared {
        directory: directory.path().to_owned(),
        next: AtomicUsize::new(0),
        acknowledged: AtomicUsize::new(0),
        serving: RwLock::default(),
        given: Mutex::default(),
    };
    let is_over = AtomicBool::new(false);
    let kills = std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill_again_and_again(serving, &shared, &is_over));
        let workers = (0..WORKERS).map(|_| scope.spawn(|| block_on(shared.work())));
        let workers: Vec<_> = workers.collect();
        let worked: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        is_over.store(true, Ordering::SeqCst);
        worked.into_iter().for_each(|worked| worked.unwrap());
        killer.join().unwrap()
    });
    assert!(kills > 20, "{kills}");

    let _serving = ServeProcess::start(directory.path());
    let steps = std::fs::read_dir(directory.path().join("run/steps")).unwrap();
    assert_eq!(steps.count(), 0);
    let (status, run) = block_on(what_is_left(directory.path()));
    assert_eq!((status.open_steps, status.live_leases), (0, 0));
    let given = shared.given.into_inner().unwrap();
    assert_eq!(given.len(), STEPS);
    for (name, leases) in given {
        let step = run.steps.iter().find(|step| step.name == name).unwrap();
        assert_ne!(step.close_reason, "");
        for lease in leases {
            let received = step.received.iter().find(|received| received.lease == lease).unwrap();
            assert_eq!(received.state(), pb::LeaseState::Revoked, "{name}");
        }
    }
    report(
        "steps under kill -9",
        format!("{STEPS} steps, {kills} kills"),
        "0 left over, 0 lost",
        "",
    );
}
