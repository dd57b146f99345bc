//! A step gets exactly the credentials that it may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use keyhatch::grpc::pb;
use keyhatch::model::Limits;
use tonic_types::StatusExt as _;

use crate::harness::{
    TestBroker, TestStep, connection_document, open_request, reason, request, resolve_on, resolver,
    secret_document,
};

#[test]
fn a_step_gets_its_credential_and_the_journal_says_so() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    let got = broker.resolve(&step, "aws/prod").unwrap();
    assert_eq!(got.name, "connections/aws/prod");
    assert_eq!(got.fields["secret_access_key"], "s3cret");
    assert_eq!(got.fields["access_key_id"], "AKIAEXAMPLE");

    let lines = broker.journaled("resolve");
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["decision"], "allow");
    assert_eq!(lines[0]["by"], "resolver workflow:deploy");
    assert_eq!(lines[0]["principal"], "workflow:deploy/run:1/step:build");
    assert_eq!(lines[0]["target"], "connections/aws/prod");
    assert_eq!(lines[0]["released"], serde_json::json!(["access_key_id", "secret_access_key"]));
    assert_eq!(format!("leases/{}", lines[0]["lease"].as_str().unwrap()), got.lease.name);
}

#[test]
fn fields_come_under_the_names_that_were_asked_for() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    let got = broker.resolve(&step, "aws/prod#secretAccessKey,access_key_id,accessKeyID").unwrap();
    let fields: Vec<_> = got.fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        fields,
        [
            ("accessKeyID", "AKIAEXAMPLE"),
            ("access_key_id", "AKIAEXAMPLE"),
            ("secretAccessKey", "s3cret")
        ]
    );
    for unknown in ["session_token", "nonsense", "value"] {
        let outcome = broker.resolve(&step, &format!("aws/prod#{unknown}"));
        assert_eq!(reason(outcome), "FIELD_UNKNOWN");
    }
}

#[test]
fn a_step_cannot_tell_a_missing_connection_from_a_forbidden_one() {
    let broker = TestBroker::start();
    broker.create_aws("theirs", "s3cret", &["workflow:other"]);
    broker.create_aws("nobodys", "s3cret", &[]);
    let step = broker.open("deploy", "build");
    let words = |reference| {
        let status = broker.resolve(&step, reference).unwrap_err();
        let info = status.get_error_details().error_info().cloned().unwrap();
        let id = info.metadata["decision_id"].clone();
        (status.code(), status.message().replace(&id, "ID"), info.reason)
    };
    let missing = words("aws/missing");
    assert_eq!(missing.2, "RESOLVE_DENIED");
    assert_eq!(words("aws/theirs"), missing);
    assert_eq!(words("aws/nobodys"), missing);
    assert_eq!(words("nonsense/missing"), missing);
    // A requested field reveals nothing either.
    assert_eq!(words("aws/theirs#nonsense"), missing);
    let refused = broker.journaled("resolve");
    assert_eq!(refused.len(), 5);
    assert!(refused.iter().all(|line| line["decision"] == "refuse"));
}

#[test]
fn a_malformed_target_is_an_error_of_form_and_no_decision() {
    let broker = TestBroker::start();
    let step = broker.open("deploy", "build");
    let ttl = |seconds| pb::ResolveRequest {
        ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..request("aws/prod")
    };
    let cases = [
        (pb::ResolveRequest::default(), "TARGET_INVALID"),
        (request("AWS/prod"), "TARGET_INVALID"),
        (request("aws/"), "TARGET_INVALID"),
        (request("aws/../x"), "TARGET_INVALID"),
        (request("aws/prod#a b"), "NAME_INVALID"),
        (ttl(0), "TTL_OUT_OF_RANGE"),
        (ttl(-5), "TTL_OUT_OF_RANGE"),
        (ttl(i64::MIN), "TTL_OUT_OF_RANGE"),
        (ttl(i64::MAX), "TTL_OUT_OF_RANGE"),
        (ttl(8 * 24 * 3600), "TTL_OUT_OF_RANGE"),
    ];
    for (request, expected) in cases {
        assert_eq!(reason(broker.resolve_with(&step, &request)), expected);
    }
    assert!(broker.journaled("resolve").is_empty());
}

#[test]
fn a_binding_of_a_step_or_a_prefix_admits_exactly_those() {
    let broker = TestBroker::start();
    broker.create_aws("step", "s", &["workflow:deploy/step:build"]);
    broker.create_aws("prefix", "s", &["workflow:team-a-*"]);
    broker.create_aws("any", "s", &["workflow:*"]);
    let build = broker.open("deploy", "build");
    let test = broker.open("deploy", "test");
    let team = broker.open("team-a-release", "build");
    for (step, reference, allowed) in [
        (&build, "aws/step", true),
        (&test, "aws/step", false),
        (&build, "aws/prefix", false),
        (&team, "aws/prefix", true),
        (&team, "aws/any", true),
        (&team, "aws/step", false),
    ] {
        assert_eq!(broker.resolve(step, reference).is_ok(), allowed, "{reference}");
    }
}

/// Relay: a secret is scoped to one workflow.
#[test]
fn a_secret_is_resolved_by_steps_of_its_own_workflow_only() {
    let broker = TestBroker::start();
    broker.apply(vec![secret_document("deploy", "_token", "hush")]).unwrap();
    let own = broker.open("deploy", "build");
    let other = broker.open("other", "build");
    let got = broker.resolve(&own, "secret:_token").unwrap();
    assert_eq!(got.name, "workflows/deploy/secrets/_token");
    assert_eq!(got.fields["value"], "hush");
    assert_eq!(reason(broker.resolve(&other, "secret:_token")), "SECRET_NOT_FOUND");
    assert_eq!(reason(broker.resolve(&own, "secret:missing")), "SECRET_NOT_FOUND");
}

#[test]
fn a_batch_answers_in_order_and_a_refusal_fails_no_other() {
    use pb::batch_resolve_result::Result as One;
    let broker = TestBroker::start();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    broker.apply(vec![secret_document("deploy", "token", "hush")]).unwrap();
    let step = broker.open("deploy", "build");
    let batch = |requests| {
        let mut client = pb::step_service_client::StepServiceClient::new(step.channel.clone());
        broker.block_on(client.batch_resolve(pb::BatchResolveRequest { requests }))
    };
    let asked = ["aws/prod", "aws/nothere", "secret:token", "aws/prod#nonsense", "AWS/x"];
    let got = batch(asked.map(request).to_vec()).ok().unwrap().into_inner().results;
    let told: Vec<_> = got
        .into_iter()
        .map(|result| match result.result.unwrap() {
            One::Response(response) => response.name,
            One::Error(error) => error.reason,
        })
        .collect();
    let expected = [
        "connections/aws/prod",
        "RESOLVE_DENIED",
        "workflows/deploy/secrets/token",
        "FIELD_UNKNOWN",
        "TARGET_INVALID",
    ];
    assert_eq!(told, expected);
    assert_eq!(broker.journaled("resolve").len(), 4, "each that was well formed is a decision");
    let status = batch(vec![request("aws/prod"); 33]).err().unwrap();
    assert_eq!(reason(Err::<(), _>(status)), "TOO_LARGE");
    let status = batch(vec![]).err().unwrap();
    assert_eq!(reason(Err::<(), _>(status)), "TARGET_INVALID");
}

#[test]
fn a_batch_stops_opening_when_its_reply_is_full() {
    use pb::batch_resolve_result::Result as One;
    let broker = TestBroker::start();
    let long = "x".repeat(64 * 1024);
    let fields = [("a", long.as_str()), ("b", &long), ("c", &long), ("d", &long)];
    broker.create_connection("generic/large", &fields, &["workflow:w"]).ok().unwrap();
    let step = broker.open("w", "s");
    let mut client = pb::step_service_client::StepServiceClient::new(step.channel);
    let requests = vec![request("generic/large"); 32];
    let reply = broker.block_on(client.batch_resolve(pb::BatchResolveRequest { requests }));
    let reply = reply.ok().unwrap().into_inner();
    assert!(prost::Message::encoded_len(&reply) <= 3 * 1024 * 1024);
    let results = reply.results.into_iter().map(|result| result.result.unwrap());
    let refused: Vec<_> = results
        .filter_map(|result| match result {
            One::Error(error) => Some(error.reason),
            One::Response(_) => None,
        })
        .collect();
    assert!(refused.len() > 16 && refused.iter().all(|reason| reason == "TOO_LARGE"));
}

#[test]
fn whoami_shows_the_step_and_its_end_and_decides_nothing() {
    let broker = TestBroker::start();
    let step = broker.open("deploy prod", "build");
    let mut client = pb::step_service_client::StepServiceClient::new(step.channel.clone());
    let me = broker.block_on(client.who_am_i(pb::WhoAmIRequest {})).unwrap().into_inner();
    assert_eq!(me.spiffe_id, "spiffe://keyhatch.local/workflow/deploy_20prod/run/1/step/build");
    assert_eq!(
        (me.workflow.as_str(), me.run.as_str(), me.step.as_str()),
        ("deploy prod", "1", "build")
    );
    assert_eq!(me.attempt, 1);
    assert_eq!(me.step_expire_time, step.opened.expire_time);
    assert!(broker.journaled("resolve").is_empty());
}

#[test]
fn a_step_over_its_rate_is_refused_and_counted_in_the_journal() {
    let limits = Limits { step_request_burst: 5, step_requests_per_second: 1, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    let mut refused = 0;
    for _ in 0..9 {
        if let Err(status) = broker.resolve(&step, "aws/prod") {
            assert!(status.get_error_details().retry_info().is_some());
            assert_eq!(reason(Err::<(), _>(status)), "TOO_MANY_REQUESTS");
            refused += 1;
        }
    }
    assert_eq!(refused, 4);
    assert_eq!(broker.journaled("resolve").len(), 5);
    crate::harness::wait_until("the refusals are counted", || {
        let counted = broker.journaled("rate_refused");
        counted.iter().filter_map(|line| line["requests"].as_u64()).sum::<u64>() == 4
    });
    // Another step is not delayed, and the rate recovers with time.
    let other = broker.open("deploy", "test");
    broker.resolve(&other, "aws/prod").unwrap();
    broker.advance(1);
    broker.resolve(&step, "aws/prod").unwrap();
}

/// Each refusal is a line, so refusals are limited to protect the disk.
#[test]
fn repeated_refusals_of_a_step_add_no_more_lines() {
    let limits = Limits { step_refusal_burst: 5, step_refusals_per_second: 1, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    let step = broker.open("deploy", "build");
    let reasons: Vec<_> = (0..8).map(|_| reason(broker.resolve(&step, "aws/nothere"))).collect();
    assert!(reasons[..5].iter().all(|reason| reason == "RESOLVE_DENIED"), "{reasons:?}");
    assert!(reasons[5..].iter().all(|reason| reason == "TOO_MANY_REQUESTS"), "{reasons:?}");
    assert_eq!(broker.journaled("resolve").len(), 5);
    broker.advance(1);
    assert_eq!(reason(broker.resolve(&step, "aws/nothere")), "RESOLVE_DENIED");
}

/// Resolves on four threads until `is_over`. Calls `check` with the known state before each request and the outcome.
fn resolve_until<T: Send + 'static>(
    step: &TestStep,
    done: &Arc<AtomicBool>,
    before: impl Fn() -> T + Clone + Send + 'static,
    check: impl Fn(T, bool) + Clone + Send + 'static,
) -> Vec<std::thread::JoinHandle<()>> {
    let work = || {
        let (done, channel) = (Arc::clone(done), step.channel.clone());
        let (before, check) = (before.clone(), check.clone());
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                while !done.load(Ordering::SeqCst) {
                    let known = before();
                    let outcome = resolve_on(channel.clone(), request("aws/prod")).await;
                    check(known, outcome.is_ok());
                }
            });
        })
    };
    (0..4).map(|_| work()).collect()
}

/// The journal is the order of events. No line that allows a resolve follows a head that forbids it.
#[test]
fn no_line_allows_what_the_head_before_it_forbids() {
    let broker = racing_broker();
    let step = broker.open("deploy", "racing");
    let done = Arc::new(AtomicBool::new(false));
    let workers = resolve_until(&step, &done, || (), |(), _| {});
    for turn in 0..300 {
        let principal = if turn % 2 == 0 { "workflow:other" } else { "workflow:deploy" };
        broker.apply(vec![connection_document("aws/prod", &[], resolver(&[principal]))]).unwrap();
    }
    done.store(true, Ordering::SeqCst);
    workers.into_iter().for_each(|worker| worker.join().unwrap());

    let (mut announced, mut in_force) = (true, true);
    let mut counts = [0, 0];
    for line in broker.journal() {
        match line["event"].as_str().unwrap() {
            "intent" => {
                let access = line["changes"][0]["access"]["resolver"].to_string();
                announced = access.contains("workflow:deploy");
            }
            "head" => in_force = announced,
            "resolve" => {
                let is_allowed = line["decision"] == "allow";
                assert_eq!(is_allowed, in_force, "{line}");
                counts[usize::from(is_allowed)] += 1;
            }
            _ => {}
        }
    }
    assert!(counts.iter().all(|count| *count > 100), "both were asked for often: {counts:?}");
}

/// Runs `change` while a step keeps resolving. No request after the acknowledgement may succeed, and no journal line
/// after `last_line` may allow one.
fn race(
    broker: &TestBroker,
    change: impl FnOnce(),
    last_line: impl Fn(&serde_json::Value) -> bool,
) {
    let step = broker.open("deploy", "racing");
    let (acknowledged, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let handed_out = Arc::new(AtomicUsize::new(0));
    let (was_acknowledged, count) = (Arc::clone(&acknowledged), Arc::clone(&handed_out));
    let workers = resolve_until(
        &step,
        &done,
        move || was_acknowledged.load(Ordering::SeqCst),
        move |was_acknowledged, is_handed_out| {
            count.fetch_add(usize::from(is_handed_out), Ordering::SeqCst);
            assert!(!(was_acknowledged && is_handed_out), "slipped past the change");
        },
    );
    crate::harness::wait_until("the race is on", || handed_out.load(Ordering::SeqCst) > 50);
    change();
    acknowledged.store(true, Ordering::SeqCst);
    let after = handed_out.load(Ordering::SeqCst);
    std::thread::yield_now();
    done.store(true, Ordering::SeqCst);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert!(handed_out.load(Ordering::SeqCst) <= after + 4, "only what was under way came after");

    let journal = broker.journal();
    let end = journal.iter().rposition(last_line).unwrap();
    let racing = step.opened.name.strip_prefix("openings/").unwrap();
    let slipped = journal[end..].iter().filter(|line| {
        line["event"] == "resolve" && line["decision"] == "allow" && line["opening"] == racing
    });
    assert_eq!(slipped.count(), 0);
}

fn racing_broker() -> TestBroker {
    let limits = Limits {
        step_requests_per_second: 1_000_000,
        step_request_burst: 1_000_000,
        step_refusals_per_second: 1_000_000,
        step_refusal_burst: 1_000_000,
        executor_refusals_per_second: 1_000_000,
        executor_refusal_burst: 1_000_000,
        executor_decision_burst: 1_000_000,
        ..Limits::default()
    };
    let broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    broker
}

#[test]
fn no_resolve_passes_an_acknowledged_change_of_access() {
    let broker = racing_broker();
    for _ in 0..5 {
        let access = |principals: &[&str]| {
            let document = connection_document("aws/prod", &[], resolver(principals));
            broker.apply(vec![document]).unwrap();
        };
        access(&["workflow:deploy"]);
        race(&broker, || access(&["workflow:other"]), |line| line["event"] == "head");
    }
}

#[test]
fn no_resolve_passes_an_acknowledged_deletion() {
    let broker = racing_broker();
    race(&broker, || broker.delete_connection("aws/prod").unwrap(), |line| line["event"] == "head");
}

#[test]
fn no_resolve_passes_an_acknowledged_close() {
    let broker = racing_broker();
    let close = || {
        let mut request = pb::CloseStepRequest::default();
        (request.workflow, request.run, request.step) =
            ("deploy".to_owned(), "1".to_owned(), "racing".to_owned());
        let mut client = pb::executor_service_client::ExecutorServiceClient::new(broker.executor());
        assert!(broker.block_on(client.close_step(request)).unwrap().into_inner().closed);
    };
    race(&broker, close, |line| line["event"] == "closed");
}

#[test]
fn a_connection_deleted_and_created_again_is_another_one() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "old", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    let before = broker.resolve(&step, "aws/prod").unwrap();
    broker.delete_connection("aws/prod").unwrap();
    assert_eq!(reason(broker.resolve(&step, "aws/prod")), "RESOLVE_DENIED");
    broker.create_aws("prod", "new", &["workflow:deploy"]);
    let after = broker.resolve(&step, "aws/prod").unwrap();
    assert_eq!(after.fields["secret_access_key"], "new");
    assert_ne!(before.lease.name, after.lease.name);
}

#[test]
fn more_steps_than_the_limit_are_not_opened() {
    let broker = TestBroker::start_with(Limits { open_steps: 2, ..Limits::default() });
    broker.open("deploy", "a");
    let second = broker.open("deploy", "b");
    assert_eq!(reason(broker.try_open(open_request("deploy", "c"))), "TOO_MANY_STEPS");
    broker.close(&second);
    broker.open("deploy", "c");
}
