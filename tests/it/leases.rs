//! How long the broker stands by a credential.

use keyhatch::grpc::pb;
use keyhatch::model::Limits;

use crate::harness::{
    Got, TestBroker, TestStep, connection_document, open_request, reason, request, resolver,
};

fn seconds(got: &Got) -> i64 {
    let lease = &got.lease;
    lease.expire_time.unwrap().seconds - lease.issue_time.unwrap().seconds
}

fn ask(broker: &TestBroker, step: &TestStep, ttl: Option<i64>) -> Got {
    let ttl = ttl.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    broker.resolve_with(step, &pb::ResolveRequest { ttl, ..request("aws/prod") }).unwrap()
}

#[test]
fn the_ttl_is_the_least_of_its_bounds_and_the_reply_says_which() {
    let limits = Limits { max_lease_seconds: 7200, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    let limit = |got: &Got| got.lease.ttl_limited_by();
    let default = ask(&broker, &step, None);
    assert_eq!((seconds(&default), limit(&default)), (3600, pb::TtlLimit::None));
    let short = ask(&broker, &step, Some(60));
    assert_eq!((seconds(&short), limit(&short)), (60, pb::TtlLimit::None));
    let long = ask(&broker, &step, Some(9000));
    assert_eq!((seconds(&long), limit(&long)), (7200, pb::TtlLimit::Server));
    broker.advance(6 * 3600 - 600);
    let last = ask(&broker, &step, None);
    assert_eq!((seconds(&last), limit(&last)), (600, pb::TtlLimit::Step));
}

#[test]
fn the_same_ask_gets_the_same_lease_until_two_thirds_of_its_life_or_a_new_version() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "one", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    let first = ask(&broker, &step, Some(3000));
    broker.advance(1999);
    assert_eq!(ask(&broker, &step, Some(3000)), first);
    assert_ne!(ask(&broker, &step, Some(2999)).lease.name, first.lease.name);
    broker.advance(1);
    let second = ask(&broker, &step, Some(3000));
    assert_ne!(second.lease.name, first.lease.name);

    let change = connection_document("aws/prod", &[("secret_access_key", "two")], vec![]);
    broker.apply(vec![change]).unwrap();
    let third = ask(&broker, &step, Some(3000));
    assert_ne!(third.lease.name, second.lease.name);
    assert_eq!((third.version, third.fields["secret_access_key"].as_str()), (2, "two"));
    // Each of them was decided and journaled.
    assert_eq!(broker.journaled("resolve").len(), 5);
}

#[test]
fn a_step_holds_no_more_live_leases_than_it_may() {
    let broker = TestBroker::start_with(Limits { step_live_leases: 3, ..Limits::default() });
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    for ttl in [101, 102, 103] {
        ask(&broker, &step, Some(ttl));
    }
    // The same ask again is the same lease.
    ask(&broker, &step, Some(103));
    assert_eq!(reason(broker.resolve(&step, "aws/prod")), "TOO_MANY_LEASES");
    broker.advance(101);
    crate::harness::wait_until("the first lease is forgotten", || {
        broker.resolve(&step, "aws/prod").is_ok()
    });
}

#[test]
fn closing_a_step_revokes_its_leases_and_says_how_many() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    for ttl in [101, 102] {
        ask(&broker, &step, Some(ttl));
    }
    let closed = broker.close(&step);
    assert_eq!((closed.closed, closed.revoked_leases), (true, 2));
    assert_eq!(broker.journaled("closed")[0]["revoked"].as_array().unwrap().len(), 2);
    // Again is no error.
    let again = broker.close(&step);
    assert_eq!((again.closed, again.revoked_leases), (false, 0));
}

#[test]
fn what_access_no_longer_allows_ends_with_the_change_and_the_rest_stays() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:deploy", "workflow:other"]);
    let (deploy, other) = (broker.open("deploy", "build"), broker.open("other", "build"));
    let ended = ask(&broker, &deploy, None).lease.name;
    let kept = ask(&broker, &other, None).lease.name;
    let change = connection_document("aws/prod", &[], resolver(&["workflow:other"]));
    broker.apply(vec![change]).unwrap();
    let heads = broker.journaled("head");
    let revoked = heads.last().unwrap()["revoked"].as_array().unwrap().clone();
    assert_eq!(revoked, [ended.strip_prefix("leases/").unwrap()]);
    assert_eq!(ask(&broker, &other, None).lease.name, kept);
}

#[test]
fn a_step_ends_at_its_time_and_leaves_no_directory() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let request = pb::OpenStepRequest {
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..open_request("deploy", "build")
    };
    let step = broker.become_step(broker.try_open(request).unwrap());
    broker.resolve(&step, "aws/prod").unwrap();
    broker.advance(60);
    let directory = step.opened.directory;
    crate::harness::wait_until("the step is closed", || !std::path::Path::new(&directory).exists());
    assert_eq!(broker.journaled("closed")[0]["reason"], "expired");
}
