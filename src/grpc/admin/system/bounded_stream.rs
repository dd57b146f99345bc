//! A stream from a task that reads files to a client that may take nothing of it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::Stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::broker::{Broker, Error};
use crate::identity::Peer;

/// The messages that a task sends, and its error if it fails.
pub(crate) type ReplyStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A reply with the items that a task sends, and the task's error at the end.
pub(crate) fn reply_stream<T: Send + 'static>(
    sent: mpsc::Receiver<T>,
    task: JoinHandle<Result<(), Error>>,
) -> ReplyStream<T> {
    let end = futures_util::stream::once(async {
        let ended = task.await.unwrap_or_else(|error| Err(Error::Internal(error.to_string())));
        ended.err().map(|error| Err(error.into()))
    });
    Box::pin(ReceiverStream::new(sent).map(Ok).chain(end.filter_map(|end| end)))
}

/// The end of the stream at which the task sends.
pub(crate) struct BoundedStream<T> {
    sender: mpsc::Sender<T>,
    broker: Arc<Broker>,
    peer: Arc<Peer<()>>,
    has_stalled: AtomicBool,
}

impl<T> BoundedStream<T> {
    /// A stream to the peer of a connection.
    pub(crate) fn new(sender: mpsc::Sender<T>, broker: Arc<Broker>, peer: Arc<Peer<()>>) -> Self {
        Self { sender, broker, peer, has_stalled: AtomicBool::new(false) }
    }

    /// Sends an item as [`BoundedStream::send`] does, and keeps the thread until then. It must be called on a thread of
    /// the runtime that may block.
    pub(crate) fn blocking_send(&self, item: T) -> bool {
        Handle::current().block_on(self.send(item))
    }

    /// Sends an item. False if the client is gone, may read no more, or has taken nothing for too long.
    pub(crate) async fn send(&self, item: T) -> bool {
        if !self.may_go_on() {
            return false;
        }
        let stall = Duration::from_secs(self.broker.limits().stall_seconds.into());
        let sent = self.sender.send_timeout(item, stall).await;
        self.has_stalled.store(sent.is_err(), Ordering::Relaxed);
        sent.is_ok()
    }

    /// Waits until the client is gone.
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// True if the client still reads and is registered, and the daemon does not drain.
    pub(super) fn may_go_on(&self) -> bool {
        !self.has_stalled.load(Ordering::Relaxed)
            && !self.sender.is_closed()
            && self.broker.check_serving().is_ok()
            && self.broker.admin_principal(&self.peer.svid, self.peer.origin).is_ok()
    }
}
