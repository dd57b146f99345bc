//! Several clients at once, each with another request.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::model::Limits;

use crate::harness::{TestBroker, connection_document, open_request, reason, request, resolve_on};

#[test]
fn a_step_that_closes_during_its_own_resolve_keeps_nothing() {
    let limits = Limits { step_live_leases: 100_000, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s", &["workflow:*"]);
    let mut given = 0;
    for round in 0..60 {
        let mut request_to_open = open_request("w", "s");
        request_to_open.run = round.to_string();
        let step = broker.become_step(broker.try_open(request_to_open).unwrap());
        let (granted, is_closed) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for client in 0..4_i64 {
                let (granted, is_closed, step) = (&granted, &is_closed, &step);
                let broker = &broker;
                scope.spawn(move || {
                    for number in 0..40 {
                        // Each length makes a new lease.
                        let seconds = 100 + client * 1000 + number;
                        let ttl = Some(prost_types::Duration { seconds, nanos: 0 });
                        let request = pb::ResolveRequest { ttl, ..request("aws/prod") };
                        let was_closed = is_closed.load(Ordering::SeqCst);
                        match broker.block_on(resolve_on(step.channel.clone(), request)) {
                            Ok(_) => {
                                assert!(!was_closed, "handed out after it was closed");
                                granted.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(_) => return,
                        }
                    }
                });
            }
            while granted.load(Ordering::SeqCst) < round {
                std::thread::yield_now();
            }
            assert!(broker.close(&step).closed);
            is_closed.store(true, Ordering::SeqCst);
        });
        given += granted.into_inner();
        let run = pb::GetRunRequest { workflow: String::new(), run: round.to_string() };
        let mut client = ExecutorServiceClient::new(broker.executor());
        let told = broker.block_on(client.get_run(run)).unwrap().into_inner();
        let received = &told.steps[0].received;
        assert!(received.iter().all(|one| one.state() == pb::LeaseState::Revoked), "{round}");
    }
    // A reply may be lost, but every credential that is handed out is in the journal.
    let written = broker.journaled("resolve").len();
    assert!(given > 60 && written >= given, "{given} given, {written} written");
}

#[test]
fn a_step_that_loops_on_denials_disturbs_nobody_else() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "v0", &["workflow:good"]);
    let (bad, good) = (broker.open("bad", "s"), broker.open("good", "s"));
    let is_over = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let asking = resolve_on(bad.channel.clone(), request("aws/prod"));
                    let refused = reason(broker.block_on(asking));
                    assert!(
                        ["RESOLVE_DENIED", "TOO_MANY_REQUESTS"].contains(&refused.as_str()),
                        "{refused}"
                    );
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for version in 1..=100 {
            let secret = format!("v{version}");
            let change = [("secret_access_key", secret.as_str())];
            broker.apply(vec![connection_document("aws/prod", &change, vec![])]).unwrap();
            let got = broker.resolve(&good, "aws/prod").unwrap();
            assert_eq!(got.fields["secret_access_key"], secret);
        }
        while asked.load(Ordering::SeqCst) < 1000 {
            std::thread::yield_now();
        }
        is_over.store(true, Ordering::SeqCst);
    });
    // Refusals have a rate and are only counted beyond it, so they cannot fill a disk.
    let limits = Limits::default();
    let denied = broker.journaled("resolve").into_iter();
    let denied = denied.filter(|line| line["principal"] == "workflow:bad/step:s").count();
    assert!(denied <= limits.step_refusal_burst as usize, "{denied}");
}
