//! A client that reads or sends much keeps nobody from closing, renewing and writing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_service_client::ApplyServiceClient;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use keyhatch::model::Limits;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::raw::{Raw, post};
use crate::harness::{
    TestBroker, connection_document, identity_in, reason, request, secret_document, wait_until,
};

const APPLY: &str = "/keyhatch.v1.ApplyService/Apply";
/// The default flow-control window of a client.
const WINDOW: u32 = 65_535;
/// A door that makes a client wait longer counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

fn status_of(broker: &TestBroker, who: &Channel) -> Result<(), Status> {
    let mut client = SystemServiceClient::new(who.clone());
    broker.block_on(client.get_status(pb::GetStatusRequest {})).map(drop)
}

#[test]
fn a_viewers_lists_keep_no_executor_waiting() {
    const LISTS: usize = 64;
    let broker = TestBroker::start();
    let fields = [("access_key_id", "A"), ("secret_access_key", "s")];
    let document = |number: usize| connection_document(&format!("aws/c{number}"), &fields, vec![]);
    broker.apply((0..1000).map(document).collect()).unwrap();
    let step = broker.open("w", "s");
    let executor = broker.executor();
    let viewer = broker.enroll_identity("viewer", pb::Role::Viewer);
    let channels = [(); 2].map(|()| {
        let identity = keyhatch::identity::ClientIdentity {
            ca_pem: viewer.ca_pem.clone(),
            chain_pem: viewer.chain_pem.clone(),
            key_pem: viewer.key_pem.clone(),
        };
        broker.connect(&broker.config.runtime.join("admin.sock"), identity).unwrap()
    });
    let answered = Arc::new(AtomicUsize::new(0));
    let lists: Vec<_> = (0..LISTS)
        .map(|number| {
            let mut client = ConnectionServiceClient::new(channels[number % 2].clone())
                .max_decoding_message_size(usize::MAX);
            let answered = Arc::clone(&answered);
            broker.spawn(async move {
                let wanted = pb::ListConnectionsRequest { page_size: 1000, ..Default::default() };
                let listed = client.list_connections(wanted).await;
                answered.fetch_add(1, Ordering::SeqCst);
                listed.map(|listed| listed.into_inner().connections.len())
            })
        })
        .collect();
    wait_until("they are under way", || answered.load(Ordering::SeqCst) > 0);
    for _ in 0..20 {
        let name = step.opened.name.clone();
        let mut client = ExecutorServiceClient::new(executor.clone());
        let renew = pb::RenewStepRequest { name, ..Default::default() };
        broker.block_on(client.renew_step(renew)).unwrap();
    }
    let before = answered.load(Ordering::SeqCst);
    assert!(before < LISTS, "all lists were answered before");
    for listed in lists {
        assert_eq!(broker.block_on(listed).unwrap().unwrap(), 1000);
    }
}

#[test]
fn an_identity_has_a_rate_and_closes_beyond_it() {
    let limits =
        Limits { admin_requests_per_second: 1, admin_request_burst: 10, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    let step = broker.open("w", "s");
    let viewer = broker.enroll("viewer", pb::Role::Viewer);
    let told: Vec<_> = (0..12).map(|_| status_of(&broker, &viewer)).collect();
    assert_eq!(told.iter().filter(|told| told.is_ok()).count(), 10);
    let refused = told.into_iter().find_map(Result::err).unwrap();
    assert!(refused.get_error_details().retry_info().is_some(), "{refused:?}");
    assert_eq!(reason::<()>(Err(refused)), "TOO_MANY_REQUESTS");
    // Another connection of the same identity counts as the same.
    let list = || {
        let mut client = ExecutorServiceClient::new(broker.executor());
        broker.block_on(client.list_steps(pb::ListStepsRequest::default())).map(drop)
    };
    wait_until("the executor's is used up, too", || list().is_err());
    assert_eq!(reason(list()), "TOO_MANY_REQUESTS");
    broker.renew(&step).unwrap();
    assert!(broker.close(&step).closed);
    broker.advance(1);
    list().unwrap();
    status_of(&broker, &viewer).unwrap();
}

#[test]
fn few_applies_of_one_wait_for_their_turn() {
    const WAITING: usize = 8;
    let broker = TestBroker::start();
    let socket = broker.config.runtime.join("admin.sock");
    let operator = identity_in(&broker.config.state.join("operators/admin"));
    let raw = broker.block_on(Raw::connect(&socket, &operator, WINDOW));
    let heads = (0..WAITING + 4).map(|_| raw.head(post(APPLY).body(()).unwrap()));
    let heads = broker.block_on(futures_util::future::join_all(heads));
    let (answers, held): (FuturesUnordered<_>, Vec<_>) = heads.into_iter().unzip();
    for head in broker.block_on(answers.take(4).collect::<Vec<_>>()) {
        let head = head.unwrap();
        let status = Status::from_header_map(head.headers()).unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
        assert_eq!(reason::<()>(Err(status)), "OVERLOADED");
    }
    let another = broker.enroll("another", pb::Role::Administrator);
    let apply = |who: &Channel| {
        let document = Some(secret_document("w", "token", "s"));
        let documents = tokio_stream::iter([pb::ApplyRequest { document }]);
        broker.block_on(ApplyServiceClient::new(who.clone()).apply(documents)).map(drop)
    };
    apply(&another).unwrap();
    drop((held, raw));
    wait_until("there is a place again", || apply(&broker.operator()).is_ok());
}

/// A document larger than one identity's own share of a door with a small pool.
fn large_document(name: &str, of: usize) -> pb::ApplyRequest {
    let value = "x".repeat(60 * 1024);
    pb::ApplyRequest { document: Some(secret_document("w", &format!("{name}{of}"), &value)) }
}

#[test]
fn a_large_apply_that_drips_gives_up_its_turn() {
    const LARGE: usize = 20;
    let limits =
        Limits { admin_message_kib: 8, admin_request_seconds: 100_000, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    let (slow, other) = (broker.operator(), broker.enroll("other", pb::Role::Administrator));
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&sent);
    let whole = tokio_stream::iter((0..LARGE).map(|of| large_document("a", of)));
    let drops = futures_util::stream::unfold(0, |number| async move {
        // The pause is the attack: the Apply is never silent and never done.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let document = Some(secret_document("w", &format!("d{number}"), "s"));
        Some((pb::ApplyRequest { document }, number + 1))
    });
    let documents = whole.chain(drops).map(move |document| {
        counting.fetch_add(1, Ordering::SeqCst);
        document
    });
    let dripping =
        broker.spawn(async move { ApplyServiceClient::new(slow).apply(documents).await.map(drop) });
    wait_until("it is dripping", || sent.load(Ordering::SeqCst) > LARGE);
    let whole = tokio_stream::iter((0..LARGE).map(|of| large_document("b", of)));
    let applied = broker.block_on(async {
        tokio::time::timeout(PATIENCE, ApplyServiceClient::new(other).apply(whole)).await
    });
    assert_eq!(applied.unwrap().unwrap().into_inner().results.len(), LARGE);
    let given_up = broker.block_on(dripping).unwrap();
    assert_eq!(reason(given_up), "REQUEST_TOO_SLOW");
}

#[test]
fn batches_of_one_step_wait_for_room() {
    // Rate limits are not the subject here.
    let many = 1_000_000;
    let limits =
        Limits { step_request_burst: many, executor_decision_burst: many, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    let value = "x".repeat(65_000);
    let fields = ["a", "b", "c", "d"].map(|name| (name, value.as_str()));
    broker.create_connection("generic/big", &fields, &["workflow:w"]).unwrap();
    let step = broker.open("w", "s");
    let batch = pb::BatchResolveRequest { requests: vec![request("generic/big"); 8] };
    let ask = || {
        let mut client = StepServiceClient::new(step.channel.clone());
        let batch = batch.clone();
        async move { client.batch_resolve(batch).await.unwrap().into_inner().results }
    };
    let is_given = |result: &pb::BatchResolveResult| {
        matches!(result.result, Some(pb::batch_resolve_result::Result::Response(_)))
    };
    // The wait for the others' room is bounded, so a slow machine needs more than one try.
    wait_until("12 batches of 2 MiB at once are answered", || {
        let answered = broker.block_on(futures_util::future::join_all((0..12).map(|_| ask())));
        answered.iter().flatten().all(is_given)
    });
}
