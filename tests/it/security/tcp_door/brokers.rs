//! A client knows the broker that it was told about from any other.

use std::sync::Arc;

use keyhatch::grpc::pb;
use keyhatch::identity::{BrokerAddress, ConnectError, RemoteBroker, connect_heard};
use keyhatch::model::{BrokerId, HostName, HostPort, Id, Limits};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::harness::TestBroker;

/// A server with a certificate of the broker's CA, for this name and this host. It greets whoever connects.
async fn server(broker: &TestBroker, name: &str, host: &str) -> u16 {
    let hosts = [HostName::parse(host).unwrap()];
    let life = std::time::Duration::from_secs(3600);
    let now = broker.clock.now();
    let serial = Id::from_bytes([9; 16]);
    let issued = broker.authority().issue_daemon(name, &hosts, serial, now, life).unwrap();
    let chain = CertificateDer::pem_slice_iter(issued.issued.chain_pem.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.write_all(b"greetings").await;
                let _ = stream.flush().await;
                std::future::pending::<()>().await;
            }
        }
    });
    port
}

#[test]
fn a_certificate_of_another_broker_of_the_ca_is_refused() {
    let broker = TestBroker::start_with_tcp(Limits::default());
    let identity = broker.enroll_remote("far", pb::Role::Viewer);
    let expected = broker.tcp().id;
    assert_eq!(expected.to_string(), "spiffe://keyhatch.local/broker/test");
    let attempt = |name: &'static str, host: &'static str, asked: &BrokerId| {
        broker.block_on(async {
            let port = server(&broker, name, host).await;
            let host = HostName::parse("127.0.0.1").unwrap();
            let address = HostPort { host, port };
            let other = RemoteBroker { address, id: asked.clone() };
            connect_heard(BrokerAddress::Remote(other), &identity).await.map(drop)
        })
    };
    // The control: that server is taken for the broker that it is.
    attempt("test", "127.0.0.1", &expected).unwrap();
    let other = attempt("other", "127.0.0.1", &expected);
    assert!(matches!(other, Err(ConnectError::OtherBroker)), "{other:?}");
    let elsewhere = BrokerId::parse("spiffe://elsewhere.example/broker/test").unwrap();
    let other = attempt("test", "127.0.0.1", &elsewhere);
    assert!(matches!(other, Err(ConnectError::OtherBroker)), "{other:?}");
    let host = attempt("test", "127.0.0.9", &expected);
    assert!(matches!(host, Err(ConnectError::OtherHost)), "{host:?}");
}
