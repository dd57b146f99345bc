//! Certificates that the CA never issues, signed with its own keys.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose as Extended, IsCa, Issuer, KeyPair, KeyUsagePurpose as Usage,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::client::Offer;
use super::world::{Door, World};
use crate::harness::START;

const HOUR_MILLIS: i64 = 3_600_000;
const SUBJECT_ALT_NAME: [u64; 4] = [2, 5, 29, 17];

/// A name of the subject, as bytes. The server must check it.
#[derive(Clone)]
pub enum Name {
    Dns(&'static str),
    Email(&'static str),
    Ip([u8; 4]),
    Uri(Vec<u8>),
}

impl Name {
    /// GeneralName of RFC 5280, 4.2.1.6.
    fn der(&self) -> Vec<u8> {
        match self {
            Self::Email(text) => tagged(0x81, text.as_bytes()),
            Self::Dns(text) => tagged(0x82, text.as_bytes()),
            Self::Uri(bytes) => tagged(0x86, bytes),
            Self::Ip(bytes) => tagged(0x87, bytes),
        }
    }
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut der = vec![tag];
    match content.len() {
        0..128 => der.push(u8::try_from(content.len()).unwrap()),
        _ => {
            der.push(0x80 | u8::try_from(length.len()).unwrap());
            der.extend(length);
        }
    }
    der.extend(content);
    der
}

/// The signer of a certificate.
#[derive(Clone, Copy)]
pub enum Signer {
    /// The issuer that the door trusts.
    Own,
    /// The issuer of the other door.
    OtherDoors,
    Root,
    /// An issuer with the names of the door's issuer and another key.
    Stranger,
    /// The certificate's own key.
    Itself,
}

/// A correct leaf, to be changed.
pub struct Leaf {
    /// One subjectAltName extension for each.
    pub names: Vec<Vec<Name>>,
    pub usages: Vec<Usage>,
    pub extended: Vec<Extended>,
    pub ca: IsCa,
    pub not_before: i64,
    pub not_after: i64,
    pub key: KeyPair,
    pub signer: Signer,
    pub extensions: Vec<CustomExtension>,
}

impl Leaf {
    pub fn of(door: Door) -> Self {
        let uri = format!("spiffe://keyhatch.local/{}", door.path());
        Self {
            names: vec![vec![Name::Uri(uri.into_bytes())]],
            usages: vec![Usage::DigitalSignature],
            extended: vec![Extended::ClientAuth],
            ca: IsCa::ExplicitNoCa,
            not_before: *START - HOUR_MILLIS,
            not_after: *START + HOUR_MILLIS,
            key: KeyPair::generate().unwrap(),
            signer: Signer::Own,
            extensions: Vec::new(),
        }
    }

    pub fn with_id(door: Door, uri: &[u8]) -> Self {
        Self { names: vec![vec![Name::Uri(uri.to_vec())]], ..Self::of(door) }
    }

    pub fn offer(&self, world: &World, door: Door) -> Offer {
        let signer = match self.signer {
            Signer::Own => world.signer(door.issuer(), None),
            Signer::OtherDoors => world.signer(door.other().issuer(), None),
            Signer::Root => world.signer("root", None),
            Signer::Stranger => world.signer(door.issuer(), Some(KeyPair::generate().unwrap())),
            Signer::Itself => return self.offer_of(&self.params().self_signed(&self.key).unwrap()),
        };
        self.signed_by(&signer)
    }

    pub fn signed_by(&self, issuer: &Issuer<'_, KeyPair>) -> Offer {
        self.offer_of(&self.params().signed_by(&self.key, issuer).unwrap())
    }

    fn offer_of(&self, certificate: &rcgen::Certificate) -> Offer {
        Offer::new(vec![certificate.der().clone()], &private_key(&self.key))
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("keyhatch forged leaf");
        params.not_before = moment(self.not_before);
        params.not_after = moment(self.not_after);
        params.key_usages = self.usages.clone();
        params.extended_key_usages = self.extended.clone();
        params.is_ca = self.ca;
        let names = self.names.iter().map(|names| {
            let names: Vec<u8> = names.iter().flat_map(Name::der).collect();
            CustomExtension::from_oid_content(&SUBJECT_ALT_NAME, tagged(0x30, &names))
        });
        params.custom_extensions = names.chain(self.extensions.iter().cloned()).collect();
        params
    }
}

fn moment(millis: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(millis / 1000).unwrap()
}

fn named(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn private_key(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

/// A chain of `depth` issuers below the door's issuer. Returns the last issuer and the certificates, the last first.
pub fn below(
    world: &World,
    door: Door,
    depth: usize,
) -> (Issuer<'static, KeyPair>, Vec<CertificateDer<'static>>) {
    let mut issuer = world.signer(door.issuer(), None);
    let mut certificates = Vec::new();
    for level in 0..depth {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("keyhatch forged issuer {level}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![Usage::KeyCertSign];
        params.not_before = moment(*START - HOUR_MILLIS);
        params.not_after = moment(*START + HOUR_MILLIS);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        certificates.insert(0, certificate.der().clone());
        issuer = Issuer::new(params, key);
    }
    (issuer, certificates)
}
