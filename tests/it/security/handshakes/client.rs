//! A client that offers any certificate and sends any bytes.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;

use super::world::Door;
use crate::harness::{request, resolve_on};

/// An attempt that takes longer hangs. This is far more than the handshake's own deadline.
const FOREVER: Duration = Duration::from_secs(60);

/// A change of the first flight of a client.
pub type Edit = Box<dyn FnOnce(Vec<u8>) -> Vec<u8> + Send>;

/// The identity that a client offers.
pub struct Offer {
    pub chain: Vec<CertificateDer<'static>>,
    pub alpn: Vec<Vec<u8>>,
    pub edit: Option<Edit>,
    certified: Option<Arc<CertifiedKey>>,
}

impl Offer {
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'_>) -> Self {
        let key = any_supported_type(key).unwrap();
        // `from_der` would refuse a key that does not fit the certificate. The server must refuse it.
        let certified = Some(Arc::new(CertifiedKey::new(chain.clone(), key)));
        Self { chain, alpn: vec![b"h2".to_vec()], edit: None, certified }
    }

    pub fn nobody() -> Self {
        Self { chain: Vec::new(), alpn: vec![b"h2".to_vec()], edit: None, certified: None }
    }

    pub fn in_directory(directory: &Path) -> Self {
        Self::with_key_of(directory, directory)
    }

    /// The certificate of one directory, the key of another.
    pub fn with_key_of(certificate: &Path, key: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate.join("tls.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(key.join("tls.key")).unwrap();
        Self::new(chain.map(Result::unwrap).collect(), &key)
    }

    /// Replaces the chain and keeps the key.
    pub fn with_chain(self, chain: Vec<CertificateDer<'static>>) -> Self {
        let key = Arc::clone(&self.certified.as_ref().unwrap().key);
        let certified = Some(Arc::new(CertifiedKey::new(chain.clone(), key)));
        Self { chain, certified, ..self }
    }

    pub fn edited(self, edit: impl FnOnce(Vec<u8>) -> Vec<u8> + Send + 'static) -> Self {
        Self { edit: Some(Box::new(edit)), ..self }
    }

    pub fn speaking(self, protocols: &[&str]) -> Self {
        Self { alpn: protocols.iter().map(|name| name.as_bytes().to_vec()).collect(), ..self }
    }

    fn config(&self, root: CertificateDer<'static>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(root).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.certified {
            None => builder.with_no_client_auth(),
            Some(key) => builder.with_client_cert_resolver(Arc::new(Stubborn(Arc::clone(key)))),
        };
        config.alpn_protocols = self.alpn.clone();
        config
    }
}

/// Offers its certificate despite the server's hints.
#[derive(Debug)]
struct Stubborn(Arc<CertifiedKey>);

impl ResolvesClientCert for Stubborn {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The outcome of an attempt at a door.
#[derive(Debug)]
pub enum Outcome {
    /// The handshake failed, with this message.
    Handshake(String),
    /// The request was refused, for this reason.
    Request(String),
    Served,
}

impl From<Result<(), Status>> for Outcome {
    fn from(outcome: Result<(), Status>) -> Self {
        match outcome {
            Ok(()) => Self::Served,
            Err(status) => match status.get_error_details().error_info() {
                Some(info) => Self::Request(info.reason.clone()),
                // In TLS 1.3 a client learns only with its first read that the server refused it.
                None => Self::Handshake(format!("{:?}: {}", status.code(), status.message())),
            },
        }
    }
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

pub type Stream = TlsStream<Edited>;

/// Connects and makes the handshake, by the client's own view.
pub async fn handshake(
    socket: &Path,
    root: CertificateDer<'static>,
    mut offer: Offer,
) -> io::Result<Stream> {
    let connector = TlsConnector::from(Arc::new(offer.config(root)));
    let inner = UnixStream::connect(socket).await?;
    let edited = Edited { inner, edit: offer.edit.take(), unsent: Vec::new() };
    connector.connect(localhost(), edited).await
}

/// Connects, makes the handshake, and sends a request that this door serves.
pub async fn attempt(
    socket: &Path,
    door: Door,
    root: CertificateDer<'static>,
    offer: Offer,
) -> Outcome {
    let whole = async {
        match handshake(socket, root, offer).await {
            Ok(stream) => ask(door, over(stream)).await,
            Err(error) => Outcome::Handshake(error.to_string()),
        }
    };
    let outcome = tokio::time::timeout(FOREVER, whole).await;
    outcome.unwrap_or_else(|_| panic!("the server says nothing and does not end it"))
}

pub async fn ask(door: Door, channel: Channel) -> Outcome {
    match door {
        Door::Step => resolve_on(channel, request("aws/prod")).await.map(drop).into(),
        Door::Admin => {
            let asked = SystemServiceClient::new(channel).get_status(pb::GetStatusRequest {}).await;
            asked.map(drop).into()
        }
    }
}

/// A channel over this connection alone.
pub fn over(stream: Stream) -> Channel {
    let mut first = Some(stream);
    let connector = tower::service_fn(move |_| {
        let stream = first.take().map(TokioIo::new);
        async move { stream.ok_or_else(|| io::Error::other("the connection was ended")) }
    });
    Endpoint::from_static("https://localhost").connect_with_connector_lazy(connector)
}

/// Sends these bytes. Returns the bytes that arrive until the server ends the connection.
pub async fn send_raw(socket: &Path, sent: &[u8]) -> Vec<u8> {
    let mut said = Vec::new();
    let whole = async {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        // The server may end the connection before it has read everything, which is an answer too.
        let _ = stream.write_all(sent).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut said).await;
    };
    let ended = tokio::time::timeout(FOREVER, whole).await;
    assert!(ended.is_ok(), "the server does not end the connection");
    said
}

/// A ClientHello of our clients, in one record.
pub fn client_hello(root: CertificateDer<'static>) -> Vec<u8> {
    let config = Arc::new(Offer::nobody().config(root));
    let mut connection = ClientConnection::new(config, localhost()).unwrap();
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// A stream that edits the first flight.
pub struct Edited {
    inner: UnixStream,
    edit: Option<Edit>,
    unsent: Vec<u8>,
}

impl Edited {
    /// The socket itself, beneath TLS.
    pub fn inner(&mut self) -> &mut UnixStream {
        &mut self.inner
    }

    fn poll_unsent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.inner).poll_write(context, &self.unsent))?;
            self.unsent.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Edited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The server may answer before it has read everything.
        if let Poll::Ready(Err(error)) = self.poll_unsent(context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Edited {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(edit) = self.edit.take() {
            self.unsent = edit(bytes.to_vec());
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_unsent(context))?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(context))?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
