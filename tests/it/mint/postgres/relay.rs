//! A machine between the broker and its server, which notes what the broker sends.

use std::net::Ipv4Addr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::harness::{Postgres, block_on, tls_for};

/// The message that asks for TLS.
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A stream of bytes.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A relay to a server.
pub struct Relay {
    pub port: u16,
    /// The issuer of its certificate; empty without TLS.
    pub ca_pem: String,
    sent: Arc<Mutex<Vec<u8>>>,
}

/// The ways of a relay.
struct Ways {
    /// TLS with the broker.
    acceptor: Option<TlsAcceptor>,
    /// TLS with the server.
    connector: Option<TlsConnector>,
    server: u16,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Relay {
    /// A relay whose certificate is for these hosts; without TLS if there are none. It reaches the server without TLS, as
    /// poolers and hosts of databases do.
    pub fn start(hosts: &[&str], postgres: &Postgres) -> Self {
        Self::with_connector(hosts, postgres, None)
    }

    /// The same with TLS to the server.
    pub fn start_to_tls(hosts: &[&str], postgres: &Postgres) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        let issuer = CertificateDer::from_pem_slice(postgres.ca_pem.as_bytes()).unwrap();
        roots.add(issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self::with_connector(hosts, postgres, Some(TlsConnector::from(Arc::new(config))))
    }

    fn with_connector(
        hosts: &[&str],
        postgres: &Postgres,
        connector: Option<TlsConnector>,
    ) -> Self {
        let (acceptor, ca_pem) = match hosts {
            [] => (None, String::new()),
            hosts => {
                let (config, ca_pem) = tls_for(hosts);
                (Some(TlsAcceptor::from(config)), ca_pem)
            }
        };
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let sent = Arc::<Mutex<Vec<u8>>>::default();
        let ways = Ways { acceptor, connector, server: postgres.port, sent: Arc::clone(&sent) };
        std::thread::spawn(move || {
            block_on(async move {
                let (listener, ways) = (TcpListener::from_std(listener).unwrap(), Arc::new(ways));
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(relay(stream, Arc::clone(&ways)));
                }
            });
        });
        Self { port, ca_pem, sent }
    }

    /// What the broker has sent so far, without TLS.
    pub fn sent(&self) -> Vec<u8> {
        self.sent.lock().clone()
    }
}

/// Passes on one connection, until an end of it is closed.
async fn relay(mut client: TcpStream, ways: Arc<Ways>) {
    let client: Box<dyn Duplex> = match &ways.acceptor {
        None => Box::new(client),
        Some(acceptor) => {
            let mut asked = [0; 8];
            client.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, TLS_REQUEST);
            client.write_all(b"S").await.unwrap();
            // A broker that refuses the certificate hangs up.
            let Ok(client) = acceptor.accept(client).await else { return };
            Box::new(client)
        }
    };
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, ways.server)).await.unwrap();
    let server: Box<dyn Duplex> = match &ways.connector {
        None => Box::new(server),
        Some(connector) => {
            server.write_all(&TLS_REQUEST).await.unwrap();
            assert_eq!(server.read_u8().await.unwrap(), b'S');
            let name = ServerName::try_from("127.0.0.1").unwrap();
            Box::new(connector.connect(name, server).await.unwrap())
        }
    };
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    tokio::select! {
        () = pass(from_client, to_server, |bytes| ways.sent.lock().extend_from_slice(bytes)) => {}
        () = pass(from_server, to_client, |_| {}) => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    note: impl Fn(&[u8]),
) {
    let mut bytes = vec![0; 8192];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        note(&bytes[..count]);
        if to.write_all(&bytes[..count]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}
