//! TLS to upstreams.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use keyhatch::egress::Request;
use rcgen::{CertificateParams, KeyPair};
use rustls::SupportedProtocolVersion;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::{TLS12, TLS13};
use time::{Duration, OffsetDateTime};

use super::{allowing, exchange, get, serve, told};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A server whose certificate is for these hosts and ends after so many days. Returns its port and its issuer.
fn secure(hosts: &[&str], days: i64, version: &'static SupportedProtocolVersion) -> (u16, String) {
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    let now = OffsetDateTime::from_unix_timestamp(*crate::harness::START / 1000).unwrap();
    (params.not_before, params.not_after) = (now - Duration::days(9), now + Duration::days(days));
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let pem = certificate.pem();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        );
    let config = Arc::new(config.unwrap());
    let port = serve(move |stream| {
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        // A client that refuses the certificate sends nothing.
        if stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {
            let _ = stream.write_all(OK);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    (port, pem)
}

fn asked(host: &str, port: u16, ca: Option<&str>) -> Result<u16, String> {
    let ca_certificate = ca.map(|pem| pem.as_bytes().to_vec());
    let request = Request { ca_certificate, ..get(&format!("https://{host}:{port}/hush")) };
    match exchange(allowing(&["127.0.0.1", "localhost"]), request) {
        Ok(reply) => Ok(reply.status),
        error => Err(told(error)),
    }
}

#[test]
fn the_connections_own_issuer_is_trusted_and_no_other() {
    for version in [&TLS12, &TLS13] {
        let (port, ca) = secure(&["127.0.0.1", "localhost"], 9, version);
        assert_eq!(asked("127.0.0.1", port, Some(&ca)), Ok(200));
        assert_eq!(asked("localhost", port, Some(&ca)), Ok(200));
        let told = asked("127.0.0.1", port, None).unwrap_err();
        // A machine without roots says so.
        assert!(
            told.contains("no trusted issuer") || told.contains("no root certificates"),
            "{told}"
        );
        let (_, other) = secure(&["127.0.0.1"], 9, version);
        let told = asked("127.0.0.1", port, Some(&other)).unwrap_err();
        assert!(told.starts_with("unavailable: ") && told.contains("no trusted issuer"), "{told}");
    }
}

#[test]
fn a_certificate_of_another_host_or_time_is_refused() {
    let (port, ca) = secure(&["hush.example"], 9, &TLS13);
    let told = asked("127.0.0.1", port, Some(&ca)).unwrap_err();
    assert_eq!(told, format!("unavailable: 127.0.0.1:{port}: its certificate is for another host"));
    let (port, ca) = secure(&["127.0.0.1"], -1, &TLS13);
    let told = asked("127.0.0.1", port, Some(&ca)).unwrap_err();
    assert_eq!(told, format!("unavailable: 127.0.0.1:{port}: its certificate has expired"));
}

#[test]
fn an_issuer_that_cannot_be_read_is_refused() {
    let (port, ca) = secure(&["127.0.0.1"], 9, &TLS13);
    let key = KeyPair::generate().unwrap().serialize_pem();
    let broken = ca.replace("MII", "AAA");
    for bad in ["", "hush", &key, &broken] {
        let told = asked("127.0.0.1", port, Some(bad)).unwrap_err();
        assert!(told.starts_with("malformed: ca_certificate "), "{bad}: {told}");
    }
}

#[test]
fn a_server_without_tls_is_not_spoken_to_in_clear() {
    let port = serve(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhush");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let told = asked("127.0.0.1", port, None).unwrap_err();
    let expected = [format!("unavailable: 127.0.0.1:{port}: it does not speak TLS"), told.clone()];
    assert!(told == expected[0] || told.contains("no root certificates"), "{told}");
}
