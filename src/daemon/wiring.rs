//! Connects the daemon's sockets with its servers: acceptors, their settings, and channels of verified connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::runtime::{Handle, Runtime as AsyncRuntime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::DaemonError;
use super::certificate::ServerTlsPair;
use super::files::Shares;
use super::quotas::{AdminQuotas, StepQuotas};
use super::tcp_listener::OperatorListener;
use super::threads::Threads;
use crate::broker::{Broker, StepListener, StepSession};
use crate::grpc::{self, AdminConnection, StepConnection};
use crate::identity::{
    Acceptor, Admission, CertificateCheck, FindQuota, HandshakeLimits, Handshakes, Listener,
    ListenerConfig, OpenConnections, PeerQuota, Refusals, ServerTls, Timeouts,
};
use crate::metrics::Metrics;
use crate::model::Limits;

/// How many verified connections wait for their server.
const WAITING_CONNECTIONS: usize = 64;

/// The parts that the servers are made of.
pub(super) struct Wiring {
    pub(super) broker: Arc<Broker>,
    pub(super) metrics: Metrics,
    pub(super) tls: ServerTlsPair,
    /// The open connections of the step door, and of the admin door.
    pub(super) steps_open: Arc<OpenConnections>,
    pub(super) admin_open: Arc<OpenConnections>,
    /// The threads that make the handshakes of steps.
    pub(super) handshakes: Handshakes,
    pub(super) stop: CancellationToken,
    /// Dropped when a server has drained.
    pub(super) running: mpsc::Sender<()>,
}

impl Wiring {
    /// Serves the sockets of steps as they come from `sockets`. All connections of a step stay on one thread.
    pub(super) fn serve_steps(
        &self,
        threads: &Threads,
        mut sockets: mpsc::UnboundedReceiver<StepListener>,
        shares: Shares,
    ) {
        let refused = Refusals::new(Arc::clone(&self.metrics.steps.refused));
        let start = |runtime| self.start_step_worker(runtime, Arc::clone(&refused));
        let workers: Vec<_> = threads.steps.iter().map(start).collect();
        let (stop, broker) = (self.stop.clone(), Arc::clone(&self.broker));
        let quotas = StepQuotas::new(broker.limits(), shares);
        threads.admin.spawn(async move {
            while let Some(Some(socket)) = stop.run_until_cancelled(sockets.recv()).await {
                let StepListener { listener, session, stop: closed } = socket;
                let quota = quotas.peer_quota(&session.opening.record().key);
                let config = step_config(&broker, &session, closed, quota);
                let least = workers.iter().min_by_key(|worker| worker.open_steps());
                least.inspect(|worker| worker.listen(listener, config));
            }
        });
    }

    /// Starts the server of one thread of the step door.
    fn start_step_worker(&self, runtime: &AsyncRuntime, refused: Arc<Refusals>) -> StepWorker {
        let (sender, connections) = mpsc::channel::<StepConnection>(WAITING_CONNECTIONS);
        let acceptor = Acceptor {
            tls: Arc::clone(&self.tls.steps),
            open: Arc::clone(&self.steps_open),
            connections: sender,
            handshakes: Some(self.handshakes.clone()),
            draining: self.stop.clone(),
            refused,
        };
        let (broker, metrics) = (Arc::clone(&self.broker), Arc::clone(&self.metrics.steps));
        let served = grpc::serve_steps(broker, connections, metrics, self.stop.clone());
        let running = self.running.clone();
        runtime.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the step door failed");
            }
            drop(running);
        });
        StepWorker { acceptor: Arc::new(acceptor), runtime: runtime.handle().clone() }
    }

    /// Serves the admin socket, and the TCP listener for operators if there is one. That listener and its handshakes have a
    /// thread of their own, so that strangers hold up no local client.
    ///
    /// # Errors
    /// If the runtime cannot take a listener.
    pub(super) fn serve_admin(
        self,
        threads: &Threads,
        (listener, operators): (std::os::unix::net::UnixListener, Option<OperatorListener>),
        shares: Shares,
    ) -> Result<(), DaemonError> {
        let (limits, runtime) = (self.broker.limits(), &threads.admin);
        let quotas = AdminQuotas::new(limits, shares);
        let find_quota: FindQuota = Arc::new(move |svid| quotas.peer_quota(svid));
        let (sender, connections) = mpsc::channel::<AdminConnection>(WAITING_CONNECTIONS);
        let handshakes = HandshakeLimits {
            slots: shares.admin_handshakes,
            // Other users than root and the daemon's are members of the admin group, if there is one.
            guests: limits.admin_guest_connections(),
        };
        let _entered = runtime.enter();
        let socket = UnixListener::from_std(listener).map_err(DaemonError::Threads)?;
        let bounds = Admission::of_many(handshakes, Arc::clone(&find_quota));
        self.accept_admin(runtime, socket, (&self.tls.admin, bounds), sender.clone());
        if let (Some(operators), Some(tls), Some(apart)) = (operators, &self.tls.tcp, &threads.tcp)
        {
            let _entered = apart.enter();
            let (handshakes, rate) = (shares.tcp_handshakes, limits.tcp_connections());
            let bounds = Admission::of_network(handshakes, rate, find_quota);
            let recorded = self.record_logins(apart, sender);
            self.accept_admin(apart, operators.listen()?, (tls, bounds), recorded);
        }
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

    /// Passes on the connections whose logins are noted in the journal.
    fn record_logins(
        &self,
        runtime: &AsyncRuntime,
        server: mpsc::Sender<AdminConnection>,
    ) -> mpsc::Sender<AdminConnection> {
        let (sender, mut connections) = mpsc::channel::<AdminConnection>(WAITING_CONNECTIONS);
        let broker = Arc::clone(&self.broker);
        runtime.spawn(async move {
            while let Some(Some(connection)) = tokio::select! {
                connection = connections.recv() => Some(connection),
                () = server.closed() => None,
            } {
                let peer = connection.peer();
                if broker.note_login(&peer.svid, peer.origin).is_ok() {
                    let _ = server.send(connection).await;
                }
            }
        });
        sender
    }

    /// Accepts the connections of one listener of the admin door.
    fn accept_admin(
        &self,
        runtime: &AsyncRuntime,
        listener: impl Into<Listener>,
        (tls, admission): (&Arc<ServerTls>, Admission),
        connections: mpsc::Sender<AdminConnection>,
    ) {
        let broker = Arc::clone(&self.broker);
        let certificate_check: CertificateCheck =
            Arc::new(move |svid, origin| broker.check_admin_certificate(svid, origin));
        let config = ListenerConfig {
            tag: (),
            uid: None,
            certificate_check,
            admission,
            timeouts: timeouts(self.broker.limits()),
            rate_limit: None,
            stop: CancellationToken::new(),
        };
        let acceptor = Acceptor {
            tls: Arc::clone(tls),
            open: Arc::clone(&self.admin_open),
            connections,
            handshakes: None,
            draining: self.stop.clone(),
            refused: Refusals::new(Arc::clone(&self.metrics.admin.refused)),
        };
        let listener = listener.into();
        runtime.spawn(async move { acceptor.run(listener, config).await });
    }
}

/// A thread of the step door.
struct StepWorker {
    /// Held once by each step that it listens for.
    acceptor: Arc<Acceptor<Arc<StepSession>>>,
    runtime: Handle,
}

impl StepWorker {
    fn open_steps(&self) -> usize {
        Arc::strong_count(&self.acceptor) - 1
    }

    /// Accepts the connections of one step until it closes.
    fn listen(
        &self,
        listener: std::os::unix::net::UnixListener,
        config: ListenerConfig<Arc<StepSession>>,
    ) {
        let acceptor = Arc::clone(&self.acceptor);
        self.runtime.spawn(async move {
            match UnixListener::from_std(listener) {
                Ok(listener) => acceptor.run(listener, config).await,
                Err(error) => tracing::error!(%error, "a step's socket cannot be listened on"),
            }
        });
    }
}

fn step_config(
    broker: &Arc<Broker>,
    session: &Arc<StepSession>,
    stop: CancellationToken,
    quota: Arc<PeerQuota>,
) -> ListenerConfig<Arc<StepSession>> {
    let limits = broker.limits();
    let (registry, known) = (Arc::clone(broker), Arc::clone(session));
    let owner = session.opening.record().owner;
    ListenerConfig {
        certificate_check: Arc::new(move |svid, _| {
            registry.check_step_certificate(&known.opening, svid)
        }),
        uid: Some(owner.uid).filter(|_| owner.is_uid_checked),
        tag: Arc::clone(session),
        admission: Admission::of_one(
            quota,
            limits.step_connections,
            limits.step_pending_handshakes,
        ),
        timeouts: timeouts(limits),
        rate_limit: Some(limits.step_new_connections()),
        stop,
    }
}

fn timeouts(limits: &Limits) -> Timeouts {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    Timeouts {
        preface: seconds(limits.preface_seconds),
        idle: seconds(limits.idle_seconds),
        stall: seconds(limits.stall_seconds),
    }
}
