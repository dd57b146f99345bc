//! The daemon's own certificate: renewed before it expires, and loaded when its files change.
//!
//! Key and certificate are checked together, as a client would, before they are swapped in. A pair that clients would
//! refuse is not used, and a warning is logged. Open connections keep the certificate that they began with.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::DaemonError;
use super::init::{CERTIFICATE, KEY, issue_daemon};
use super::state::{StateDirectory, StateError};
use crate::identity::{Authority, ServerTls, ServerTlsConfig, Svid, TlsError};
use crate::model::{Clock, HostName, Timestamp, TrustDomain};

/// How often the files are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How long after a failed renewal the next is tried.
const RENEWAL_RETRY: Duration = Duration::from_secs(60);

/// The TLS settings of the step door and of the admin door.
pub(super) struct ServerTlsPair {
    pub(super) steps: Arc<ServerTls>,
    pub(super) admin: Arc<ServerTls>,
    /// Those of the admin door over TCP, if it is served so.
    pub(super) tcp: Option<Arc<ServerTls>>,
    /// When the certificate in force expires.
    pub(super) certificate_end: watch::Receiver<Timestamp>,
}

/// Keeps the certificate of both doors valid.
pub(super) struct CertificateKeeper {
    state: StateDirectory,
    /// The daemon's name.
    name: String,
    /// The hosts by which it is reached over TCP.
    hosts: Vec<HostName>,
    clock: Clock,
    steps: Arc<ServerTls>,
    admin: Arc<ServerTls>,
    tcp: Option<Arc<ServerTls>>,
    /// When the certificate is to be renewed.
    renewal: Timestamp,
    /// When it expires.
    end: watch::Sender<Timestamp>,
    /// The files that were last tried, usable or not.
    tried: FileStamps,
    /// The files at the last check. They are tried once they no longer change: they may be half replaced.
    seen: FileStamps,
}

/// Identifies a version of the two files: device, inode, length and change time of each.
type FileStamps = [Option<(u64, u64, u64, i64, i64)>; 2];

/// The certificate and the key of the files.
struct Pair {
    chain_pem: String,
    key_pem: Zeroizing<String>,
}

impl ServerTlsPair {
    /// TLS with the certificate of the state directory. A new certificate is issued if two thirds of its life have passed, or
    /// clients would refuse it: also those that reach the daemon by one of `hosts` over TCP.
    ///
    /// # Errors
    /// If the files cannot be read or written, or TLS cannot be set up.
    pub(super) fn open(
        state: &StateDirectory,
        name: &str,
        hosts: Vec<HostName>,
        authority: &Authority,
        clock: &Clock,
    ) -> Result<(Self, CertificateKeeper), DaemonError> {
        let (tls, pair, end) = match Self::build(state, &hosts, authority, clock) {
            Ok(built) if clock.now() < built.1.renewal(authority.domain()) => built,
            built => {
                if let Err(error) = built {
                    tracing::warn!(%error, "the daemon's certificate is replaced");
                }
                issue_daemon(state, authority, (name, &hosts), clock.now())?;
                Self::build(state, &hosts, authority, clock)?
            }
        };
        let stamp = stamp(state);
        let keeper = CertificateKeeper {
            state: state.clone(),
            name: name.to_owned(),
            hosts,
            clock: clock.clone(),
            steps: Arc::clone(&tls.steps),
            admin: Arc::clone(&tls.admin),
            tcp: tls.tcp.clone(),
            renewal: pair.renewal(authority.domain()),
            end,
            tried: stamp,
            seen: stamp,
        };
        Ok((tls, keeper))
    }

    fn build(
        state: &StateDirectory,
        hosts: &[HostName],
        authority: &Authority,
        clock: &Clock,
    ) -> Result<(Self, Pair, watch::Sender<Timestamp>), DaemonError> {
        let pair = Pair::read(state)?;
        let (end, certificate_end) = watch::channel(pair.end(authority.domain()));
        let (steps, admin, tcp) = pair.tls(hosts, authority, clock)?;
        let (steps, admin, tcp) = (Arc::new(steps), Arc::new(admin), tcp.map(Arc::new));
        let tls = Self { steps, admin, tcp, certificate_end };
        Ok((tls, pair, end))
    }
}

impl CertificateKeeper {
    /// Renews and loads the certificate until `stop`. `reload` loads the files at once.
    pub(super) async fn run(
        mut self,
        authority: Arc<Authority>,
        reload: Arc<Notify>,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_requested = tokio::select! {
                () = stop.cancelled() => return,
                () = reload.notified() => true,
                _ = ticks.tick() => false,
            };
            let authority = Arc::clone(&authority);
            // The disk of the files may hang.
            let checked = tokio::task::spawn_blocking(move || {
                self.check(&authority, is_requested);
                self
            });
            match checked.await {
                Ok(keeper) => self = keeper,
                Err(error) => {
                    tracing::error!(%error, "the daemon's certificate is no longer renewed or reloaded");
                    return;
                }
            }
        }
    }

    /// Renews the certificate if that is due, and loads the files if they have changed or `is_requested`.
    fn check(&mut self, authority: &Authority, is_requested: bool) {
        let now = self.clock.now();
        if now >= self.renewal {
            self.renewal = now.after(RENEWAL_RETRY);
            if let Err(error) = issue_daemon(&self.state, authority, (&self.name, &self.hosts), now)
            {
                tracing::warn!(%error, "the daemon's certificate cannot be renewed");
            }
        }
        let stamp = stamp(&self.state);
        let is_unchanged = stamp == self.seen;
        self.seen = stamp;
        if is_requested || (is_unchanged && stamp != self.tried) {
            match self.load(authority) {
                Ok(()) => {
                    tracing::info!(renewal = %self.renewal, "the daemon's certificate is loaded");
                }
                // The files may be good: descriptors may have run out, for example. They are tried again.
                Err(DaemonError::State(error)) => {
                    return tracing::warn!(%error, "the daemon's certificate cannot be read now");
                }
                Err(error) => tracing::warn!(
                    %error, "the daemon keeps its certificate: the files cannot be used"
                ),
            }
            self.tried = stamp;
        }
    }

    /// Swaps in the pair of the files, on all doors or on none.
    fn load(&mut self, authority: &Authority) -> Result<(), DaemonError> {
        let pair = Pair::read(&self.state)?;
        let (steps, admin, tcp) = pair.tls(&self.hosts, authority, &self.clock)?;
        self.steps.swap(&steps);
        self.admin.swap(&admin);
        if let (Some(own), Some(tcp)) = (&self.tcp, tcp) {
            own.swap(&tcp);
        }
        self.renewal = pair.renewal(authority.domain());
        self.end.send_replace(pair.end(authority.domain()));
        Ok(())
    }
}

impl Pair {
    fn read(state: &StateDirectory) -> Result<Self, StateError> {
        let chain_pem = state.read_text(CERTIFICATE)?;
        Ok(Self { chain_pem, key_pem: Zeroizing::new(state.read_text(KEY)?) })
    }

    /// When two thirds of the certificate's life have passed; long ago if it cannot be read.
    fn renewal(&self, domain: &TrustDomain) -> Timestamp {
        self.moment(domain, Svid::renewal)
    }

    /// When the certificate expires; long ago if it cannot be read.
    fn end(&self, domain: &TrustDomain) -> Timestamp {
        self.moment(domain, |svid| svid.not_after)
    }

    fn moment(&self, domain: &TrustDomain, of: impl FnOnce(&Svid) -> Timestamp) -> Timestamp {
        let svid = Svid::parse_pem(&self.chain_pem, domain);
        svid.map_or(Timestamp::from_millis(0), |svid| of(&svid))
    }

    /// The settings of the step door, of the admin door, and of the admin door over TCP if it has hosts.
    fn tls(
        &self,
        hosts: &[HostName],
        authority: &Authority,
        clock: &Clock,
    ) -> Result<(ServerTls, ServerTls, Option<ServerTls>), TlsError> {
        let (steps, clients) = (authority.steps_certificate(), authority.clients_certificate());
        let build = |trusted, hosts| {
            ServerTls::new(&ServerTlsConfig {
                chain_pem: &self.chain_pem,
                key_pem: &self.key_pem,
                root: authority.root_certificate(),
                trusted,
                domain: authority.domain(),
                clock,
                hosts,
            })
        };
        let tcp = if hosts.is_empty() { None } else { Some(build(clients, hosts)?) };
        Ok((build(steps, &[])?, build(clients, &[])?, tcp))
    }
}

fn stamp(state: &StateDirectory) -> FileStamps {
    [CERTIFICATE, KEY].map(|name| {
        let file = std::fs::metadata(state.join(name)).ok()?;
        Some((file.dev(), file.ino(), file.len(), file.ctime(), file.ctime_nsec()))
    })
}
