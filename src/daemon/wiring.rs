//! Connects the daemon's sockets with its servers: acceptors, their settings, and channels of verified connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::runtime::Runtime as AsyncRuntime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::DaemonError;
use super::certificate::ServerTlsPair;
use super::files::Shares;
use super::quotas::{AdminQuotas, StepQuotas};
use crate::broker::{Broker, StepListener, StepSession};
use crate::grpc::{self, AdminConnection, StepConnection};
use crate::identity::{
    Acceptor, Admission, CertificateCheck, FindQuota, HandshakeLimits, Handshakes, ListenerConfig,
    OpenConnections, PeerQuota, Timeouts,
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
    /// Serves the sockets of steps as they come from `sockets`, on this runtime.
    pub(super) fn serve_steps(
        &self,
        runtime: &AsyncRuntime,
        mut sockets: mpsc::UnboundedReceiver<StepListener>,
        shares: Shares,
    ) {
        let (sender, connections) = mpsc::channel::<StepConnection>(WAITING_CONNECTIONS);
        let (tls, open) = (Arc::clone(&self.tls.steps), Arc::clone(&self.steps_open));
        let broker = Arc::clone(&self.broker);
        let (stop, handshakes) = (self.stop.clone(), self.handshakes.clone());
        let refused = Arc::clone(&self.metrics.steps.refused);
        let quotas = StepQuotas::new(broker.limits(), shares);
        runtime.spawn(async move {
            loop {
                let socket = tokio::select! {
                    () = stop.cancelled() => return,
                    socket = sockets.recv() => socket,
                };
                let Some(StepListener { listener, session, stop: closed }) = socket else { return };
                let acceptor = Acceptor {
                    tls: Arc::clone(&tls),
                    open: Arc::clone(&open),
                    connections: sender.clone(),
                    handshakes: Some(handshakes.clone()),
                    draining: stop.clone(),
                    refused: Arc::clone(&refused),
                };
                let quota = quotas.peer_quota(&session.opening.record().key);
                let config = step_config(&broker, &session, closed, quota);
                match UnixListener::from_std(listener) {
                    Ok(listener) => drop(tokio::spawn(acceptor.run(listener, config))),
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

    /// Serves the admin socket on this runtime.
    ///
    /// # Errors
    /// If the runtime cannot take the socket.
    pub(super) fn serve_admin(
        self,
        runtime: &AsyncRuntime,
        listener: std::os::unix::net::UnixListener,
        shares: Shares,
    ) -> Result<(), DaemonError> {
        let limits = self.broker.limits();
        let broker = Arc::clone(&self.broker);
        let quotas = AdminQuotas::new(limits, shares);
        let find_quota: FindQuota = Arc::new(move |svid| quotas.peer_quota(svid));
        let certificate_check: CertificateCheck =
            Arc::new(move |svid, uid| broker.check_admin_certificate(svid, uid));
        let (sender, connections) = mpsc::channel::<AdminConnection>(WAITING_CONNECTIONS);
        let handshakes = HandshakeLimits {
            slots: shares.admin_handshakes,
            // Other users than root and the daemon's are members of the admin group, if there is one.
            guests: limits.admin_guest_connections(),
        };
        let config = ListenerConfig {
            tag: (),
            uid: None,
            certificate_check,
            admission: Admission::of_many(handshakes, find_quota),
            timeouts: timeouts(limits),
            rate_limit: None,
            stop: CancellationToken::new(),
        };
        let acceptor = Acceptor {
            tls: self.tls.admin,
            open: self.admin_open,
            connections: sender,
            handshakes: None,
            draining: self.stop.clone(),
            refused: Arc::clone(&self.metrics.admin.refused),
        };
        let listener = runtime
            .block_on(async { UnixListener::from_std(listener) })
            .map_err(DaemonError::Threads)?;
        runtime.spawn(acceptor.run(listener, config));
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
