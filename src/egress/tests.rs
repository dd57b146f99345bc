//! Names whose addresses change between the look-up and the next.

use std::net::{IpAddr, Ipv4Addr};

use tokio::net::TcpListener;

use super::names::tests::{NameServer, Script};
use super::*;
use crate::model::Value;

const ALLOWED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Asks for a name by rules that allow [`ALLOWED`] only.
async fn ask(server: &NameServer, url: &str) -> String {
    let allow = vec![ALLOWED.to_string()];
    let rules = EgressTable { allow, ..EgressTable::default() }.rules().unwrap();
    let dialler = Dialler::new(rules, server.resolver());
    let egress = Egress { dialler, tls: Tls::default(), pool: Arc::default() };
    let request = Request {
        method: "GET",
        url: Value::new(url.into()),
        headers: Vec::new(),
        body: Value::new(Vec::new()),
        // Another test's issuer: no handshake succeeds.
        ca_certificate: Some(include_bytes!("../../tests/fixtures/formats/3/ca.crt").to_vec()),
        is_private_denied: false,
        max_reply_bytes: MAX_REPLY_BYTES,
    };
    egress.exchange(request).await.err().map(|error| error.to_string()).unwrap_or_default()
}

/// A port with a listener at both addresses. Each connection is closed at once.
async fn listeners() -> (u16, [TcpListener; 2]) {
    let allowed = TcpListener::bind((ALLOWED, 0)).await.unwrap();
    let port = allowed.local_addr().unwrap().port();
    (port, [allowed, TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap()])
}

/// The connections that wait at a listener.
async fn waiting(listener: &TcpListener) -> usize {
    let accept =
        |count| async move { tokio::time::timeout(std::time::Duration::ZERO, count).await };
    let mut count = 0;
    while accept(listener.accept()).await.is_ok() {
        count += 1;
    }
    count
}

#[tokio::test]
async fn the_address_that_was_checked_is_the_one_dialled() {
    // Every second question after the first two is answered with an address that is denied.
    let server = NameServer::start(|_, count| {
        Script::Says(vec![if count < 2 { "127.0.0.2" } else { "127.0.0.1" }])
    })
    .await;
    let (port, [allowed, denied]) = listeners().await;
    let url = format!("https://rebind.example:{port}/");
    let first = tokio::spawn({
        let url = url.clone();
        async move { (ask(&server, &url).await, server) }
    });
    drop(allowed.accept().await.unwrap());
    let (told, server) = first.await.unwrap();
    assert!(told.starts_with("rebind.example:") && !told.contains("address"), "{told}");
    // One look-up for both families, and no other before the handshake.
    assert_eq!(server.asked(), 2);
    let told = ask(&server, &url).await;
    assert!(told.contains("it is a loopback, link-local, metadata or multicast address"), "{told}");
    assert_eq!((waiting(&allowed).await, waiting(&denied).await), (0, 0));
}

#[tokio::test]
async fn of_many_addresses_only_allowed_ones_are_dialled() {
    let server = NameServer::start(|_, _| {
        Script::Says(vec!["127.0.0.1", "::1", "169.254.169.254", "::ffff:127.0.0.1", "127.0.0.2"])
    })
    .await;
    let (port, [allowed, denied]) = listeners().await;
    let url = format!("https://many.example:{port}/");
    let asking = tokio::spawn(async move { ask(&server, &url).await });
    drop(allowed.accept().await.unwrap());
    let told = asking.await.unwrap();
    assert!(told.starts_with("many.example:") && !told.contains("address"), "{told}");
    assert_eq!(waiting(&denied).await, 0);
}

#[test]
fn a_closed_unit_is_told_from_an_upstream_that_is_away() {
    let at = HostAndPort { host: Host::Address(IpAddr::from(ALLOWED)), port: 443 };
    let told = |errno: rustix::io::Errno| EgressError::of_system(&at, &errno.into()).to_string();
    let closed = told(rustix::io::Errno::PERM);
    assert!(closed.contains("its unit is closed") && closed.contains("--network"), "{closed}");
    assert_eq!(
        told(rustix::io::Errno::CONNREFUSED),
        "127.0.0.2:443: Connection refused (os error 111)"
    );
    // This process has IPv4, so that only IPv6 is missing.
    assert_eq!(told(rustix::io::Errno::AFNOSUPPORT), "127.0.0.2:443: this host has no IPv6");
}
