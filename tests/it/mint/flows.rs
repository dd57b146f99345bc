//! From the decision to the upstream and back.

use futures_util::future::join_all;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::batch_resolve_result::Result as OneResult;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::model::Limits;

use super::upstream::status;
use super::{ROOT, World};
use crate::harness::{TestStep, reason, request, resolve_on, wait_until};

#[test]
fn a_step_gets_what_was_minted_and_never_the_root() {
    let world = World::start();
    let step = world.broker.open("w", "s");
    let got = world.broker.resolve(&step, "oauth2/api").unwrap();
    let names: Vec<_> = got.fields.keys().map(String::as_str).collect();
    assert_eq!(names, ["access_token", "client_id", "token_type", "token_url"]);
    assert_eq!(got.fields["access_token"], "minted-1");
    assert!(!got.fields.values().any(|value| value.contains(ROOT)));
    assert_eq!(reason(world.broker.resolve(&step, "oauth2/api#client_secret")), "FIELD_UNKNOWN");
    let one = world.broker.resolve(&step, "oauth2/api#access_token").unwrap();
    assert_eq!(one.fields.len(), 1);
    assert_eq!(world.upstream.calls(), 1);
    let asked = &world.upstream.asked()[0];
    assert_eq!(asked.body, b"grant_type=client_credentials");
}

#[test]
fn a_lease_ends_with_its_credential_and_is_given_again() {
    let world = World::start();
    let step = world.broker.open("w", "s");
    world.upstream.answers(|n| super::upstream::token(n, 600));
    let first = world.broker.resolve(&step, "oauth2/api").unwrap();
    let lease = &first.lease;
    assert_eq!(lease.ttl_limited_by(), pb::TtlLimit::Upstream);
    assert_eq!(lease.expire_time, lease.credential_expire_time);
    assert!(!lease.renewable);
    let life = lease.expire_time.unwrap().seconds - lease.issue_time.unwrap().seconds;
    assert_eq!(life, 600);
    assert_eq!(world.broker.resolve(&step, "oauth2/api").unwrap(), first);
    // Another step has another lease on the same credential, with what is left of its life.
    world.broker.advance(100);
    let other = world.broker.open("w", "t");
    let second = world.broker.resolve(&other, "oauth2/api").unwrap();
    assert_eq!(second.fields, first.fields);
    assert_ne!(second.lease.name, first.lease.name);
    assert_eq!(second.lease.expire_time, first.lease.expire_time);
    assert_eq!(world.upstream.calls(), 1);
    // Another workflow has a credential of its own.
    let fields = [("token_url", world.upstream.url("/x")), ("client_id", "me".to_owned())];
    let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
    let fields: Vec<_> = fields.chain([("client_secret", ROOT)]).collect();
    let both = ["workflow:w", "workflow:v"];
    world.broker.create_connection("oauth2/both", &fields, &both).unwrap();
    let stranger = world.broker.open("v", "s");
    let token = |step: &TestStep| world.broker.resolve(step, "oauth2/both").unwrap();
    assert_ne!(token(&stranger).fields["access_token"], token(&step).fields["access_token"]);
}

#[test]
fn a_thousand_concurrent_resolves_make_one_upstream_call() {
    const STEPS: usize = 8;
    const CONNECTIONS: usize = 4;
    const EACH: usize = 32;
    let limits = Limits {
        step_request_burst: 10_000,
        step_requests_per_second: 10_000,
        ..Limits::default()
    };
    let world = World::start_with(limits);
    world.upstream.hold();
    let broker = &world.broker;
    let steps = (0..STEPS).map(|n| broker.open("w", &format!("s{n}")));
    let channels: Vec<_> = steps
        .flat_map(|step| (0..CONNECTIONS).map(move |_| broker.become_step(step.opened.clone())))
        .map(|step| step.channel)
        .collect();
    let all = channels.iter().flat_map(|channel| (0..EACH).map(|_| channel.clone()));
    let all = all.map(|channel| resolve_on(channel, request("oauth2/api")));
    let all = broker.spawn(join_all(all.collect::<Vec<_>>()));
    let count = STEPS * CONNECTIONS * EACH;
    wait_until("all are decided", || world.count("resolve") == count);
    world.upstream.release();
    let got = broker.block_on(all).unwrap();
    let tokens = got.into_iter().map(|got| got.unwrap().fields["access_token"].clone());
    assert_eq!(tokens.filter(|token| token == "minted-1").count(), count);
    assert_eq!(world.upstream.calls(), 1);
    assert_eq!(world.count("minting"), 1);
    assert_eq!(world.count("mint_joined"), count);
}

#[test]
fn a_batch_waits_for_its_upstreams_together() {
    let world = World::start();
    world.create("bad", "/bad");
    world.broker.create_aws("stored", "secret", &["workflow:w"]);
    let step = world.broker.open("w", "s");
    world.upstream.hold();
    let names = ["oauth2/api", "aws/stored", "oauth2/bad", "oauth2/none", "oauth2/api"];
    let requests = names.iter().map(|name| request(name)).collect();
    let mut client = StepServiceClient::new(step.channel);
    let batch = world
        .broker
        .spawn(async move { client.batch_resolve(pb::BatchResolveRequest { requests }).await });
    wait_until("both upstreams are asked", || world.upstream.calls() == 2);
    let asked = world.upstream.asked();
    let bad = asked.iter().position(|asked| asked.path == "/bad").unwrap() + 1;
    world.upstream.answers(move |n| match n == bad {
        true => status(400, "{\"error\": \"invalid_client\"}"),
        false => super::upstream::token(n, 3600),
    });
    world.upstream.release();
    let results = world.broker.block_on(batch).unwrap().unwrap().into_inner().results;
    let shown: Vec<_> = results
        .into_iter()
        .map(|one| match one.result.unwrap() {
            OneResult::Response(response) => {
                let value = |name: &str| response.fields.get(name).cloned();
                let value = value("access_token").or_else(|| value("secret_access_key"));
                String::from_utf8(value.unwrap()).unwrap()
            }
            OneResult::Error(error) => {
                assert!(!error.decision_id.is_empty());
                error.reason
            }
        })
        .collect();
    let token = format!("minted-{}", 3 - bad);
    let expected = [token.as_str(), "secret", "UPSTREAM_REFUSED", "RESOLVE_DENIED", &token];
    assert_eq!(shown, expected);
}

#[test]
fn requests_that_share_a_connection_wait_side_by_side() {
    let world = World::start();
    world.create("other", "/other");
    world.broker.create_aws("stored", "secret", &["workflow:w"]);
    let step = world.broker.open("w", "s");
    world.upstream.hold();
    let names = ["oauth2/api", "oauth2/other", "oauth2/api", "oauth2/other"];
    let all = names.map(|name| resolve_on(step.channel.clone(), request(name)));
    let all = world.broker.spawn(join_all(all));
    wait_until("both upstreams are asked", || world.upstream.calls() == 2);
    // A stored credential waits for no upstream.
    assert!(world.broker.resolve(&step, "aws/stored").is_ok());
    world.upstream.release();
    let got: Vec<_> = world.broker.block_on(all).unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(got[0].fields, got[2].fields);
    assert_eq!(got[1].fields, got[3].fields);
    assert_eq!(world.upstream.calls(), 2);
}

#[test]
fn a_credential_is_replaced_before_its_end() {
    let world = World::start();
    let step = world.broker.open("w", "s");
    assert_eq!(world.token(&step), "minted-1");
    // Within the margin a request gets what there is, and the next one is made meanwhile.
    world.broker.advance(2401);
    world.upstream.hold();
    assert_eq!(world.token(&step), "minted-1");
    wait_until("the next is asked for", || world.upstream.calls() == 2);
    assert_eq!(world.token(&step), "minted-1");
    world.upstream.release();
    wait_until("the next is there", || world.count("minted") == 2);
    wait_until("it is handed out", || world.token(&step) == "minted-2");
    assert_eq!(world.upstream.calls(), 2);
}

#[test]
fn a_flight_goes_on_without_its_caller() {
    let world = World::start();
    let step = world.broker.open("w", "s");
    world.upstream.hold();
    let pending = world.resolve_slowly(&step, "oauth2/api", 1);
    pending.abort();
    wait_until("its lease has ended", || {
        let mut failed = world.broker.journaled("mint_failed").into_iter();
        failed.any(|line| line["reason"] == "CANCELLED")
    });
    world.upstream.release();
    wait_until("it is minted", || world.count("minted") == 1);
    assert_eq!(world.token(&step), "minted-1");
    assert_eq!(world.upstream.calls(), 1);
}

#[test]
fn metrics_count_mints_and_what_decisions_found() {
    let mut world = World::start();
    world.broker.config.metrics = Some((std::net::Ipv4Addr::LOCALHOST, 0).into());
    world.broker.restart();
    let step = world.broker.open("w", "s");
    world.upstream.hold();
    let pending = world.resolve_slowly(&step, "oauth2/api", 1);
    let joined = world.resolve_slowly(&step, "oauth2/api", 1);
    wait_until("both are decided", || world.count("resolve") == 2);
    world.upstream.release();
    assert!(world.end(pending).is_ok() && world.end(joined).is_ok());
    world.token(&step);
    world.upstream.answers(|_| status(401, "{}"));
    world.rotate("wrong");
    for _ in 0..2 {
        assert_eq!(reason(world.broker.resolve(&step, "oauth2/api")), "UPSTREAM_REFUSED");
    }
    let told = world.broker.scrape();
    let of = |name: &str, label: &str, value: &str| {
        told.get(name, &[("source", "oauth2_client"), (label, value)])
    };
    for (found, count) in [("MISSED", 2.0), ("JOINED", 1.0), ("HIT", 1.0), ("NEGATIVE", 1.0)] {
        assert_eq!(of("mint_lookups_total", "found", found), Some(count), "{found}");
    }
    assert_eq!(of("mints_total", "outcome", "OK"), Some(1.0));
    assert_eq!(of("mints_total", "outcome", "UPSTREAM_REFUSED"), Some(1.0));
}

#[test]
fn a_restart_keeps_no_minted_credential() {
    let mut world = World::start();
    let step = world.broker.open("w", "s");
    assert_eq!(world.token(&step), "minted-1");
    world.broker.restart();
    let step = world.broker.become_step(step.opened);
    assert_eq!(world.token(&step), "minted-2");
}
