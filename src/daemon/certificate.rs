//! The daemon's own certificate: renewed before it ends, and taken from its files whenever they change.
//!
//! What is read is looked at as a client would before it is swapped in, key and certificate together; what
//! clients would refuse stays outside, with a warning. Open connections go on with what they began with.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::DaemonError;
use super::init::{CERTIFICATE, KEY, issue_daemon};
use super::state::{StateDirectory, StateError};
use crate::identity::{Authority, ServerTls, ServerTlsConfig, Svid};
use crate::model::{Clock, Timestamp, TrustDomain};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long a renewal that failed waits for the next attempt.
const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// Both doors.
pub(super) struct ServerTlsPair {
    pub(super) steps: Arc<ServerTls>,
    pub(super) admin: Arc<ServerTls>,
    /// When the certificate in force ends.
    pub(super) certificate_end: watch::Receiver<Timestamp>,
}

/// Keeps the doors' certificate in force.
pub(super) struct CertificateKeeper {
    state: StateDirectory,
    /// The daemon's name.
    name: String,
    clock: Clock,
    steps: Arc<ServerTls>,
    admin: Arc<ServerTls>,
    /// When the one in force is to be renewed.
    renewal: Timestamp,
    /// When it ends.
    end: watch::Sender<Timestamp>,
    /// The files that were looked at last, whether they were taken or not.
    taken: FileStamps,
    /// The files as they stood at the last look: they may be in the middle of being replaced.
    seen: FileStamps,
}

/// What tells one version of the two files from another: device, inode, length and change time of each.
type FileStamps = [Option<(u64, u64, u64, i64, i64)>; 2];

/// A certificate with its key, as it stands in the files.
struct Pair {
    chain_pem: String,
    key_pem: Zeroizing<String>,
}

impl ServerTlsPair {
    /// The doors with the certificate of the state directory; a new one is issued if it is past two thirds
    /// of its life, or clients would refuse it.
    ///
    /// # Errors
    /// If the files cannot be read or written, or TLS cannot be set up.
    pub(super) fn open(
        state: &StateDirectory,
        name: &str,
        authority: &Authority,
        clock: &Clock,
    ) -> Result<(Self, CertificateKeeper), DaemonError> {
        let (tls, pair, end) = match Self::build(state, authority, clock) {
            Ok(built) if clock.now() < built.1.renewal(authority.domain()) => built,
            built => {
                if let Err(error) = built {
                    tracing::warn!(%error, "the daemon's certificate is replaced");
                }
                issue_daemon(state, authority, name, clock.now())?;
                Self::build(state, authority, clock)?
            }
        };
        let stamp = stamp(state);
        let keeper = CertificateKeeper {
            state: state.clone(),
            name: name.to_owned(),
            clock: clock.clone(),
            steps: Arc::clone(&tls.steps),
            admin: Arc::clone(&tls.admin),
            renewal: pair.renewal(authority.domain()),
            end,
            taken: stamp,
            seen: stamp,
        };
        Ok((tls, keeper))
    }

    fn build(
        state: &StateDirectory,
        authority: &Authority,
        clock: &Clock,
    ) -> Result<(Self, Pair, watch::Sender<Timestamp>), DaemonError> {
        let pair = Pair::read(state)?;
        let [steps, admin] = pair.settings(authority, clock);
        let (end, certificate_end) = watch::channel(pair.end(authority.domain()));
        let tls = Self {
            steps: Arc::new(ServerTls::new(&steps)?),
            admin: Arc::new(ServerTls::new(&admin)?),
            certificate_end,
        };
        Ok((tls, pair, end))
    }
}

impl CertificateKeeper {
    /// Looks after the certificate until the daemon stops. `reload` is for those who have changed the files
    /// and do not want to wait.
    pub(super) async fn run(
        mut self,
        authority: Arc<Authority>,
        reload: Arc<Notify>,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                () = stop.cancelled() => return,
                () = reload.notified() => true,
                _ = ticks.tick() => false,
            };
            let authority = Arc::clone(&authority);
            // Files are read from a disk, which may hang.
            let looked = tokio::task::spawn_blocking(move || {
                self.look(&authority, is_asked);
                self
            });
            match looked.await {
                Ok(keeper) => self = keeper,
                Err(error) => {
                    tracing::error!(%error, "the daemon's certificate is no longer looked after");
                    return;
                }
            }
        }
    }

    fn look(&mut self, authority: &Authority, is_asked: bool) {
        let now = self.clock.now();
        if now >= self.renewal {
            self.renewal = now.after(RENEW_AGAIN);
            if let Err(error) = issue_daemon(&self.state, authority, &self.name, now) {
                tracing::warn!(%error, "the daemon's certificate cannot be renewed");
            }
        }
        let stamp = stamp(&self.state);
        let is_at_rest = stamp == self.seen;
        self.seen = stamp;
        if is_asked || (is_at_rest && stamp != self.taken) {
            match self.take(authority) {
                Ok(()) => {
                    tracing::info!(renewal = %self.renewal, "the daemon's certificate is loaded");
                }
                // Out of file descriptors, say: they may be good.
                Err(DaemonError::State(error)) => {
                    return tracing::warn!(%error, "the daemon's certificate cannot be read now");
                }
                Err(error) => tracing::warn!(
                    %error, "the daemon's certificate stays as it was, and its files are not used"
                ),
            }
            self.taken = stamp;
        }
    }

    /// Swaps in what the files say, on both doors or on none.
    fn take(&mut self, authority: &Authority) -> Result<(), DaemonError> {
        let pair = Pair::read(&self.state)?;
        let [steps, admin] = pair.settings(authority, &self.clock);
        let (steps, admin) = (ServerTls::new(&steps)?, ServerTls::new(&admin)?);
        self.steps.swap(&steps);
        self.admin.swap(&admin);
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

    /// When two thirds of its life are over; at once if it cannot be read.
    fn renewal(&self, domain: &TrustDomain) -> Timestamp {
        self.moment(domain, Svid::renewal)
    }

    /// When it ends; long ago if it cannot be read.
    fn end(&self, domain: &TrustDomain) -> Timestamp {
        self.moment(domain, |svid| svid.not_after)
    }

    fn moment(&self, domain: &TrustDomain, of: impl FnOnce(&Svid) -> Timestamp) -> Timestamp {
        let svid = Svid::parse_pem(&self.chain_pem, domain);
        svid.map_or(Timestamp::from_millis(0), |svid| of(&svid))
    }

    /// What it makes of the step door and the admin door.
    fn settings<'a>(
        &'a self,
        authority: &'a Authority,
        clock: &'a Clock,
    ) -> [ServerTlsConfig<'a>; 2] {
        [authority.steps_certificate(), authority.clients_certificate()].map(|trusted| {
            ServerTlsConfig {
                chain_pem: &self.chain_pem,
                key_pem: &self.key_pem,
                root: authority.root_certificate(),
                trusted,
                domain: authority.domain(),
                clock,
            }
        })
    }
}

fn stamp(state: &StateDirectory) -> FileStamps {
    [CERTIFICATE, KEY].map(|name| {
        let file = std::fs::metadata(state.join(name)).ok()?;
        Some((file.dev(), file.ino(), file.len(), file.ctime(), file.ctime_nsec()))
    })
}
