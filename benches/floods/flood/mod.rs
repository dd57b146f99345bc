//! Floods: attacks of a hostile client, with or without a good certificate, on one door. A flood has one thread and no
//! clock. Its driver says when it continues.

pub mod callers;
mod frames;
mod slow;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use self::wire::Wire;

/// The longest wait for a silent server before the flood asks its driver again.
const PATIENCE: Duration = Duration::from_millis(20);
/// Pieces between two questions to the driver.
const BATCH: usize = 32;

/// A socket with a client identity.
pub struct Target {
    socket: PathBuf,
    config: Arc<ClientConfig>,
    /// True if the identity is a step's.
    is_step: bool,
}

impl Target {
    /// The socket with the identity in a directory.
    pub fn new(socket: &Path, identity: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(identity.join("ca.crt")).unwrap()).unwrap();
        let chain = CertificateDer::pem_file_iter(identity.join("tls.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(identity.join("tls.key")).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        let is_step = identity.join("keyhatch.sock").exists();
        Self { socket: socket.to_owned(), config: Arc::new(config), is_step }
    }
}

/// The counts of a flood.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Frames, connections or bytes sent, by the kind of the flood.
    pub sent: usize,
    /// Connections made.
    pub connected: usize,
    /// Connections that the server ended.
    pub ended: usize,
    /// Connections that the kernel refused because the server's queue was full.
    pub turned_away: usize,
    /// Connections held at the last count.
    pub held: usize,
}

/// The next act of a flood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// It ends.
    End,
    /// It continues.
    GoOn,
    /// It continues, and each slow client sends its next byte.
    Beat,
}

/// The driver of a flood: decides its next act by its counts.
pub type Pace<'a> = &'a mut dyn FnMut(&Tally) -> Next;

/// The kinds of floods.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    RapidReset,
    HeaderLists,
    Continuations,
    EmptyData,
    Pings,
    Settings,
    Connections,
    HalfHellos,
    Handshakes,
    SlowClients,
    IdleClients,
    /// Heads of requests without messages, at each door.
    Heads,
    /// Calls at the admin door that a viewer may not make, readers of the journal, and heads.
    Viewer,
    /// Refused calls alone.
    Refusals,
    /// Lists of everything.
    Lists,
    /// Batches of steps that read no replies, and heads at the admin door.
    Unread,
}

/// Every kind with its name.
pub const KINDS: [(&str, Kind); 16] = [
    ("rapid-reset", Kind::RapidReset),
    ("header-lists", Kind::HeaderLists),
    ("continuations", Kind::Continuations),
    ("empty-data", Kind::EmptyData),
    ("pings", Kind::Pings),
    ("settings", Kind::Settings),
    ("connections", Kind::Connections),
    ("half-hellos", Kind::HalfHellos),
    ("handshakes", Kind::Handshakes),
    ("slow-clients", Kind::SlowClients),
    ("idle-clients", Kind::IdleClients),
    ("heads", Kind::Heads),
    ("viewer", Kind::Viewer),
    ("refusals", Kind::Refusals),
    ("lists", Kind::Lists),
    ("unread", Kind::Unread),
];

/// Floods these targets. Slow clients come `count` at once, callers hold some connections to each target, and the other
/// kinds take one target after the other.
pub fn run(kind: Kind, targets: &[Target], count: usize, pace: Pace<'_>) -> Tally {
    match kind {
        Kind::Connections | Kind::HalfHellos | Kind::Handshakes => knock(kind, targets, pace),
        Kind::SlowClients => slow::run(targets, count, &slow::EVERY_STAGE, pace),
        Kind::IdleClients => slow::run(targets, count, &[slow::Stage::Tls], pace),
        Kind::Heads | Kind::Viewer | Kind::Refusals | Kind::Lists | Kind::Unread => {
            callers::run(kind, targets, pace)
        }
        _ => frames::run(kind, &targets[0], pace),
    }
}

/// Connects, goes as far as its kind says, and closes.
fn knock(kind: Kind, targets: &[Target], pace: Pace<'_>) -> Tally {
    let mut tally = Tally::default();
    for target in targets.iter().cycle() {
        if pace(&tally) == Next::End {
            break;
        }
        let Ok(Some(mut wire)) = Wire::connect(target) else {
            tally.turned_away += 1;
            std::thread::park_timeout(Duration::from_millis(1));
            continue;
        };
        tally.connected += 1;
        tally.sent += 1;
        match kind {
            Kind::HalfHellos => wire.send_half_hello(),
            Kind::Handshakes if wire.shake_hands(&mut |_| pace(&tally)).is_err() => {
                tally.ended += 1;
            }
            _ => {}
        }
    }
    tally
}
