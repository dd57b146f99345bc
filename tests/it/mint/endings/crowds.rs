//! Many endings at a time, while steps go on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keyhatch::grpc::pb;
use keyhatch::model::Limits;

use crate::harness::{
    TestBroker, TestStep, Upstream, allowing, connection_document, report, request, resolve_on,
    resolver, scale, wait_until,
};
use crate::mint::ROOT;

/// The connections of the upstream, and so the credentials of a step.
const CONNECTIONS: usize = 100;

/// The upstream's answer to a request.
fn ask(port: u16, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned()
}

fn start(upstream: &Upstream) -> TestBroker {
    let limits = Limits {
        step_request_burst: 1_000_000,
        step_requests_per_second: 1_000_000,
        ..Limits::default()
    };
    let mut broker = TestBroker::start_with(limits);
    broker.config.egress = allowing(&[&upstream.origin()]);
    broker.restart();
    let url = |path: &str| format!("{}{path}", upstream.origin());
    let urls = [url("/token"), url("/revoke")];
    let fields = [
        ("token_url", urls[0].as_str()),
        ("revocation_url", urls[1].as_str()),
        ("client_id", "me"),
        ("client_secret", ROOT),
    ];
    let documents = (0..CONNECTIONS)
        .map(|n| connection_document(&format!("oauth2/c{n}"), &fields, resolver(&["workflow:w"])));
    broker.apply(documents.collect()).unwrap();
    broker.create_aws("stored", "secret", &["workflow:w"]);
    broker
}

/// Mints from every connection for a step.
fn mint_all(broker: &TestBroker, step: &TestStep) {
    let all: Vec<_> = (0..CONNECTIONS).map(|n| request(&format!("oauth2/c{n}"))).collect();
    let mut client = pb::step_service_client::StepServiceClient::new(step.channel.clone());
    for requests in all.chunks(32) {
        let requests = requests.to_vec();
        let reply = broker.block_on(client.batch_resolve(pb::BatchResolveRequest { requests }));
        let is_given = |one: &pb::BatchResolveResult| {
            matches!(one.result, Some(pb::batch_resolve_result::Result::Response(_)))
        };
        assert!(reply.unwrap().into_inner().results.iter().all(is_given));
    }
}

/// The 99th percentile of Resolves of a stored connection, in microseconds, until `is_over`.
#[expect(clippy::disallowed_methods, reason = "a latency is by the real time")]
fn resolves_until(broker: &TestBroker, step: &TestStep, is_over: impl Fn() -> bool) -> u128 {
    let mut took = Vec::new();
    while !is_over() || took.len() < 200 {
        let begun = Instant::now();
        broker.block_on(resolve_on(step.channel.clone(), request("aws/stored"))).unwrap();
        took.push(begun.elapsed().as_micros());
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// Asks the upstream as often as the endings will, from this process and without a broker.
fn load(port: u16, count: usize) -> Arc<AtomicBool> {
    let is_over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_over);
    std::thread::spawn(move || {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                std::thread::spawn(move || {
                    for _ in 0..count / 8 {
                        ask(port, "/revoke", "token=nobody");
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        told.store(true, Ordering::Release);
    });
    is_over
}

#[test]
fn a_thousand_endings_are_worked_off_while_steps_go_on() {
    let Some(upstream) = Upstream::crowd() else { return };
    let port = upstream.port();
    let broker = start(&upstream);
    let steps = scale(10, 100);
    let count = steps * CONNECTIONS;
    let opened: Vec<_> = (0..steps).map(|n| broker.open("w", &format!("s{n}"))).collect();
    opened.iter().for_each(|step| mint_all(&broker, step));
    let valid = || ask(port, "/count", "");
    assert!(valid().contains(&format!("\"valid\": {count}")), "{}", valid());
    let works = broker.open("w", "works");
    let is_loaded = load(port, count);
    let control = resolves_until(&broker, &works, || is_loaded.load(Ordering::Acquire));
    ask(port, "/down", "");
    let mut pending = 0;
    for step in &opened {
        let name = step.opened.name.clone();
        let mut request = tonic::Request::new(pb::CloseStepRequest { name, ..Default::default() });
        request.set_timeout(Duration::from_secs(1));
        let mut client = crate::mint::stories::executor_client(&broker);
        let closed = broker.block_on(client.close_step(request)).unwrap().into_inner();
        pending += closed.pending_endings.len();
    }
    assert_eq!(pending, count, "all are listed");
    ask(port, "/up", "");
    broker.advance(301);
    let p99 = resolves_until(&broker, &works, || valid().contains("\"valid\": 0"));
    wait_until("all have their lines", || broker.journaled("ended_upstream").len() == count);
    report("endings worked off, p99 of Resolves (µs)", count, p99, control);
}
