//! Administrators close steps and runs of any executor, and block them.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{WHY, show, unblock, watch};
use crate::harness::{Steps, TestBroker, open_request, reason, text};

fn close_run(
    broker: &TestBroker,
    caller: Channel,
    block: Option<bool>,
) -> Result<pb::CloseRunResponse, Status> {
    let (workflow, run, reason) = ("w".to_owned(), "1".to_owned(), WHY.to_owned());
    let request = pb::CloseRunRequest { workflow, run, reason, block };
    let mut client = ExecutorServiceClient::new(caller);
    broker.block_on(client.close_run(request)).map(tonic::Response::into_inner)
}

fn close_step(
    broker: &TestBroker,
    caller: Channel,
    request: pb::CloseStepRequest,
) -> Result<pb::CloseStepResponse, Status> {
    let mut client = ExecutorServiceClient::new(caller);
    broker.block_on(client.close_step(request)).map(tonic::Response::into_inner)
}

fn named(name: &str) -> pb::CloseStepRequest {
    pb::CloseStepRequest { name: name.to_owned(), ..Default::default() }
}

fn step_one() -> pb::CloseStepRequest {
    let [workflow, run, step] = ["w", "1", "one"].map(str::to_owned);
    pb::CloseStepRequest { workflow, run, step, ..Default::default() }
}

fn renew(broker: &TestBroker, executor: Channel, name: &str) -> String {
    let request = pb::RenewStepRequest { name: name.to_owned(), ..Default::default() };
    let mut client = ExecutorServiceClient::new(executor);
    reason(broker.insist(|| broker.block_on(client.renew_step(request.clone()))))
}

fn open(broker: &TestBroker, executor: Channel, run: &str) -> Result<pb::OpenedStep, Status> {
    let request = pb::OpenStepRequest { run: run.to_owned(), ..open_request("w", "one") };
    let mut client = ExecutorServiceClient::new(executor);
    broker.block_on(client.open_step(request)).map(tonic::Response::into_inner)
}

#[test]
fn an_administrator_closes_and_blocks_a_run_of_any_executor() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    let ci = broker.enroll_executor("ci", &["*"], &[]);
    let one = open(&broker, ci.clone(), "1").unwrap();
    let (two, other) = (broker.open("w", "two"), open(&broker, ci.clone(), "2").unwrap());
    let step = broker.become_step(one.clone());
    let mut watching = watch(&broker, &step, "aws/prod");
    broker.resolve(&two, "aws/prod").unwrap();
    let closed = close_run(&broker, broker.operator(), None).unwrap();
    assert_eq!((closed.closed_steps, closed.revoked_leases, closed.blocked), (2, 2, true));
    assert_eq!(watching.end(), "STEP_NOT_OPEN");
    drop(watching);
    assert!(!std::path::Path::new(&one.directory).exists());
    let [line] = &*broker.journaled("closed_by_operator") else { panic!("one line for all") };
    assert_eq!((&line["principal"], &line["reason"]), (&"operator:admin".into(), &WHY.into()));
    assert_eq!((&line["target"], &line["blocked"]), (&"workflow:w/run:1".into(), &true.into()));
    for _ in 0..2 {
        // What the executor hears, also after a restart.
        assert_eq!(renew(&broker, ci.clone(), &one.name), "STEP_CLOSED_BY_OPERATOR");
        let closed = close_step(&broker, ci.clone(), named(&one.name)).unwrap();
        assert_eq!((closed.closed, closed.close_reason.as_str()), (false, "operator"));
        let closed = close_step(&broker, ci.clone(), step_one()).unwrap();
        assert_eq!((closed.closed, closed.close_reason.as_str()), (false, "operator"));
        let refused = open(&broker, ci.clone(), "1").unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert_eq!(reason(Err::<(), _>(refused)), "STEP_BLOCKED");
        let steps = show(&broker);
        let ends = steps.iter().map(|step| (step.close_reason.as_str(), step.closed_by.as_str()));
        assert_eq!(ends.collect::<Vec<_>>(), [("operator", "operator:admin"); 2]);
        broker.restart();
    }
    // The other run goes on.
    let other = broker.become_step(other);
    broker.resolve(&other, "aws/prod").unwrap();
    // Closing it again closes nothing, and is no error.
    assert_eq!(close_run(&broker, broker.operator(), None).unwrap().closed_steps, 0);
    unblock(&broker, broker.operator(), "workflow:w/run:1").unwrap();
    let again = open(&broker, ci.clone(), "1").unwrap();
    assert_eq!(again.attempt, 2);
    assert!(close_step(&broker, ci.clone(), named(&again.name)).unwrap().closed);
    assert_eq!(close_step(&broker, ci, step_one()).unwrap().close_reason, "");
}

#[test]
fn a_step_closed_without_a_block_may_be_opened_again() {
    let broker = TestBroker::start();
    let (one, two) = (broker.open("w", "one"), broker.open("w", "two"));
    let close = |request: pb::CloseStepRequest| {
        let request = pb::CloseStepRequest { reason: WHY.to_owned(), ..request };
        close_step(&broker, broker.operator(), request)
    };
    let closed = close(named(&one.opened.name)).unwrap();
    assert_eq!((closed.closed, closed.blocked), (true, false));
    assert_eq!(reason(close(named(&one.opened.name))), "STEP_NOT_FOUND");
    broker.open("w", "one");
    let closed = close(pb::CloseStepRequest { block: true, ..step_one() }).unwrap();
    assert_eq!((closed.closed, closed.blocked), (true, true));
    assert_eq!(reason(broker.try_open(open_request("w", "one"))), "STEP_BLOCKED");
    broker.renew(&two).unwrap();
    let mut run = close_run(&broker, broker.operator(), Some(false)).unwrap();
    assert_eq!((run.closed_steps, run.blocked), (1, false));
    broker.open("w", "two");
    run = close_run(&broker, broker.operator(), Some(true)).unwrap();
    assert_eq!((run.closed_steps, run.blocked), (1, true));
    assert_eq!(reason(broker.try_open(open_request("w", "two"))), "STEP_BLOCKED");
}

#[test]
fn who_may_not_close_is_told_and_the_step_stays_open() {
    let broker = TestBroker::start();
    let step = broker.open("w", "one");
    let ci = broker.enroll_executor("ci", &["*"], &[]);
    let works = broker.enroll("works", pb::Role::Operator);
    assert_eq!(reason(close_run(&broker, works.clone(), None)), "ROLE_REQUIRED");
    let worded = pb::CloseStepRequest { reason: WHY.to_owned(), ..named(&step.opened.name) };
    assert_eq!(reason(close_step(&broker, works, worded.clone())), "ROLE_REQUIRED");
    // An administrator says why, and an executor has no word in it.
    let wordless = close_step(&broker, broker.operator(), named(&step.opened.name));
    assert_eq!(reason(wordless), "TARGET_INVALID");
    assert_eq!(reason(close_step(&broker, broker.executor(), worded)), "TARGET_INVALID");
    assert_eq!(reason(close_run(&broker, broker.executor(), Some(true))), "TARGET_INVALID");
    // Another executor's step looks like one that never was.
    assert!(!close_step(&broker, ci, named(&step.opened.name)).unwrap().closed);
    let never = pb::CloseRunRequest {
        workflow: "w".to_owned(),
        run: "none".to_owned(),
        reason: WHY.to_owned(),
        block: None,
    };
    let mut client = ExecutorServiceClient::new(broker.operator());
    assert_eq!(reason(broker.block_on(client.close_run(never))), "RUN_NOT_FOUND");
    broker.renew(&step).unwrap();
    assert_eq!(broker.journaled("closed_by_operator").len(), 0);
}

#[test]
fn run_close_with_a_reason_is_the_administrators() {
    let steps = Steps::start();
    let run = |arguments: &[&str]| steps.serving.run(arguments);
    let open = ["step", "open", "--workflow=w", "--run=1", "--step=s", "--mount-path=host"];
    assert!(run(&open).status.success());
    let closed = run(&["run", "close", "1", "--reason", "a test"]);
    assert_eq!(text(&closed.stdout), "1 step(s) closed, 0 lease(s) revoked; the run is blocked\n");
    let refused = run(&open);
    let stderr = text(&refused.stderr);
    assert!(stderr.contains("STEP_BLOCKED") && stderr.contains("access blocks"), "{stderr}");
    let shown = text(&run(&["run", "show", "1"]).stdout);
    assert!(shown.contains("by operator:admin"), "{shown}");
    let never = run(&["run", "close", "2", "--reason", "a test"]);
    assert!(text(&never.stderr).contains("RUN_NOT_FOUND"));
    let blocks = text(&run(&["access", "blocks"]).stdout);
    assert!(blocks.contains("workflow:w/run:1") && blocks.contains("a test"), "{blocks}");
    assert!(run(&["access", "unblock", "--workflow=w", "--run=1", "--reason=x"]).status.success());
    assert!(run(&open).status.success());
    let closed =
        run(&["step", "close", "--workflow=w", "--run=1", "--step=s", "--reason=x", "--block"]);
    assert_eq!(text(&closed.stdout), "closed; 0 lease(s) revoked; the step is blocked\n");
}
