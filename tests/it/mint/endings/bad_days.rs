//! Upstreams that are away, refuse, or ask for patience while credentials end.

use std::time::Duration;

use keyhatch::grpc::pb;
use tonic::Request;

use crate::harness::{HttpResponse, TestStep, wait_until};
use crate::mint::World;
use crate::mint::stories::executor_client;
use crate::mint::upstream::{status, token};

/// Closes a step with a deadline, in which the reply must come.
pub fn close_within(world: &World, step: &TestStep, deadline: Duration) -> pb::CloseStepResponse {
    let name = step.opened.name.clone();
    let mut request = Request::new(pb::CloseStepRequest { name, ..Default::default() });
    request.set_timeout(deadline);
    let mut client = executor_client(&world.broker);
    world.broker.block_on(client.close_step(request)).unwrap().into_inner()
}

/// The one ending that is not over.
fn only(world: &World) -> pb::Ending {
    let [ending] = &*world.endings() else { panic!("{:?}", world.endings()) };
    ending.clone()
}

#[test]
fn an_upstream_that_hangs_does_not_hold_up_a_closing() {
    let world = World::of_revocable();
    let step = world.broker.open("w", "s");
    let got = world.broker.resolve(&step, "oauth2/api").unwrap();
    world.upstream.hold();
    let closed = close_within(&world, &step, Duration::from_secs(2));
    let [pending] = &*closed.pending_endings else { panic!("{closed:?}") };
    assert_eq!(pending.connection, "connections/oauth2/api");
    assert_eq!(pending.step, "workflow:w/run:1/step:s");
    assert_eq!(pending.credential_expire_time, got.lease.credential_expire_time);
    assert_eq!(pending.reason, "", "no attempt has failed");
    let listed = only(&world);
    assert_eq!((listed.connection.as_str(), listed.attempts), (pending.connection.as_str(), 1));
    assert_eq!(listed.next_attempt_time, None, "it is being asked");
    assert_eq!(listed.ending.unwrap().state(), pb::EndingState::Pending);
    world.upstream.release();
    world.ended(1);
}

#[test]
fn an_upstream_that_is_down_ends_everything_when_it_is_back() {
    let world = World::of_revocable();
    world.upstream.answers(|n| token(n, 80_000));
    let steps: Vec<_> = (0..8).map(|n| world.broker.open("w", &format!("s{n}"))).collect();
    let tokens: Vec<_> = steps.iter().map(|step| world.token(step)).collect();
    world.upstream.revokes(|_| status(503, "{}"));
    for step in &steps {
        let closed = close_within(&world, step, Duration::from_secs(1));
        assert_eq!(closed.pending_endings.len(), 1);
    }
    wait_until("one has failed", || world.endings().iter().any(|one| one.attempts > 0));
    let failed = world.endings().into_iter().find(|one| !one.failure_reason.is_empty());
    let failed = failed.unwrap();
    assert_eq!(failed.failure_reason, "UPSTREAM_UNAVAILABLE");
    assert!(failed.failure_detail.contains("503"), "{}", failed.failure_detail);
    // However long it is down, it is asked less and less often, by one for all.
    for _ in 0..12 {
        let asked = world.upstream.revoked().len();
        world.broker.advance(301);
        wait_until("it is asked again", || world.upstream.revoked().len() > asked);
    }
    assert_eq!((world.count("ended_upstream"), world.endings().len()), (0, 8));
    world.upstream.revokes(|_| status(200, ""));
    world.broker.advance(301);
    world.ended(8);
    let revoked = world.upstream.revoked();
    assert!(tokens.iter().all(|token| revoked.contains(token)), "{revoked:?}");
    assert_eq!(world.count("ending"), 8, "each began once");
}

#[test]
fn a_token_that_fails_to_end_does_not_hold_up_others() {
    let world = World::of_revocable();
    let (one, other) = (world.broker.open("w", "one"), world.broker.open("w", "other"));
    let (first, second) = (world.token(&one), world.token(&other));
    // Something is wrong with this token: a server that is away answers otherwise.
    world.upstream.revokes(|_| status(500, "{}"));
    assert_eq!(close_within(&world, &one, Duration::from_secs(2)).pending_endings.len(), 1);
    assert!(world.upstream.revoked().iter().all(|token| *token == first));
    world.upstream.revokes(|_| status(200, ""));
    assert_eq!(world.broker.close(&other).pending_endings, []);
    assert_eq!(world.upstream.revoked().pop(), Some(second));
    assert_eq!(world.endings().len(), 1, "the first waits for its next try");
    world.broker.advance(2);
    world.ended(2);
}

#[test]
fn an_upstream_that_asks_for_patience_gets_it() {
    let world = World::of_revocable();
    let step = world.broker.open("w", "s");
    world.token(&step);
    world.upstream.revokes(|_| {
        let mut late = status(429, "{}");
        late.1.push(("retry-after", "1000".to_owned()));
        late
    });
    let closed = world.broker.close(&step);
    assert_eq!(closed.pending_endings[0].reason, "UPSTREAM_UNAVAILABLE");
    let listed = only(&world);
    let begun = listed.ending.unwrap().time.unwrap().seconds;
    assert_eq!(listed.next_attempt_time.unwrap().seconds - begun, 1000);
    world.upstream.revokes(|_| status(200, ""));
    world.broker.advance(1001);
    world.ended(1);
    assert_eq!(world.upstream.revoked().len(), 2);
}

#[test]
fn a_refusal_is_tried_again_until_the_credential_expires() {
    let world = World::of_revocable();
    let step = world.broker.open("w", "s");
    world.token(&step);
    world.upstream.revokes(|_| status(401, "{\"error\": \"invalid_client\"}"));
    let closed = close_within(&world, &step, Duration::from_secs(1));
    assert_eq!(closed.pending_endings[0].reason, "UPSTREAM_REFUSED");
    world.broker.advance(3601);
    wait_until("it has expired", || world.count("left_to_expire") == 1);
    let line = world.broker.journaled("left_to_expire").pop().unwrap();
    assert!(line["detail"].as_str().unwrap().contains("invalid_client"), "{line}");
    assert!(line["credential_expire_time"].is_string(), "{line}");
    assert_eq!((world.endings(), world.count("ended_upstream")), (vec![], 0));
}

#[test]
fn a_credential_that_has_expired_is_not_ended_upstream() {
    let world = World::of_revocable();
    let step = world.broker.open("w", "s");
    world.token(&step);
    world.broker.advance(3601);
    wait_until("it is left", || world.count("left_to_expire") == 1);
    world.broker.close(&step);
    assert_eq!(world.upstream.revoked(), Vec::<String>::new());
}

/// A token whose end the server does not tell: it counts as an hour.
fn untold(n: usize) -> HttpResponse {
    status(200, &format!("{{\"access_token\": \"minted-{n}\", \"token_type\": \"Bearer\"}}"))
}

#[test]
fn a_token_that_may_live_after_its_end_is_revoked() {
    type Answer = fn(usize) -> HttpResponse;
    let cases: [(Answer, u64); 2] = [(untold, 3601), (|n| token(n, 100_000), 86_401)];
    for (answer, seconds) in cases {
        let world = World::of_revocable();
        world.upstream.answers(answer);
        let step = world.broker.open("w", "s");
        let token = world.token(&step);
        let made = world.broker.journaled("minted").pop().unwrap();
        assert!(made.get("end_told").is_none(), "{made}");
        world.broker.advance(seconds);
        world.ended(1);
        assert_eq!((world.upstream.revoked(), world.count("left_to_expire")), (vec![token], 0));
    }
}

#[test]
fn a_token_of_unknown_end_is_tried_for_a_day_after_it() {
    let world = World::of_revocable();
    world.upstream.answers(untold);
    let step = world.broker.open("w", "s");
    world.token(&step);
    world.upstream.revokes(|_| status(503, "{}"));
    world.broker.advance(3601);
    wait_until("it is tried", || !world.upstream.revoked().is_empty());
    assert_eq!(only(&world).credential_expire_time, None);
    world.broker.advance(86_000);
    let asked = world.upstream.revoked().len();
    world.broker.advance(301);
    wait_until("it is tried again", || world.upstream.revoked().len() > asked);
    world.broker.advance(1000);
    wait_until("it is left", || world.count("left_to_expire") == 1);
    let line = world.broker.journaled("left_to_expire").pop().unwrap();
    assert!(line["credential_expire_time"].is_null(), "nobody knows: {line}");
    assert_eq!((world.endings(), world.count("ended_upstream")), (vec![], 0));
}

#[test]
fn a_daemon_that_stops_leaves_its_endings_to_the_next() {
    let mut world = World::of_revocable();
    let step = world.broker.open("w", "s");
    let token = world.token(&step);
    world.upstream.hold();
    close_within(&world, &step, Duration::from_secs(1));
    world.broker.restart();
    world.upstream.release();
    wait_until("it is ended", || world.count("ended_upstream") == 1);
    assert!(world.upstream.revoked().iter().all(|one| *one == token));
    assert_eq!(world.count("ending"), 1);
}
