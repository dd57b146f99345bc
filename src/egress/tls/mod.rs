//! TLS to upstreams, by rustls.

mod any_name;
mod stream;

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, Error as RustlsError, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use self::any_name::AnyName;
pub use self::stream::SecureStream;
use super::EgressError;
use super::destination::{Host, HostAndPort};
use crate::model::Value;

/// The certificate with which the broker meets an upstream, and its key, PEM.
pub struct ClientIdentity {
    /// The certificate, with the rest of its chain.
    pub certificate: Value,
    /// The key.
    pub private_key: Value,
}

/// How the server of a protocol is met.
pub struct Handshake<'a> {
    /// The protocol's name in TLS (ALPN).
    pub protocol: &'static [u8],
    /// Certificates, PEM, that replace the system's roots.
    pub ca_certificate: Option<&'a [u8]>,
    /// True if the certificate may be for any host.
    pub is_any_name: bool,
    /// The certificate with which the broker meets the server, if it has one.
    pub identity: Option<&'a ClientIdentity>,
}

/// The settings of TLS. The system's roots are read at the first use, and kept.
#[derive(Default)]
pub(super) struct Tls(Mutex<Option<Arc<RootCertStore>>>);

impl Tls {
    /// Makes the handshake.
    ///
    /// # Errors
    /// If there are no roots, or the upstream's certificate or TLS cannot be accepted.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        at: &HostAndPort,
        how: &Handshake<'_>,
    ) -> Result<SecureStream, EgressError> {
        let roots = match how.ca_certificate {
            Some(pem) => Arc::new(given_roots(pem)?),
            None => self.system_roots()?,
        };
        let name = match &at.host {
            Host::Address(address) => ServerName::from(*address),
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| {
                EgressError::Malformed(format!("{at}: no certificate can have this name"))
            })?,
        };
        let settings = settings(roots, how)?;
        let secured = TlsConnector::from(settings).connect(name, stream).await;
        let stream = secured.map_err(|error| of_handshake(at, &error))?;
        Ok(SecureStream::new(stream))
    }

    fn system_roots(&self) -> Result<Arc<RootCertStore>, EgressError> {
        let mut kept = self.0.lock();
        if let Some(roots) = &*kept {
            return Ok(Arc::clone(roots));
        }
        let roots = Arc::new(system_roots());
        if roots.is_empty() {
            return Err(EgressError::Unavailable(NO_ROOTS.to_owned()));
        }
        *kept = Some(Arc::clone(&roots));
        Ok(roots)
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

/// The chain and the key of a client certificate.
fn client_identity(
    identity: &ClientIdentity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), EgressError> {
    let malformed = |field: &str| EgressError::Malformed(format!("{field} cannot be read as PEM"));
    let chain = CertificateDer::pem_slice_iter(identity.certificate.expose());
    let chain: Result<Vec<_>, _> = chain.collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| malformed("certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(identity.private_key.expose());
    Ok((chain, key.map_err(|_| malformed("private_key"))?))
}

fn settings(
    roots: Arc<RootCertStore>,
    how: &Handshake<'_>,
) -> Result<Arc<ClientConfig>, EgressError> {
    let provider = Arc::new(default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|_| EgressError::Unavailable("TLS cannot be set up".to_owned()))?;
    let builder = match how.is_any_name {
        true => {
            let verifier = Arc::new(AnyName { roots, algorithms });
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        false => builder.with_root_certificates(roots),
    };
    let mut settings = match how.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = client_identity(identity)?;
            let set = builder.with_client_auth_cert(chain, key);
            set.map_err(|_| {
                EgressError::Malformed("private_key is not the key of certificate".to_owned())
            })?
        }
    };
    settings.alpn_protocols = vec![how.protocol.to_vec()];
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
