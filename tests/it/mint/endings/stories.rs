//! What operators are told of endings: by run show, explain, lists and metrics.

use keyhatch::grpc::pb;

use super::causes;
use crate::harness::{Scrape, wait_until};
use crate::mint::World;
use crate::mint::upstream::{status, token};

/// How the credential that the run received ended.
fn told(world: &World) -> Option<pb::CredentialEnding> {
    let received = world.received("1");
    let [credential] = &*received else { panic!("{received:?}") };
    credential.mints[0].ending.clone()
}

#[test]
fn a_run_tells_how_each_credential_ended() {
    let world = World::of_revocable();
    let step = world.broker.open("w", "s");
    world.token(&step);
    assert_eq!(told(&world), None, "it may be used");
    world.upstream.hold();
    let waits = world.broker.spawn({
        let mut client = crate::mint::stories::executor_client(&world.broker);
        let name = step.opened.name;
        async move { client.close_step(pb::CloseStepRequest { name, ..Default::default() }).await }
    });
    wait_until("its ending has begun", || !causes(&world).is_empty());
    let pending = told(&world).unwrap();
    assert_eq!(
        (pending.state(), pending.cause.as_str()),
        (pb::EndingState::Pending, "step_closed")
    );
    world.upstream.release();
    world.broker.block_on(waits).unwrap().unwrap();
    let ended = told(&world).unwrap();
    assert_eq!((ended.state(), ended.cause.as_str()), (pb::EndingState::Ended, "step_closed"));
    let story = world.story(&world.decisions()[0]);
    assert_eq!(story.ending, Some(ended));
}

#[test]
fn a_credential_that_nothing_ends_is_told_to_expire() {
    let world = World::of_revocable();
    let step = world.broker.open("w", "s");
    world.upstream.answers(|n| token(n, 60));
    world.token(&step);
    world.upstream.revokes(|_| status(400, "{\"error\": \"unsupported_token_type\"}"));
    world.broker.advance(61);
    wait_until("it has expired", || world.count("left_to_expire") == 1);
    assert_eq!(told(&world).unwrap().state(), pb::EndingState::LeftToExpire);
}

#[test]
fn a_list_of_endings_has_pages_and_one_connection() {
    let world = World::of_revocable();
    let steps: Vec<_> = (0..3).map(|n| world.broker.open("w", &format!("s{n}"))).collect();
    steps.iter().for_each(|step| drop(world.token(step)));
    world.upstream.revokes(|_| status(401, "{\"error\": \"invalid_client\"}"));
    let access = crate::harness::resolver(&["workflow:other"]);
    world.update(pb::Connection { access, ..Default::default() });
    let list = |request: pb::ListEndingsRequest| {
        let channel = world.broker.operator();
        let mut client = pb::system_service_client::SystemServiceClient::new(channel);
        world.broker.block_on(client.list_endings(request)).unwrap().into_inner()
    };
    let first = list(pb::ListEndingsRequest { page_size: 2, ..Default::default() });
    let page_token = first.next_page_token.clone();
    let rest = list(pb::ListEndingsRequest { page_size: 2, page_token, ..Default::default() });
    assert_eq!((first.endings.len(), rest.endings.len()), (2, 1));
    assert_eq!(rest.next_page_token, "");
    let of = |name: &str| {
        let connection = format!("connections/{name}");
        list(pb::ListEndingsRequest { connection, ..Default::default() }).endings.len()
    };
    assert_eq!((of("oauth2/api"), of("oauth2/other")), (3, 0));
}

#[test]
fn metrics_tell_of_endings_that_are_pending() {
    let mut world = World::of_revocable();
    world.broker.config.metrics = Some((std::net::Ipv4Addr::LOCALHOST, 0).into());
    world.broker.restart();
    let step = world.broker.open("w", "s");
    world.token(&step);
    world.upstream.revokes(|_| status(401, "{\"error\": \"invalid_client\"}"));
    assert_eq!(world.broker.close(&step).pending_endings.len(), 1);
    world.broker.advance(100);
    let gauge = |told: &Scrape, name: &str| told.get(name, &[]);
    let told = world.broker.scrape();
    assert_eq!(gauge(&told, "endings_pending"), Some(1.0));
    assert_eq!(gauge(&told, "endings_oldest_pending_seconds"), Some(100.0));
    assert_eq!(gauge(&told, "endings_left_disabled"), Some(0.0));
    let source = ("source", "oauth2_client");
    let outcome = |told: &Scrape, one| told.get("endings_total", &[source, ("outcome", one)]);
    assert!(outcome(&told, "UPSTREAM_REFUSED") >= Some(1.0));
    world.upstream.revokes(|_| status(200, ""));
    world.broker.advance(301);
    world.ended(1);
    wait_until("the metrics tell it", || {
        let told = world.broker.scrape();
        outcome(&told, "ENDED") == Some(1.0) && gauge(&told, "endings_pending") == Some(0.0)
    });
}
