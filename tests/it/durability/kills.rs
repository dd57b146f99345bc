//! The daemon is killed at any moment: while it starts, while it changes state, while steps come and go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::durability::disk::{
    Channels, Check, Client, Dice, OpenSteps, Seen, Serving, StepLife, init, scratch, seed,
};
use crate::harness::{
    ServeProcess, block_on, create_aws, identity_in, keyhatch_in, open_request, report, request,
    resolve_on, runtime, scale, temp_dir,
};

const CLIENTS: usize = 3;
/// Every value is resolved, and open steps are still open.
const EVERYTHING: Check = Check { length: u64::MAX, open_steps: OpenSteps::AreOpen, one_in: 1 };
/// A start is killed within this many microseconds.
const START: usize = 50_000;
/// Under load the daemon is killed after at most this many answers.
const ANSWERS: usize = 40;

struct World {
    directory: tempfile::TempDir,
    runtime: Runtime,
    clients: Vec<Client>,
    /// Closed steps that were checked, to be checked once more at the end.
    over: Vec<Vec<StepLife>>,
    dice: Dice,
    failed_starts: usize,
    problems: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let directory = scratch();
        init(directory.path());
        Self {
            directory,
            runtime: runtime(),
            clients: (0..CLIENTS).map(|number| Client::new(number, seed)).collect(),
            over: (0..CLIENTS).map(|_| Vec::new()).collect(),
            dice: Dice::new(seed),
            failed_starts: 0,
            problems: Vec::new(),
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Kills the daemon at a random moment of its start.
    fn kill_while_it_starts(&mut self) {
        let moment = Duration::from_micros(self.dice.roll(START) as u64);
        let starting = Serving::spawn(self.path(), keyhatch_in(self.path(), &["serve"]));
        // The sleep chooses the moment of the kill. It waits for no event.
        std::thread::sleep(moment);
        self.note(&starting.kill());
    }

    fn note(&mut self, said: &str) {
        if said.contains("panicked") || said.contains("error: ") {
            self.failed_starts += 1;
            println!("{said}");
        }
    }

    /// Starts the daemon, and checks that everything is there.
    fn start_and_check(&mut self) -> (Serving, Channels) {
        let serving = Serving::start(self.path(), &[]).serving();
        let Self { runtime, clients, dice, problems, over, .. } = self;
        let channels = runtime.block_on(async {
            let channels = Channels::open(&serving).await.unwrap();
            let seen = Seen::look(&channels.operator).await.unwrap();
            for (client, over) in clients.iter_mut().zip(over) {
                let found = client.check(&seen, &channels, EVERYTHING, dice).await;
                problems.extend(found.problems.iter().cloned());
                over.extend(client.settle(found));
            }
            channels
        });
        (serving, channels)
    }

    /// Kills the daemon after some answers, while more requests run.
    fn kill_under_load(&mut self, cycle: usize) {
        let (serving, channels) = self.start_and_check();
        let until = 1 + self.dice.roll(ANSWERS);
        let answers = AtomicUsize::new(0);
        for client in &mut self.clients {
            client.connect(&channels);
            client.run = format!("cycle-{cycle}");
        }
        let (runtime, clients) = (&self.runtime, &mut self.clients);
        let said = std::thread::scope(|scope| {
            let working = scope.spawn(|| {
                let work = clients.iter_mut().map(|client| act_until_it_is_gone(client, &answers));
                runtime.block_on(futures_util::future::join_all(work));
            });
            while answers.load(Ordering::SeqCst) < until && !working.is_finished() {
                std::thread::yield_now();
            }
            serving.kill()
        });
        self.note(&said);
    }

    /// Checks everything once more, with all closed steps.
    fn check_all(&mut self) {
        for (client, over) in self.clients.iter_mut().zip(&mut self.over) {
            client.remember_steps(std::mem::take(over));
        }
        let (serving, _) = self.start_and_check();
        let said = self.runtime.block_on(serving.end_of_clients(Signal::TERM));
        self.note(&said);
    }
}

async fn act_until_it_is_gone(client: &mut Client, answers: &AtomicUsize) {
    while client.act(&|| 0).await.is_ok() {
        answers.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_kill_at_any_moment_loses_nothing_acknowledged() {
    let seed = seed("kill -9");
    let mut world = World::new(seed);
    let cycles = scale(50, 1_000);
    for cycle in 0..cycles {
        if cycle % 2 == 0 {
            world.kill_under_load(cycle);
        } else {
            world.kill_while_it_starts();
        }
        assert!(world.problems.is_empty(), "after {cycle}: {}", world.problems.join("\n"));
    }
    world.check_all();
    let acknowledged: usize = world.clients.iter().map(|client| client.acknowledged).sum();
    let (lost, failed) = (world.problems.len(), world.failed_starts);
    report(
        "kill -9",
        format!("{cycles} kills, half of them while it starts, {acknowledged} acknowledged"),
        format!("{lost} lost, {failed} failed starts"),
        "",
    );
    assert!(acknowledged > cycles * 5, "{acknowledged} acknowledged is no load");
    assert_eq!((lost, failed), (0, 0), "{}", world.problems.join("\n"));
}

const STEPS: usize = 200;
const WORKERS: usize = 4;

/// The state that the workers and the killer share.
struct Shared {
    directory: PathBuf,
    next: AtomicUsize,
    acknowledged: AtomicUsize,
    /// Held for writing while there is no daemon.
    serving: RwLock<()>,
    /// The leases that each step received, by its name.
    given: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Shared {
    fn executor(&self) -> PathBuf {
        self.directory.join("state/executors/local")
    }

    /// Asks until there is an answer, over a new connection after each cut.
    async fn until_answered<T, F: Future<Output = Result<T, Status>>>(
        &self,
        socket: &Path,
        identity: &Path,
        call: impl Fn(Channel) -> F,
    ) -> Result<T, Status> {
        for _ in 0..2000 {
            // A daemon runs now, and may be killed at any moment after this.
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

    /// Opens a step under one request id, with as many tries as needed. A daemon that was killed between the line and
    /// the directory closes the step at its next start and reports that. Then the worker uses a new request id.
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

/// Kills and starts the daemon until the work is done. Returns the number of kills.
fn kill_again_and_again(mut serving: ServeProcess, shared: &Shared, is_over: &AtomicBool) -> usize {
    let mut kills = 0;
    while !is_over.load(Ordering::SeqCst) {
        // The kill comes at any moment of the requests after these answers.
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

async fn what_is_left(serving: &ServeProcess) -> (pb::Status, pb::Run) {
    let channel = serving.admin("operators/admin").await;
    let mut system = SystemServiceClient::new(channel.clone());
    let status = system.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
    let run = pb::GetRunRequest { workflow: String::new(), run: "1".to_owned() };
    let run = ExecutorServiceClient::new(channel).get_run(run).await.unwrap().into_inner();
    (status, run)
}

#[test]
fn steps_that_come_and_go_under_kills_leave_nothing_behind() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    block_on(async { create_aws(serving.admin("operators/admin").await).await });
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

    let serving = ServeProcess::start(directory.path());
    let steps = std::fs::read_dir(directory.path().join("run/steps")).unwrap();
    assert_eq!(steps.count(), 0);
    let (status, run) = block_on(what_is_left(&serving));
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
