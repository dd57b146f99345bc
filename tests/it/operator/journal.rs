//! The journal continues from file to file, `journal verify` proves it, and readers read it while it grows.

use std::path::{Path, PathBuf};
use std::process::Output;

use keyhatch::daemon::Daemon;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use keyhatch::identity::RootKey;
use keyhatch::journal::{Proof, ProofError, verify};
use keyhatch::model::{JournalMode, Limits};
use serde_json::Value;

use crate::harness::{
    ServeProcess, TestBroker, keyhatch_in, open_request, reason, succeeded, temp_dir, wait_until,
};

/// A broker whose files are full after some 20 lines.
fn small_files() -> TestBroker {
    TestBroker::start_with(Limits {
        journal_file_bytes: 16 * 1024,
        step_requests_per_second: 1_000_000,
        step_request_burst: 1_000_000,
        ..Limits::default()
    })
}

fn files(broker: &TestBroker) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(broker.config.state.join("journal")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
    files.sort();
    files
}

fn proof(broker: &TestBroker) -> Result<Proof, ProofError> {
    let pem = std::fs::read_to_string(broker.config.state.join("ca.crt")).unwrap();
    verify(&broker.config.state.join("journal"), &RootKey::from_pem(&pem).unwrap(), 1, None)
}

fn received(broker: &TestBroker, run: &str) -> usize {
    let request = pb::GetRunRequest { workflow: String::new(), run: run.to_owned() };
    let mut client = ExecutorServiceClient::new(broker.executor());
    let run = broker.block_on(client.get_run(request)).unwrap().into_inner();
    run.steps
        .iter()
        .flat_map(|step| &step.received)
        .map(|one| usize::try_from(one.times).unwrap())
        .sum()
}

/// Resolves until the journal has this many files.
fn fill_files(broker: &TestBroker, step: &crate::harness::TestStep, count: usize) -> usize {
    let mut resolved = 0;
    wait_until("the journal has gone on in new files", || {
        for _ in 0..20 {
            broker.resolve(step, "aws/prod").unwrap();
            resolved += 1;
        }
        files(broker).len() >= count
    });
    resolved
}

#[test]
fn a_step_and_its_leases_outlive_the_files_they_began_in() {
    let mut broker = small_files();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    let first = broker.resolve(&step, "aws/prod").unwrap();
    let mut resolved = 1 + fill_files(&broker, &step, 4);

    broker.restart();
    let again = broker.resolve(&step, "aws/prod").unwrap();
    resolved += 1;
    assert_eq!(again.lease.name, first.lease.name);
    assert_eq!(received(&broker, "1"), resolved);
    // The attempt of a closed step is still known after its file is full.
    broker.close(&step);
    let step = broker.open("deploy", "test");
    fill_files(&broker, &step, files(&broker).len() + 2);
    broker.restart();
    let reopened = broker.try_open(open_request("deploy", "build")).unwrap();
    assert_eq!(reopened.attempt, 2);
    broker.stop();
    let proof = proof(&broker).unwrap();
    assert_eq!((proof.unproven, proof.files), (1, files(&broker).len() as u64));
}

#[test]
fn a_rebuilt_index_has_the_same_runs_and_uses() {
    let mut broker = small_files();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    let resolved = fill_files(&broker, &step, 4);
    broker.stop();
    let indexes = |broker: &TestBroker| {
        let paths = files(broker).into_iter().map(|path| path.with_extension("index"));
        let texts = paths.filter_map(|path| Some((path.clone(), std::fs::read(path).ok()?)));
        texts.collect::<Vec<_>>()
    };
    let written = indexes(&broker);
    assert!(written.len() >= 3);
    for (number, (path, text)) in written.iter().enumerate() {
        // A removed, cut or changed index is not used.
        match number % 3 {
            0 => std::fs::remove_file(path).unwrap(),
            1 => std::fs::write(path, &text[..text.len() / 2]).unwrap(),
            _ => {
                let changed = String::from_utf8(text.clone()).unwrap().replace("deploy", "depl0y");
                std::fs::write(path, changed).unwrap();
            }
        }
    }
    broker.serve();
    assert_eq!(received(&broker, "1"), resolved);
    assert_eq!(reason(broker_delete(&broker)), "IN_USE");
    broker.stop();
    let again = indexes(&broker);
    // The restart may have filled another file.
    assert!(again.starts_with(&written));
}

fn broker_delete(broker: &TestBroker) -> Result<(), tonic::Status> {
    use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
    let name = "connections/aws/prod".to_owned();
    let request = pb::DeleteConnectionRequest { name, ..Default::default() };
    let mut client = ConnectionServiceClient::new(broker.operator());
    broker.block_on(client.delete_connection(request)).map(drop)
}

#[test]
fn an_unfinished_new_journal_file_is_set_aside() {
    let mut broker = small_files();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    fill_files(&broker, &step, 2);
    broker.stop();
    // The newest file is cut within its copied lines, because its own lines never were on disk.
    let newest = files(&broker).pop().unwrap();
    let text = std::fs::read_to_string(&newest).unwrap();
    let checkpoint = text.lines().next().unwrap();
    std::fs::write(&newest, format!("{checkpoint}\n{}", &checkpoint[..40])).unwrap();
    let left = files(&broker).len() - 1;
    // The rest of the journal is consistent, because the only contradicting lines are gone.
    broker.serve();
    assert_eq!(files(&broker).len(), left);
    assert!(newest.with_extension("jsonl.unfinished").exists());
    broker.resolve(&step, "aws/prod").unwrap();
}

#[test]
fn one_edited_journal_byte_is_noticed_with_ca_crt_alone() {
    let mut broker = small_files();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    fill_files(&broker, &step, 3);
    broker.stop();
    let whole = proof(&broker).unwrap();
    assert_eq!(whole.unproven, 1);
    for path in files(&broker) {
        let text = std::fs::read(&path).unwrap();
        // Every 97th byte: in names, numbers, hashes, signatures and separators.
        for place in (0..text.len()).step_by(97) {
            let mut changed = text.clone();
            changed[place] ^= 1;
            std::fs::write(&path, changed).unwrap();
            let found = proof(&broker);
            assert!(found.is_err(), "byte {place} of {}", path.display());
        }
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(proof(&broker).unwrap().last_hash, whole.last_hash);
}

#[test]
fn missing_lines_files_and_a_cut_end_are_noticed() {
    let mut broker = small_files();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    fill_files(&broker, &step, 4);
    broker.stop();
    let whole = proof(&broker).unwrap();
    let all = files(&broker);
    let kept: Vec<_> = all.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let restore =
        || all.iter().zip(&kept).for_each(|(path, text)| std::fs::write(path, text).unwrap());
    let refused = |what: &str| {
        let error = proof(&broker).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        restore();
    };
    std::fs::remove_file(&all[1]).unwrap();
    refused("000002.jsonl");
    // A full file names its successor.
    all[2..].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    refused("is missing");
    for (path, text) in all.iter().zip(&kept) {
        let text = String::from_utf8(text.clone()).unwrap();
        let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
        lines.remove(lines.len() / 2);
        std::fs::write(path, lines.concat()).unwrap();
        refused("line");
    }
    // The oldest files may be elsewhere, if the caller says so.
    std::fs::remove_file(&all[0]).unwrap();
    let pem = std::fs::read_to_string(broker.config.state.join("ca.crt")).unwrap();
    let root = RootKey::from_pem(&pem).unwrap();
    let journal = broker.config.state.join("journal");
    assert_eq!(verify(&journal, &root, 2, None).unwrap().first_file, 2);
    refused("--from 2");
    // A journal cut at a line's end is consistent. Only a noted last line shows the cut.
    let newest = String::from_utf8(kept.last().unwrap().clone()).unwrap();
    let lines: Vec<&str> = newest.split_inclusive('\n').collect();
    std::fs::write(all.last().unwrap(), lines[..lines.len() - 1].concat()).unwrap();
    let expected = Some((whole.last_line, whole.last_hash));
    let cut = verify(&journal, &root, 1, expected);
    assert!(cut.unwrap_err().to_string().contains("is not any more"));
    restore();
    // The daemon does not start with a missing file, whatever its indexes say.
    std::fs::remove_file(&all[1]).unwrap();
    let refused = Daemon::start(&broker.config, None, broker.clock.clone()).err().unwrap();
    assert!(refused.to_string().contains("000002.jsonl is missing"), "{refused}");
}

#[test]
fn lines_that_imitate_the_brokers_are_not_proven() {
    let (mut broker, other) = (TestBroker::start(), TestBroker::start());
    broker.stop();
    let pem = std::fs::read_to_string(other.config.state.join("ca.crt")).unwrap();
    let root = RootKey::from_pem(&pem).unwrap();
    let found = verify(&broker.config.state.join("journal"), &root, 1, None);
    assert!(found.unwrap_err().to_string().contains("signature"));
}

#[test]
fn journal_verify_names_the_line_that_does_not_hold() {
    let directory = temp_dir();
    assert!(ServeProcess::start(directory.path()).terminate());
    let run = || keyhatch_in(directory.path(), &["journal", "verify"]).output().unwrap();
    let whole = run();
    // No fault was found, but nothing was proven, because the CA lies beside the journal.
    assert_eq!(whole.status.code(), Some(4), "{}", String::from_utf8_lossy(&whole.stderr));
    assert!(String::from_utf8_lossy(&whole.stdout).contains("up to line"));
    let path = directory.path().join("state/journal/000001.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("operator.create", "operator.delete", 1)).unwrap();
    let edited = run();
    let said = String::from_utf8_lossy(&edited.stderr).into_owned();
    assert_eq!(edited.status.code(), Some(1));
    assert!(
        said.contains("error: JOURNAL_DAMAGED: line 2 of") && said.contains("changed"),
        "{said}"
    );
}

fn tail(directory: &Path, arguments: &[&str]) -> Output {
    let all: Vec<&str> = ["journal", "tail"].iter().chain(arguments).copied().collect();
    keyhatch_in(directory, &all).output().unwrap()
}

/// A daemon with an open step of each of these workflows, in run 1.
fn with_steps_of(directory: &Path, workflows: &[&str]) -> ServeProcess {
    let serving = ServeProcess::start(directory);
    for workflow in workflows {
        let step = ["step", "open", "--run", "1", "--step", "s", "--mount-path", "host"];
        succeeded(&serving.run(&[&step[..], &["--workflow", workflow]].concat()));
    }
    serving
}

fn tail_json(directory: &Path, arguments: &[&str]) -> Vec<Value> {
    let shown = tail(directory, &[arguments, &["-o", "json"]].concat());
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let text = String::from_utf8(shown.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn journal_tail_shows_the_lines_that_are_asked_for() {
    let directory = temp_dir();
    let _serving = with_steps_of(directory.path(), &["a", "b"]);
    let json = |arguments: &[&str]| tail_json(directory.path(), arguments);
    assert_eq!(json(&["--event", "opened"]).len(), 2);
    let of_b = json(&["--workflow", "b", "-n", "100"]);
    assert_eq!(of_b.len(), 1);
    assert_eq!(of_b[0]["workflow"], "b");
    assert_eq!(json(&["-n", "1", "--event", "opened"])[0]["workflow"], "b");
    assert_eq!(json(&["--since", "2000-01-01T00:00:00Z"])[0]["event"], "checkpoint");
    assert!(json(&["--since", "2999-01-01T00:00:00Z"]).is_empty());
    let lines = String::from_utf8(tail(directory.path(), &["--event", "opened"]).stdout).unwrap();
    assert!(lines.contains("workflow:a/run:1/step:s by executor:local"), "{lines}");
    let unknown = tail(directory.path(), &["--event", "resolv"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("\"resolv\" is not a valid event"));
}

/// The lines of a step's requests name only its opening.
#[test]
fn journal_tail_finds_a_steps_lines_by_a_line_not_shown() {
    let directory = temp_dir();
    let serving = with_steps_of(directory.path(), &["b"]);
    let step = ["step", "run", "--workflow", "a", "--run", "2", "--step", "s", "--"];
    let get = [env!("CARGO_BIN_EXE_keyhatch"), "get", "aws/nothing"];
    assert!(!serving.run(&[&step[..], &get[..]].concat()).status.success());
    let count = |arguments: &[&str]| {
        tail_json(directory.path(), &[&["--event", "resolve"], arguments].concat()).len()
    };
    assert_eq!(count(&["--workflow", "a"]), 1);
    assert_eq!(count(&["--run", "2", "--since", "2000-01-01T00:00:00Z"]), 1);
    assert_eq!(count(&["--workflow", "b"]), 0);
}

#[test]
fn a_reader_gets_each_new_line_once_across_files() {
    let broker = small_files();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    let request = pb::TailJournalRequest {
        follow: true,
        events: vec!["resolve".to_owned()],
        run: "1".to_owned(),
        ..Default::default()
    };
    let mut client = SystemServiceClient::new(broker.operator());
    let mut lines = broker.block_on(client.tail_journal(request)).unwrap().into_inner();
    let resolved = fill_files(&broker, &step, 3);
    let mut numbers = Vec::new();
    for _ in 0..resolved {
        let line = broker.block_on(lines.message()).unwrap().unwrap();
        let number = line.id.split_once('.').unwrap().1.parse::<u64>().unwrap();
        assert!(numbers.last().is_none_or(|last| *last < number), "{number} after {numbers:?}");
        numbers.push(number);
    }
}

#[test]
fn a_synced_answer_is_on_disk_and_a_noted_head_is_required() {
    let mut broker = TestBroker::start();
    broker.stop();
    broker.config.journal = JournalMode::Synced;
    broker.serve();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    broker.resolve(&step, "aws/prod").unwrap();
    let mut client = SystemServiceClient::new(broker.operator());
    let status = broker.block_on(client.get_status(pb::GetStatusRequest {})).unwrap().into_inner();
    broker.stop();
    let head = u64::try_from(status.head).unwrap();
    broker.config.expect_head = Some(head);
    broker.restart();
    broker.stop();
    broker.config.expect_head = Some(head + 1);
    let error = broker.try_serve().map(drop).unwrap_err().to_string();
    assert!(error.contains("--expect-head"), "{error}");
}

#[test]
fn a_journal_removed_or_cut_in_use_stops_journaled_work() {
    let spoil: [fn(&Path); 3] = [
        |path| std::fs::remove_file(path).unwrap(),
        |path| {
            let copy = path.with_extension("copy");
            std::fs::copy(path, &copy).unwrap();
            std::fs::rename(copy, path).unwrap();
        },
        |path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        },
    ];
    for spoil in spoil {
        let broker = TestBroker::start();
        broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
        let step = broker.open("deploy", "build");
        broker.resolve(&step, "aws/prod").unwrap();
        spoil(&broker.journal_path());
        wait_until("it is noticed", || broker.resolve(&step, "aws/prod").is_err());
        assert_eq!(reason(broker.resolve(&step, "aws/prod")), "JOURNAL_UNAVAILABLE");
        let mut client = SystemServiceClient::new(broker.operator());
        let status = broker.block_on(client.get_status(pb::GetStatusRequest {})).unwrap();
        assert_eq!(status.into_inner().state, "no-secrets");
    }
}

/// A reader whose client reads nothing, though it answers pings, holds a thread and one of few places.
#[test]
fn readers_that_never_read_are_cut_off_and_make_room() {
    let broker = TestBroker::start_with(Limits {
        stall_seconds: 1,
        step_requests_per_second: 1_000_000,
        step_request_burst: 1_000_000,
        ..Limits::default()
    });
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    // The lines exceed every window and queue on the way.
    for _ in 0..6000 {
        broker.resolve(&step, "aws/prod").unwrap();
    }
    let tail = || {
        let since = Some(prost_types::Timestamp::default());
        let request = pb::TailJournalRequest { since, follow: true, ..Default::default() };
        broker.block_on(SystemServiceClient::new(broker.operator()).tail_journal(request))
    };
    let silent: Vec<_> = (0..4).map(|_| tail().unwrap()).collect();
    assert_eq!(reason(tail()), "TOO_MANY_READERS");
    wait_until("there is room again", || tail().is_ok());
    drop(silent);
}
