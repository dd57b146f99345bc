//! Every fault that keeps secrets from steps, or operators from changes, shows in every report of health. So does its
//! end.

use std::net::SocketAddr;
use std::path::Path;

use keyhatch::grpc::pb;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::durability::disk::shim;
use crate::harness::{
    Scrape, ServeProcess, SmallFilesystem, create_aws, init_in, keyhatch_in, reason, request,
    resolve_on, skipped, step_channel, succeeded, temp_dir, text, wait_until,
};

/// All reports of the broker's health.
#[derive(Debug, PartialEq)]
struct Told {
    status: String,
    metric: String,
    healthcheck: bool,
    admin_door: bool,
    step_door: bool,
}

impl Told {
    fn all(state: &str) -> Self {
        let is_serving = state == "serving";
        Self {
            status: state.to_owned(),
            metric: state.to_owned(),
            healthcheck: is_serving,
            admin_door: is_serving,
            step_door: is_serving,
        }
    }
}

struct World {
    serving: Option<ServeProcess>,
    metrics: SocketAddr,
    operator: Channel,
    step: Channel,
    opened: pb::OpenedStep,
    runtime: Runtime,
}

impl World {
    /// Starts a daemon with a connection and an open step that may resolve it.
    fn start(directory: &Path, environment: &[(&str, &str)]) -> Self {
        if !directory.join("state/state.json").exists() {
            init_in(directory);
        }
        let mut serve = keyhatch_in(directory, &["serve", "--metrics", "127.0.0.1:0"]);
        serve.envs(environment.iter().copied());
        let serving = ServeProcess::spawn(directory, serve);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let operator = runtime.block_on(serving.admin("operators/admin"));
        runtime.block_on(create_aws(operator.clone()));
        let opened = runtime.block_on(serving.open("deploy", "build")).unwrap();
        let step = runtime.block_on(step_channel(Path::new(&opened.directory)));
        let metrics = serving.metrics_address();
        Self { serving: Some(serving), metrics, operator, step, opened, runtime }
    }

    fn run(&self, arguments: &[&str]) -> std::process::Output {
        self.serving.as_ref().unwrap().run(arguments)
    }

    fn resolve(&self) -> String {
        let asked = resolve_on(self.step.clone(), request("aws/prod"));
        match self.runtime.block_on(asked) {
            Ok(_) => "resolved".to_owned(),
            error => reason(error),
        }
    }

    fn is_healthy(&self, door: &Channel) -> bool {
        let mut client = HealthClient::new(door.clone());
        let asked = client.check(HealthCheckRequest::default());
        self.runtime.block_on(asked).unwrap().into_inner().status == ServingStatus::Serving as i32
    }

    fn told(&self) -> Told {
        let status = self.run(&["status", "-o", "name"]);
        let scrape = Scrape::of(self.metrics);
        let is_it = |state: &String| scrape.get("state", &[("state", state)]) == Some(1.0);
        let states = scrape.values_of("state");
        Told {
            status: text(&status.stdout).trim().to_owned(),
            metric: states.into_iter().filter(is_it).collect::<Vec<_>>().join("+"),
            healthcheck: self.run(&["healthcheck"]).status.success(),
            admin_door: self.is_healthy(&self.operator),
            step_door: self.is_healthy(&self.step),
        }
    }

    fn wait_for(&self, state: &str) {
        let mut told = Told::all("");
        wait_until(state, || {
            told = self.told();
            told == Told::all(state)
        });
    }
}

/// The address of the metrics listener, from the log.
fn scratch() -> tempfile::TempDir {
    temp_dir()
}

/// Fills the disk except for this many bytes.
fn fill(disk: &Path, but: u64) {
    let path = disk.join("fill");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let piece = vec![0; 4096];
    while std::io::Write::write_all(&mut file, &piece).is_ok() {}
    file.set_len(file.metadata().unwrap().len() - but).unwrap();
}

#[test]
fn a_full_disk_shows_as_no_secrets() {
    let directory = scratch();
    let disk = directory.path().join("state");
    let Some(_mounted) = SmallFilesystem::mount(&disk, "size=64m,mode=0700") else {
        skipped("a full disk", "needs the right to mount");
        return;
    };
    let world = World::start(directory.path(), &[]);
    world.wait_for("serving");
    // The room is too small for changes, and enough for decisions.
    fill(&disk, 2 << 20);
    world.wait_for("read-only");
    assert_eq!(world.resolve(), "resolved");
    // The fault shows even without requests.
    fill(&disk, 0);
    world.wait_for("no-secrets");
    for _ in 0..200 {
        assert_eq!(world.resolve(), "JOURNAL_UNAVAILABLE");
    }
    let log = world.serving.as_ref().unwrap().log();
    assert!(log.matches("the journal cannot be written").count() < 20, "{log}");
    // A step can still be closed, which is no sign of room.
    assert!(world.run(&["step", "close", &world.opened.name]).status.success());
    let told = (world.run(&["status", "-o", "name"]), world.run(&["healthcheck"]));
    assert!(text(&told.0.stdout).contains("no-secrets"));
    assert!(!told.1.status.success());
    std::fs::remove_file(disk.join("fill")).unwrap();
    wait_until("there is room again", || world.run(&["healthcheck"]).status.success());
    drop(world);
}

fn hangs_and_goes_on(calls: &str, provoke: impl Fn(&World)) {
    let Some(shim) = shim() else { return };
    let directory = scratch();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let hang = at("hang");
    let environment = [
        ("LD_PRELOAD", shim.to_str().unwrap()),
        ("SHIM_DIRECTORY", &at("state")),
        ("SHIM_LOG", &at("record")),
        ("SHIM_HANG", &format!("{calls}:{hang}")),
    ];
    let world = World::start(directory.path(), &environment);
    world.wait_for("serving");
    std::fs::write(&hang, "").unwrap();
    provoke(&world);
    world.wait_for("no-secrets");
    assert_eq!(world.resolve(), "JOURNAL_UNAVAILABLE");
    std::fs::remove_file(&hang).unwrap();
    world.wait_for("serving");
    assert_eq!(world.resolve(), "resolved");
}

#[test]
fn a_write_that_hangs_shows_as_no_secrets() {
    hangs_and_goes_on("write:.jsonl", |world| {
        world.runtime.spawn(resolve_on(world.step.clone(), request("aws/prod")));
    });
}

#[test]
fn a_sync_that_hangs_shows_as_no_secrets() {
    hangs_and_goes_on("sync:.jsonl", |world| {
        world.runtime.spawn(create_aws(world.operator.clone()));
    });
}

#[test]
fn syncs_that_fail_show_as_no_secrets_for_good() {
    let Some(shim) = shim() else { return };
    let directory = scratch();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let environment = [
        ("LD_PRELOAD", shim.to_str().unwrap()),
        ("SHIM_DIRECTORY", &at("state")),
        ("SHIM_LOG", &at("record")),
        ("SHIM_FAULT", "sync:60+:EIO"),
    ];
    let world = World::start(directory.path(), &environment);
    world.wait_for("serving");
    let put = ["secret", "put", "token", "--workflow", "deploy", "--value", "env:SHIM_LOG"];
    let mut number = 0;
    wait_until("a sync fails", || {
        number += 1;
        let mut put = keyhatch_in(directory.path(), &put);
        put.env("SHIM_LOG", number.to_string());
        !put.output().unwrap().status.success()
    });
    // The failed sync may be another file's. The next failure is the journal's.
    let _ = world.run(&["step", "close", &world.opened.name]);
    wait_until("it shows", || {
        let status = world.run(&["status", "-o", "name"]);
        let scrape = Scrape::of(world.metrics);
        text(&status.stdout).trim() == "no-secrets"
            && scrape.get("state", &[("state", "no-secrets")]) == Some(1.0)
            && !world.run(&["healthcheck"]).status.success()
    });
}

#[test]
fn a_journal_that_is_gone_shows_as_no_secrets() {
    let directory = scratch();
    let world = World::start(directory.path(), &[]);
    world.wait_for("serving");
    std::fs::remove_file(directory.path().join("state/journal/000001.jsonl")).unwrap();
    world.wait_for("no-secrets");
    assert_eq!(world.resolve(), "JOURNAL_UNAVAILABLE");
}

#[test]
fn a_quarantine_shows_until_it_is_over() {
    let directory = scratch();
    // The KEK is not in the backup.
    let kek = directory.path().join("kek").display().to_string();
    succeeded(&keyhatch_in(directory.path(), &["init", "--kek-file", &kek]).output().unwrap());
    let world = World::start(directory.path(), &[("KEYHATCH_KEK_FILE", &kek)]);
    let archive = directory.path().join("backup.tar").display().to_string();
    assert!(world.run(&["backup", &archive]).status.success());
    let other = scratch();
    let restored = keyhatch_in(other.path(), &["restore", &archive, "--kek-file", &kek]).output();
    succeeded(&restored.unwrap());
    let serve = keyhatch_in(other.path(), &["serve", "--kek-file", &kek]);
    let serving = ServeProcess::spawn(other.path(), serve);
    let healthy = || serving.run(&["healthcheck"]).status.success();
    assert!(!healthy(), "it shows from the start");
    serving.must(&["restore", "--confirm"]);
    wait_until("it is over", healthy);
}

#[test]
fn a_daemon_that_shuts_down_says_so_on_both_doors_first() {
    let directory = scratch();
    let mut world = World::start(directory.path(), &[]);
    world.wait_for("serving");
    let watch = |door: &Channel| {
        let mut client = HealthClient::new(door.clone());
        let asked = client.watch(HealthCheckRequest::default());
        world.runtime.block_on(asked).unwrap().into_inner()
    };
    let mut watches = [watch(&world.operator), watch(&world.step)];
    let mut next = |door: usize| world.runtime.block_on(watches[door].message()).ok().flatten();
    let serving = Some(ServingStatus::Serving as i32);
    assert_eq!([next(0), next(1)].map(|told| told.map(|told| told.status)), [serving; 2]);
    let ending = world.serving.take().unwrap();
    let ended = std::thread::spawn(move || ending.terminate());
    let not = Some(ServingStatus::NotServing as i32);
    assert_eq!([next(0), next(1)].map(|told| told.map(|told| told.status)), [not; 2]);
    drop(watches);
    assert!(ended.join().unwrap());
}
