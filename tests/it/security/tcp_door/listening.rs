//! Starting the listener: its address, its names and the daemon's certificate.

use std::net::{Ipv4Addr, TcpListener};

use keyhatch::config::AdminListen;
use keyhatch::grpc::pb;
use keyhatch::model::{HostName, Limits};

use crate::harness::{TestBroker, assert_says, init_dir, keyhatch_in, text};

fn hosts(names: &[&str]) -> Vec<HostName> {
    names.iter().map(|name| HostName::parse(name).unwrap()).collect()
}

#[test]
fn an_address_that_cannot_be_bound_is_named_with_a_way_out() {
    let mut broker = TestBroker::start();
    broker.stop();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let in_use = taken.local_addr().unwrap();
    for (address, told) in [
        (in_use, ["another program listens at that port", "--admin-listen"]),
        ("192.0.2.1:7443".parse().unwrap(), ["this host has no such address", "ip address"]),
    ] {
        let hosts = hosts(&["localhost"]);
        broker.config.admin_listen = Some(AdminListen { address, hosts });
        let refusal = broker.refusal();
        assert_says(&refusal, &told);
        assert_says(&refusal, &[&address.to_string()]);
    }
}

#[test]
fn address_and_name_go_together_and_are_checked() {
    let directory = init_dir();
    let serve = |arguments: &[&str]| {
        let refused = keyhatch_in(directory.path(), &[&["serve"], arguments].concat());
        let refused = { refused }.output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        text(&refused.stderr)
    };
    let (listen, name) = (["--admin-listen", "127.0.0.1:7443"], ["--admin-name", "localhost"]);
    assert_says(&serve(&listen), &["go together"]);
    assert_says(&serve(&name), &["go together"]);
    for address in ["7443", "localhost:7443", "127.0.0.1", "[::1]"] {
        let told = serve(&[&["--admin-listen", address][..], &name].concat());
        assert_says(&told, &["--admin-listen", address]);
    }
    for host in ["broker.example.com:7443", "*.example.com", "", "a b"] {
        let told = serve(&[&listen[..], &["--admin-name", host]].concat());
        assert_says(&told, &["--admin-name"]);
    }
}

#[test]
fn a_new_name_gets_into_the_daemons_certificate() {
    let mut broker = TestBroker::start_with_tcp(Limits::default());
    let before = std::fs::read(broker.config.state.join("broker/tls.crt")).unwrap();
    broker.restart();
    let certificate = || std::fs::read(broker.config.state.join("broker/tls.crt")).unwrap();
    assert_eq!(certificate(), before, "the same names need no other certificate");
    let mut config = broker.config.admin_listen.clone().unwrap();
    config.hosts = hosts(&["127.0.0.1", "broker.example.com"]);
    broker.config.admin_listen = Some(config);
    broker.restart();
    let after = std::fs::read(broker.config.state.join("broker/tls.crt")).unwrap();
    assert_ne!(after, before);
    assert_eq!(broker.tcp().address.host.to_string(), "127.0.0.1");
    let far = broker.enroll_remote("far", pb::Role::Viewer);
    broker.list_connections(&broker.connect_tcp(far).unwrap()).unwrap();
    // A daemon without the listener keeps that certificate, and serves nobody over TCP.
    broker.config.admin_listen = None;
    broker.restart();
    broker.list_connections(&broker.operator()).unwrap();
    let mut client = pb::system_service_client::SystemServiceClient::new(broker.operator());
    let status = broker.block_on(client.get_status(pb::GetStatusRequest {})).unwrap().into_inner();
    assert_eq!((status.tcp_listen_address.as_str(), status.remote_operators), ("", 1));
}
