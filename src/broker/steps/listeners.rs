//! The sockets that listen, each for one opening.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::runtime_dir::StepListener;
use crate::journal::LiveOpening;
use crate::model::Id;

/// How long the connections of a closed step last, so that streams can say why they end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The sockets that listen, and how to stop each.
pub(crate) struct Listeners {
    stops: Mutex<HashMap<Id, CancellationToken>>,
    sender: mpsc::UnboundedSender<StepListener>,
}

impl Listeners {
    pub(crate) fn new(sender: mpsc::UnboundedSender<StepListener>) -> Self {
        Self { stops: Mutex::default(), sender }
    }

    pub(crate) fn start(
        &self,
        listener: std::os::unix::net::UnixListener,
        opening: Arc<LiveOpening>,
    ) {
        let stop = CancellationToken::new();
        self.stops.lock().insert(opening.record().id, stop.clone());
        // The receiver goes when the daemon drains; then nobody needs the socket.
        let _ = self.sender.send(StepListener { listener, opening, stop });
    }

    /// Ends the listening and the connections, when streams have had a moment to say why they end. Nothing
    /// is handed out meanwhile: the opening is closed.
    pub(super) fn stop_soon(&self, id: Id) {
        if let Some(stop) = self.stops.lock().remove(&id) {
            tokio::spawn(async move {
                tokio::time::sleep(LAST_WORDS).await;
                stop.cancel();
            });
        }
    }

    pub(crate) fn stop(&self, id: Id) {
        if let Some(stop) = self.stops.lock().remove(&id) {
            stop.cancel();
        }
    }
}
