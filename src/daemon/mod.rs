//! The daemon: wires the parts, serves, drains.
//!
//! Two runtimes: one for the step door, one for the admin door and the writer, so that neither a flood
//! of steps nor a disk that hangs keeps operators from being answered.

mod certificate;
mod files;
mod init;
mod reissue;
mod restore;
mod rotate;
mod scrape;
mod signals;
mod state;
mod threads;
mod upkeep;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Handle, Runtime as AsyncRuntime};
use tokio::sync::{Notify, Semaphore, mpsc};
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
pub use state::{StateDirectory, StateError, StateFile, StateLock};

use self::certificate::{CertificateKeeper, Doors};
use self::files::Shares;
use self::scrape::{ScrapeListener, Source};
use self::threads::Threads;
use self::upkeep::keep_broker;
use crate::broker::{Broker, Error, Parts, Runtime, RuntimeError, StartError, StepListener, bind};
use crate::config::Config;
use crate::grpc::{self, AdminConnection, StepConnection};
use crate::identity::{
    Acceptor, Authority, Gate, GuestLimits, PIECE_BYTES, PaceLimits, Patience, TlsError,
};
use crate::journal::LiveOpening;
use crate::metrics::Metrics;
use crate::model::limits::DRAIN_DEADLINE;
use crate::model::{Clock, Invalid, Limits};
use crate::seal::{NoRandomness, Unlock};

/// Verified connections that wait for their server.
const WAITING_CONNECTIONS: usize = 64;

/// Why a daemon cannot be made or started.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The admin socket cannot be a group's.
    #[error(
        "the admin socket cannot be given to group {group} ({source}); run the daemon as a member of it, \
         or as root"
    )]
    AdminGroup {
        /// The group.
        group: u32,
        /// The cause.
        source: std::io::Error,
    },
    /// The broker refused the first registrations.
    #[error(transparent)]
    Broker(#[from] Error),
    /// The address for metrics cannot be had.
    #[error(
        "metrics cannot be told at {address} ({source}); choose another address with --metrics, or port 0 for any \
         that is free"
    )]
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
    Runtime(#[from] RuntimeError),
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

/// A daemon that has read all it needs, and answers nobody yet.
pub struct Loaded {
    broker: Broker,
    doors: Doors,
    keeper: CertificateKeeper,
    authority: Arc<Authority>,
    listener: std::os::unix::net::UnixListener,
    socket: PathBuf,
    scrape: Option<ScrapeListener>,
    new_sockets: mpsc::UnboundedReceiver<StepListener>,
    shares: Shares,
    threads: Threads,
    lock: StateLock,
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
    _lock: StateLock,
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
        let _ = std::fs::remove_file(&self.socket);
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
        let state = StateDirectory::new(&config.state);
        let file = state.read()?;
        let lock = state.lock()?;
        let keys = state.keys(&file, unlock);
        let unlocked = keys.unlock(unlock.and_then(|unlock| unlock.passphrase.as_ref()));
        let keyring = unlocked.and_then(|unlocked| unlocked.keyring()).map_err(StateError::from)?;
        let authority = Arc::new(state.authority(&keyring)?);
        let runtime = Runtime::open(&config.runtime)?;
        let socket = runtime.admin_socket();
        let listener = bind_admin(&socket, config.admin_group)?;
        let scrape = config.metrics.map(ScrapeListener::bind).transpose()?;
        init::keep_addresses(&state, &config.runtime)?;
        let (doors, keeper) = Doors::open(&state, &file.name, &authority, &clock)?;
        let (step_sockets, new_sockets) = mpsc::unbounded_channel();
        let threads = Threads::start().map_err(DaemonError::Threads)?;
        let parts = Parts {
            journal: &state.join("journal"),
            store: &state.join("store"),
            keyring,
            keys,
            authority: Arc::clone(&authority),
            certificate_end: doors.certificate_end.clone(),
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
            doors,
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
        let Self { broker, doors, keeper, authority, listener, socket, .. } = self;
        let Self { scrape, new_sockets, shares, threads, lock, .. } = self;
        // Closed when the last server has drained: nobody sends on it.
        let (running, servers) = mpsc::channel(1);
        let (broker, stop) = (Arc::new(broker), CancellationToken::new());
        let grpc::Methods { steps, admin } = grpc::methods();
        let metrics = Metrics::new(steps, admin);
        let wiring = Wiring {
            broker: Arc::clone(&broker),
            metrics: metrics.clone(),
            doors,
            handshakes: threads.handshakes.handle().clone(),
            stop: stop.clone(),
            running,
        };
        wiring.serve_steps(&threads.steps, new_sockets, shares);
        wiring.serve_admin(&threads.admin, listener, shares)?;
        keep_broker(&threads.admin, &broker, &stop);
        threads.steps.spawn(Arc::clone(&broker).fan_out());
        let reload = Arc::new(Notify::new());
        threads.admin.spawn(keeper.run(authority, Arc::clone(&reload), stop.clone()));
        let metrics_address = scrape.as_ref().map(ScrapeListener::address);
        if let Some(scrape) = scrape {
            let source = Source::new(Arc::clone(&broker), metrics);
            let _entered = threads.admin.enter();
            scrape.serve(source, stop.clone()).map_err(DaemonError::Threads)?;
        }
        tracing::info!(socket = %socket.display(), "serving");
        Ok(Daemon { broker, stop, reload, servers, threads, socket, metrics_address, _lock: lock })
    }
}

/// What the servers are made of.
struct Wiring {
    broker: Arc<Broker>,
    metrics: Metrics,
    doors: Doors,
    /// Where the handshakes of steps are made.
    handshakes: Handle,
    stop: CancellationToken,
    running: mpsc::Sender<()>,
}

impl Wiring {
    fn serve_steps(
        &self,
        runtime: &AsyncRuntime,
        mut sockets: mpsc::UnboundedReceiver<StepListener>,
        shares: Shares,
    ) {
        let (sender, connections) = mpsc::channel::<StepConnection>(WAITING_CONNECTIONS);
        let limits = self.broker.limits().clone();
        let (door, domain) = (Arc::clone(&self.doors.steps), self.doors.domain.clone());
        let (stop, handshakes) = (self.stop.clone(), self.handshakes.clone());
        let refused = Arc::clone(&self.metrics.steps.refused);
        let files = Arc::new(Semaphore::new(shares.step_connections as usize));
        runtime.spawn(async move {
            loop {
                let socket = tokio::select! {
                    () = stop.cancelled() => return,
                    socket = sockets.recv() => socket,
                };
                let Some(StepListener { listener, opening, stop: closed }) = socket else { return };
                let acceptor = Acceptor {
                    door: Arc::clone(&door),
                    domain: domain.clone(),
                    connections: sender.clone(),
                    handshakes: Some(handshakes.clone()),
                    draining: stop.clone(),
                    refused: Arc::clone(&refused),
                };
                let gate = step_gate(opening, closed, &limits, &files);
                match UnixListener::from_std(listener) {
                    Ok(listener) => drop(tokio::spawn(acceptor.run(listener, gate))),
                    Err(error) => tracing::error!(%error, "a step's socket cannot be listened on"),
                }
            }
        });
        let (broker, metrics) = (Arc::clone(&self.broker), Arc::clone(&self.metrics.steps));
        let served = grpc::serve_steps(broker, connections, metrics, self.stop.clone());
        let running = self.running.clone();
        runtime.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the step door failed");
            }
            drop(running);
        });
    }

    fn serve_admin(
        self,
        runtime: &AsyncRuntime,
        listener: std::os::unix::net::UnixListener,
        shares: Shares,
    ) -> Result<(), DaemonError> {
        let limits = self.broker.limits();
        let (sender, connections) = mpsc::channel::<AdminConnection>(WAITING_CONNECTIONS);
        let gate = Gate {
            tag: (),
            uid: None,
            connections: shares.admin_connections,
            pending_handshakes: limits.admin_pending_handshakes,
            files: None,
            requests: limits.admin_requests_in_flight,
            // They are of the admin group, if there is one.
            guests: Some(GuestLimits {
                pending_handshakes: limits.admin_pending_handshakes.div_ceil(4),
                connections: shares.admin_connections / 2,
                pace: PaceLimits {
                    per_second: limits.admin_guest_connections_per_second,
                    burst: limits.admin_guest_connection_burst,
                },
            }),
            patience: patience(limits),
            pace: None,
            reading: None,
            stop: CancellationToken::new(),
        };
        let acceptor = Acceptor {
            door: self.doors.admin,
            domain: self.doors.domain,
            connections: sender,
            handshakes: None,
            draining: self.stop.clone(),
            refused: Arc::clone(&self.metrics.admin.refused),
        };
        let listener = runtime
            .block_on(async { UnixListener::from_std(listener) })
            .map_err(DaemonError::Threads)?;
        runtime.spawn(acceptor.run(listener, gate));
        let served = grpc::serve_admin(self.broker, connections, self.metrics.admin, self.stop);
        let running = self.running;
        runtime.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the admin door failed");
            }
            drop(running);
        });
        Ok(())
    }
}

fn step_gate(
    opening: Arc<LiveOpening>,
    stop: CancellationToken,
    limits: &Limits,
    files: &Arc<Semaphore>,
) -> Gate<Arc<LiveOpening>> {
    Gate {
        uid: Some(opening.record().uid).filter(|_| opening.record().is_uid_checked),
        tag: opening,
        connections: limits.step_connections,
        pending_handshakes: limits.step_pending_handshakes,
        files: Some(Arc::clone(files)),
        requests: limits.step_requests_in_flight,
        guests: None,
        patience: patience(limits),
        pace: Some(PaceLimits {
            per_second: limits.step_new_connections_per_second,
            burst: limits.step_new_connection_burst,
        }),
        reading: Some(pieces(limits.step_read_kib_per_second)),
        stop,
    }
}

/// So many KiB a second, in the pieces that are read.
fn pieces(kib_per_second: u32) -> PaceLimits {
    let piece = u32::try_from(PIECE_BYTES / 1024).unwrap_or(1);
    let pieces = kib_per_second.div_ceil(piece);
    PaceLimits { per_second: pieces, burst: pieces }
}

/// Nobody looks into this process's memory: no core dump, no debugger of the same user. Keys and values pass
/// through the commands, too; a program that one of them runs is not concerned.
pub fn shut_out_others() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "core dumps could not be turned off");
    }
}

fn patience(limits: &Limits) -> Patience {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    Patience {
        preface: seconds(limits.preface_seconds),
        idle: seconds(limits.idle_seconds),
        stall: seconds(limits.stall_seconds),
    }
}

/// Listens on the admin socket. The runtime directory is locked, so what is there is a dead daemon's.
fn bind_admin(
    path: &Path,
    group: Option<u32>,
) -> Result<std::os::unix::net::UnixListener, DaemonError> {
    let failed = |source| RuntimeError::Io { path: path.to_owned(), source };
    // Made where nobody else can enter, and renamed into place with its mode set.
    let staged = path.with_file_name("stage").join("admin.sock");
    let listener = bind(&staged, 0o600).map_err(failed)?;
    if let Some(group) = group {
        std::os::unix::fs::chown(&staged, None, Some(group))
            .map_err(|source| DaemonError::AdminGroup { group, source })?;
        rustix::fs::chmod(&staged, Mode::from_raw_mode(0o660))
            .map_err(|error| failed(error.into()))?;
    }
    std::fs::rename(&staged, path).map_err(failed)?;
    Ok(listener)
}

/// Runs something that needs a runtime, where no daemon runs.
fn offline<T>(work: impl Future<Output = T>) -> Result<T, DaemonError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(DaemonError::Threads)?.block_on(work))
}
