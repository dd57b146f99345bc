//! Blocks: what nobody may use for now, whatever the bindings say.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::block_service_client::BlockServiceClient;
use keyhatch::grpc::pb::explain_request::Question;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use keyhatch::model::Limits;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::{WHY, block, leases, on, show, unblock, watch};
use crate::harness::{
    TestBroker, TestStep, bound, connection_document, open_request, reason, secret_document,
};

fn blocks(broker: &TestBroker) -> Vec<String> {
    let mut client = BlockServiceClient::new(broker.operator());
    let request = pb::ListBlocksRequest::default();
    let listed = broker.block_on(client.list_blocks(request)).unwrap().into_inner().blocks;
    listed.into_iter().map(|block| block.target).collect()
}

/// A refusal as the step gets it, without the id of its decision.
fn heard(broker: &TestBroker, step: &TestStep, reference: &str) -> (String, usize) {
    let status: Status = broker.resolve(step, reference).unwrap_err();
    let info = status.get_error_details().error_info().cloned().unwrap();
    let id = &info.metadata["decision_id"];
    let message = format!("{:?} {} {}", status.code(), info.reason, status.message());
    assert!(message.contains(id.as_str()), "{message}");
    (message.replace(id.as_str(), "ID"), status.details().len())
}

#[test]
fn a_blocked_connection_answers_as_one_that_does_not_exist() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    broker.create_aws("hers", "s", &["workflow:other"]);
    let step = broker.open("w", "s");
    broker.resolve(&step, "aws/prod").unwrap();
    let blocked = block(&broker, broker.operator(), "connections/aws/prod").unwrap();
    assert_eq!(blocked.revoked_leases, 1);
    let heard = |reference| heard(&broker, &step, reference);
    assert_eq!(heard("aws/prod"), heard("aws/hers"));
    assert_eq!(heard("aws/prod"), heard("aws/none"));
    // Only the journal, explain and status name the block.
    let denied = broker.journaled("resolve").pop().unwrap();
    assert_eq!(denied["target"], "connections/aws/none");
    let denied = broker.journaled("resolve").into_iter().rev();
    let line = denied.into_iter().find(|line| line["target"] == "connections/aws/prod").unwrap();
    assert_eq!(line["by"], "blocked connections/aws/prod");
    let refused = broker.resolve(&step, "aws/prod").unwrap_err();
    let info = refused.get_error_details().error_info().cloned().unwrap();
    let explained = broker.explain_decision(&info.metadata["decision_id"]).unwrap();
    assert_eq!(explained.outcome, "RESOLVE_DENIED");
    assert!(explained.explanation.contains(WHY), "{}", explained.explanation);
    assert_eq!(explained.block.unwrap().target, "connections/aws/prod");
    let mut system = SystemServiceClient::new(broker.operator());
    let status = broker.block_on(system.get_status(pb::GetStatusRequest {})).unwrap().into_inner();
    assert_eq!((status.block_count, status.blocked), (1, vec!["connections/aws/prod".to_owned()]));
    // It may be rotated while it is blocked, and is there again afterwards.
    broker
        .apply(vec![connection_document("aws/prod", &[("secret_access_key", "t")], vec![])])
        .unwrap();
    unblock(&broker, broker.operator(), "connections/aws/prod").unwrap();
    assert_eq!(broker.resolve(&step, "aws/prod").unwrap().version, 2);
}

#[test]
fn a_block_ends_what_is_under_it_and_outlives_restarts() {
    let limits = Limits {
        journal_file_bytes: 16 * 1024,
        step_requests_per_second: 1_000_000,
        step_request_burst: 1_000_000,
        ..Limits::default()
    };
    let mut broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s", &["workflow:*"]);
    broker.apply(vec![secret_document("w", "token", "v")]).unwrap();
    let (step, other) = (broker.open("w", "s"), broker.open("x", "s"));
    let mut watching = watch(&broker, &step, "aws/prod");
    let mut unharmed = watch(&broker, &other, "aws/prod");
    broker.resolve(&step, "secret:token").unwrap();
    let blocked = block(&broker, broker.operator(), "workflow:w").unwrap();
    assert_eq!(blocked.revoked_leases, 2);
    assert_eq!(watching.end(), "RESOLVE_DENIED");
    drop(watching);
    let of_w = pb::LeaseFilter { workflow: "w".to_owned(), ..Default::default() };
    assert_eq!(leases(&broker, &of_w), []);
    assert_eq!(leases(&broker, &on("aws/prod")).len(), 1);
    broker
        .apply(vec![connection_document("aws/prod", &[("secret_access_key", "t")], vec![])])
        .unwrap();
    assert_eq!(unharmed.version(), 2);
    drop(unharmed);
    let is_refused = |broker: &TestBroker, step: &TestStep| {
        for reference in ["aws/prod", "secret:token", "secret:none", "default:aws"] {
            assert_eq!(reason(broker.resolve(step, reference)), "RESOLVE_DENIED", "{reference}");
        }
        assert_eq!(reason(broker.try_open(open_request("w", "new"))), "STEP_BLOCKED");
    };
    is_refused(&broker, &step);
    // The line is in an older file than the newest, whose checkpoint has the block.
    let newest = broker.config.state.join("journal/000003.jsonl");
    crate::harness::wait_until("the file is followed by others", || {
        for _ in 0..20 {
            broker.resolve(&other, "aws/prod").unwrap();
        }
        newest.exists()
    });
    broker.restart();
    is_refused(&broker, &step);
    assert_eq!(blocks(&broker), ["workflow:w"]);
    assert!(show(&broker)[0].received.iter().all(|one| one.state() == pb::LeaseState::Revoked));
    unblock(&broker, broker.operator(), "workflow:w").unwrap();
    broker.restart();
    broker.resolve(&step, "aws/prod").unwrap();
}

#[test]
fn who_may_block_is_who_may_take_access_away() {
    let broker = TestBroker::start();
    let edits = bound(pb::Relation::Editor, &["operator:works"]);
    broker.create_aws("theirs", "s", &["workflow:w"]);
    broker.create_aws("other", "s", &["workflow:w"]);
    broker.apply(vec![connection_document("aws/theirs", &[], vec![edits])]).unwrap();
    let viewer = broker.enroll("looks", pb::Role::Viewer);
    let works = broker.enroll("works", pb::Role::Operator);
    let refused = |channel, target| reason(block(&broker, channel, target));
    assert_eq!(refused(viewer.clone(), "connections/aws/theirs"), "ROLE_REQUIRED");
    assert_eq!(refused(works.clone(), "connections/aws/other"), "EDIT_DENIED");
    assert_eq!(refused(works.clone(), "workflow:w"), "ROLE_REQUIRED");
    assert_eq!(refused(works.clone(), "workflow:w/run:1/step:s"), "ROLE_REQUIRED");
    assert_eq!(refused(broker.operator(), "connections/aws/none"), "CONNECTION_NOT_FOUND");
    assert_eq!(refused(broker.operator(), "groups/g"), "NAME_INVALID");
    assert_eq!(refused(broker.operator(), "workflow:"), "NAME_INVALID");
    block(&broker, works.clone(), "connections/aws/theirs").unwrap();
    // The same again keeps the first, who an administrator may lift.
    let again = block(&broker, broker.operator(), "connections/aws/theirs").unwrap();
    assert_eq!(again.block.unwrap().principal, "operator:works");
    assert_eq!(broker.journaled("blocked").len(), 1);
    assert_eq!(reason(unblock(&broker, viewer, "connections/aws/theirs")), "ROLE_REQUIRED");
    unblock(&broker, works.clone(), "connections/aws/theirs").unwrap();
    let nothing = unblock(&broker, works, "connections/aws/theirs");
    let message = nothing.as_ref().unwrap_err().message().to_owned();
    assert!(message.contains("keyhatch access blocks"), "{message}");
    assert_eq!(reason(nothing), "BLOCK_NOT_FOUND");
    assert_eq!(blocks(&broker), Vec::<String>::new());
}

#[test]
fn a_block_is_on_the_connection_and_not_on_its_name() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    let step = broker.open("w", "s");
    block(&broker, broker.operator(), "connections/aws/prod").unwrap();
    broker.delete_connection("aws/prod").unwrap();
    broker.create_aws("prod", "s", &["workflow:w"]);
    broker.resolve(&step, "aws/prod").unwrap();
    // The block of the one that is gone can still be lifted.
    assert_eq!(blocks(&broker), ["connections/aws/prod"]);
    unblock(&broker, broker.operator(), "connections/aws/prod").unwrap();
    assert_eq!(blocks(&broker), Vec::<String>::new());
}

#[test]
fn a_blocked_step_is_explained_by_its_own_run() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    let step = broker.open("w", "s");
    block(&broker, broker.operator(), "workflow:w/run:1").unwrap();
    let refused = broker.resolve(&step, "aws/prod").unwrap_err();
    let info = refused.get_error_details().error_info().cloned().unwrap();
    let explained = broker.explain_decision(&info.metadata["decision_id"]).unwrap();
    assert_eq!(explained.block.unwrap().target, "workflow:w/run:1");
    // A step of another run would get it.
    let asked = pb::DryRun {
        workflow: "w".to_owned(),
        step: "s".to_owned(),
        target: "aws/prod".to_owned(),
        ..Default::default()
    };
    assert_eq!(broker.explain(Question::DryRun(asked)).unwrap().outcome, "ALLOWED");
}
