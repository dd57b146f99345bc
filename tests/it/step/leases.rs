//! The life of a lease: its length, its renewal and its end.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::model::Limits;

use crate::harness::{
    Got, START, TestBroker, TestStep, connection_document, open_request, reason, request, resolver,
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
fn the_same_request_gets_its_lease_for_two_thirds_of_its_life() {
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
    // A repeated request gets the same lease.
    ask(&broker, &step, Some(103));
    assert_eq!(reason(broker.resolve(&step, "aws/prod")), "TOO_MANY_LEASES");
    broker.advance(101);
    crate::harness::wait_until("the first lease is forgotten", || {
        broker.resolve(&step, "aws/prod").is_ok()
    });
}

/// Asks for aws/prod for each of these lengths in one batch. Returns the lease or the reason of each.
fn ask_at_once(broker: &TestBroker, step: &TestStep, seconds: &[i64]) -> Vec<String> {
    use pb::batch_resolve_result::Result as One;
    let asked = seconds.iter().map(|seconds| pb::ResolveRequest {
        ttl: Some(prost_types::Duration { seconds: *seconds, nanos: 0 }),
        ..request("aws/prod")
    });
    let mut client = StepServiceClient::new(step.channel.clone());
    let batch = pb::BatchResolveRequest { requests: asked.collect() };
    let got = broker.block_on(client.batch_resolve(batch)).ok().unwrap().into_inner().results;
    let told = got.into_iter().map(|result| match result.result.unwrap() {
        One::Response(response) => response.lease.unwrap().name,
        One::Error(error) => error.reason,
    });
    told.collect()
}

/// The lines of a batch are written at once, and each decision counts the ones before it.
#[test]
fn the_same_request_twice_in_a_batch_gets_one_lease() {
    let broker = TestBroker::start_with(Limits { step_live_leases: 2, ..Limits::default() });
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    let told = ask_at_once(&broker, &step, &[101, 101, 102, 103]);
    assert!(told[0] == told[1] && told[1] != told[2] && told[2].starts_with("leases/"), "{told:?}");
    assert_eq!(told[3], "TOO_MANY_LEASES");
    assert_eq!(broker.journaled("resolve").len(), 4);
}

#[test]
fn the_same_request_twice_in_a_batch_makes_one_new_lease() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    let old = ask(&broker, &step, Some(100)).lease.name;
    let mut client = StepServiceClient::new(step.channel.clone());
    let ttl = Some(prost_types::Duration { seconds: 1000, nanos: 0 });
    let longer = pb::RenewLeaseRequest { name: old.clone(), ttl };
    broker.block_on(client.renew_lease(longer)).unwrap();
    let told = ask_at_once(&broker, &step, &[100, 100, 100]);
    assert!(told[0] != old && told[1] == told[0] && told[2] == told[0], "{old} {told:?}");
}

#[test]
fn a_batch_of_refusals_is_journaled_before_its_answer() {
    let limits = Limits { step_live_leases: 1, step_refusal_burst: 4, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    let told = ask_at_once(&broker, &step, &[101, 102, 103, 104, 105, 106, 107, 108, 109]);
    assert_eq!(told.iter().filter(|told| *told == "TOO_MANY_LEASES").count(), 8, "{told:?}");
    let again = || ask_at_once(&broker, &step, &[101]);
    // The rate gives one each half second, with a burst of one and a half.
    broker.advance(2);
    assert_eq!(again(), ["TOO_MANY_REQUESTS"]);
    broker.advance(1);
    assert_eq!(again(), [told[0].clone()]);
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
    // Closing again is no error.
    let again = broker.close(&step);
    assert_eq!((again.closed, again.revoked_leases), (false, 0));
}

#[test]
fn leases_end_with_the_access_that_allowed_them() {
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

fn renew(
    broker: &TestBroker,
    step: &TestStep,
    name: &str,
    ttl: Option<i64>,
) -> Result<pb::Lease, tonic::Status> {
    let ttl = ttl.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    let request = pb::RenewLeaseRequest { name: name.to_owned(), ttl };
    let mut client = StepServiceClient::new(step.channel.clone());
    broker.block_on(client.renew_lease(request)).map(tonic::Response::into_inner)
}

fn revoke(broker: &TestBroker, step: &TestStep, name: &str) -> Result<(), tonic::Status> {
    let request = pb::RevokeLeaseRequest { name: name.to_owned() };
    let mut client = StepServiceClient::new(step.channel.clone());
    broker.block_on(client.revoke_lease(request)).map(drop)
}

fn until(lease: &pb::Lease) -> i64 {
    lease.expire_time.unwrap().seconds - *START / 1000
}

#[test]
fn a_renewal_is_decided_journaled_and_survives_a_restart() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    let step = broker.open("w", "s");
    let lease = ask(&broker, &step, None).lease;
    assert!(lease.renewable && until(&lease) == 3600);
    broker.advance(3000);
    let renewed = renew(&broker, &step, &lease.name, None).unwrap();
    assert_eq!((until(&renewed), renewed.issue_time), (6600, lease.issue_time));
    // A renewal never shortens.
    assert_eq!(until(&renew(&broker, &step, &lease.name, Some(60)).unwrap()), 6600);
    broker.restart();
    broker.advance(3599);
    assert_eq!(until(&renew(&broker, &step, &lease.name, Some(60)).unwrap()), 6659);
    let line = broker.journaled("lease_renewal").pop().unwrap();
    assert_eq!((&line["decision"], &line["by"]), (&"allow".into(), &"resolver workflow:w".into()));
    // An ended lease cannot be renewed.
    broker.advance(60);
    assert_eq!(reason(renew(&broker, &step, &lease.name, None)), "LEASE_NOT_FOUND");
}

#[test]
fn no_renewal_passes_the_steps_end_or_the_maximum() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    let ttl = Some(prost_types::Duration { seconds: 5000, nanos: 0 });
    let request = pb::OpenStepRequest { ttl, ..open_request("w", "s") };
    let step = broker.become_step(broker.try_open(request).unwrap());
    let lease = ask(&broker, &step, None).lease;
    broker.advance(3000);
    let last = renew(&broker, &step, &lease.name, None).unwrap();
    assert_eq!(
        (until(&last), last.ttl_limited_by(), last.renewable),
        (5000, pb::TtlLimit::Step, false)
    );
    assert_eq!(reason(renew(&broker, &step, &lease.name, Some(0))), "TTL_OUT_OF_RANGE");
    assert_eq!(reason(renew(&broker, &step, "leases/x", None)), "NAME_INVALID");
}

#[test]
fn a_lease_of_an_old_version_or_lost_access_is_not_renewed() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    let step = broker.open("w", "s");
    let lease = ask(&broker, &step, None).lease;
    broker.apply(vec![connection_document("aws/prod", &[("region", "x")], vec![])]).unwrap();
    assert_eq!(reason(renew(&broker, &step, &lease.name, None)), "VERSION_SUPERSEDED");
    let fresh = ask(&broker, &step, None).lease;
    let access = resolver(&["workflow:other"]);
    broker.apply(vec![connection_document("aws/prod", &[], access)]).unwrap();
    assert_eq!(reason(renew(&broker, &step, &fresh.name, None)), "LEASE_NOT_FOUND");
}

#[test]
fn another_steps_lease_looks_like_a_missing_one() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    let (mine, hers) = (broker.open("w", "mine"), broker.open("w", "hers"));
    let lease = ask(&broker, &hers, None).lease;
    let none = format!("leases/{}", "0".repeat(32));
    let told =
        |status: tonic::Status, name: &str| (status.code(), status.message().replace(name, "NAME"));
    let theirs = renew(&broker, &mine, &lease.name, None).unwrap_err();
    let unknown = renew(&broker, &mine, &none, None).unwrap_err();
    assert_eq!(told(theirs, &lease.name), told(unknown, &none));
    let theirs = revoke(&broker, &mine, &lease.name).unwrap_err();
    let unknown = revoke(&broker, &mine, &none).unwrap_err();
    assert_eq!(told(theirs, &lease.name), told(unknown, &none));
    // The other step's lease is unchanged.
    renew(&broker, &hers, &lease.name, None).unwrap();
}

#[test]
fn a_lease_that_was_given_back_is_over_for_good() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    let step = broker.open("w", "s");
    let lease = ask(&broker, &step, None).lease;
    revoke(&broker, &step, &lease.name).unwrap();
    assert_eq!(reason(revoke(&broker, &step, &lease.name)), "LEASE_NOT_FOUND");
    assert_ne!(ask(&broker, &step, None).lease.name, lease.name);
    broker.restart();
    assert_eq!(reason(renew(&broker, &step, &lease.name, None)), "LEASE_NOT_FOUND");
    assert_eq!(broker.close(&step).revoked_leases, 1);
}
