//! A restart: clients wait for the daemon, and the daemon finds every acknowledged change, however it ended.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::model::{Clock, Limits, Timestamp};

use crate::durability::disk::Image;
use crate::harness::{
    START, ServeProcess, Steps, TestBroker, connection, identity_in, init_in, keyhatch_in, reason,
    request, resolve_on, secret_document, succeeded, temp_dir, text, wait_until,
};

fn world() -> Steps {
    let login = [("username", "ops"), ("password", "hush-hush-hush")];
    Steps::seeded(&connection(
        "http",
        "api",
        &[&[("base_url", "https://a.example")][..], &login].concat(),
    ))
}

fn piped(mut command: Command) -> std::process::Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The output of a script as a step. The daemon is stopped before the script asks, and started again afterwards.
fn asked_across_a_restart(script: &str) -> Output {
    let world = world();
    let script =
        format!("touch ready; until [ -e stopped ]; do sleep 0.02; done; touch asks; {script}");
    let step = piped(world.command("sh", &["-c", &script]));
    wait_until("the step runs", || world.path("ready").exists());
    let Steps { directory, serving } = world;
    assert!(serving.terminate());
    std::fs::write(directory.path().join("stopped"), "").unwrap();
    wait_until("the step asks", || directory.path().join("asks").exists());
    let _serving = ServeProcess::start(directory.path());
    step.wait_with_output().unwrap()
}

#[test]
fn a_step_waits_for_a_daemon_that_restarts() {
    for (ask, answer) in [
        ("keyhatch get http/api --field password", "hush-hush-hush"),
        (
            "keyhatch exec --mask never --env P=http/api:password -- sh -c 'echo $P'",
            "hush-hush-hush",
        ),
        (
            "printf 'protocol=https\nhost=a.example\n\n' | keyhatch helper git --answer a.example=http/api get",
            "hush-hush-hush",
        ),
        ("keyhatch get http/api --format env", "hush-hush-hush"),
        ("keyhatch whoami -o name", "/step/s"),
    ] {
        let asked = asked_across_a_restart(ask);
        assert!(asked.status.success(), "{ask}: {}", text(&asked.stderr));
        assert!(text(&asked.stdout).contains(answer), "{ask}: {}", text(&asked.stdout));
        // The end of the step reached the daemon too.
        assert!(!text(&asked.stderr).contains("could not be closed"), "{}", text(&asked.stderr));
    }
}

#[test]
fn operators_and_executors_wait_for_a_daemon_too() {
    let Steps { directory, serving } = world();
    assert!(serving.terminate());
    let names = ["--workflow", "w", "--run", "1", "--step", "s"];
    let open = [&["step", "open"][..], &names].concat();
    let asking: Vec<_> = [&["connection", "list"][..], &["operator", "list"], &open]
        .iter()
        .map(|arguments| piped(keyhatch_in(directory.path(), arguments)))
        .collect();
    // A probe does not wait. It reports the daemon's current state.
    for probe in ["status", "healthcheck"] {
        assert!(!keyhatch_in(directory.path(), &[probe]).output().unwrap().status.success());
    }
    let serving = ServeProcess::start(directory.path());
    for asked in asking {
        succeeded(&asked.wait_with_output().unwrap());
    }
    assert!(serving.terminate());
}

#[test]
fn nobody_waits_beyond_the_timeout_or_for_a_closed_step() {
    let world = world();
    let script = "touch ready; until [ -e stopped ]; do sleep 0.02; done; \
                  keyhatch get http/api --timeout 300ms; echo $?; touch asks; \
                  timeout 100 keyhatch get http/api --timeout 99s; echo $?; \
                  timeout 100 keyhatch get http/api --timeout 99s; echo $?; touch told";
    let step = piped(world.command("sh", &["-c", script]));
    wait_until("the step runs", || world.path("ready").exists());
    let Steps { directory, serving } = world;
    serving.kill();
    std::fs::write(directory.path().join("stopped"), "").unwrap();
    wait_until("the step asks", || directory.path().join("asks").exists());
    let steps = std::fs::read_dir(directory.path().join("run/steps")).unwrap();
    for step in steps {
        std::fs::remove_file(step.unwrap().path().join("tls.key")).unwrap();
    }
    // No daemon runs that could answer them.
    wait_until("both are told", || directory.path().join("told").exists());
    let _serving = ServeProcess::start(directory.path());
    let ran = step.wait_with_output().unwrap();
    let told = text(&ran.stderr);
    assert_eq!(text(&ran.stdout), "3\n1\n1\n", "{told}");
    assert!(told.contains("Connection refused"), "{told}");
    assert_eq!(told.matches("error: STEP_NOT_OPEN: ").count(), 2, "{told}");
}

/// systemd's Type=notify uses a socket in the file system or an abstract socket.
#[test]
fn a_service_manager_is_notified_when_the_daemon_serves() {
    let directory = temp_dir();
    init_in(directory.path());
    let path = directory.path().join("notify");
    let name = format!("keyhatch-test-{}", directory.path().display());
    let by_name = SocketAddr::from_abstract_name(&name).unwrap();
    for (manager, variable) in [
        (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
        (UnixDatagram::bind_addr(&by_name).unwrap(), format!("@{name}")),
    ] {
        let mut serve = keyhatch_in(directory.path(), &["serve"]);
        let mut serving =
            serve.env("NOTIFY_SOCKET", variable).stderr(Stdio::null()).spawn().unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut told = [0; 64];
        let length = manager.recv(&mut told).unwrap();
        assert_eq!(&told[..length], b"READY=1");
        // A probe does not wait.
        succeeded(&keyhatch_in(directory.path(), &["status"]).output().unwrap());
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&serving),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        assert!(serving.wait().unwrap().success());
    }
}

#[test]
fn a_restart_finds_connections_secrets_open_steps_and_leases() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    broker.apply(vec![secret_document("deploy", "token", "hush")]).unwrap();
    let step = broker.open("deploy", "build");
    let before = broker.resolve(&step, "aws/prod").unwrap();
    broker.restart();
    // The directory and the certificate are the same, and the daemon listens again, so the old channel continues.
    assert_eq!(broker.resolve(&step, "aws/prod").unwrap(), before);
    assert_eq!(broker.resolve(&step, "secret:token").unwrap().fields["value"], "hush");
    let closed = broker.close(&step);
    assert_eq!((closed.closed, closed.revoked_leases), (true, 2));
}

#[test]
fn a_step_without_its_directory_is_closed_at_a_restart() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let gone = broker.open("deploy", "gone");
    broker.resolve(&gone, "aws/prod").unwrap();
    broker.stop();
    std::fs::remove_dir_all(&gone.opened.directory).unwrap();
    let stray = Path::new(&gone.opened.directory).with_file_name("ab".repeat(16));
    std::fs::create_dir(&stray).unwrap();
    broker.serve();
    let closed = broker.journaled("closed");
    assert_eq!(closed[0]["reason"], "directory_gone");
    assert_eq!(closed[0]["revoked"].as_array().unwrap().len(), 1);
    assert!(!stray.exists());
}

#[test]
fn a_torn_last_line_is_cut_kept_and_journaled() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    broker.stop();
    let path = broker.journal_path();
    let mut text = std::fs::read(&path).unwrap();
    let torn = b"{\"n\":99,\"time\":\"2026-11-21T21:5";
    text.extend_from_slice(torn);
    std::fs::write(&path, text).unwrap();
    broker.serve();
    let lines = broker.journaled("torn");
    assert_eq!(lines[0]["bytes"], torn.len());
    let kept = path.with_file_name(lines[0]["kept_as"].as_str().unwrap());
    assert_eq!(std::fs::read(kept).unwrap(), torn);
    let step = broker.open("deploy", "build");
    broker.resolve(&step, "aws/prod").unwrap();
}

#[test]
fn an_unsynced_line_may_be_damaged_before_a_whole_one() {
    let mut broker = TestBroker::start();
    broker.create_aws("one", "s", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    broker.resolve(&step, "aws/one").unwrap();
    let store = Image::of(&broker.config.state.join("store"));
    broker.create_aws("two", "s", &["workflow:deploy"]);
    broker.stop();
    // The power fails while the second intent is synced. The intent has reached the disk, and the line before it has
    // not.
    let path = broker.journal_path();
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let intent = lines.iter().rposition(|line| line.contains("\"intent\"")).unwrap();
    let resolved = lines.iter().position(|line| line.contains("\"resolve\"")).unwrap();
    assert!(resolved < intent);
    lines.truncate(intent + 1);
    lines[resolved] = lines[resolved].replace("aws/one", "\0\0\0\0\0\0\0");
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    store.write(&broker.config.state.join("store"));

    broker.serve();
    assert_eq!(broker.journaled("torn").len(), 1);
    broker.resolve(&step, "aws/one").unwrap();
    assert_eq!(reason(broker.resolve(&step, "aws/two")), "RESOLVE_DENIED");
}

#[test]
fn a_clock_behind_the_journal_closes_all_steps_and_work_goes_on() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    broker.advance(3600);
    let step = broker.open("deploy", "build");
    broker.resolve(&step, "aws/prod").unwrap();
    broker.stop();
    let directory = Path::new(&step.opened.directory);
    let set = |broker: &mut TestBroker, seconds: i64| {
        broker.stop();
        broker.clock = Clock::hand_set(Timestamp::from_millis(*START + seconds * 1000));
        broker.serve();
    };
    // Small steps of a clock are normal.
    set(&mut broker, 3600 - 299);
    assert!(directory.exists());
    set(&mut broker, 3600 - 301);
    assert_eq!(broker.journaled("clock_set_back").len(), 1);
    assert!(!directory.exists());
    // The next start measures from the new time, so steps are closed only once.
    let kept = broker.open("deploy", "build");
    broker.restart();
    assert_eq!(broker.journaled("clock_set_back").len(), 1);
    broker.resolve(&kept, "aws/prod").unwrap();
}

#[test]
fn a_clock_a_day_off_closes_open_steps_and_nothing_else() {
    const DAY: i64 = 24 * 3_600_000;
    // Clients check the daemon's certificate by the system's clock, so only earlier times are tried.
    let clock = |days: i64| Clock::hand_set(Timestamp::from_millis(*START - (3 - days) * DAY));
    let mut broker = TestBroker::start_at(clock(1), Limits::default());
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    for (days, reason) in [(2, "expired"), (1, ""), (3, "expired")] {
        let step = broker.open("deploy", "build");
        broker.resolve(&step, "aws/prod").unwrap();
        broker.stop();
        broker.clock = clock(days);
        broker.serve();
        assert!(!Path::new(&step.opened.directory).exists());
        assert!(broker.resolve(&step, "aws/prod").is_err());
        let last = broker.journaled("closed").pop();
        match reason {
            // One line covers all steps.
            "" => assert_eq!(broker.journaled("clock_set_back").len(), 1),
            reason => assert_eq!(last.unwrap()["reason"], reason),
        }
        let mut client = ExecutorServiceClient::new(broker.executor());
        let open = broker.block_on(client.list_steps(pb::ListStepsRequest::default())).unwrap();
        assert!(open.into_inner().steps.is_empty());
    }
    let step = broker.open("deploy", "build");
    broker.resolve(&step, "aws/prod").unwrap();
}

#[test]
fn a_damaged_store_snapshot_is_set_aside_without_loss() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    broker.restart();
    broker.stop();
    let store = broker.config.state.join("store");
    let snapshots = || {
        let names = std::fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap."))
    };
    assert!(snapshots().count() > 0);
    for snapshot in snapshots() {
        let mut bytes = std::fs::read(&snapshot).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xFF;
        std::fs::write(&snapshot, bytes).unwrap();
    }
    broker.serve();
    let step = broker.open("deploy", "build");
    assert_eq!(broker.resolve(&step, "aws/prod").unwrap().fields["secret_access_key"], "s3cret");
}

#[test]
fn a_renewed_and_the_old_step_certificate_both_work() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let request_open = keyhatch::grpc::pb::OpenStepRequest {
        ttl: Some(prost_types::Duration { seconds: 3 * 24 * 3600, nanos: 0 }),
        ..crate::harness::open_request("deploy", "build")
    };
    let step = broker.become_step(broker.try_open(request_open).unwrap());
    let directory = Path::new(&step.opened.directory).to_owned();
    let certificate = || std::fs::read_to_string(directory.join("tls.crt")).unwrap();
    let (first, key) = (certificate(), std::fs::read(directory.join("tls.key")).unwrap());
    broker.advance(16 * 3600);
    wait_until("the certificate is renewed", || certificate() != first);
    assert_eq!(std::fs::read(directory.join("tls.key")).unwrap(), key, "for the same key");
    assert_eq!(broker.journaled("certificate_renewed").len(), 1);

    broker.resolve(&step, "aws/prod").unwrap();
    let renewed =
        broker.connect(&directory.join("keyhatch.sock"), identity_in(&directory)).unwrap();
    broker.block_on(resolve_on(renewed.clone(), request("aws/prod"))).unwrap();
    broker.advance(8 * 3600);
    assert_eq!(reason(broker.resolve(&step, "aws/prod")), "SVID_INVALID");
    broker.block_on(resolve_on(renewed, request("aws/prod"))).unwrap();
}

#[test]
fn sigterm_drains_and_says_so_in_the_journal() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    assert!(serving.terminate());
    let journal = std::fs::read_to_string(directory.path().join("state/journal/000001.jsonl"));
    let events: Vec<String> = journal
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].to_string())
        .collect();
    assert!(events.ends_with(&["\"stopped\"".to_owned(), "\"signed\"".to_owned()]), "{events:?}");
    assert!(!directory.path().join("run/admin.sock").exists());
}
