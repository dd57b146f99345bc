//! The built-in CA.
//!
//! ```text
//! root ("keyhatch root")            ca.crt everywhere; issues the daemon's certificate
//! ├── clients ("… operators and executors")   trusted by the admin door
//! └── steps ("… steps")                       trusted by the step door
//! ```
//!
//! Keys are ECDSA P-256, because clients built on BoringSSL refuse Ed25519. All subjects are distinct: OpenSSL and
//! BoringSSL take a leaf with its issuer's subject for a self-signed certificate.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SigningKey as _, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::{Zeroize, Zeroizing};

use super::svid::sha256;
use crate::model::limits::MAX_CLOCK_STEP_BACK;
use crate::model::{HostName, Id, PinnedCertificate, SpiffeId, Timestamp, TrustDomain};

/// How long the root and the issuers are valid. Few deployments last as long.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Why the CA cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate could not be created.
    #[error("a certificate cannot be created: {0}")]
    Issue(#[from] rcgen::Error),
    /// The stored CA is damaged.
    #[error("the CA's keys are damaged; restore the state directory from a backup")]
    Damaged,
    /// A public key or name cannot be part of a certificate.
    #[error("{0} cannot be part of a certificate")]
    Unusable(&'static str),
}

/// The CA with its private keys.
pub struct Authority {
    domain: TrustDomain,
    root: Member,
    clients: Member,
    steps: Member,
}

struct Member {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    expire_time: Timestamp,
}

/// The CA in the form that is sealed.
#[derive(Serialize, Deserialize)]
struct StoredAuthority {
    domain: TrustDomain,
    root: StoredMember,
    clients: StoredMember,
    steps: StoredMember,
}

#[derive(Serialize, Deserialize)]
struct StoredMember {
    certificate: String,
    key: String,
}

impl Drop for StoredMember {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// An issued certificate.
pub struct Issued {
    /// The chain in PEM, leaf first.
    pub chain_pem: String,
    /// The digest and dates that the registry pins.
    pub pinned: PinnedCertificate,
}

/// A certificate with its new private key.
pub struct KeyAndCertificate {
    /// The certificate.
    pub issued: Issued,
    /// The private key, PKCS #8 in PEM.
    pub key_pem: Zeroizing<String>,
    /// The public key, SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
}

impl Authority {
    /// Creates a new CA.
    ///
    /// # Errors
    /// If keys or certificates cannot be created.
    pub fn create(
        domain: TrustDomain,
        serials: [Id; 3],
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let [root_serial, clients_serial, steps_serial] = serials;
        let key = new_key()?;
        let params = authority_params("keyhatch root", root_serial, 1, now);
        let certificate = params.self_signed(&key)?;
        let root = Member::new(certificate.pem(), key)?;
        let issuer = |name, serial| {
            let key = new_key()?;
            let certificate =
                authority_params(name, serial, 0, now).signed_by(&key, &root.issuer)?;
            Member::new(certificate.pem(), key)
        };
        let clients = issuer("keyhatch operators and executors", clients_serial)?;
        let steps = issuer("keyhatch steps", steps_serial)?;
        Ok(Self { domain, root, clients, steps })
    }

    /// The whole CA with its private keys, as bytes to seal.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, AuthorityError> {
        let member = |member: &Member| StoredMember {
            certificate: member.pem.clone(),
            key: member.issuer.key().serialize_pem(),
        };
        let stored = StoredAuthority {
            domain: self.domain.clone(),
            root: member(&self.root),
            clients: member(&self.clients),
            steps: member(&self.steps),
        };
        serde_json::to_vec(&stored).map(Zeroizing::new).map_err(|_| AuthorityError::Damaged)
    }

    /// Reads a CA from its unsealed bytes.
    ///
    /// # Errors
    /// [`AuthorityError::Damaged`] if they do not come from [`Authority::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AuthorityError> {
        let stored: StoredAuthority =
            serde_json::from_slice(bytes).map_err(|_| AuthorityError::Damaged)?;
        let member = |stored: &StoredMember| {
            let key = KeyPair::from_pem(&stored.key).map_err(|_| AuthorityError::Damaged)?;
            Member::new(stored.certificate.clone(), key)
        };
        Ok(Self {
            root: member(&stored.root)?,
            clients: member(&stored.clients)?,
            steps: member(&stored.steps)?,
            domain: stored.domain,
        })
    }

    /// The trust domain.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The first end of root and issuers. Nobody trusts certificates that are issued later.
    pub fn expire_time(&self) -> Timestamp {
        let Self { root, clients, steps, .. } = self;
        root.expire_time.min(clients.expire_time).min(steps.expire_time)
    }

    /// The root certificate in PEM, which clients trust.
    pub fn root_pem(&self) -> &str {
        &self.root.pem
    }

    /// The SHA-256 of the root certificate, which people compare.
    pub fn root_sha256(&self) -> [u8; 32] {
        sha256(&self.root.certificate)
    }

    /// The root certificate, which clients trust.
    pub fn root_certificate(&self) -> &CertificateDer<'static> {
        &self.root.certificate
    }

    /// The issuer that the admin door trusts.
    pub fn clients_certificate(&self) -> &CertificateDer<'static> {
        &self.clients.certificate
    }

    /// The issuer that the step door trusts.
    pub fn steps_certificate(&self) -> &CertificateDer<'static> {
        &self.steps.certificate
    }

    /// Signs a message with the root's key: ECDSA P-256 with SHA-256, in DER. Messages begin with their kind, so none
    /// can be taken for a certificate.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        Ok(self.root.issuer.key().sign(message)?)
    }

    /// Issues a key and certificate for the daemon: `DNS:localhost`, the hosts by which it is reached over TCP, and its
    /// SPIFFE ID, serverAuth only.
    ///
    /// # Errors
    /// If the certificate cannot be created.
    pub fn issue_daemon(
        &self,
        name: &str,
        hosts: &[HostName],
        serial: Id,
        now: Timestamp,
        life: Duration,
    ) -> Result<KeyAndCertificate, AuthorityError> {
        let key = new_key()?;
        let uri = SpiffeId::Broker(name.to_owned()).uri(&self.domain);
        let mut params =
            leaf_params(&format!("keyhatch broker {name}"), &uri, serial, now, now.after(life))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let localhost = HostName::localhost();
        let others = hosts.iter().filter(|host| **host != localhost);
        for host in std::iter::once(&localhost).chain(others) {
            params.subject_alt_names.push(match host {
                HostName::Ip(address) => SanType::IpAddress(*address),
                HostName::Dns(name) => {
                    let name = name.as_str().try_into();
                    SanType::DnsName(name.map_err(|_| AuthorityError::Unusable("a host's name"))?)
                }
            });
        }
        let public_key = key.subject_public_key_info();
        let issued = issue(&params, &public_key, &self.root, now, "")?;
        Ok(KeyAndCertificate { issued, key_pem: Zeroizing::new(key.serialize_pem()), public_key })
    }

    /// Issues a certificate for a client's public key, clientAuth only. Steps have an issuer of their own.
    ///
    /// # Errors
    /// If the public key or the name cannot be part of a certificate.
    pub fn issue_client(
        &self,
        id: &SpiffeId,
        public_key: &[u8],
        serial: Id,
        now: Timestamp,
        not_after: Timestamp,
    ) -> Result<Issued, AuthorityError> {
        let issuer = match id {
            SpiffeId::Executor(_) | SpiffeId::Operator(_) => &self.clients,
            SpiffeId::Step { .. } => &self.steps,
            SpiffeId::Broker(_) => return Err(AuthorityError::Unusable("a broker's name")),
        };
        let common_name = match id {
            SpiffeId::Executor(name) => format!("keyhatch executor {name}"),
            SpiffeId::Operator(name) => format!("keyhatch operator {name}"),
            _ => format!("keyhatch step {serial}"),
        };
        let mut params = leaf_params(&common_name, &id.uri(&self.domain), serial, now, not_after)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        issue(&params, public_key, issuer, now, &issuer.pem)
    }

    /// Issues a certificate as [`Authority::issue_client`] does, for a new key.
    ///
    /// # Errors
    /// As [`Authority::issue_client`].
    pub fn issue_client_with_key(
        &self,
        id: &SpiffeId,
        serial: Id,
        now: Timestamp,
        not_after: Timestamp,
    ) -> Result<KeyAndCertificate, AuthorityError> {
        let key = new_key()?;
        let public_key = key.subject_public_key_info();
        let issued = self.issue_client(id, &public_key, serial, now, not_after)?;
        Ok(KeyAndCertificate { issued, key_pem: Zeroizing::new(key.serialize_pem()), public_key })
    }
}

impl Member {
    fn new(pem: String, key: KeyPair) -> Result<Self, AuthorityError> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| AuthorityError::Damaged)?
            .into_owned();
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        let expire_time = end_of(&certificate)?;
        Ok(Self { certificate, pem, issuer, expire_time })
    }
}

fn end_of(certificate: &[u8]) -> Result<Timestamp, AuthorityError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| AuthorityError::Damaged)?;
    Ok(Timestamp::from_seconds(parsed.validity().not_after.timestamp()))
}

fn issue(
    params: &CertificateParams,
    public_key: &[u8],
    issuer: &Member,
    now: Timestamp,
    issuer_pem: &str,
) -> Result<Issued, AuthorityError> {
    let key = SubjectPublicKeyInfo::from_der(public_key)
        .map_err(|_| AuthorityError::Unusable("the public key"))?;
    let certificate = params.signed_by(&key, &issuer.issuer)?;
    let not_after = Timestamp::from_seconds(params.not_after.unix_timestamp());
    let pinned =
        PinnedCertificate { sha256: sha256(certificate.der()), not_before: now, not_after };
    Ok(Issued { chain_pem: certificate.pem() + issuer_pem, pinned })
}

fn new_key() -> Result<KeyPair, AuthorityError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

fn params(
    common_name: &str,
    serial: Id,
    now: Timestamp,
    not_after: Timestamp,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    // A client whose clock is behind by as much as ours may step back must accept the certificate.
    params.not_before = now.before(MAX_CLOCK_STEP_BACK).to_offset();
    // Certificates have whole seconds. The certificate must not end before the registration does.
    params.not_after = not_after.rounded_up().to_offset();
    params
}

fn authority_params(name: &str, serial: Id, path_length: u8, now: Timestamp) -> CertificateParams {
    // The serial makes the subject distinct from that of every other deployment.
    let common_name = format!("{name} {serial}");
    let mut params = params(&common_name, serial, now, now.after(AUTHORITY_LIFE));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

fn leaf_params(
    common_name: &str,
    uri: &str,
    serial: Id,
    now: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, AuthorityError> {
    // A common name has at most 64 characters (RFC 5280, ub-common-name). Nothing reads an identity from it.
    let common_name: String = common_name.chars().take(64).collect();
    let mut params = params(&common_name, serial, now, not_after);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let uri = uri.try_into().map_err(|_| AuthorityError::Unusable("the SPIFFE ID"))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    Ok(params)
}
