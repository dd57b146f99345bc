//! What stands between the daemon's sockets and its servers: acceptors, their gates, and the channels of verified
//! connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::runtime::Runtime as AsyncRuntime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::DaemonError;
use super::certificate::Doors;
use super::commons::{AdminCommons, StepCommons};
use super::files::Shares;
use crate::broker::{Broker, StepListener};
use crate::grpc::{self, AdminConnection, StepConnection};
use crate::identity::{
    Acceptor, Entrance, Gate, Handshakes, LetIn, LobbyLimits, OpenConnections, PaceLimits,
    Patience, Stand, Standing,
};
use crate::journal::LiveOpening;
use crate::metrics::Metrics;
use crate::model::Limits;

/// Verified connections that wait for their server.
const WAITING_CONNECTIONS: usize = 64;

/// What the servers are made of.
pub(super) struct Wiring {
    pub(super) broker: Arc<Broker>,
    pub(super) metrics: Metrics,
    pub(super) doors: Doors,
    /// The open connections of the step door, and of the admin door.
    pub(super) steps_open: Arc<OpenConnections>,
    pub(super) admin_open: Arc<OpenConnections>,
    /// Where the handshakes of steps are made.
    pub(super) handshakes: Handshakes,
    pub(super) stop: CancellationToken,
    pub(super) running: mpsc::Sender<()>,
}

impl Wiring {
    pub(super) fn serve_steps(
        &self,
        runtime: &AsyncRuntime,
        mut sockets: mpsc::UnboundedReceiver<StepListener>,
        shares: Shares,
    ) {
        let (sender, connections) = mpsc::channel::<StepConnection>(WAITING_CONNECTIONS);
        let (door, open) = (Arc::clone(&self.doors.steps), Arc::clone(&self.steps_open));
        let broker = Arc::clone(&self.broker);
        let (stop, handshakes) = (self.stop.clone(), self.handshakes.clone());
        let refused = Arc::clone(&self.metrics.steps.refused);
        let commons = StepCommons::new(broker.limits(), shares);
        runtime.spawn(async move {
            loop {
                let socket = tokio::select! {
                    () = stop.cancelled() => return,
                    socket = sockets.recv() => socket,
                };
                let Some(StepListener { listener, opening, stop: closed }) = socket else { return };
                let acceptor = Acceptor {
                    door: Arc::clone(&door),
                    open: Arc::clone(&open),
                    connections: sender.clone(),
                    handshakes: Some(handshakes.clone()),
                    draining: stop.clone(),
                    refused: Arc::clone(&refused),
                };
                let standing = commons.stand(&opening.record().key);
                let gate = step_gate(&broker, opening, closed, standing);
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

    pub(super) fn serve_admin(
        self,
        runtime: &AsyncRuntime,
        listener: std::os::unix::net::UnixListener,
        shares: Shares,
    ) -> Result<(), DaemonError> {
        let limits = self.broker.limits();
        let broker = Arc::clone(&self.broker);
        let commons = AdminCommons::new(limits, shares);
        let stand: Stand = Arc::new(move |svid| commons.stand(svid));
        let let_in: LetIn = Arc::new(move |svid, uid| broker.let_in_admin(svid, uid));
        let (sender, connections) = mpsc::channel::<AdminConnection>(WAITING_CONNECTIONS);
        let gate = Gate {
            tag: (),
            uid: None,
            let_in,
            entrance: Entrance::Many {
                lobby: LobbyLimits {
                    places: shares.admin_handshakes,
                    // They are of the admin group, if there is one.
                    guests: PaceLimits {
                        per_second: limits.admin_guest_connections_per_second,
                        burst: limits.admin_guest_connection_burst,
                    },
                },
                stand,
            },
            patience: patience(limits),
            pace: None,
            stop: CancellationToken::new(),
        };
        let acceptor = Acceptor {
            door: self.doors.admin,
            open: self.admin_open,
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
    broker: &Arc<Broker>,
    opening: Arc<LiveOpening>,
    stop: CancellationToken,
    standing: Arc<Standing>,
) -> Gate<Arc<LiveOpening>> {
    let limits = broker.limits();
    let (registry, known) = (Arc::clone(broker), Arc::clone(&opening));
    Gate {
        let_in: Arc::new(move |svid, _| registry.let_in_step(&known, svid)),
        uid: Some(opening.record().uid).filter(|_| opening.record().is_uid_checked),
        tag: opening,
        entrance: Entrance::One {
            standing,
            connections: limits.step_connections,
            handshakes: limits.step_pending_handshakes,
        },
        patience: patience(limits),
        pace: Some(PaceLimits {
            per_second: limits.step_new_connections_per_second,
            burst: limits.step_new_connection_burst,
        }),
        stop,
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
