//! What the log and the journal tell of clients over TCP.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};

use keyhatch::daemon::{ReissueOptions, reissue_admin};
use keyhatch::grpc::pb;
use keyhatch::identity::{BrokerAddress, connect_heard};
use keyhatch::model::Limits;
use keyhatch::seal::Unlock;
use serde_json::json;
use tonic::codegen::http::Request;

use crate::harness::raw::{Raw, framed};
use crate::harness::{ServeProcess, TestBroker, assert_says, init_dir, keyhatch_in, wait_until};

#[test]
fn a_login_over_tcp_is_a_line_with_its_address() {
    let broker = TestBroker::start_with_tcp(Limits::default());
    let [far, other] =
        ["far", "other"].map(|name| broker.enroll_remote(name, pb::Role::Administrator));
    let log_in = |identity| {
        let address = BrokerAddress::Remote(broker.tcp());
        drop(broker.block_on(connect_heard(address, identity)).unwrap());
    };
    let lines = || {
        let lines = broker.journaled("logged_in").into_iter();
        lines.map(|line| json!([line["principal"], line["address"]])).collect::<Vec<_>>()
    };
    for identity in [&far, &far, &other, &far] {
        log_in(identity);
    }
    let [by_far, by_other] =
        ["operator:far", "operator:other"].map(|name| json!([name, "127.0.0.1"]));
    assert_eq!(lines(), [by_far.clone(), by_other.clone()], "a command's next connection has none");
    broker.advance(60);
    log_in(&far);
    assert_eq!(lines(), [by_far.clone(), by_other, by_far]);
}

#[test]
fn a_login_that_gets_no_line_does_not_happen() {
    let limits =
        Limits { admin_refusals_per_second: 1, admin_refusal_burst: 1, ..Limits::default() };
    let broker = TestBroker::start_with_tcp(limits);
    let far = broker.enroll_remote("far", pb::Role::Viewer);
    let socket = broker.config.runtime.join("admin.sock");
    let near = broker.block_on(Raw::connect(&socket, &far, 65_535));
    let request = Request::post("https://localhost/keyhatch.v1.OperatorService/DeleteOperator")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let name = "operators/admin".to_owned();
    let message = framed(&pb::DeleteOperatorRequest { name, ..Default::default() });
    broker.block_on(near.ask(request, Some(message))).unwrap();
    assert_eq!(broker.journaled("admin_refused").len(), 1, "its only line");
    let is_let_in = || {
        let address = BrokerAddress::Remote(broker.tcp());
        broker.block_on(connect_heard(address, &far)).is_ok()
    };
    assert!(!is_let_in() && broker.journaled("logged_in").is_empty());
    broker.advance(1);
    assert!(is_let_in());
    assert_eq!(broker.journaled("logged_in").len(), 1);
}

#[test]
fn a_reissued_administrator_is_told_to_be_off_tcp() {
    let mut broker = TestBroker::start_with_tcp(Limits::default());
    broker.set_remote("admin", true).unwrap();
    broker.stop();
    reissue_admin(&ReissueOptions {
        state: broker.config.state.clone(),
        shared_parents: Vec::new(),
        unlock: Unlock::default(),
        runtime: broker.config.runtime.clone(),
        clock: broker.clock.clone(),
    })
    .unwrap();
    broker.serve();
    let noted = broker.journaled("intent").pop().unwrap().to_string();
    assert_says(&noted, &["operator.reissue", "\"remote=false\""]);
}

/// A ClientHello that names this server.
fn hello(server: &str) -> Vec<u8> {
    fn sized(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }
    let extension = |kind: u8, body: &[u8]| [&[0, kind], &*sized(body)].concat();
    let name = [&[0], &*sized(server.as_bytes())].concat();
    let extensions = [
        extension(0, &sized(&name)),
        extension(10, &sized(&[0, 29])),
        extension(13, &sized(&[4, 3])),
        extension(43, &[2, 3, 4]),
    ];
    let random = [0; 32];
    let suites = sized(&[0x13, 1]);
    let body =
        [&[3, 3], &random[..], &[0], &suites, &[1, 0], &sized(&extensions.concat())].concat();
    [&[0x16, 3, 1], &*sized(&[&[1, 0], &*sized(&body)].concat())].concat()
}

#[test]
fn strangers_are_logged_with_their_address_on_their_own_thread() {
    let directory = init_dir();
    let serve = ["serve", "--admin-listen", "127.0.0.1:0", "--admin-name", "localhost"];
    let serving = ServeProcess::spawn(directory.path(), keyhatch_in(directory.path(), &serve));
    let log = serving.log();
    let (_, port) = log.split_once("127.0.0.1:").unwrap();
    let port: String = port.chars().take_while(char::is_ascii_digit).collect();
    for (sent, told) in [(hello("not/a/host"), "grpc.default_authority"), (vec![0; 9], "refused")] {
        let mut stranger =
            TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse().unwrap())).unwrap();
        stranger.write_all(&sent).unwrap();
        let from = format!("peer.address={}", stranger.local_addr().unwrap());
        let is_told = |line: &str| line.contains(told) && line.contains(&from);
        wait_until("the refusal is logged", || serving.log().lines().any(is_told));
    }
    let tasks = format!("/proc/{}/task", serving.pid().as_raw_nonzero());
    let names = std::fs::read_dir(tasks)
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    assert_eq!(names.filter(|name| name.starts_with("tcp-door")).count(), 1);
}
