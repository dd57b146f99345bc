//! From a thread that reads files to a stream, whose reader may take nothing of it.

use std::cell::Cell;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// The thread's end.
pub(super) struct Feed<T> {
    sender: mpsc::Sender<T>,
    patience: Duration,
    has_stalled: Cell<bool>,
}

impl<T> Feed<T> {
    /// One that waits for so long until the reader takes something.
    pub(super) fn new(sender: mpsc::Sender<T>, patience: Duration) -> Self {
        Self { sender, patience, has_stalled: Cell::new(false) }
    }

    /// Hands this on; false if the reader is gone, or has taken nothing for too long. Waits: it is for a thread
    /// of the runtime's on which waiting is allowed.
    pub(super) fn send(&self, item: T) -> bool {
        let sent = Handle::current().block_on(self.sender.send_timeout(item, self.patience));
        self.has_stalled.set(sent.is_err());
        sent.is_ok()
    }

    /// Whether somebody reads.
    pub(super) fn is_read(&self) -> bool {
        !self.has_stalled.get() && !self.sender.is_closed()
    }
}
