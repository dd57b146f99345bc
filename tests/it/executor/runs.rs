//! Claims that executors may make about their steps, and the view of a run afterwards.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::harness::{
    ServeProcess, TestBroker, keyhatch_in, open_request, path_with_binary, reason, succeeded,
    temp_dir, wait_until,
};

fn executor(broker: &TestBroker) -> ExecutorServiceClient<Channel> {
    ExecutorServiceClient::new(broker.executor())
}

fn show(broker: &TestBroker, channel: Channel, run: &str) -> Result<Vec<pb::RunStep>, Status> {
    let request = pb::GetRunRequest { workflow: String::new(), run: run.to_owned() };
    let mut client = ExecutorServiceClient::new(channel);
    broker.block_on(client.get_run(request)).map(|run| run.into_inner().steps)
}

#[test]
fn a_run_shows_what_it_received_after_its_end_and_a_restart() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    let (one, two) = (broker.open("w", "one"), broker.open("w", "two"));
    broker.resolve(&one, "aws/prod").unwrap();
    broker.resolve(&one, "aws/prod").unwrap();
    broker.resolve(&two, "aws/prod#region,access_key_id").unwrap_err();
    broker.resolve(&two, "aws/prod#access_key_id").unwrap();
    broker.advance(60);
    broker.close(&one);
    broker.restart();
    let steps = show(&broker, broker.executor(), "1").unwrap();
    let names: Vec<_> =
        steps.iter().map(|step| (step.step.as_str(), step.close_reason.as_str())).collect();
    assert_eq!(names, [("one", "executor"), ("two", "")]);
    let received = &steps[0].received[0];
    assert_eq!((received.name.as_str(), received.version), ("connections/aws/prod", 1));
    assert_eq!(received.fields, ["access_key_id", "secret_access_key"]);
    assert_eq!((received.times, received.state()), (2, pb::LeaseState::Revoked));
    let received = &steps[1].received[0];
    assert_eq!(received.fields, ["access_key_id"]);
    assert_eq!(received.state(), pb::LeaseState::Live);
    // A lease that reaches its end has expired. A lease that a change ended is revoked.
    broker.advance(3600);
    assert_eq!(
        show(&broker, broker.executor(), "1").unwrap()[1].received[0].state(),
        pb::LeaseState::Expired
    );
    assert_eq!(
        show(&broker, broker.executor(), "1").unwrap()[0].received[0].state(),
        pb::LeaseState::Revoked
    );
    // Operators see every executor's runs; another executor does not.
    assert_eq!(show(&broker, broker.operator(), "1").unwrap().len(), 2);
    let other = broker.enroll_executor("other", &["*"], &[]);
    assert_eq!(reason(show(&broker, other, "1")), "RUN_NOT_FOUND");
    assert_eq!(reason(show(&broker, broker.executor(), "2")), "RUN_NOT_FOUND");
}

#[test]
fn closing_a_run_closes_all_of_its_steps_and_no_others() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    let steps = [broker.open("w", "one"), broker.open("w", "two")];
    for step in &steps {
        broker.resolve(step, "aws/prod").unwrap();
    }
    let request = pb::OpenStepRequest { run: "2".to_owned(), ..open_request("w", "one") };
    let other = broker.become_step(broker.try_open(request).unwrap());
    let close = || {
        let request = pb::CloseRunRequest {
            workflow: "w".to_owned(),
            run: "1".to_owned(),
            ..Default::default()
        };
        broker.block_on(executor(&broker).close_run(request)).unwrap().into_inner()
    };
    let closed = close();
    assert_eq!((closed.closed_steps, closed.revoked_leases), (2, 2));
    assert_eq!(close().closed_steps, 0);
    assert!(steps.iter().all(|step| broker.resolve(step, "aws/prod").is_err()));
    broker.resolve(&other, "aws/prod").unwrap();
}

#[test]
fn the_same_request_opens_a_step_once_also_across_a_restart() {
    let mut broker = TestBroker::start();
    let open = |broker: &TestBroker, id: &str| {
        let request_id = id.to_owned();
        broker.try_open(pb::OpenStepRequest { request_id, ..open_request("w", "s") })
    };
    let first = open(&broker, "a").unwrap();
    broker.restart();
    let again = open(&broker, "a").unwrap();
    assert_eq!((again.name, again.directory), (first.name.clone(), first.directory));
    // Another request is another attempt, and closes the first.
    let second = open(&broker, "b").unwrap();
    assert_eq!((second.attempt, second.name == first.name), (2, false));
    let fixed = pb::OpenStepRequest {
        attempt: Some(2),
        request_id: "c".to_owned(),
        ..open_request("w", "s")
    };
    assert_eq!(reason(broker.try_open(fixed)), "STEP_EXISTS");
    // The same request does not open a closed step again.
    broker.close(&broker.become_step(second));
    assert_eq!(reason(open(&broker, "b")), "STEP_CLOSED");
}

#[test]
fn a_step_asks_for_no_more_than_its_executor_allows() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    broker.create_aws("other", "s", &["workflow:w"]);
    let allow = |targets: &[&str]| pb::OpenStepRequest {
        allowed_targets: targets.iter().map(|one| (*one).to_owned()).collect(),
        ..open_request("w", "s")
    };
    assert_eq!(reason(broker.try_open(allow(&["nonsense"]))), "TARGET_INVALID");
    let step = broker.become_step(broker.try_open(allow(&["aws/prod", "secret:*"])).unwrap());
    broker.resolve(&step, "aws/prod").unwrap();
    assert_eq!(reason(broker.resolve(&step, "aws/other")), "RESOLVE_DENIED");
    assert_eq!(reason(broker.resolve(&step, "default:aws")), "RESOLVE_DENIED");
    assert_eq!(reason(broker.resolve(&step, "secret:token")), "SECRET_NOT_FOUND");
    // The limit counts beside access, never instead of it.
    let step = broker.become_step(
        broker
            .try_open(pb::OpenStepRequest { workflow: "x".to_owned(), ..allow(&["aws/*"]) })
            .unwrap(),
    );
    assert_eq!(reason(broker.resolve(&step, "aws/prod")), "RESOLVE_DENIED");
    broker.restart();
    assert_eq!(reason(broker.resolve(&step, "aws/prod")), "RESOLVE_DENIED");
}

#[test]
fn a_step_whose_executor_is_silent_is_closed() {
    let mut broker = TestBroker::start();
    let heartbeat = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let opened = |step: &str| {
        broker.try_open(pb::OpenStepRequest { heartbeat, ..open_request("w", step) }).unwrap()
    };
    let (kept, lost) = (opened("kept"), opened("lost"));
    let is_open = |opened: &pb::OpenedStep| Path::new(&opened.directory).exists();
    let beat = |broker: &TestBroker, name: &str| {
        let request = pb::RenewStepRequest { name: name.to_owned(), ..Default::default() };
        broker.block_on(executor(broker).renew_step(request)).map(tonic::Response::into_inner)
    };
    // When the probe is closed, the reaper has checked the other steps.
    let probe = |broker: &TestBroker, name: &str| {
        let heartbeat = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let request = pb::OpenStepRequest { heartbeat, ..open_request("w", name) };
        let probe = broker.try_open(request).unwrap();
        broker.advance(4);
        wait_until("the probe is closed", || !is_open(&probe));
    };
    for _ in 0..3 {
        broker.advance(58);
        beat(&broker, &kept.name).unwrap();
    }
    probe(&broker, "before");
    assert!(is_open(&lost), "178 s are not over 180");
    // While the daemon is down for an hour, no executor can renew.
    broker.stop();
    broker.advance(3600);
    broker.serve();
    probe(&broker, "after");
    assert!(is_open(&kept) && is_open(&lost));
    broker.advance(120);
    beat(&broker, &kept.name).unwrap();
    broker.advance(61);
    wait_until("the silent step is closed", || !is_open(&lost));
    assert!(is_open(&kept));
    assert_eq!(reason(beat(&broker, &lost.name)), "STEP_NOT_FOUND");
    let closed = broker.journaled("closed");
    assert!(closed.iter().all(|line| line["reason"] == "heartbeat_lost"));
}

#[test]
fn a_directory_is_its_owners_its_groups_or_anybodys() {
    let broker = TestBroker::start();
    let open = |step: &str, request: pb::OpenStepRequest| {
        let (workflow, run, step) = ("w".to_owned(), "1".to_owned(), step.to_owned());
        broker.try_open(pb::OpenStepRequest { workflow, run, step, ..request })
    };
    let mode = |opened: &pb::OpenedStep, name: &str| {
        let path = Path::new(&opened.directory).join(name);
        let found = std::fs::metadata(path).unwrap();
        (found.permissions().mode() & 0o777, found.gid())
    };
    let own = rustix::process::getegid().as_raw();
    let host = pb::OpenStepRequest { mount_path: "host".to_owned(), ..Default::default() };
    let alone = open("alone", host.clone()).unwrap();
    let modes = ["", "keyhatch.sock", "tls.key", "tls.crt"].map(|name| mode(&alone, name).0);
    assert_eq!(modes, [0o700, 0o600, 0o400, 0o400]);
    let shared = open("shared", pb::OpenStepRequest { gid: Some(own), ..host.clone() }).unwrap();
    let modes = ["", "keyhatch.sock", "tls.key"].map(|name| mode(&shared, name));
    assert_eq!(modes, [(0o750, own), (0o660, own), (0o440, own)]);
    let mounted = pb::OpenStepRequest { any_uid: true, ..Default::default() };
    let any = open("any", mounted).unwrap();
    let modes = ["..", "", "keyhatch.sock", "tls.key"].map(|name| mode(&any, name).0);
    assert_eq!(modes, [0o700, 0o755, 0o666, 0o444]);
    let both = pb::OpenStepRequest { any_uid: true, uid: Some(1), ..host };
    assert_eq!(reason(open("both", both)), "TARGET_INVALID");
    // All of them work.
    broker.create_aws("prod", "s", &["workflow:w"]);
    for opened in [alone, shared, any] {
        broker.resolve(&broker.become_step(opened), "aws/prod").unwrap();
    }
}

#[test]
fn the_command_line_shows_a_run_and_closes_it() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let seed = directory.path().join("seed.yaml");
    let text = "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: prod}\nspec:\n  integration: slack\n  \
                fields: {api_token: t}\n  access: {resolver: ['workflow:deploy']}\n";
    std::fs::write(&seed, text).unwrap();
    serving.must(&["apply", "-f", seed.to_str().unwrap()]);
    let words = [
        "step",
        "run",
        "--workflow",
        "deploy",
        "--run",
        "42",
        "--step",
        "build",
        "--allow",
        "slack/*",
    ];
    let mut step = keyhatch_in(directory.path(), &words);
    step.args(["--", "keyhatch", "get", "slack/prod", "--format", "json"]);
    succeeded(&step.env("PATH", path_with_binary()).output().unwrap());
    let shown = serving.run(&["run", "show", "42"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    for word in ["run 42 of deploy, by local", "executor", "slack/prod", "api_token", "revoked"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let json = serving.run(&["run", "show", "42", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json[0]["received"][0]["state"], "revoked");
    let names = serving.run(&["run", "show", "42", "-o", "name"]);
    assert_eq!(String::from_utf8(names.stdout).unwrap(), "connections/slack/prod\n");
    let closed = serving.run(&["run", "close", "42"]);
    assert_eq!(String::from_utf8(closed.stdout).unwrap(), "0 step(s) closed, 0 lease(s) revoked\n");
    assert!(!serving.run(&["run", "show", "43"]).status.success());
}

#[test]
fn on_the_host_every_executors_runs_and_steps_are_seen() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let told = |arguments: &[&str]| {
        let output = serving.run(arguments);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    let ci = directory.path().join("ci");
    let ci = ci.to_str().unwrap();
    assert_eq!(told(&["executor", "add", "ci", "--workflow", "*", "--out", ci]).0, 0);
    assert!(told(&["run", "list"]).1.starts_with("no runs since "));
    assert_eq!(told(&["run", "list", "-o", "name"]), (0, String::new()));
    let names = ["--workflow", "fleet", "--run", "evil", "--step"];
    for step in ["exfil", "again"] {
        let mut open = keyhatch_in(directory.path(), &["step", "open"]);
        open.args(names).arg(step).env("KEYHATCH_DIR", ci);
        assert!(open.output().unwrap().status.success());
    }
    let listed = told(&["step", "list"]).1.to_lowercase();
    assert!(listed.contains("exfil") && listed.contains("executor") && listed.contains(" ci "));
    let mut own = keyhatch_in(directory.path(), &["step", "list"]);
    let own = own.env("KEYHATCH_DIR", ci).output().unwrap();
    let own = String::from_utf8(own.stdout).unwrap().to_lowercase();
    assert!(own.contains("exfil") && !own.contains("executor"), "{own}");
    assert!(told(&["run", "show", "evil"]).1.contains("run evil of fleet, by ci"));
    let runs = told(&["run", "list", "-o", "json"]).1;
    let runs: serde_json::Value = serde_json::from_str(&runs).unwrap();
    let run = (&runs[0]["workflow"], &runs[0]["run"], &runs[0]["executor"], &runs[0]["openings"]);
    assert_eq!(run, (&"fleet".into(), &"evil".into(), &"ci".into(), &2.into()), "{runs}");
    assert_eq!(told(&["run", "list", "--workflow", "fleet", "-o", "name"]).1, "evil\n");
    assert!(told(&["run", "list", "--workflow", "other"]).1.starts_with("no runs"));
    // An executor sees its own steps, and an empty list says whose steps it lists.
    let mut listed = keyhatch_in(directory.path(), &["step", "list"]);
    listed.env("KEYHATCH_DIR", directory.path().join("state/executors/local"));
    let listed = String::from_utf8(listed.output().unwrap().stdout).unwrap();
    assert_eq!(listed, "no open steps of executor:local\n");
    let mut runs = keyhatch_in(directory.path(), &["run", "list"]);
    let runs = runs.env("KEYHATCH_DIR", directory.path().join("state/executors/local"));
    let refused = String::from_utf8(runs.output().unwrap().stderr).unwrap();
    for said in ["ROLE_REQUIRED", "this is executor:local", "an operator's", "keyhatch run show"] {
        assert!(refused.contains(said), "{refused}");
    }
    for close in [&["run", "close", "evil"][..], &["run", "close", "evil", "--workflow", "fleet"]] {
        let (code, said) = told(close);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("RUN_NOT_FOUND") && said.contains("a run of executor:ci"), "{said}");
    }
}

#[test]
fn a_list_of_nothing_has_no_lines_by_name() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    for list in [
        &["step", "list"][..],
        &["run", "list"],
        &["connection", "list"],
        &["group", "list"],
        &["secret", "list", "--workflow", "w"],
        &["access", "suggest", "w"],
        &["export"],
    ] {
        let listed = serving.run(&[list, &["-o", "name"]].concat());
        assert!(listed.status.success() && listed.stdout.is_empty(), "{list:?}: {listed:?}");
    }
}
