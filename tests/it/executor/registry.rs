//! Operators and executors are registered and removed, and executors open only the steps of their registration.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_registry_service_client::ExecutorRegistryServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::operator_service_client::OperatorServiceClient;
use keyhatch::identity::new_request;
use tonic::Status;
use tonic::transport::Channel;

use crate::harness::{TestBroker, bytes, open_request, reason};

fn open(
    broker: &TestBroker,
    channel: &Channel,
    workflow: &str,
    run_as: &[&str],
) -> Result<pb::OpenedStep, Status> {
    let run_as = run_as.iter().map(|one| (*one).to_owned()).collect();
    let request = pb::OpenStepRequest { run_as, ..open_request(workflow, "s") };
    let mut client = ExecutorServiceClient::new(channel.clone());
    let once = || broker.block_on(client.open_step(request.clone()));
    broker.insist(once).map(tonic::Response::into_inner)
}

#[test]
fn a_removed_operator_is_refused_on_its_open_connection() {
    let mut broker = TestBroker::start();
    let alice = broker.enroll("alice", pb::Role::Viewer);
    broker.list_connections(&alice).unwrap();
    broker.restart();
    broker.list_connections(&alice).unwrap();
    broker.remove_operator("alice").unwrap();
    assert_eq!(reason(broker.list_connections(&alice)), "SVID_INVALID");
    assert_eq!(reason(broker.remove_operator("alice")), "OPERATOR_NOT_FOUND");
    // The name gets a new certificate, and the old certificate stays refused.
    let again = broker.enroll("alice", pb::Role::Viewer);
    broker.list_connections(&again).unwrap();
    assert_eq!(reason(broker.list_connections(&alice)), "SVID_INVALID");
}

#[test]
fn no_administrator_removes_itself_so_one_is_always_left() {
    let broker = TestBroker::start();
    assert_eq!(reason(broker.remove_operator("admin")), "OWN_REGISTRATION");
    let other = broker.enroll("other", pb::Role::Administrator);
    let request =
        pb::DeleteOperatorRequest { name: "operators/admin".to_owned(), ..Default::default() };
    broker.block_on(OperatorServiceClient::new(other).delete_operator(request)).unwrap();
    assert!(broker.operator_refusal().contains("removed"));
}

#[test]
fn a_request_counts_only_by_a_public_key_of_its_maker() {
    let broker = TestBroker::start();
    let create = |csr: &[u8], name: &str, role: pb::Role| {
        let operator = pb::Operator {
            name: format!("operators/{name}"),
            role: role.into(),
            ..Default::default()
        };
        let (operator, csr) = (Some(operator), csr.to_vec());
        let request = pb::CreateOperatorRequest { operator, csr, ..Default::default() };
        let mut client = OperatorServiceClient::new(broker.operator());
        broker.block_on(client.create_operator(request)).map(tonic::Response::into_inner)
    };
    let (_, csr) = new_request().unwrap();
    assert_eq!(reason(create(b"nonsense", "a", pb::Role::Viewer)), "CSR_INVALID");
    assert_eq!(reason(create(csr.as_bytes(), "a", pb::Role::Unspecified)), "ROLE_INVALID");
    assert_eq!(reason(create(csr.as_bytes(), "a/b", pb::Role::Viewer)), "NAME_INVALID");
    let made = create(csr.as_bytes(), "a", pb::Role::Viewer).unwrap();
    assert_eq!(made.operator.unwrap().certificates.len(), 1);
    assert_eq!(reason(create(csr.as_bytes(), "a", pb::Role::Viewer)), "OPERATOR_EXISTS");
}

#[test]
fn an_executor_opens_only_its_workflows_and_identities() {
    let broker = TestBroker::start();
    let executor =
        broker.enroll_executor("host", &["team-a-*", "deploy"], &["team:a-*", "user:alice"]);
    for (workflow, run_as) in [("deploy", &[][..]), ("team-a-x", &["team:a-1", "user:alice"])] {
        open(&broker, &executor, workflow, run_as).unwrap();
    }
    assert_eq!(reason(open(&broker, &executor, "other", &[])), "WORKFLOW_NOT_PERMITTED");
    for run_as in ["team:b", "user:alicia", "role:a-1"] {
        let refused = open(&broker, &executor, "deploy", &["user:alice", run_as]);
        assert_eq!(reason(refused), "RUN_AS_NOT_PERMITTED", "{run_as}");
    }
    assert_eq!(reason(open(&broker, &executor, "deploy", &["nobody"])), "PRINCIPAL_INVALID");
    // Refusals for a missing right are in the journal.
    let refused = broker.journaled("admin_refused");
    assert_eq!(refused.len(), 4);
    assert_eq!(refused[0]["principal"], "executor:host");
}

#[test]
fn removing_an_executor_closes_its_steps_and_leaves_the_others() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:*"]);
    let executor = broker.enroll_executor("host", &["*"], &[]);
    let theirs = broker.become_step(open(&broker, &executor, "w", &[]).unwrap());
    let ours = broker.open("w", "t");
    broker.resolve(&theirs, "aws/prod").unwrap();
    broker.remove_executor("host").unwrap();
    assert!(!std::path::Path::new(&theirs.opened.directory).exists());
    assert!(broker.resolve(&theirs, "aws/prod").is_err());
    broker.resolve(&ours, "aws/prod").unwrap();
    assert_eq!(reason(open(&broker, &executor, "w", &[])), "SVID_INVALID");
    assert_eq!(broker.journaled("closed").pop().unwrap()["reason"], "executor_removed");
}

/// "Every run of a workflow uses a single Datadog identity", which decides "which connections a run can resolve". The
/// identity counts beside the workflow, never instead of it.
#[test]
fn a_steps_run_as_principals_count_beside_its_workflow() {
    let mut broker = TestBroker::start();
    let ops = ["workflow:w", "team:ops"];
    broker.create_aws("ops", "s", &ops);
    broker.create_aws("all", "s", &["workflow:w"]);
    let as_ops = open(&broker, &broker.executor(), "w", &["team:ops", "user:alice"]).unwrap();
    let as_ops = broker.become_step(as_ops);
    let as_nobody = broker.open("w", "nobody");
    let other = broker.become_step({
        let request = pb::OpenStepRequest {
            run_as: vec!["team:ops".to_owned()],
            ..open_request("other", "s")
        };
        broker.try_open(request).unwrap()
    });
    let table = [
        (&as_ops, "aws/ops", true),
        (&as_ops, "aws/all", false),
        (&as_nobody, "aws/ops", false),
        (&as_nobody, "aws/all", true),
        (&other, "aws/ops", false),
    ];
    for (step, connection, expected) in table {
        assert_eq!(broker.resolve(step, connection).is_ok(), expected, "{connection}");
    }
    let line = broker.journaled("resolve").into_iter().next().unwrap();
    assert_eq!(line["run_as"], serde_json::json!(["team:ops", "user:alice"]));
    // The identity belongs to the opening and survives a restart. Removing the team's access ends the leases.
    broker.restart();
    broker.resolve(&as_ops, "aws/ops").unwrap();
    let mut client = ConnectionServiceClient::new(broker.operator());
    let connection = pb::Connection {
        name: "connections/aws/ops".to_owned(),
        access: crate::harness::resolver(&["workflow:w", "team:dev"]),
        fields: bytes(&[]),
        ..Default::default()
    };
    let connection = Some(connection);
    let request = pb::UpdateConnectionRequest { connection, ..Default::default() };
    let updated = broker.block_on(client.update_connection(request)).ok().unwrap().into_inner();
    assert_eq!(updated.live_leases, 0);
    assert_eq!(reason(broker.resolve(&as_ops, "aws/ops")), "RESOLVE_DENIED");
}

/// The caller that removes an executor may hang up before all of its steps are closed. The steps still resolve nothing,
/// are closed soon, and do not pass to a later executor of the same name.
#[test]
fn steps_of_a_removed_executor_resolve_nothing() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:*"]);
    let executor = broker.enroll_executor("host", &["*"], &[]);
    let opened: Vec<_> = (0..20)
        .map(|n| open(&broker, &executor, &format!("w{n}"), &[]).unwrap())
        .map(|opened| broker.become_step(opened))
        .collect();
    let request =
        pb::DeleteExecutorRequest { name: "executors/host".to_owned(), ..Default::default() };
    let mut client = ExecutorRegistryServiceClient::new(broker.operator());
    // The caller hangs up during the removal.
    let hung_up = broker.block_on(async {
        tokio::time::timeout(std::time::Duration::from_millis(5), client.delete_executor(request))
            .await
    });
    drop(hung_up);
    let gone = || list_executor(&broker, "host").is_err();
    crate::harness::wait_until("the executor is removed", gone);
    broker.enroll_executor("host", &["other"], &[]);
    for step in &opened {
        assert!(broker.resolve(step, "aws/prod").is_err());
    }
    let closed = || broker.journaled("closed").len() == opened.len();
    crate::harness::wait_until("all of its steps are closed", closed);
    broker.restart();
    for step in &opened {
        assert!(broker.resolve(step, "aws/prod").is_err());
    }
}

fn list_executor(broker: &TestBroker, name: &str) -> Result<pb::Executor, Status> {
    let name = format!("executors/{name}");
    let mut client = ExecutorRegistryServiceClient::new(broker.operator());
    let found = broker.block_on(client.get_executor(pb::GetExecutorRequest { name }));
    found.map(tonic::Response::into_inner)
}

#[test]
fn one_of_two_administrators_survives_mutual_removal() {
    let broker = TestBroker::start();
    for round in 0..20 {
        let name = format!("other{round}");
        let other = broker.enroll(&name, pb::Role::Administrator);
        let third = broker.enroll(&format!("third{round}"), pb::Role::Administrator);
        let remove = |channel: Channel, name: String| {
            let request = pb::DeleteOperatorRequest {
                name: format!("operators/{name}"),
                ..Default::default()
            };
            async move { OperatorServiceClient::new(channel).delete_operator(request).await }
        };
        let (one, two) = (remove(other, format!("third{round}")), remove(third, name.clone()));
        let (one, two) = broker.block_on(async { tokio::join!(one, two) });
        assert!(one.is_ok() != two.is_ok(), "round {round}");
    }
}
