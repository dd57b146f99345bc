//! From a thread that reads files to a stream, whose reader may take nothing of it.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::broker::Broker;
use crate::identity::Peer;

/// The thread's end.
pub(super) struct Feed<T> {
    sender: mpsc::Sender<T>,
    broker: Arc<Broker>,
    peer: Arc<Peer<()>>,
    has_stalled: Cell<bool>,
}

impl<T> Feed<T> {
    /// One for whoever is at the other end of this connection.
    pub(super) fn new(sender: mpsc::Sender<T>, broker: Arc<Broker>, peer: Arc<Peer<()>>) -> Self {
        Self { sender, broker, peer, has_stalled: Cell::new(false) }
    }

    /// Hands this on; false if the reader is gone, may read no more, or has taken nothing for too long. Waits:
    /// it is for a thread of the runtime's on which waiting is allowed.
    pub(super) fn send(&self, item: T) -> bool {
        if !self.may_go_on() {
            return false;
        }
        let patience = Duration::from_secs(self.broker.limits().stall_seconds.into());
        let sent = Handle::current().block_on(self.sender.send_timeout(item, patience));
        self.has_stalled.set(sent.is_err());
        sent.is_ok()
    }

    /// Whether somebody reads who is registered still, and the daemon does not drain.
    pub(super) fn may_go_on(&self) -> bool {
        !self.has_stalled.get()
            && !self.sender.is_closed()
            && self.broker.check_serving().is_ok()
            && self.broker.admin_principal(&self.peer.svid, self.peer.uid).is_ok()
    }
}
