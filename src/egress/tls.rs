//! TLS to upstreams, by rustls.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, Error as RustlsError, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::EgressError;
use super::destination::{Host, HostAndPort};

/// A connection to an upstream.
pub(super) enum Stream {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

/// The settings of TLS. The system's roots are read at the first use, and kept.
#[derive(Default)]
pub(super) struct Tls(Mutex<Option<Arc<ClientConfig>>>);

impl Tls {
    /// Makes the handshake. `ca_certificate` (PEM) replaces the system's roots.
    ///
    /// # Errors
    /// If there are no roots, or the upstream's certificate or TLS cannot be accepted.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        at: &HostAndPort,
        ca_certificate: Option<&[u8]>,
    ) -> Result<Stream, EgressError> {
        let settings = match ca_certificate {
            Some(pem) => settings(given_roots(pem)?)?,
            None => self.settings()?,
        };
        let name = match &at.host {
            Host::Address(address) => ServerName::from(*address),
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| {
                EgressError::Malformed(format!("{at}: no certificate can have this name"))
            })?,
        };
        let secured = TlsConnector::from(settings).connect(name, stream).await;
        let stream = secured.map_err(|error| of_handshake(at, &error))?;
        Ok(Stream::Secure(Box::new(stream)))
    }

    fn settings(&self) -> Result<Arc<ClientConfig>, EgressError> {
        let mut kept = self.0.lock();
        if let Some(settings) = &*kept {
            return Ok(Arc::clone(settings));
        }
        let roots = system_roots();
        if roots.is_empty() {
            return Err(EgressError::Unavailable(NO_ROOTS.to_owned()));
        }
        let made = settings(roots)?;
        *kept = Some(Arc::clone(&made));
        Ok(made)
    }
}

const NO_ROOTS: &str = "this system has no root certificates; install its package ca-certificates, or give the connection \
                        a ca_certificate";

/// The roots of this system, by the variables `SSL_CERT_FILE` and `SSL_CERT_DIR` or from the usual files. Empty if there are
/// none.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn given_roots(pem: &[u8]) -> Result<RootCertStore, EgressError> {
    let malformed = |fault: &str| EgressError::Malformed(format!("ca_certificate {fault}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| malformed("cannot be read as PEM"))?;
        roots.add(certificate).map_err(|_| malformed("has a certificate that cannot be read"))?;
    }
    if roots.is_empty() { Err(malformed("has no certificate")) } else { Ok(roots) }
}

fn settings(roots: RootCertStore) -> Result<Arc<ClientConfig>, EgressError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|_| EgressError::Unavailable("TLS cannot be set up".to_owned()))?;
    let mut settings = builder.with_root_certificates(roots).with_no_client_auth();
    settings.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Connections are few, and each is verified.
    settings.resumption = Resumption::disabled();
    Ok(Arc::new(settings))
}

/// Why a handshake failed. rustls quotes names of the certificate, so its own words are not passed on.
fn of_handshake(at: &HostAndPort, error: &std::io::Error) -> EgressError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>());
    let fault = match inner {
        None => return EgressError::of_system(at, error),
        Some(RustlsError::InvalidCertificate(error)) => match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate has no trusted issuer; give the issuer as the connection's ca_certificate"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; compare this host's clock"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another host"
            }
            _ => "its certificate is refused",
        },
        Some(RustlsError::AlertReceived(_)) => "it refuses the TLS handshake",
        Some(RustlsError::PeerIncompatible(_)) => "it does not speak TLS 1.2 or 1.3",
        Some(_) => "it does not speak TLS",
    };
    EgressError::unavailable(at, fault)
}
