//! An executor has no access to another executor's steps and runs, not even under the same name.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::model::Limits;
use tonic::Status;
use tonic::transport::Channel;

use crate::harness::{TestBroker, open_request, reason};

fn open(broker: &TestBroker, caller: &Channel, step: &str) -> Result<pb::OpenedStep, Status> {
    let mut client = ExecutorServiceClient::new(caller.clone());
    broker
        .block_on(client.open_step(open_request("team-a-x", step)))
        .map(tonic::Response::into_inner)
}

fn show_run(broker: &TestBroker, caller: &Channel) -> Result<usize, Status> {
    let request = pb::GetRunRequest { run: "1".to_owned(), ..Default::default() };
    let mut client = ExecutorServiceClient::new(caller.clone());
    broker.block_on(client.get_run(request)).map(|run| run.into_inner().steps.len())
}

#[test]
fn a_new_executor_of_an_old_name_sees_no_older_runs() {
    let mut broker = TestBroker::start();
    let old = broker.enroll_executor("reuse", &["team-a-*"], &[]);
    open(&broker, &old, "s").unwrap();
    assert_eq!(show_run(&broker, &old).unwrap(), 1);
    broker.remove_executor("reuse").unwrap();
    let new = broker.enroll_executor("reuse", &["team-b-*", "team-a-*"], &[]);
    assert_eq!(reason(show_run(&broker, &new)), "RUN_NOT_FOUND");
    // The new executor counts its own attempts, and opens the step as its first.
    let again = open(&broker, &new, "s").unwrap();
    assert_eq!(again.attempt, 1);
    assert_eq!(show_run(&broker, &new).unwrap(), 1);
    let request = pb::CloseRunRequest {
        workflow: "team-a-x".to_owned(),
        run: "1".to_owned(),
        ..Default::default()
    };
    let closed = broker.block_on(ExecutorServiceClient::new(new.clone()).close_run(request));
    assert_eq!(closed.unwrap().into_inner().closed_steps, 1);
    assert_eq!(open(&broker, &new, "s").unwrap().attempt, 2);
    // An operator sees both.
    assert_eq!(show_run(&broker, &broker.operator()).unwrap(), 3);
    broker.restart();
    assert_eq!(show_run(&broker, &broker.operator()).unwrap(), 3);
    assert_eq!(reason(show_run(&broker, &broker.executor())), "RUN_NOT_FOUND");
}

#[test]
fn one_executor_of_several_opens_a_quarter_of_all_steps() {
    let mut broker = TestBroker::start_with(Limits { open_steps: 8, ..Limits::default() });
    let limited = broker.enroll_executor("lim", &["team-a-*"], &[]);
    let steps = ["a", "b"].map(|step| open(&broker, &limited, step).unwrap());
    let refused = open(&broker, &limited, "c");
    assert!(refused.as_ref().unwrap_err().message().contains("2 steps open: a quarter"));
    assert_eq!(reason(refused), "TOO_MANY_STEPS");
    // Room is left for other executors, also after a restart.
    open(&broker, &broker.executor(), "local").unwrap();
    broker.restart();
    assert_eq!(
        reason(open(&broker, &broker.executor(), "e").and(open(&broker, &broker.executor(), "f"))),
        "TOO_MANY_STEPS"
    );
    // A closed step makes room, and a new attempt needs no more room.
    let request = pb::CloseStepRequest { name: steps[0].name.clone(), ..Default::default() };
    let executor = broker.executor();
    let mut client = ExecutorServiceClient::new(executor.clone());
    assert!(!broker.block_on(client.close_step(request)).unwrap().into_inner().closed);
    open(&broker, &executor, "e").unwrap();
    broker.remove_executor("lim").unwrap();
    // A single executor may have all steps.
    for step in ["f", "g", "h", "i", "j", "k"] {
        open(&broker, &executor, step).unwrap();
    }
    assert!(
        open(&broker, &executor, "l")
            .unwrap_err()
            .message()
            .contains("8 steps are open, which is the limit")
    );
}
