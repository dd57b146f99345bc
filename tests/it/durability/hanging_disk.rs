//! A disk that neither writes nor refuses: clients learn about it, and work continues when it is back.

use std::path::{Path, PathBuf};

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::secret_service_client::SecretServiceClient;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::durability::disk::{Event, Kind, read, shim};
use crate::harness::{
    ServeProcess, create_aws, init_in, keyhatch_in, reason, report, request, resolve_on,
    step_channel, temp_dir, wait_until,
};

struct World {
    serving: ServeProcess,
    steps: Vec<Channel>,
    operator: Channel,
    /// The disk hangs while this file exists.
    hang: PathBuf,
    runtime: Runtime,
    directory: tempfile::TempDir,
}

impl World {
    /// Starts a daemon whose calls on files of this name can be made to hang, with some open steps.
    fn start(calls: &str, shim: &Path) -> Self {
        Self::start_with_journal("written", calls, shim)
    }

    fn start_with_journal(journal: &str, calls: &str, shim: &Path) -> Self {
        let directory = temp_dir();
        init_in(directory.path());
        let hang = directory.path().join("hang");
        let mut serve = keyhatch_in(directory.path(), &["serve"]);
        serve
            .env("KEYHATCH_JOURNAL", journal)
            .env("LD_PRELOAD", shim)
            .env("SHIM_DIRECTORY", directory.path().join("state"))
            .env("SHIM_LOG", directory.path().join("record"))
            .env("SHIM_HANG", format!("{calls}:{}", hang.display()));
        let serving = ServeProcess::spawn(directory.path(), serve);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let operator = runtime.block_on(serving.admin("operators/admin"));
        runtime.block_on(create_aws(operator.clone()));
        let step = |number: usize| {
            runtime.block_on(async {
                let opened = serving.open("deploy", &format!("step{number}")).await.unwrap();
                step_channel(Path::new(&opened.directory)).await
            })
        };
        let steps = (0..4).map(step).collect();
        Self { serving, steps, operator, hang, runtime, directory }
    }

    fn hang(&self) {
        std::fs::write(&self.hang, "").unwrap();
    }

    fn go_on(&self) {
        std::fs::remove_file(&self.hang).unwrap();
    }

    /// The number of resolve lines in the journal, on disk or not.
    fn lines(&self) -> usize {
        let journal = self.directory.path().join("state/journal/000001.jsonl");
        std::fs::read_to_string(journal).unwrap().matches("\"resolve\"").count()
    }

    /// The number of syncs of the journal.
    fn syncs(&self) -> usize {
        let events = read(&self.directory.path().join("record"));
        let is_one = |event: &&Event| {
            event.kind == Kind::Sync && event.path.extension().is_some_and(|end| end == "jsonl")
        };
        events.iter().filter(is_one).count()
    }

    fn resolve(&self, step: usize) -> String {
        let asked = resolve_on(self.steps[step].clone(), request("aws/prod"));
        match self.runtime.block_on(asked) {
            Ok(_) => "resolved".to_owned(),
            error => reason(error),
        }
    }

    fn put_secret(&self, name: &str) -> Result<tonic::Response<pb::Secret>, tonic::Status> {
        self.runtime.block_on(self.putting(name))
    }

    fn putting(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<tonic::Response<pb::Secret>, tonic::Status>> + use<> {
        let asked = pb::PutSecretRequest {
            name: format!("workflows/deploy/secrets/{name}"),
            value: b"s3cret".to_vec(),
            ..Default::default()
        };
        let mut client = SecretServiceClient::new(self.operator.clone());
        async move { client.put_secret(asked).await }
    }

    fn health(&self, service: &str) -> i32 {
        let asked = HealthCheckRequest { service: service.to_owned() };
        let mut client = HealthClient::new(self.operator.clone());
        self.runtime.block_on(client.check(asked)).unwrap().into_inner().status
    }

    fn wait_for_health(&self, status: ServingStatus) {
        wait_until("health follows the disk", || self.health("") == status as i32);
        assert_eq!(self.health("keyhatch.v1.SystemService"), ServingStatus::Serving as i32);
    }

    /// When the disk is back, steps are served and the stuck request is done.
    fn recovers_with<T>(&self, stuck: JoinHandle<Result<T, tonic::Status>>) {
        self.go_on();
        wait_until("it goes on", || self.resolve(3) == "resolved");
        self.wait_for_health(ServingStatus::Serving);
        assert_eq!(self.state(), "serving");
        let answered = self.runtime.block_on(stuck).unwrap();
        assert!(answered.is_ok(), "{:?}", answered.err());
    }

    fn state(&self) -> String {
        let status = self.serving.run(&["status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        status["state"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_hanging_journal_write_is_reported_to_all_and_ends() {
    let Some(shim) = shim() else { return };
    let world = World::start("write:.jsonl", &shim);
    assert_eq!(world.resolve(0), "resolved");
    world.wait_for_health(ServingStatus::Serving);

    world.hang();
    let stuck = resolve_on(world.steps[1].clone(), request("aws/prod"));
    let stuck = world.runtime.spawn(stuck);
    wait_until("the hang is noticed", || world.serving.log().contains("journal hangs"));
    assert_eq!(world.resolve(2), "JOURNAL_UNAVAILABLE");
    assert_eq!(reason(world.put_secret("new")), "JOURNAL_UNAVAILABLE");
    world.wait_for_health(ServingStatus::NotServing);
    assert_eq!(world.state(), "no-secrets");

    // The line of the stuck request is written when the disk is back.
    world.recovers_with(stuck);
    world.put_secret("new").unwrap();
}

#[test]
fn a_hanging_journal_sync_delays_resolves_and_loses_none() {
    let Some(shim) = shim() else { return };
    let world = World::start("sync:.jsonl", &shim);
    world.hang();
    let stuck = world.runtime.spawn(world.putting("stuck"));
    world.wait_for_health(ServingStatus::NotServing);
    assert_eq!(world.state(), "no-secrets");
    assert_eq!(world.resolve(0), "JOURNAL_UNAVAILABLE");
    world.recovers_with(stuck);
}

/// Group commit: all requests that arrive while the disk is busy share the next sync.
#[test]
fn waiters_in_synced_mode_share_the_next_sync() {
    const CALLERS: usize = 64;
    let Some(shim) = shim() else { return };
    let world = World::start_with_journal("synced", "sync:/journal/", &shim);
    let (lines, syncs) = (world.lines(), world.syncs());
    world.hang();
    let asked = (0..CALLERS).map(|number| {
        let channel = world.steps[number % world.steps.len()].clone();
        world.runtime.spawn(async move { resolve_on(channel, request("aws/prod")).await })
    });
    let asked: Vec<_> = asked.collect();
    wait_until("all are written", || world.lines() >= lines + CALLERS);
    world.go_on();
    for asked in asked {
        assert!(world.runtime.block_on(asked).unwrap().is_ok());
    }
    // One sync hung with the first request, one is for the rest, and a checkpoint may have added one.
    let shared = world.syncs() - syncs;
    report("callers of one sync in synced mode", CALLERS, format!("{shared} syncs"), "-");
    assert!(shared <= 3, "{shared}");
}

#[test]
fn a_hanging_store_write_refuses_changes_and_serves_steps() {
    let Some(shim) = shim() else { return };
    let world = World::start("write:/db", &shim);
    world.hang();
    assert_eq!(reason(world.put_secret("new")), "STORE_READ_ONLY");
    assert_eq!(world.resolve(0), "resolved");
    world.wait_for_health(ServingStatus::NotServing);
    assert_eq!(world.state(), "read-only");
    world.go_on();
    assert_eq!(reason(world.put_secret("other")), "STORE_READ_ONLY");
    assert_eq!(world.resolve(0), "resolved");
}
