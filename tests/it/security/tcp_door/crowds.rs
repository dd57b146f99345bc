//! Clients that want more than their share: silent handshakes, and many connections of one operator.

use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use keyhatch::grpc::pb;
use keyhatch::identity::{BrokerAddress, ConnectError, connect_heard};
use keyhatch::model::Limits;
use keyhatch::model::limits::{
    MAX_TCP_CONNECTIONS, MAX_TCP_HANDSHAKES, MAX_TCP_HANDSHAKES_OF_NETWORK,
};
use tokio::net::TcpSocket;

use crate::harness::{TestBroker, wait_until};

/// A connection from an address of this host that says nothing.
async fn silent(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.into(), 0)).unwrap();
    socket.connect(to).await.unwrap().into_std().unwrap()
}

/// True if the other side has ended the connection.
fn is_over(mut stream: &TcpStream) -> bool {
    !matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn open(streams: &[TcpStream]) -> usize {
    streams.iter().filter(|stream| !is_over(stream)).count()
}

#[test]
fn silent_handshakes_are_bounded_and_shut_out_nobody() {
    let mut broker = TestBroker::start_with_tcp(Limits::default());
    broker.config.metrics = Some((Ipv4Addr::LOCALHOST, 0).into());
    broker.restart();
    let identity = broker.enroll_remote("far", pb::Role::Viewer);
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), broker.tcp().address.port);
    let crowd = |network: usize, count: usize| -> Vec<_> {
        let from = Ipv4Addr::new(127, 0, 1, u8::try_from(network).unwrap());
        (0..count).map(|_| broker.block_on(silent(from, to))).collect()
    };
    // A silent handshake ends by itself after a while, and counts as slow then.
    let refused = || {
        let labels = [("door", "admin"), ("reason", "TOO_MANY_HANDSHAKES")];
        broker.scrape().get("connections_refused_total", &labels).unwrap_or(0.0)
    };
    // One address gets its eight, whatever it does.
    let greedy = crowd(1, 5 * MAX_TCP_HANDSHAKES_OF_NETWORK);
    wait_until("the ninth is refused", || refused() > 0.0);
    wait_until("all but eight are over", || open(&greedy) <= MAX_TCP_HANDSHAKES_OF_NETWORK);
    // Many addresses together get all slots, and a good client still gets in.
    let (before, mut all) = (refused(), Vec::new());
    let lost = (2..200).find(|network| {
        all.extend(crowd(*network, MAX_TCP_HANDSHAKES_OF_NETWORK));
        let heard = connect_heard(BrokerAddress::Remote(broker.tcp()), &identity);
        broker.block_on(heard).unwrap();
        refused() > before
    });
    assert!(lost.is_some(), "nobody has lost a slot");
    assert!(all.len() >= MAX_TCP_HANDSHAKES / 2, "slots were lost before all were taken");
}

#[test]
fn a_crowd_does_not_shut_out_a_client_of_its_address() {
    let broker = TestBroker::start_with_tcp(Limits::default());
    let identity = broker.enroll_remote("far", pb::Role::Viewer);
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), broker.tcp().address.port);
    let mut crowd: Vec<TcpStream> = Vec::new();
    // The tries are over before a silent handshake reaches its deadline. The crowd takes back what it has lost before each.
    let is_let_in = (0..100).any(|_| {
        std::thread::park_timeout(Duration::from_millis(10));
        crowd.retain(|one| !is_over(one));
        while crowd.len() < MAX_TCP_HANDSHAKES_OF_NETWORK {
            crowd.push(broker.block_on(silent(Ipv4Addr::LOCALHOST, to)));
        }
        let heard = connect_heard(BrokerAddress::Remote(broker.tcp()), &identity);
        broker.block_on(heard).is_ok()
    });
    assert!(is_let_in);
}

#[test]
fn the_rate_of_guests_of_the_socket_is_none_of_tcp() {
    let limits = Limits {
        admin_guest_connections_per_second: 1,
        admin_guest_connection_burst: 1,
        ..Limits::default()
    };
    let broker = TestBroker::start_with_tcp(limits);
    let identity = broker.enroll_remote("far", pb::Role::Viewer);
    let connect = |_| connect_heard(BrokerAddress::Remote(broker.tcp()), &identity);
    let taken: Vec<_> = (0..6).map(|n| broker.block_on(connect(n)).unwrap()).collect();
    drop(taken);
}

#[test]
fn an_operator_has_sixteen_connections_and_no_more() {
    let broker = TestBroker::start_with_tcp(Limits::default());
    let greedy = broker.enroll_remote("greedy", pb::Role::Viewer);
    let modest = broker.enroll_remote("modest", pb::Role::Viewer);
    let address = || BrokerAddress::Remote(broker.tcp());
    let connect = |identity| broker.block_on(connect_heard(address(), identity));
    let mut taken: Vec<_> = (0..MAX_TCP_CONNECTIONS).map(|_| connect(&greedy).unwrap()).collect();
    let refused = connect(&greedy).map(drop);
    assert!(matches!(refused, Err(ConnectError::Io(_))), "{refused:?}");
    drop(connect(&modest).unwrap());
    drop(taken.pop());
    wait_until("a place is free again", || connect(&greedy).is_ok());
}
