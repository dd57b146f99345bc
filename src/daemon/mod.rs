//! The daemon: wires the parts, serves, drains.
//!
//! Two runtimes: one for the step door, one for the admin door and the writer, so that neither a flood
//! of steps nor a disk that hangs keeps operators from being answered.

mod certificate;
mod files;
mod init;
mod quotas;
mod reissue;
mod restore;
mod rotate;
mod scrape;
mod signals;
mod state;
mod threads;
mod upkeep;
mod wiring;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::runtime::Builder;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

pub use files::steps_within;
pub use init::{
    CERTIFICATE, EXECUTOR_DIRECTORY, FIRST_OPERATOR, InitOptions, Initialised, OPERATOR_DIRECTORY,
    init,
};
pub use reissue::{ReissueOptions, Reissued, reissue_admin};
pub use restore::{RestoreError, RestoreOptions, Restored, restore};
pub use rotate::{OfflineRotation, RotateOptions, RotatedOffline, rotate_offline};
pub use signals::{Hangup, Signals};
pub use state::{StateDirectory, StateError, StateFile};

use self::certificate::{CertificateKeeper, ServerTlsPair};
use self::files::Shares;
use self::scrape::{MetricsSource, ScrapeListener};
use self::threads::Threads;
use self::upkeep::{keep_broker, keep_connections};
use self::wiring::Wiring;
use crate::broker::{
    Broker, BrokerParts, Error, RuntimeDir, RuntimeDirError, StartError, StepListener,
};
use crate::config::Config;
use crate::grpc;
use crate::identity::{Authority, REFUSALS, TlsError};
use crate::model::limits::DRAIN_DEADLINE;
use crate::model::{Clock, Invalid, Limits};
use crate::seal::{NoRandomness, Unlock, give_back_what_is_free};
use crate::sys::{Lock, Trust};

/// Why a daemon cannot be made or started.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The broker refused the first registrations.
    #[error(transparent)]
    Broker(#[from] Error),
    /// The address for metrics cannot be had.
    #[error("metrics cannot be told at {address} ({source}); {}", way_to_an_address(source))]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// A name is not well formed.
    #[error(transparent)]
    Name(#[from] Invalid),
    /// No random numbers.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// A backup.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The runtime directory.
    #[error(transparent)]
    Runtime(#[from] RuntimeDirError),
    /// Threads cannot be started.
    #[error("threads cannot be started: {0}")]
    Threads(std::io::Error),
    /// Journal and store.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

fn way_to_an_address(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) {
        true => {
            "this process is kept from the network; a unit of systemd needs AF_INET and AF_INET6 among \
             RestrictAddressFamilies, and PrivateNetwork=no, as keyhatch config systemd-unit --metrics ADDRESS prints it"
        }
        false => "choose another address with --metrics, or port 0 for any that is free",
    }
}

/// A daemon that has read all it needs, and answers nobody yet.
pub struct Loaded {
    broker: Broker,
    tls: ServerTlsPair,
    keeper: CertificateKeeper,
    authority: Arc<Authority>,
    listener: std::os::unix::net::UnixListener,
    socket: PathBuf,
    scrape: Option<ScrapeListener>,
    new_sockets: mpsc::UnboundedReceiver<StepListener>,
    shares: Shares,
    threads: Threads,
    lock: Lock,
}

/// A daemon that serves.
pub struct Daemon {
    broker: Arc<Broker>,
    stop: CancellationToken,
    reload: Arc<Notify>,
    servers: mpsc::Receiver<()>,
    threads: Threads,
    socket: PathBuf,
    metrics_address: Option<SocketAddr>,
    _lock: Lock,
}

impl Daemon {
    /// Starts a daemon; when this returns, both doors listen.
    ///
    /// # Errors
    /// What stands in the way, and what to do about it.
    pub fn start(
        config: &Config,
        unlock: Option<&Unlock>,
        clock: Clock,
    ) -> Result<Self, DaemonError> {
        Loaded::load(config, unlock, clock)?.serve()
    }

    /// The admin socket.
    pub fn admin_socket(&self) -> &Path {
        &self.socket
    }

    /// Where metrics are told, if anywhere.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Has the daemon's certificate loaded again from its files, without waiting.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Drains and stops: no new requests, open ones finish, the journal is closed. Steps stay open, and
    /// find the next daemon at the same place.
    pub fn stop(mut self) {
        self.broker.drain();
        self.stop.cancel();
        self.threads.admin.block_on(async {
            if tokio::time::timeout(DRAIN_DEADLINE, self.servers.recv()).await.is_err() {
                tracing::warn!("requests were still open when the time to drain was over");
            }
            match tokio::time::timeout(DRAIN_DEADLINE, self.broker.stop()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => tracing::error!("the journal could not be closed"),
                Err(_) => tracing::error!("the journal's disk hangs; its last lines may be lost"),
            }
        });
        self.threads.shut_down();
        tracing::info!("stopped");
    }
}

impl Loaded {
    /// Gets the keys, and reads state, journal and store. Whoever connects from now on waits.
    ///
    /// # Errors
    /// What stands in the way, and what to do about it.
    pub fn load(
        config: &Config,
        unlock: Option<&Unlock>,
        clock: Clock,
    ) -> Result<Self, DaemonError> {
        // What this process makes is its own.
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        shut_out_others();
        let shares = Shares::of_this_process(&config.limits);
        let trust = Trust::of_process(&config.shared_parents);
        let state = StateDirectory::open(&config.state, &trust)?;
        let file = state.read()?;
        let lock = state.lock()?;
        let keyring = state.unlock(unlock)?.keyring().map_err(StateError::from)?;
        let authority = Arc::new(state.authority(&keyring)?);
        let runtime = RuntimeDir::open(&config.runtime, &trust)?;
        let socket = runtime.admin_socket();
        let listener = runtime.bind_admin(config.admin_group)?;
        let scrape = config.metrics.map(ScrapeListener::bind).transpose()?;
        init::keep_addresses(&state, &config.runtime)?;
        let (tls, keeper) = ServerTlsPair::open(&state, &file.name, &authority, &clock)?;
        let (step_sockets, new_sockets) = mpsc::unbounded_channel();
        let threads = Threads::start().map_err(DaemonError::Threads)?;
        let parts = BrokerParts {
            journal: &state.join("journal"),
            store: &state.join("store"),
            keyring,
            keys: state.keys(unlock),
            authority: Arc::clone(&authority),
            certificate_end: tls.certificate_end.clone(),
            clock,
            limits: Limits { open_steps: shares.open_steps, ..config.limits.clone() },
            journal_mode: config.journal,
            expect_head: config.expect_head,
            sealed_files: state.backed_up(),
            runtime,
            listeners: step_sockets,
        };
        let (broker, writer) = threads.admin.block_on(Broker::start(parts))?;
        threads.admin.spawn(writer);
        Ok(Self {
            broker,
            tls,
            keeper,
            authority,
            listener,
            socket,
            scrape,
            new_sockets,
            shares,
            threads,
            lock,
        })
    }

    /// Opens both doors.
    ///
    /// # Errors
    /// If a socket cannot be listened on.
    pub fn serve(self) -> Result<Daemon, DaemonError> {
        let Self { broker, tls, keeper, authority, listener, socket, .. } = self;
        let Self { scrape, new_sockets, shares, threads, lock, .. } = self;
        // Closed when the last server has drained: nobody sends on it.
        let (running, servers) = mpsc::channel(1);
        let (broker, stop) = (Arc::new(broker), CancellationToken::new());
        let metrics = grpc::metrics();
        for door in [&metrics.steps, &metrics.admin] {
            door.refused.expect(&REFUSALS);
        }
        let (steps_open, admin_open) = (Arc::default(), Arc::default());
        let wiring = Wiring {
            broker: Arc::clone(&broker),
            metrics: metrics.clone(),
            tls,
            steps_open: Arc::clone(&steps_open),
            admin_open: Arc::clone(&admin_open),
            handshakes: threads.handshakes(),
            stop: stop.clone(),
            running,
        };
        wiring.serve_steps(&threads.steps, new_sockets, shares);
        wiring.serve_admin(&threads.admin, listener, shares)?;
        keep_broker(&threads.admin, &broker, &stop);
        keep_connections(&threads.admin, &broker, (steps_open, admin_open), &stop);
        threads.steps.spawn(Arc::clone(&broker).fan_out());
        let reload = Arc::new(Notify::new());
        threads.admin.spawn(keeper.run(authority, Arc::clone(&reload), stop.clone()));
        let metrics_address = scrape.as_ref().map(ScrapeListener::address);
        if let Some(scrape) = scrape {
            let source = MetricsSource::new(Arc::clone(&broker), metrics);
            let _entered = threads.admin.enter();
            scrape.serve(source, stop.clone()).map_err(DaemonError::Threads)?;
        }
        give_back_what_is_free();
        tracing::info!(socket = %socket.display(), "serving");
        Ok(Daemon { broker, stop, reload, servers, threads, socket, metrics_address, _lock: lock })
    }
}

/// Nobody looks into this process's memory: no core dump, no debugger of the same user. Keys and values pass
/// through the commands, too; a program that one of them runs is not concerned.
pub fn shut_out_others() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "core dumps could not be turned off");
    }
}

/// Runs something that needs a runtime, where no daemon runs.
fn offline<T>(work: impl Future<Output = T>) -> Result<T, DaemonError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(DaemonError::Threads)?.block_on(work))
}
