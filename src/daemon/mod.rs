//! The daemon: wires the parts, serves, drains.
//!
//! The step door and the admin door have runtimes of their own: operators are served whatever steps do, and while a disk
//! hangs.

mod certificate;
mod files;
mod init;
mod maintenance;
mod quotas;
mod reissue;
mod restore;
mod rotate;
mod scrape;
mod signals;
mod state;
mod tcp_listener;
mod threads;
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
use self::maintenance::{maintain_broker, maintain_connections, release_memory_after_loads};
use self::scrape::{MetricsSource, ScrapeListener};
use self::tcp_listener::OperatorListener;
use self::threads::Threads;
use self::wiring::Wiring;
use crate::broker::{
    Broker, BrokerParts, Error, RuntimeDir, RuntimeDirError, StartError, StepListener, TcpDoor,
};
use crate::config::Config;
use crate::egress::Egress;
use crate::grpc;
use crate::identity::{Authority, REFUSALS, TlsError};
use crate::metrics::Metrics;
use crate::mint::Upstreams;
use crate::model::limits::{DRAIN_DEADLINE, REFRESH_DEADLINE};
use crate::model::{BrokerId, Clock, Invalid, Limits};
use crate::seal::{NoRandomness, Unlock, release_free_memory};
use crate::sys::{Lock, Trust};

/// Why a daemon cannot be made or started.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The broker refused a registration.
    #[error(transparent)]
    Broker(#[from] Error),
    /// The address for metrics cannot be bound.
    #[error("metrics cannot be served at {address} ({source}); {}", remedy(source, "--metrics"))]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The address for operators over TCP cannot be bound.
    #[error(
        "operators cannot be served at {address} ({source}); {}",
        remedy(source, "--admin-listen")
    )]
    AdminListener {
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
    /// A backup cannot be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The runtime directory cannot be used.
    #[error(transparent)]
    Runtime(#[from] RuntimeDirError),
    /// Threads cannot be started.
    #[error("threads cannot be started: {0}")]
    Threads(std::io::Error),
    /// Journal or store cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What to do about an address of an option that cannot be bound.
fn remedy(error: &std::io::Error, option: &str) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::AFNOSUPPORT) => format!(
            "this process is kept from the network; a unit of systemd needs AF_INET and AF_INET6 among \
             RestrictAddressFamilies, and PrivateNetwork=no, as keyhatch config systemd-unit {option} ADDRESS prints it"
        ),
        Some(Errno::ADDRINUSE) => format!(
            "another program listens at that port, which ss -ltnp shows; choose another address with {option}"
        ),
        Some(Errno::ADDRNOTAVAIL) => format!(
            "this host has no such address; ip address shows its addresses; choose one of them with {option}"
        ),
        Some(Errno::ACCESS | Errno::PERM) => {
            format!("ports below 1024 need a capability; choose a higher port with {option}")
        }
        _ => format!("choose another address with {option}, or port 0 for any that is free"),
    }
}

/// A daemon that has loaded its state, and serves nobody yet.
pub struct Loaded {
    broker: Broker,
    metrics: Metrics,
    tls: ServerTlsPair,
    keeper: CertificateKeeper,
    authority: Arc<Authority>,
    listeners: Listeners,
    socket: PathBuf,
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
    lock: Lock,
}

/// A stopped daemon. Dropping it closes the store and releases the state directory for the next daemon.
pub struct StoppedDaemon {
    _broker: Arc<Broker>,
    _lock: Lock,
}

impl Daemon {
    /// Starts a daemon. When this returns, both doors listen.
    ///
    /// # Errors
    /// If keys, state, sockets or threads cannot be had. The error says what to do.
    pub fn start(
        config: &Config,
        unlock: Option<&Unlock>,
        clock: Clock,
    ) -> Result<Self, DaemonError> {
        Loaded::load(config, unlock, clock)?.serve()
    }

    /// The path of the admin socket.
    pub fn admin_socket(&self) -> &Path {
        &self.socket
    }

    /// The door for operators over TCP, if there is one.
    pub fn tcp_door(&self) -> Option<&TcpDoor> {
        self.broker.tcp_door()
    }

    /// The address that metrics are served at, if they are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Loads the daemon's certificate again from its files, at once.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Drains and stops: no new requests are taken, open requests get [`DRAIN_DEADLINE`] to finish, and refresh
    /// tokens that are in use [`REFRESH_DEADLINE`]; the journal is closed.
    /// Steps stay open, and find the next daemon at the same paths.
    pub fn stop(mut self) -> StoppedDaemon {
        self.broker.drain();
        self.stop.cancel();
        self.threads.admin.block_on(async {
            if tokio::time::timeout(DRAIN_DEADLINE, self.servers.recv()).await.is_err() {
                tracing::warn!("the drain timed out with requests still open");
            }
            if tokio::time::timeout(REFRESH_DEADLINE, self.broker.end_refreshes()).await.is_err() {
                tracing::error!(
                    "a refresh token that an upstream gave may be lost: the store takes no writes"
                );
            }
            match tokio::time::timeout(DRAIN_DEADLINE, self.broker.stop()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => tracing::error!("the journal could not be closed"),
                Err(_) => tracing::error!("the journal's disk hangs; its last lines may be lost"),
            }
        });
        self.threads.shut_down();
        self.broker.remove_admin_socket();
        tracing::info!("stopped");
        StoppedDaemon { _broker: self.broker, _lock: self.lock }
    }
}

impl Loaded {
    /// Gets the keys, binds the admin socket, and loads state, journal and store. Clients that connect meanwhile wait.
    ///
    /// # Errors
    /// See [`Daemon::start`].
    pub fn load(
        config: &Config,
        unlock: Option<&Unlock>,
        clock: Clock,
    ) -> Result<Self, DaemonError> {
        protect_process();
        let shares = Shares::of_this_process(&config.limits, config.admin_listen.is_some());
        let trust = Trust::of_process(&config.shared_parents);
        let state = StateDirectory::open(&config.state, &trust)?;
        let (file, lock) = (state.read()?, state.lock()?);
        let keyring = state.unlock(unlock)?.keyring().map_err(StateError::from)?;
        let authority = Arc::new(state.authority(&keyring)?);
        let issuer = state.issuer(config.issuer.clone(), &authority, &keyring, clock.now())?.into();
        let (runtime, listeners) = Listeners::bind(config, &trust, (&authority, &file.name))?;
        let socket = runtime.admin_socket();
        let tcp_door = listeners.operators.as_ref().map(|operators| operators.door().clone());
        let hosts = tcp_door.as_ref().map(|door| door.hosts.clone()).unwrap_or_default();
        init::update_addresses(&state, &config.runtime)?;
        let (tls, keeper) = ServerTlsPair::open(&state, &file.name, hosts, &authority, &clock)?;
        let (step_sockets, new_sockets) = mpsc::unbounded_channel();
        let threads = Threads::start(tcp_door.is_some()).map_err(DaemonError::Threads)?;
        let metrics = grpc::metrics();
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
            upstreams: Upstreams { egress: Egress::new(config.egress.clone()), issuer },
            mints: threads.mints.handle().clone(),
            mint_metrics: Arc::clone(&metrics.mints),
            sends: (threads.sends.handle().clone(), Arc::clone(&metrics.sends)),
            tcp_door,
        };
        Ok(Self {
            broker: start_broker(&threads, parts)?,
            metrics,
            tls,
            keeper,
            authority,
            listeners,
            socket,
            new_sockets,
            shares,
            threads,
            lock,
        })
    }

    /// Serves both doors.
    ///
    /// # Errors
    /// If a runtime cannot take a socket.
    pub fn serve(self) -> Result<Daemon, DaemonError> {
        let Self { broker, tls, keeper, authority, listeners, socket, .. } = self;
        let Self { metrics, new_sockets, shares, threads, lock, .. } = self;
        let Listeners { admin, operators, scrape } = listeners;
        // The channel closes when the last server has drained; nothing is sent on it.
        let (running, servers) = mpsc::channel(1);
        let (broker, stop) = (Arc::new(broker), CancellationToken::new());
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
        threads.keep_spares(&broker.write_hangs(), &stop);
        wiring.serve_steps(&threads, new_sockets, shares);
        wiring.serve_admin(&threads, (admin, operators), shares)?;
        maintain_broker(&threads.admin, &broker, &stop);
        maintain_connections(&threads.admin, &broker, (steps_open, admin_open), &stop);
        release_memory_after_loads(threads.all(), &stop);
        threads.admin.spawn(Arc::clone(&broker).fan_out());
        let reload = Arc::new(Notify::new());
        threads.admin.spawn(keeper.run(authority, Arc::clone(&reload), stop.clone()));
        let metrics_address = scrape.as_ref().map(ScrapeListener::address);
        if let Some(scrape) = scrape {
            let source = MetricsSource::new(Arc::clone(&broker), metrics);
            let _entered = threads.admin.enter();
            scrape.serve(source, stop.clone()).map_err(DaemonError::Threads)?;
        }
        release_free_memory();
        tracing::info!(socket = %socket.display(), "serving");
        Ok(Daemon { broker, stop, reload, servers, threads, socket, metrics_address, lock })
    }
}

/// The sockets where clients wait, and none is served yet.
struct Listeners {
    admin: std::os::unix::net::UnixListener,
    operators: Option<OperatorListener>,
    scrape: Option<ScrapeListener>,
}

impl Listeners {
    /// Opens the runtime directory, and binds the sockets of the configuration.
    fn bind(
        config: &Config,
        trust: &Trust,
        (authority, name): (&Authority, &str),
    ) -> Result<(RuntimeDir, Self), DaemonError> {
        let runtime = RuntimeDir::open(&config.runtime, trust)?;
        let admin = runtime.bind_admin(config.admin_group)?;
        let id = BrokerId { domain: authority.domain().clone(), name: name.to_owned() };
        let operators = config.admin_listen.as_ref().map(|admin| OperatorListener::bind(admin, id));
        let (operators, scrape) =
            (operators.transpose()?, config.metrics.map(ScrapeListener::bind).transpose()?);
        Ok((runtime, Self { admin, operators, scrape }))
    }
}

/// Starts the broker, and its writer on the threads of the admin door.
fn start_broker(threads: &Threads, parts: BrokerParts<'_>) -> Result<Broker, DaemonError> {
    let (broker, writer) = threads.admin.block_on(Broker::start(parts))?;
    threads.admin.spawn(writer);
    Ok(broker)
}

/// Keeps what this process makes for its own user, and its memory out of reach.
fn protect_process() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    protect_memory();
}

/// Turns off core dumps of this process, and debuggers of the same user. The CLI calls this, too: keys and values pass
/// through its commands. Programs that a command runs are not affected.
pub fn protect_memory() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "core dumps could not be turned off");
    }
}

/// Runs async work of an offline command.
fn offline<T>(work: impl Future<Output = T>) -> Result<T, DaemonError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(DaemonError::Threads)?.block_on(work))
}
