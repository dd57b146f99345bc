//! The client side of a door, for the CLI and the tests.

use std::io::ErrorKind::WouldBlock;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error as RustlsError, RootCertStore,
};
use tokio::io::AsyncBufReadExt as _;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::accept::certificate_check::CertificateRefusal;
use super::tls::{TlsError, certificates, private_key, provider};
use crate::model::Timestamp;

/// How long a client retries while a socket's queue is full, and the pauses between its tries.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// How long the broker may send nothing after the handshake. A broker that is silent for longer hangs.
const MAX_SILENCE: Duration = Duration::from_secs(10);

/// A TLS connection to a door.
pub type TlsClientStream = tokio_rustls::client::TlsStream<UnixStream>;

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
        _ => return error.into(),
    };
    ConnectError::Rejected(refusal)
}

impl ClientIdentity {
    fn config(&self) -> Result<ClientConfig, TlsError> {
        let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
        let mut roots = RootCertStore::empty();
        for root in certificates(&self.ca_pem)? {
            roots.add(root).map_err(setup)?;
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup)?
            .with_root_certificates(roots);
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

/// Connects to a socket. Linux returns EAGAIN while the queue of a Unix socket is full, which is seldom for long.
async fn reach(socket: &Path) -> std::io::Result<UnixStream> {
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

/// Connects to the door behind a Unix socket.
///
/// # Errors
/// If the socket cannot be reached or the handshake fails.
pub async fn connect(
    socket: &Path,
    identity: &ClientIdentity,
) -> Result<TlsClientStream, ConnectError> {
    let connector = TlsConnector::from(Arc::new(identity.config()?));
    let stream = reach(socket).await?;
    let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
    connector.connect(name, stream).await.map_err(cause)
}

/// Connects, and waits for the broker's first bytes. Only then a client of TLS 1.3 knows that it was accepted.
///
/// # Errors
/// As [`connect`], and if the certificate is not accepted; `TimedOut` after ten seconds of silence.
pub async fn connect_heard(
    socket: &Path,
    identity: &ClientIdentity,
) -> Result<TlsClientStream, ConnectError> {
    let heard = tokio::time::timeout(MAX_SILENCE, connect_and_wait(socket, identity)).await;
    heard.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}

async fn connect_and_wait(
    socket: &Path,
    identity: &ClientIdentity,
) -> Result<TlsClientStream, ConnectError> {
    let mut stream = connect(socket, identity).await?;
    match stream.fill_buf().await {
        Ok([]) => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
        Ok(_) => Ok(stream),
        Err(error) => Err(cause(error)),
    }
}
