//! The open steps of this daemon: a session and a listening socket each.

use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::executor_budget::{ExecutorBudget, ExecutorBudgets};
use super::session::StepSession;
use crate::journal::LiveOpening;
use crate::model::{ExecutorName, Id, Timestamp};

/// How long the connections of a closed step last, so that streams can report why they end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A step's socket that listens already, on its way to an acceptor.
pub struct StepListener {
    /// The socket.
    pub listener: UnixListener,
    /// The step.
    pub session: Arc<StepSession>,
    /// Ends the listening and every connection.
    pub stop: CancellationToken,
}

/// The sessions of all open steps, and the budgets of their executors.
pub(crate) struct Sessions {
    open: Mutex<HashMap<Id, (Arc<StepSession>, CancellationToken)>>,
    executors: ExecutorBudgets,
    sender: mpsc::UnboundedSender<StepListener>,
}

impl Sessions {
    pub(crate) fn new(sender: mpsc::UnboundedSender<StepListener>) -> Self {
        Self { open: Mutex::default(), executors: ExecutorBudgets::default(), sender }
    }

    /// Begins the session of a step, which listens from now on. A step that was open when the daemon was down has its
    /// first heartbeat now: its executor could not send it.
    pub(super) fn begin(&self, listener: UnixListener, opening: Arc<LiveOpening>, now: Timestamp) {
        let key = &opening.record().key;
        let executor = self.executor(key.executor_uid, &key.executor);
        let (id, stop) = (opening.record().id, CancellationToken::new());
        let session = Arc::new(StepSession::new(opening, executor, now));
        self.open.lock().insert(id, (Arc::clone(&session), stop.clone()));
        // The receiver goes when the daemon drains; then the socket is not needed.
        let _ = self.sender.send(StepListener { listener, session, stop });
    }

    /// The session of an open step.
    pub(crate) fn find(&self, id: Id) -> Option<Arc<StepSession>> {
        self.open.lock().get(&id).map(|(session, _)| Arc::clone(session))
    }

    /// The sessions of all open steps.
    pub(crate) fn all(&self) -> Vec<Arc<StepSession>> {
        self.open.lock().values().map(|(session, _)| Arc::clone(session)).collect()
    }

    /// The budget of a registered executor.
    pub(super) fn executor(&self, registration: Id, name: &ExecutorName) -> Arc<ExecutorBudget> {
        self.executors.of(registration, name)
    }

    /// The budgets of all executors that were used of late.
    pub(crate) fn executors(&self, now: Timestamp) -> Vec<Arc<ExecutorBudget>> {
        self.executors.all(now)
    }

    /// Ends a session. The connections last a moment longer, so that streams can report why they end. No secret is
    /// handed out meanwhile: the opening is closed.
    pub(super) fn end_soon(&self, id: Id) {
        if let Some((_, stop)) = self.open.lock().remove(&id) {
            tokio::spawn(async move {
                tokio::time::sleep(LAST_WORDS).await;
                stop.cancel();
            });
        }
    }

    /// Ends a session and its connections.
    pub(super) fn end(&self, id: Id) {
        if let Some((_, stop)) = self.open.lock().remove(&id) {
            stop.cancel();
        }
    }
}
