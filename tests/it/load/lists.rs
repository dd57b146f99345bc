//! Lists of many connections, filtered and ordered, while a step resolves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_request::Document;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::model::Limits;
use tonic::transport::Channel;

use crate::harness::{TestBroker, bytes, report, resolver, scale};

/// Rounds of each list.
const ROUNDS: usize = 5;
/// The resolves whose times are compared.
const RESOLVES: usize = 300;

/// Every order, and filters of every kind, with how many of 100 connections each admits.
const LISTS: [(&str, &str, usize); 14] = [
    ("", "name", 100),
    ("", "name desc", 100),
    ("", "create_time", 100),
    ("", "update_time desc", 100),
    ("", "expire_time", 100),
    ("", "last_use_time desc", 100),
    ("kind = other", "name", 0),
    ("tags.n : 7", "update_time desc", 19),
    ("text : C0", "name", 100),
    ("text : nowhere", "last_use_time", 0),
    ("labels.team = web", "name", 50),
    ("principal = workflow:w", "name", 100),
    ("group = g", "name", 0),
    ("stale = true", "name", 0),
];

fn seed(broker: &TestBroker, count: usize) {
    let document = |number: usize| {
        let team = if number.is_multiple_of(2) { "web" } else { "db" };
        Document::Connection(pb::ConnectionDocument {
            integration: "generic".to_owned(),
            name: format!("c{number:06}"),
            fields: bytes(&[("token", "hush")]),
            tags: vec![format!("n:{}", number % 100), "env:prod".to_owned()],
            labels: [("team".to_owned(), team.to_owned())].into(),
            access: resolver(&["workflow:*"]),
            ..Default::default()
        })
    };
    for first in (0..count).step_by(10_000) {
        broker.apply((first..count.min(first + 10_000)).map(document).collect()).unwrap();
    }
}

fn request(filter: &str, order_by: &str) -> pb::ListConnectionsRequest {
    let (filter, order_by) = (filter.to_owned(), order_by.to_owned());
    pb::ListConnectionsRequest { filter, order_by, page_size: 50, ..Default::default() }
}

/// A moment, for a latency.
#[expect(clippy::disallowed_methods, reason = "a latency is by the real time")]
fn now() -> Instant {
    Instant::now()
}

/// The middle and the last but a hundredth of the times of resolves, in milliseconds.
fn resolves(broker: &TestBroker, step: &crate::harness::TestStep) -> (f64, f64) {
    let one = |_| {
        let begin = now();
        broker.resolve(step, "generic/c000001").unwrap();
        begin.elapsed()
    };
    let mut times: Vec<Duration> = (0..RESOLVES).map(one).collect();
    times.sort_unstable();
    let millis = |at: usize| times[at].as_secs_f64() * 1000.0;
    (millis(RESOLVES / 2), millis(RESOLVES - RESOLVES / 100))
}

/// The times of resolves while eight clients list without a pause.
fn resolves_beside_lists(
    broker: &TestBroker,
    step: &crate::harness::TestStep,
    client: &ConnectionServiceClient<Channel>,
) -> (f64, f64) {
    let is_over = Arc::new(AtomicBool::new(false));
    let lists: Vec<_> = (0..8)
        .map(|number| {
            let (mut client, is_over) = (client.clone(), Arc::clone(&is_over));
            broker.spawn(async move {
                let (filter, order_by, _) = LISTS[number % LISTS.len()];
                while !is_over.load(Ordering::Relaxed) {
                    client.list_connections(request(filter, order_by)).await.unwrap();
                }
            })
        })
        .collect();
    let beside = resolves(broker, step);
    is_over.store(true, Ordering::Relaxed);
    lists.into_iter().for_each(|list| broker.block_on(list).unwrap());
    beside
}

#[test]
fn every_order_and_filter_lists_many_connections_right() {
    let count = scale(1000, 100_000);
    let many = 1_000_000;
    let limits = Limits {
        step_request_burst: many,
        executor_decision_burst: many,
        admin_request_burst: many,
        ..Limits::default()
    };
    let broker = TestBroker::start_with(limits);
    seed(&broker, count);
    let step = broker.open("w", "s");
    let alone = resolves(&broker, &step);
    let mut client = ConnectionServiceClient::new(broker.operator());
    for (filter, order_by, of_100) in LISTS {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let begin = now();
            let page = broker.block_on(client.list_connections(request(filter, order_by)));
            let page = page.unwrap().into_inner();
            times.push(begin.elapsed());
            let expected = count / 100 * of_100;
            let total = usize::try_from(page.total_size).unwrap();
            let is_right = match page.total_size_estimated {
                false => total == expected,
                true => expected > 10_000 && total > 10_000,
            };
            assert!(is_right, "{filter} {order_by}: {total}, not {expected}");
            assert_eq!(page.connections.len(), expected.min(50), "{filter} {order_by}");
        }
        times.sort_unstable();
        let middle = times[ROUNDS / 2].as_secs_f64() * 1000.0;
        let (first, last) =
            (times[0].as_secs_f64() * 1000.0, times[ROUNDS - 1].as_secs_f64() * 1000.0);
        let what = format!("first page of 50 by {filter:?} in the order {order_by:?}");
        report(&what, count, format!("{middle:.1} ms ({first:.1} to {last:.1})"), "");
    }
    let beside = resolves_beside_lists(&broker, &step, &client);
    let told = |(middle, slow): (f64, f64)| format!("p50 {middle:.2} ms, p99 {slow:.2} ms");
    report("resolves beside eight lists without a pause", RESOLVES, told(beside), told(alone));
}
