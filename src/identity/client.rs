//! The client side of a door, for the CLI and the tests.

use std::fmt;
use std::io::ErrorKind::WouldBlock;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError,
    RootCertStore, SignatureScheme,
};
use tokio::io::AsyncBufReadExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::accept::certificate_check::CertificateRefusal;
use super::certificate::svid::Svid;
use super::socket::Socket;
use super::tls::{TlsError, certificates, hybrid_provider, private_key, provider, server_name};
use crate::model::{BrokerId, HostName, HostPort, SpiffeId, Timestamp};

/// How long a client retries while a socket's queue is full, and the pauses between its tries.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// How long the broker may send nothing after the handshake. A broker that is silent for longer hangs.
const MAX_SILENCE: Duration = Duration::from_secs(10);

/// A TLS connection to a door.
pub type TlsClientStream = tokio_rustls::client::TlsStream<Socket>;

/// Where a client finds a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerAddress {
    /// A Unix socket of this host.
    Socket(PathBuf),
    /// A broker's TCP listener.
    Remote(RemoteBroker),
}

/// A broker that is reached over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteBroker {
    /// Its host, which its certificate must name, and its port.
    pub address: HostPort,
    /// Its identity, which its certificate must have, too: other brokers of the CA may have that host's name.
    pub id: BrokerId,
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Remote(broker) => write!(f, "{}", broker.address),
        }
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for BrokerAddress {
    fn from(path: &P) -> Self {
        Self::Socket(path.as_ref().to_owned())
    }
}

/// The identity of a client, and the root that it trusts, as PEM texts.
pub struct ClientIdentity {
    /// The broker's root certificate.
    pub ca_pem: String,
    /// The client's chain, leaf first; empty to offer no certificate.
    pub chain_pem: String,
    /// The client's private key.
    pub key_pem: Zeroizing<String>,
}

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket cannot be reached, or the handshake failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The broker's certificate has expired by the local clock.
    #[error(
        "the broker's certificate has expired: it ended at {at}, and the local clock says {now}"
    )]
    Expired {
        /// The end of the certificate.
        at: Timestamp,
        /// The local time.
        now: Timestamp,
    },
    /// The broker's certificate is not valid yet by the local clock.
    #[error(
        "the broker's certificate is not valid yet: it begins at {at}, and the local clock says {now}"
    )]
    NotYetValid {
        /// The beginning of the certificate.
        at: Timestamp,
        /// The local time.
        now: Timestamp,
    },
    /// The broker's certificate has another name than the host that was asked.
    #[error("the broker's certificate does not name that host")]
    OtherHost,
    /// The certificate is that of another broker of the same CA.
    #[error("the certificate is another broker's")]
    OtherBroker,
    /// The broker does not accept the client's certificate.
    #[error("the broker refuses the certificate: {}", refusal_text(*.0))]
    Rejected(CertificateRefusal),
    /// The identity cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The text of a refusal for the refused client.
fn refusal_text(refusal: CertificateRefusal) -> &'static str {
    match refusal {
        CertificateRefusal::WrongSocket => "it is not for this socket",
        CertificateRefusal::Expired => "it has expired",
        CertificateRefusal::Unknown => "it was removed, replaced or never given out by this broker",
    }
}

impl ConnectError {
    /// The connection error among the causes of an error, if there is one.
    pub fn find_in<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Self> {
        std::iter::successors(Some(error), |error| error.source())
            .find_map(|error| error.downcast_ref())
    }
}

/// The cause of a failed connection: a wrong clock, or the refusal that the broker's alert reports.
fn cause(error: std::io::Error) -> ConnectError {
    let moment =
        |time: UnixTime| Timestamp::from_seconds(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    let refusal = match error.get_ref().and_then(|cause| cause.downcast_ref()) {
        Some(RustlsError::AlertReceived(AlertDescription::AccessDenied)) => {
            CertificateRefusal::WrongSocket
        }
        Some(RustlsError::AlertReceived(AlertDescription::CertificateExpired)) => {
            CertificateRefusal::Expired
        }
        Some(RustlsError::AlertReceived(AlertDescription::CertificateRevoked)) => {
            CertificateRefusal::Unknown
        }
        Some(RustlsError::InvalidCertificate(CertificateError::ExpiredContext {
            time,
            not_after,
        })) => return ConnectError::Expired { at: moment(*not_after), now: moment(*time) },
        Some(RustlsError::InvalidCertificate(CertificateError::NotValidYetContext {
            time,
            not_before,
        })) => return ConnectError::NotYetValid { at: moment(*not_before), now: moment(*time) },
        Some(RustlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => return ConnectError::OtherHost,
        Some(RustlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
            return ConnectError::OtherBroker;
        }
        _ => return error.into(),
    };
    ConnectError::Rejected(refusal)
}

impl ClientIdentity {
    fn config(&self, address: &BrokerAddress) -> Result<ClientConfig, TlsError> {
        let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
        let mut roots = RootCertStore::empty();
        for root in certificates(&self.ca_pem)? {
            roots.add(root).map_err(setup)?;
        }
        let provider = match address {
            BrokerAddress::Socket(_) => provider(),
            BrokerAddress::Remote(_) => hybrid_provider(),
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup)?;
        let builder = match address {
            BrokerAddress::Socket(_) => builder.with_root_certificates(roots),
            BrokerAddress::Remote(RemoteBroker { id, .. }) => {
                let chain = WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
                let chain = chain.build().map_err(|error| TlsError::Setup(error.to_string()))?;
                let verifier = BrokerVerifier { chain, id: id.clone() };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut config = if self.chain_pem.is_empty() {
            builder.with_no_client_auth()
        } else {
            let key = private_key(&self.key_pem)?;
            builder.with_client_auth_cert(certificates(&self.chain_pem)?, key).map_err(setup)?
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

/// Checks chain, dates and the host's name by webpki, then the broker's identity.
#[derive(Debug)]
struct BrokerVerifier {
    chain: Arc<WebPkiServerVerifier>,
    id: BrokerId,
}

impl ServerCertVerifier for BrokerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let verified = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        match Svid::parse(end_entity, &self.id.domain) {
            Ok(Svid { id: SpiffeId::Broker(name), .. }) if name == self.id.name => Ok(verified),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.chain.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.chain.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Connects to an address, without TLS.
async fn reach(address: &BrokerAddress) -> std::io::Result<Socket> {
    match address {
        BrokerAddress::Socket(path) => reach_socket(path).await.map(Socket::from),
        BrokerAddress::Remote(RemoteBroker { address, .. }) => {
            let host = address.host.to_string();
            let stream = TcpStream::connect((host.as_str(), address.port)).await?;
            stream.set_nodelay(true)?;
            Ok(stream.into())
        }
    }
}

/// Connects to a socket. Linux returns EAGAIN while the queue of a Unix socket is full, which is seldom for long.
async fn reach_socket(socket: &Path) -> std::io::Result<UnixStream> {
    let (end, mut pause) = (Instant::now() + QUEUE_TIMEOUT, FIRST_PAUSE);
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == WouldBlock && Instant::now() < end => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            reached => return reached,
        }
    }
}

/// Connects to a door.
///
/// # Errors
/// If the address cannot be reached or the handshake fails.
pub async fn connect(
    address: impl Into<BrokerAddress>,
    identity: &ClientIdentity,
) -> Result<TlsClientStream, ConnectError> {
    let address = address.into();
    let connector = TlsConnector::from(Arc::new(identity.config(&address)?));
    let stream = reach(&address).await?;
    let host = match &address {
        BrokerAddress::Socket(_) => HostName::localhost(),
        BrokerAddress::Remote(broker) => broker.address.host.clone(),
    };
    let name = server_name(&host).map_err(std::io::Error::other)?;
    connector.connect(name, stream).await.map_err(cause)
}

/// Connects, and waits for the broker's first bytes. Only then a client of TLS 1.3 knows that it was accepted.
///
/// # Errors
/// As [`connect`], and if the certificate is not accepted; `TimedOut` after ten seconds of silence.
pub async fn connect_heard(
    address: impl Into<BrokerAddress>,
    identity: &ClientIdentity,
) -> Result<TlsClientStream, ConnectError> {
    let heard = tokio::time::timeout(MAX_SILENCE, connect_and_wait(address.into(), identity)).await;
    heard.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}

async fn connect_and_wait(
    address: BrokerAddress,
    identity: &ClientIdentity,
) -> Result<TlsClientStream, ConnectError> {
    let mut stream = connect(address, identity).await?;
    match stream.fill_buf().await {
        Ok([]) => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
        Ok(_) => Ok(stream),
        Err(error) => Err(cause(error)),
    }
}
