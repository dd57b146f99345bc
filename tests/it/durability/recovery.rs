//! What a restart finds, however the daemon ended.

use std::path::Path;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::model::{Clock, Limits, Timestamp};

use crate::durability::disk::Image;
use crate::harness::{
    START, ServeProcess, TestBroker, identity_in, keyhatch_in, reason, request, resolve_on,
    secret_document, wait_until,
};

#[test]
fn a_restart_finds_connections_secrets_open_steps_and_leases() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    broker.apply(vec![secret_document("deploy", "token", "hush")]).unwrap();
    let step = broker.open("deploy", "build");
    let before = broker.resolve(&step, "aws/prod").unwrap();
    broker.restart();
    // Same directory, same certificate, listening again: the old channel goes on by itself.
    assert_eq!(broker.resolve(&step, "aws/prod").unwrap(), before);
    assert_eq!(broker.resolve(&step, "secret:token").unwrap().fields["value"], "hush");
    let closed = broker.close(&step);
    assert_eq!((closed.closed, closed.revoked_leases), (true, 2));
}

#[test]
fn a_killed_daemon_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    let mut serving = ServeProcess::start(directory.path());
    let open = serving.run(&[
        "step",
        "open",
        "--workflow",
        "w",
        "--run",
        "1",
        "--step",
        "s",
        "-o",
        "json",
    ]);
    let opened: serde_json::Value = serde_json::from_slice(&open.stdout).unwrap();
    let step = opened["directory"].as_str().unwrap().to_owned();
    for round in 0..10 {
        let created = serving.run(&[
            "connection",
            "create",
            &format!("slack/c{round}"),
            "--field",
            "api_token=@/proc/self/comm",
            "--resolver",
            "workflow:w",
        ]);
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
        serving.kill();
        serving = ServeProcess::spawn(directory.path(), keyhatch_in(directory.path(), &["serve"]));
        for known in 0..=round {
            let got = keyhatch_in(directory.path(), &["get", &format!("slack/c{known}")])
                .env("KEYHATCH_DIR", &step)
                .output()
                .unwrap();
            assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
        }
    }
    assert!(serving.terminate());
}

#[test]
fn a_step_that_lost_its_directory_is_closed_and_a_stray_directory_is_removed() {
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
fn a_line_that_was_not_on_disk_may_be_damaged_before_one_that_is_whole() {
    let mut broker = TestBroker::start();
    broker.create_aws("one", "s", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    broker.resolve(&step, "aws/one").unwrap();
    let store = Image::of(&broker.config.state.join("store"));
    broker.create_aws("two", "s", &["workflow:deploy"]);
    broker.stop();
    // The power fails while the second intent is synced: it has reached the disk, and what was written just
    // before it has not.
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
    // A little is how clocks are.
    set(&mut broker, 3600 - 299);
    assert!(directory.exists());
    set(&mut broker, 3600 - 301);
    assert_eq!(broker.journaled("clock_set_back").len(), 1);
    assert!(!directory.exists());
    // Once is enough: the next start measures from there.
    let kept = broker.open("deploy", "build");
    broker.restart();
    assert_eq!(broker.journaled("clock_set_back").len(), 1);
    broker.resolve(&kept, "aws/prod").unwrap();
}

#[test]
fn a_clock_a_day_back_or_forward_ends_what_is_open_and_nothing_else() {
    const DAY: i64 = 24 * 3_600_000;
    // The client looks at the daemon's certificate by the system's clock: only what is before it is tried.
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
            // One line for all of them.
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
fn a_damaged_snapshot_of_the_store_is_set_aside_and_nothing_is_lost() {
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
fn a_step_certificate_is_renewed_in_place_and_both_work_until_the_old_one_ends() {
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
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
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
