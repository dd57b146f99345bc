//! Readers of the journal delay nobody else.

use std::collections::BTreeSet;
use std::sync::Arc;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use keyhatch::journal::{Journal, Options, ReadError, WhichRuns};
use keyhatch::model::{Limits, RunName};
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_types::StatusExt as _;

use crate::harness::{TestBroker, TestStep, open_request, open_state, reason, wait_until};

fn busy() -> Limits {
    Limits {
        step_requests_per_second: 1_000_000,
        step_request_burst: 1_000_000,
        ..Limits::default()
    }
}

fn tail(
    broker: &TestBroker,
    who: &Channel,
    request: pb::TailJournalRequest,
) -> Result<Streaming<pb::JournalLine>, Status> {
    let mut client = SystemServiceClient::new(who.clone());
    broker.block_on(client.tail_journal(request)).map(tonic::Response::into_inner)
}

/// All lines of a tail, to its end.
fn told(broker: &TestBroker, request: pb::TailJournalRequest) -> Vec<pb::JournalLine> {
    let mut lines = tail(broker, &broker.operator(), request).unwrap();
    let mut told = Vec::new();
    while let Some(line) = broker.block_on(lines.message()).unwrap() {
        told.push(line);
    }
    told
}

/// A request for all lines since the beginning.
fn all(filter: &pb::TailJournalRequest) -> pb::TailJournalRequest {
    pb::TailJournalRequest { since: Some(prost_types::Timestamp::default()), ..filter.clone() }
}

fn files(broker: &TestBroker) -> usize {
    let entries = std::fs::read_dir(broker.config.state.join("journal")).unwrap();
    entries
        .filter(|one| one.as_ref().unwrap().path().extension().is_some_and(|end| end == "jsonl"))
        .count()
}

fn resolve_times(broker: &TestBroker, step: &TestStep, times: usize) {
    for _ in 0..times {
        broker.resolve(step, "aws/prod").unwrap();
    }
}

#[test]
fn one_operator_cannot_take_every_journal_reader() {
    let broker = TestBroker::start();
    let (viewer, other) =
        (broker.enroll("looks", pb::Role::Viewer), broker.enroll("sees", pb::Role::Viewer));
    let follow = || pb::TailJournalRequest { follow: true, ..Default::default() };
    let held: Vec<_> = (0..4).map(|_| tail(&broker, &viewer, follow()).unwrap()).collect();
    assert_eq!(reason(tail(&broker, &viewer, follow())), "TOO_MANY_READERS");
    let mut lines = tail(&broker, &other, pb::TailJournalRequest { last: 1, ..follow() }).unwrap();
    assert!(broker.block_on(lines.message()).unwrap().is_some());
    drop(held);
    wait_until("there is room again", || tail(&broker, &viewer, follow()).is_ok());
}

/// The bytes that the journal-reading threads have read, except threads in `before`.
fn bytes_read(before: &BTreeSet<String>) -> u64 {
    let tasks = tasks().into_iter().filter(|task| !before.contains(task));
    let read = tasks.filter_map(|task| std::fs::read_to_string(format!("{task}/io")).ok());
    read.filter_map(|io| io.strip_prefix("rchar: ")?.lines().next()?.parse::<u64>().ok()).sum()
}

/// The threads of this process that read journals.
fn tasks() -> BTreeSet<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let paths = tasks.map(|task| task.unwrap().path().display().to_string());
    let is_reader = |task: &String| {
        std::fs::read_to_string(format!("{task}/comm"))
            .is_ok_and(|name| name.trim() == "journal-reader")
    };
    paths.filter(is_reader).collect()
}

#[test]
fn explain_reads_one_line() {
    let before = tasks();
    let broker = TestBroker::start_with(busy());
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    resolve_times(&broker, &step, 1500);
    let file = broker.journal_path().metadata().unwrap().len();
    let decisions = broker.journaled("resolve");
    let read = bytes_read(&before);
    for line in decisions.iter().step_by(40) {
        let id = format!("1.{}", line["n"]);
        assert_eq!(broker.explain_decision(&id).unwrap().past.unwrap().decision_id, id);
    }
    for unknown in ["1.99999999", "2.1", "1.0", "999999.1"] {
        assert_eq!(reason(broker.explain_decision(unknown)), "DECISION_NOT_FOUND", "{unknown}");
    }
    let read = bytes_read(&before) - read;
    assert!(read < 4 * file, "{read} bytes for 38 decisions in a file of {file}");
}

/// Reading from the end and from the beginning gives the same lines, even while files and steps come and go.
#[test]
fn the_last_lines_are_the_last_of_all_lines() {
    let broker = TestBroker::start_with(Limits { journal_file_bytes: 30_000, ..busy() });
    broker.create_aws("prod", "s3cret", &["workflow:*"]);
    let long = broker.open("a", "long");
    for round in 0..3 {
        let (one, other) = (broker.open("a", "short"), broker.open("b", "short"));
        for step in [&long, &one, &other] {
            resolve_times(&broker, step, 15);
        }
        assert!(broker.resolve(&one, "aws/nothere").is_err());
        broker.close(&one);
        broker.close(&other);
        wait_until("it goes on in a new file", || files(&broker) > round + 1);
    }
    let filters = [
        pb::TailJournalRequest::default(),
        pb::TailJournalRequest { workflow: "a".to_owned(), ..Default::default() },
        pb::TailJournalRequest {
            workflow: "b".to_owned(),
            run: "1".to_owned(),
            ..Default::default()
        },
        pb::TailJournalRequest { workflow: "none".to_owned(), ..Default::default() },
        pb::TailJournalRequest { denied: true, ..Default::default() },
        pb::TailJournalRequest {
            events: vec!["closed".to_owned()],
            workflow: "a".to_owned(),
            ..Default::default()
        },
    ];
    for filter in filters {
        // Signature lines come at any time.
        let all = told(&broker, all(&filter));
        for count in [0, 1, 2, 5, 60, 1000] {
            let last = told(&broker, pb::TailJournalRequest { last: count, ..filter.clone() });
            let ids = |lines: &[pb::JournalLine]| {
                let lines = lines.iter().filter(|line| line.event != "signed");
                lines.map(|line| line.id.clone()).collect::<Vec<_>>()
            };
            let (all, last) = (ids(&all), ids(&last));
            assert!(all.ends_with(&last), "{filter:?} {count}: {last:?} of {all:?}");
            assert!(
                last.len() + 4 >= all.len().min(usize::try_from(count).unwrap()),
                "{filter:?} {count}"
            );
        }
    }
    assert!(told(&broker, all(&pb::TailJournalRequest::default())).len() > 150);
}

#[test]
fn a_tail_stops_after_so_many_bytes_and_says_where() {
    let broker = TestBroker::start_with(Limits { tail_bytes: 100_000, ..busy() });
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    for _ in 0..12 {
        resolve_times(&broker, &step, 40);
        broker.advance(1);
    }
    assert!(broker.journal_path().metadata().unwrap().len() > 200_000);
    // Backwards, the notice comes before the found lines.
    let nothing =
        pb::TailJournalRequest { resource: "none".to_owned(), last: 5, ..Default::default() };
    let found = told(&broker, nothing);
    assert_eq!(found.len(), 1);
    assert!(found[0].stopped && found[0].json.is_empty() && found[0].time.is_some());
    let newest = told(&broker, pb::TailJournalRequest { last: 5, ..Default::default() });
    assert!(newest.len() == 5 && newest.iter().all(|line| !line.stopped));
    // Forwards, the tail ends there, and the next continues from there.
    let resolves =
        pb::TailJournalRequest { events: vec!["resolve".to_owned()], ..Default::default() };
    let (mut seen, mut calls) = (BTreeSet::new(), 0);
    let mut next = Some(prost_types::Timestamp::default());
    while let Some(since) = next.take() {
        let lines =
            told(&broker, pb::TailJournalRequest { since: Some(since), ..resolves.clone() });
        next = lines.iter().find(|line| line.stopped).map(|note| note.time.unwrap());
        seen.extend(lines.into_iter().filter(|line| !line.stopped).map(|line| line.id));
        calls += 1;
    }
    assert_eq!(seen.len(), 12 * 40);
    assert!((3..40).contains(&calls), "{calls}");
}

/// The id in a step's refusal leads an operator to the line among many.
#[test]
fn a_refusal_among_many_lines_is_explained() {
    let broker = TestBroker::start_with(Limits { journal_file_bytes: 20_000, ..busy() });
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    let mut ids = Vec::new();
    for round in 0..3 {
        let status = broker.resolve(&step, "aws/nothere").unwrap_err();
        let details = status.get_error_details();
        ids.push(details.error_info().unwrap().metadata["decision_id"].clone());
        resolve_times(&broker, &step, 40);
        wait_until("it goes on in a new file", || files(&broker) > round + 1);
    }
    for id in ids {
        assert_eq!(broker.explain_decision(&id).unwrap().past.unwrap().outcome, "RESOLVE_DENIED");
    }
}

/// The lines of a run, and of a rebuilt index, are read only while a caller waits.
#[test]
fn a_run_that_nobody_waits_for_is_not_read_to_its_end() {
    let mut broker = TestBroker::start_with(Limits { journal_file_bytes: 100_000, ..busy() });
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    resolve_times(&broker, &step, 300);
    wait_until("it goes on in a new file", || files(&broker) > 1);
    resolve_times(&broker, &step, 300);
    broker.stop();
    let keyring = open_state(&broker.config.state).unlock(None).unwrap().keyring().unwrap();
    let directory = broker.config.state.join("journal");
    let (authority, options) = (Arc::new(broker.authority()), Options { file_bytes: 100_000 });
    let opened =
        Journal::open(&directory, Arc::new(keyring), authority, options, broker.clock.now());
    let (journal, _) = opened.unwrap();
    let run = RunName::parse("1").unwrap();
    let which = WhichRuns { run: &run, workflow: None, executor: None };
    let read = |is_cancelled: &dyn Fn() -> bool| {
        let mut lines = 0;
        let take = |_| {
            lines += 1;
            Ok::<_, ReadError>(())
        };
        let ended = journal.run_lines(which, is_cancelled, take);
        (lines, ended.is_ok())
    };
    assert_eq!(read(&|| false), (601, true));
    let (lines, is_whole) = read(&|| true);
    assert!(lines < 100 && !is_whole, "{lines}");
    let index = directory.join("000001.index");
    std::fs::remove_file(&index).unwrap();
    assert_eq!(read(&|| true), (0, false));
    assert!(!index.exists());
    assert_eq!(read(&|| false), (601, true));
}

#[test]
fn a_run_that_no_answer_holds_is_refused_by_name() {
    let broker = TestBroker::start();
    let run_as: Vec<String> =
        (0..100).map(|number| format!("user:{number}-{}", "x".repeat(120))).collect();
    let mut client = ExecutorServiceClient::new(broker.executor());
    for number in 0..300 {
        let request = pb::OpenStepRequest {
            run_as: run_as.clone(),
            ..open_request("deploy", &format!("step-{number}"))
        };
        let opened = broker.block_on(client.open_step(request)).unwrap().into_inner();
        let close = pb::CloseStepRequest { name: opened.name, ..Default::default() };
        broker.block_on(client.close_step(close)).unwrap();
    }
    let run = pb::GetRunRequest { workflow: "deploy".to_owned(), run: "1".to_owned() };
    let refused = broker.block_on(client.get_run(run)).unwrap_err();
    assert!(refused.message().contains("journal tail --run 1"), "{refused}");
    assert_eq!(reason(Err::<(), _>(refused)), "TOO_LARGE");
}
