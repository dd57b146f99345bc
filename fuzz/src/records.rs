//! Targets that read from disks and from TLS: records, journal lines, certificates.

use std::sync::{Arc, LazyLock};

use keyhatch::catalog::load;
use keyhatch::identity::{Svid, check_certificate, check_pair, check_private_key, requested_key};
use keyhatch::journal::write::line::{NO_PREVIOUS, Parts, write};
use keyhatch::journal::{Body, Event};
use keyhatch::model::{Fields, Id, Timestamp, TrustDomain, Value};
use keyhatch::seal::{KeyStore, Keyring, NewKek, RecordKey, RecordKind, Sealed};
use keyhatch::ssh::{AgentRequest, Algorithm, HostKeys, LoginRequest, SigningKey};
use keyhatch::sys::{Directory, Trust};

use super::words::text;

/// Keys that made no input.
static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let home = Directory::open(directory.path(), &Trust::of_process(&[])).unwrap();
    let place = KeyStore::new(Arc::new(home), None, Vec::new());
    let now = Timestamp::from_millis(1_795_298_123_456);
    place.create(&NewKek::File("kek".into()), now).unwrap_or_else(|error| panic!("{error}")).0
});

const UID: Id = Id::from_bytes([7; Id::BYTES]);

fn key(kind: RecordKind) -> RecordKey {
    RecordKey { kind, uid: UID }
}

fn same_fields(one: &Fields, other: &Fields) -> bool {
    one.iter()
        .map(|(name, value)| (name, value.expose()))
        .eq(other.iter().map(|(name, value)| (name, value.expose())))
}

/// The input as a sealed record, as the plaintext of a record with values, and as that of a record with metadata.
pub fn records(data: &[u8]) {
    let values = key(RecordKind::ConnectionValues);
    if let Ok(foreign) = Sealed::parse(data) {
        assert_eq!(foreign.as_bytes(), data);
        assert!(KEYRING.open_values(values, &foreign).is_err());
        assert!(KEYRING.open_metadata(key(RecordKind::Connection), &foreign).is_err());
    }
    let sealed = KEYRING.seal(values, 1, data).unwrap();
    assert_eq!(Sealed::parse(sealed.as_bytes()).ok(), Some(sealed.clone()));
    assert!(KEYRING.open_metadata(values, &sealed).is_err());
    let open = |sealed: &Sealed| KEYRING.open_values(values, sealed).ok()?.to_fields();
    if let Some(fields) = open(&sealed) {
        let bytes: usize = fields.values().map(Value::len).sum();
        assert!(bytes <= data.len());
        let again = KEYRING.seal_values(values, 2, &fields).unwrap();
        assert!(same_fields(&fields, &open(&again).unwrap()));
    }
    for kind in [
        RecordKind::Connection,
        RecordKind::Group,
        RecordKind::Integration,
        RecordKind::Registration,
        RecordKind::Secret,
    ] {
        let record = (key(kind), KEYRING.seal(key(kind), 1, data).unwrap());
        let has_values = matches!(kind, RecordKind::Connection | RecordKind::Secret);
        let loaded = load(vec![record], &KEYRING);
        // A half of a pair is always refused, unless this version uses nothing of it.
        let is_used = loaded.is_ok_and(|catalog| catalog.all_newer().next().is_none());
        assert!(!(has_values && is_used));
    }
}

/// The input as a journal line, and as a line's content. Its first byte selects the bit of the written line to flip.
pub fn journal_lines(data: &[u8]) {
    if let Some(parts) = Parts::split(data) {
        assert!(!parts.is_tagged(&KEYRING));
        if parts.verified_hash().is_some() {
            let _ = parts.parse();
        }
    }
    let (turned, said) = data.split_first_chunk::<2>().unwrap_or((&[0; 2], data));
    let Ok(event) = serde_json::from_slice::<Event>(said) else { return };
    let now = Timestamp::from_millis(1_795_298_123_456);
    let mut line = Vec::new();
    let hash = write(&mut line, &KEYRING, 7, now, &event, &NO_PREVIOUS, 3).unwrap();
    assert_eq!(line.pop(), Some(b'\n'));
    assert!(!line.contains(&b'\n'));
    let Body { n, time, prev, synced, event: read } = checked(&line, hash).unwrap();
    assert_eq!((n, time), (7, now));
    assert_eq!(synced, if event.is_always_synced() { 3 } else { 0 });
    assert_eq!(prev, "0".repeat(64));
    let json = |event: &Event| serde_json::to_value(event).unwrap();
    assert_eq!(json(&read), json(&event));
    let bit = usize::from(u16::from_be_bytes(*turned)) % (line.len() * 8);
    line[bit / 8] ^= 1 << (bit % 8);
    assert!(checked(&line, hash).is_none(), "bit {bit} can be turned");
}

/// The content of a line, if the broker has written it and this is its hash.
fn checked(line: &[u8], hash: [u8; 32]) -> Option<Body> {
    let parts = Parts::split(line)?;
    let is_whole = parts.is_tagged(&KEYRING) && parts.verified_hash() == Some(hash);
    if is_whole { parts.parse().ok() } else { None }
}

/// The input as a certificate, in DER and in PEM.
pub fn certificates(data: &[u8]) {
    let domain = TrustDomain::parse(TrustDomain::DEFAULT).unwrap();
    if let Ok(svid) = Svid::parse(data, &domain) {
        assert_eq!(Svid::parse(data, &domain).unwrap().sha256, svid.sha256);
        assert!(svid.id.uri(&domain).starts_with("spiffe://keyhatch.local/"));
        assert!(svid.is_renewal_of(&svid) && !svid.is_for_key(b""));
        assert!(svid.not_before > svid.not_after || svid.renewal() <= svid.not_after);
        let longer = [data, b"\0"].concat();
        assert!(Svid::parse(&longer, &domain).is_err());
        let other = TrustDomain::parse("other.example").unwrap();
        assert!(Svid::parse(data, &other).is_err());
    }
    let pem = text(data);
    if let Ok(svid) = Svid::parse_pem(pem, &domain) {
        assert_eq!(Svid::parse_own(pem).unwrap().id, svid.id);
    }
    let _ = check_certificate(data);
    let _ = check_private_key(data);
    let _ = check_pair(data, data);
}

/// The input as a certificate signing request.
pub fn signing_requests(data: &[u8]) {
    let Ok(public_key) = requested_key(data) else { return };
    assert!(data.len() <= 16 * 1024);
    // A SubjectPublicKeyInfo with a point of P-256, written whole or by one coordinate.
    assert!([59, 91].contains(&public_key.len()), "{} bytes", public_key.len());
    assert_eq!(public_key.first(), Some(&0x30));
}

/// The input as a login, as a message to an agent, as a private key and as a `known_hosts` file.
pub fn ssh(data: &[u8]) {
    if let Ok(login) = LoginRequest::parse(data.to_vec()) {
        assert_eq!(login.data(), data);
        assert!(!login.user().is_empty());
        let key_type = login.algorithm().key_type().as_bytes();
        assert!(login.public_key()[4..].starts_with(key_type));
    }
    let _ = AgentRequest::parse(data);
    if let Ok(key) = SigningKey::parse(data) {
        let signed = [Algorithm::Ed25519, Algorithm::EcdsaP256, Algorithm::RsaSha512]
            .into_iter()
            .filter(|algorithm| key.sign(*algorithm, b"data").is_ok());
        assert!(signed.count() <= 1);
    }
    assert!(!HostKeys::parse(data).accept(b""));
}
