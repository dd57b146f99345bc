//! Upstreams that are down, slow or wrong.

use std::net::{Ipv4Addr, TcpListener};

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::batch_resolve_result::Result as OneResult;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::model::Limits;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::upstream::{status, token};
use super::{ROOT, World};
use crate::harness::{HttpResponse, bytes, reason, request, wait_until};

/// The code, the reason and the seconds after which to retry.
fn shown(status: &Status) -> (Code, String, Option<u64>) {
    let details = status.get_error_details();
    let retry = details.retry_info().and_then(|info| info.retry_delay);
    let reason = details.error_info().unwrap().reason.clone();
    (
        status.code(),
        reason,
        retry.map(|delay| u64::try_from(delay.as_millis().div_ceil(1000)).unwrap()),
    )
}

/// What a step gets if the upstream answers so, and the mints when it asks twice.
fn twice(answer: HttpResponse) -> ((Code, String, Option<u64>), usize) {
    let world = World::start();
    let step = world.broker.open("w", "s");
    world.upstream.answers(move |_| answer.clone());
    let first = world.broker.resolve(&step, "oauth2/api").unwrap_err();
    let second = world.broker.resolve(&step, "oauth2/api").unwrap_err();
    assert_eq!(shown(&first).1, shown(&second).1);
    assert!(!first.message().contains("in the answer"), "{}", first.message());
    (shown(&first), world.count("minting"))
}

#[test]
fn each_failure_has_its_reason_and_is_not_repeated_at_once() {
    let unavailable = |seconds| {
        let reason = "UPSTREAM_UNAVAILABLE".to_owned();
        ((Code::Unavailable, reason, Some(seconds)), 1)
    };
    let failed = |reason: &str| ((Code::FailedPrecondition, reason.to_owned(), None), 1);
    assert_eq!(twice(status(500, "in the answer")), unavailable(1));
    let mut late = status(429, "{\"error\": \"in the answer\"}");
    late.1.push(("retry-after", "30".to_owned()));
    assert_eq!(twice(late), unavailable(30));
    let refused = status(401, "{\"error\": \"invalid_client\", \"x\": \"in the answer\"}");
    assert_eq!(twice(refused), failed("UPSTREAM_REFUSED"));
    assert_eq!(twice(status(200, "<html>in the answer")), failed("UPSTREAM_INVALID"));
    assert_eq!(twice(status(200, "{\"access_token\": 7}")), failed("UPSTREAM_INVALID"));
    let mut moved = status(302, "in the answer");
    moved.1.push(("location", "http://169.254.169.254/latest/meta-data".to_owned()));
    let (shown, mints) = twice(moved);
    assert!(["UPSTREAM_INVALID", "UPSTREAM_REFUSED"].contains(&shown.1.as_str()), "{shown:?}");
    assert_eq!(mints, 1);
}

#[test]
fn an_upstream_that_is_down_is_asked_less_and_less_often() {
    let world = World::start();
    let step = world.broker.open("w", "s");
    world.upstream.answers(|_| status(503, "{}"));
    let ask = || reason(world.broker.resolve(&step, "oauth2/api"));
    for (wait, mints) in [(0, 1), (1, 2), (1, 2), (1, 3), (3, 3), (1, 4)] {
        world.broker.advance(wait);
        assert_eq!(ask(), "UPSTREAM_UNAVAILABLE");
        assert_eq!(world.count("minting"), mints);
    }
    // Each refusal has a line, and no lease is left.
    assert_eq!(world.count("resolve"), 6);
    assert_eq!(world.count("mint_failed"), 4);
    assert_eq!(world.broker.close(&step).revoked_leases, 0);
}

#[test]
fn a_refused_root_is_not_tried_again_until_it_changes() {
    let world = World::start();
    let step = world.broker.open("w", "s");
    world.upstream.answers(|_| status(401, "{\"error\": \"invalid_client\"}"));
    for wait in [0, 60, 200] {
        world.broker.advance(wait);
        assert_eq!(reason(world.broker.resolve(&step, "oauth2/api")), "UPSTREAM_REFUSED");
    }
    assert_eq!(world.upstream.calls(), 1);
    world.upstream.answers(|n| token(n, 3600));
    world.rotate("the right one");
    assert_eq!(world.token(&step), "minted-2");
}

#[test]
fn addresses_that_are_not_allowed_are_never_dialled() {
    let world = World::start();
    let step = world.broker.open("w", "s");
    let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let here = format!("https://127.0.0.1:{}/token", elsewhere.local_addr().unwrap().port());
    for (n, url) in ["https://169.254.169.254/latest", &here].iter().enumerate() {
        let fields = [("token_url", *url), ("client_id", "me"), ("client_secret", ROOT)];
        let name = format!("oauth2/e{n}");
        world.broker.create_connection(&name, &fields, &["workflow:w"]).unwrap();
        let refused = world.broker.resolve(&step, &name).unwrap_err();
        assert_eq!(shown(&refused), (Code::FailedPrecondition, "EGRESS_DENIED".to_owned(), None));
    }
    assert!(elsewhere.accept().is_err());
}

#[test]
fn a_slow_upstream_is_not_waited_for_longer_than_allowed() {
    let world = World::start_with(Limits { step_request_seconds: 2, ..Limits::default() });
    let step = world.broker.open("w", "s");
    world.upstream.hold();
    let refused = world.broker.resolve(&step, "oauth2/api").unwrap_err();
    assert_eq!(shown(&refused).1, "UPSTREAM_UNAVAILABLE");
    // What comes late is of use for the next.
    world.upstream.release();
    wait_until("it is minted", || world.count("minted") == 1);
    assert_eq!(world.token(&step), "minted-1");
    assert_eq!(world.upstream.calls(), 1);
}

#[test]
fn upstreams_that_hang_do_not_cost_a_batch_its_reply() {
    let world = World::start_with(Limits { step_request_seconds: 4, ..Limits::default() });
    world.create("other", "/other");
    let value = "x".repeat(65_000);
    let fields = ["a", "b", "c", "d"].map(|name| (name, value.as_str()));
    world.broker.create_connection("generic/big", &fields, &["workflow:w"]).unwrap();
    let step = world.broker.open("w", "s");
    world.upstream.hold();
    // The large ones fill what is decided at once, so the last request is decided after the wait for the first.
    let names = [["oauth2/api"; 5].as_slice(), &["generic/big"; 10], &["oauth2/other"]].concat();
    let requests = names.into_iter().map(request).collect();
    let mut client = StepServiceClient::new(step.channel);
    let reply = world.broker.block_on(client.batch_resolve(pb::BatchResolveRequest { requests }));
    let results = reply.unwrap().into_inner().results;
    let reasons = results.into_iter().map(|one| match one.result.unwrap() {
        OneResult::Response(_) => "given".to_owned(),
        OneResult::Error(error) => error.reason,
    });
    let expected =
        [["UPSTREAM_UNAVAILABLE"; 5].as_slice(), &["given"; 10], &["UPSTREAM_UNAVAILABLE"]];
    assert_eq!(reasons.collect::<Vec<_>>(), expected.concat());
    world.upstream.release();
}

#[test]
fn a_closed_port_is_no_upstream() {
    let world = World::start();
    let step = world.broker.open("w", "s");
    let fields = bytes(&[("token_url", "https://192.0.2.1/"), ("client_secret", ROOT)]);
    world.update(pb::Connection { fields, ..Default::default() });
    let refused = world.broker.resolve(&step, "oauth2/api").unwrap_err();
    assert_eq!(shown(&refused).1, "UPSTREAM_UNAVAILABLE");
}

#[test]
fn nothing_is_minted_while_a_daemon_stops() {
    let mut world = World::start();
    let step = world.broker.open("w", "s");
    world.upstream.hold();
    let pending = world.resolve_slowly(&step, "oauth2/api", 1);
    world.broker.stop();
    let lines = world.broker.journal();
    let names: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    let place = |name: &str| names.iter().rposition(|event| *event == name).unwrap();
    assert!(place("minting") < place("mint_failed") && place("mint_failed") < place("stopped"));
    world.upstream.release();
    assert!(world.end(pending).is_err());
    assert_eq!(world.count("minted"), 0);
}
