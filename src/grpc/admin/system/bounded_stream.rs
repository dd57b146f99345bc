//! From who reads files to a stream, whose reader may take nothing of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::broker::Broker;
use crate::identity::Peer;

/// The end of who reads files.
pub(crate) struct BoundedStream<T> {
    sender: mpsc::Sender<T>,
    broker: Arc<Broker>,
    peer: Arc<Peer<()>>,
    has_stalled: AtomicBool,
}

impl<T> BoundedStream<T> {
    /// One for whoever is at the other end of this connection.
    pub(crate) fn new(sender: mpsc::Sender<T>, broker: Arc<Broker>, peer: Arc<Peer<()>>) -> Self {
        Self { sender, broker, peer, has_stalled: AtomicBool::new(false) }
    }

    /// Hands this on; false if the reader is gone, may read no more, or has taken nothing for too long. Waits:
    /// it is for a thread of the runtime's on which waiting is allowed.
    pub(crate) fn send(&self, item: T) -> bool {
        Handle::current().block_on(self.offer(item))
    }

    /// The same without keeping a thread.
    pub(crate) async fn offer(&self, item: T) -> bool {
        if !self.may_go_on() {
            return false;
        }
        let patience = Duration::from_secs(self.broker.limits().stall_seconds.into());
        let sent = self.sender.send_timeout(item, patience).await;
        self.has_stalled.store(sent.is_err(), Ordering::Relaxed);
        sent.is_ok()
    }

    /// Waits until the reader is gone.
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Whether somebody reads who is registered still, and the daemon does not drain.
    pub(super) fn may_go_on(&self) -> bool {
        !self.has_stalled.load(Ordering::Relaxed)
            && !self.sender.is_closed()
            && self.broker.check_serving().is_ok()
            && self.broker.admin_principal(&self.peer.svid, self.peer.uid).is_ok()
    }
}
