//! The TLS settings of the doors.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerifier as _};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, NamedGroup, OtherError,
    RootCertStore, ServerConfig, SignatureScheme,
};

use super::accept::certificate_check;
use super::certificate::svid::Svid;
use crate::model::{Clock, HostName, Timestamp, TrustDomain};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Clients would not accept the daemon's certificate.
    #[error("clients would refuse the daemon's certificate: {0}")]
    Certificate(String),
    /// The daemon would not accept the client's certificate.
    #[error("the daemon would refuse the certificate: {0}")]
    Client(String),
    /// A PEM text holds no readable certificate or key.
    #[error("the {0} cannot be read as PEM")]
    Pem(&'static str),
    /// The key does not belong to the certificate, or rustls rejects the settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// The TLS settings of a door. They are swapped as a whole; running handshakes keep the old settings.
pub struct ServerTls(ArcSwap<ServerConfig>);

impl ServerTls {
    /// Builds the settings.
    ///
    /// # Errors
    /// If a certificate or key cannot be used.
    pub fn new(config: &ServerTlsConfig<'_>) -> Result<Self, TlsError> {
        Ok(Self(ArcSwap::new(config.build()?)))
    }

    /// Uses the settings of `other` for every new handshake. Open connections stay.
    pub fn swap(&self, other: &Self) {
        self.0.store(other.settings());
    }

    pub(super) fn settings(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }
}

/// The parts of a door's TLS settings.
pub struct ServerTlsConfig<'a> {
    /// The daemon's chain in PEM, leaf first.
    pub chain_pem: &'a str,
    /// The daemon's private key in PEM.
    pub key_pem: &'a str,
    /// The root that clients trust.
    pub root: &'a CertificateDer<'static>,
    /// The only issuer that this door trusts.
    pub trusted: &'a CertificateDer<'static>,
    /// The trust domain of client identities.
    pub domain: &'a TrustDomain,
    /// The clock for the validity of certificates.
    pub clock: &'a Clock,
    /// The names by which clients reach the daemon over TCP; empty for a Unix socket. Its certificate must have them.
    pub hosts: &'a [HostName],
}

impl ServerTlsConfig<'_> {
    fn build(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let setup = |error: &dyn std::fmt::Display| TlsError::Setup(error.to_string());
        // A recording of a network must stay secret from computers of the future, too.
        let provider = if self.hosts.is_empty() { provider() } else { hybrid_provider() };
        let chain = WebPkiClientVerifier::builder_with_provider(
            store_of(self.trusted)?,
            Arc::clone(&provider),
        );
        let chain = chain.build().map_err(|error| setup(&error))?;
        let verifier = SvidVerifier { chain, domain: self.domain.clone() };
        let certificates = certificates(self.chain_pem)?;
        self.check_own(&certificates)?;
        let key = private_key(self.key_pem)?;
        let certified =
            CertifiedKey::from_der(certificates, key, &provider).map_err(|error| setup(&error))?;
        let time = Arc::new(ClockTime(self.clock.clone()));
        let mut config = ServerConfig::builder_with_details(provider, time)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| setup(&error))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(Http2Only(Arc::new(certified))));
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session skips the verifier, so sessions are never resumed.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }

    /// Checks the daemon's certificate as every client does.
    fn check_own(&self, chain: &[CertificateDer<'_>]) -> Result<(), TlsError> {
        check_daemon(chain, self.root, self.clock.now(), self.hosts)
    }
}

/// Checks a daemon's chain as every client does: for localhost, and for the names by which it is reached over TCP.
///
/// # Errors
/// Why clients would refuse it.
pub(super) fn check_daemon(
    chain: &[CertificateDer<'_>],
    root: &CertificateDer<'static>,
    now: Timestamp,
    hosts: &[HostName],
) -> Result<(), TlsError> {
    let refused = |error: &dyn std::fmt::Display| TlsError::Certificate(error.to_string());
    let verifier = WebPkiServerVerifier::builder_with_provider(store_of(root)?, provider())
        .build()
        .map_err(|error| refused(&error))?;
    let (leaf, issuers) = chain.split_first().ok_or(TlsError::Pem("certificate"))?;
    let now = unix_time(now).ok_or_else(|| refused(&"the clock is before 1970"))?;
    for host in std::iter::once(&HostName::localhost()).chain(hosts) {
        let name = server_name(host).map_err(|error| refused(&error))?;
        let verified = verifier.verify_server_cert(leaf, issuers, &name, &[], now);
        verified.map_err(|error| refused(&format!("{host}: {error}")))?;
    }
    Ok(())
}

/// A host as the name that a server's certificate must have.
pub(super) fn server_name(host: &HostName) -> Result<ServerName<'static>, InvalidDnsNameError> {
    match host {
        HostName::Dns(name) => ServerName::try_from(name.clone()),
        HostName::Ip(address) => Ok(ServerName::from(*address)),
    }
}

/// Checks a client's chain as the doors do.
///
/// # Errors
/// Why the doors would refuse it.
pub(super) fn check_client(
    chain: &[CertificateDer<'_>],
    root: &CertificateDer<'static>,
    now: Timestamp,
) -> Result<(), TlsError> {
    let refused = |error: &dyn std::fmt::Display| TlsError::Client(error.to_string());
    let verifier = WebPkiClientVerifier::builder_with_provider(store_of(root)?, provider());
    let verifier = verifier.build().map_err(|error| refused(&error))?;
    let (leaf, issuers) = chain.split_first().ok_or(TlsError::Pem("certificate"))?;
    let now = unix_time(now).ok_or_else(|| refused(&"the clock is before 1970"))?;
    verifier.verify_client_cert(leaf, issuers, now).map(drop).map_err(|error| refused(&error))
}

fn unix_time(now: Timestamp) -> Option<UnixTime> {
    let seconds = u64::try_from(now.seconds()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

fn store_of(certificate: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).map_err(|error| TlsError::Setup(error.to_string()))?;
    Ok(Arc::new(roots))
}

pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    read.ok().filter(|chain| !chain.is_empty()).ok_or(TlsError::Pem("certificate"))
}

pub(super) fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| TlsError::Pem("private key"))
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

/// The same, with X25519MLKEM768 before all other key exchanges.
pub(super) fn hybrid_provider() -> Arc<CryptoProvider> {
    let mut provider = default_provider();
    provider.kx_groups.sort_by_key(|group| group.name() != NamedGroup::X25519MLKEM768);
    Arc::new(provider)
}

/// The broker's clock as the clock of handshakes.
#[derive(Debug)]
struct ClockTime(Clock);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        unix_time(self.0.now())
    }
}

/// The daemon's certificate, for clients that offer HTTP/2. rustls refuses clients that offer other protocols only. A
/// client that offers no protocol may speak any, and could be made to talk to the broker by somebody else.
#[derive(Debug)]
struct Http2Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Http2Only {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut spoken = hello.alpn()?;
        spoken.any(|protocol| protocol == b"h2").then(|| Arc::clone(&self.0))
    }
}

/// Checks chain, dates and extended key usage by webpki, then the rules of an SVID, then the registry.
#[derive(Debug)]
struct SvidVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    domain: TrustDomain,
}

impl ClientCertVerifier for SvidVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let svid = Svid::parse(end_entity, &self.domain)
            .map_err(|error| CertificateError::Other(OtherError(Arc::new(error))))?;
        certificate_check::check(svid)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
