//! Levers of operators: what was minted for the leases that they end is ended upstream, before the reply.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::block_service_client::BlockServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::lease_service_client::LeaseServiceClient;

use super::causes;
use crate::mint::World;
use crate::mint::upstream::status;

fn why() -> String {
    "a step printed it".to_owned()
}

#[test]
fn every_lever_ends_what_was_minted_before_it_answers() {
    let world = World::of_revocable();
    let steps = ["one", "two", "three"].map(|name| world.broker.open("w", name));
    let tokens = steps.each_ref().map(|step| world.token(step));
    let [first, second, third] = tokens;
    let filter = pb::LeaseFilter { step: "one".to_owned(), ..Default::default() };
    let request =
        pb::RevokeLeasesRequest { filter: Some(filter), reason: why(), ..Default::default() };
    let mut leases = LeaseServiceClient::new(world.broker.operator());
    let revoked = world.broker.block_on(leases.revoke_leases(request)).unwrap().into_inner();
    assert_eq!((revoked.revoked_leases, revoked.pending_endings), (1, vec![]));
    assert_eq!(world.upstream.revoked(), std::slice::from_ref(&first));

    let name = steps[1].opened.name.clone();
    let close = pb::CloseStepRequest { name, reason: why(), ..Default::default() };
    let mut executors = ExecutorServiceClient::new(world.broker.operator());
    let closed = world.broker.block_on(executors.close_step(close)).unwrap().into_inner();
    assert_eq!((closed.closed, closed.pending_endings), (true, vec![]));
    assert_eq!(world.upstream.revoked(), [first.clone(), second.clone()]);

    let target = "connections/oauth2/api".to_owned();
    let block = pb::BlockRequest { target, reason: why() };
    let mut blocks = BlockServiceClient::new(world.broker.operator());
    let blocked = world.broker.block_on(blocks.block(block)).unwrap().into_inner();
    assert_eq!((blocked.revoked_leases, blocked.pending_endings), (1, vec![]));
    assert_eq!(world.upstream.revoked(), [first, second, third]);
    assert_eq!(causes(&world), ["lease_ended", "step_closed", "lease_ended"]);
}

#[test]
fn a_lever_lists_the_credentials_that_are_not_ended_yet() {
    let world = World::of_revocable();
    let step = world.broker.open("w", "s");
    world.token(&step);
    world.upstream.revokes(|_| status(503, "{}"));
    let block = pb::BlockRequest { target: "workflow:w".to_owned(), reason: why() };
    let mut blocks = BlockServiceClient::new(world.broker.operator());
    let blocked = world.broker.block_on(blocks.block(block)).unwrap().into_inner();
    let [pending] = &*blocked.pending_endings else { panic!("{blocked:?}") };
    assert_eq!(pending.step, "workflow:w/run:1/step:s");
    assert_eq!(pending.reason, "UPSTREAM_UNAVAILABLE");
    world.upstream.revokes(|_| status(200, ""));
    world.broker.advance(301);
    world.ended(1);
}
