//! Counts the unsent bytes of replies against the quota of the client.
//!
//! A place includes [`FREE_BYTES`] of a message and of a reply. More bytes count before the reply is made if their size
//! can be bounded, as for credentials and pages, and otherwise as soon as it is made. A reply without room waits for
//! room, in order and for [a moment](TIMEOUT), and is then refused.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::time::{Instant, timeout_at};
use tonic::Response;

use crate::broker::Room;
use crate::identity::PeerQuota;

/// Uncounted bytes of a message and of a reply. Nearly all are smaller.
pub(super) const FREE_BYTES: usize = 4 * 1024;
/// How long one call waits for room.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The counted bytes of one reply. They are given back when it is dropped.
pub(crate) struct ReplyBytes {
    quota: Arc<PeerQuota>,
    /// All bytes of the reply, counted or not.
    bytes: usize,
    /// The bytes taken from the quota: the counted bytes of the reply, or more.
    taken: u64,
    /// The bytes for which there was no room.
    wanted: usize,
    /// The end of the wait for room.
    until: Option<Instant>,
}

impl ReplyBytes {
    /// A reply without bytes.
    pub(crate) fn nothing(quota: &Arc<PeerQuota>) -> Self {
        Self { quota: Arc::clone(quota), bytes: 0, taken: 0, wanted: 0, until: None }
    }

    /// Counts bytes that exist already; `None` if none of them count.
    pub(crate) fn new(quota: &Arc<PeerQuota>, bytes: usize) -> Option<Self> {
        Self::nothing(quota).weigh(bytes)
    }

    /// Counts a finished reply; `None` if none of its bytes count.
    pub(crate) fn of(quota: &Arc<PeerQuota>, reply: &impl Message) -> Option<Self> {
        Self::nothing(quota).made(reply)
    }

    /// Takes room for `bytes` more, and waits for it. False if there was none in time.
    pub(crate) async fn reserve(&mut self, bytes: usize) -> bool {
        let more = counted(self.bytes.saturating_add(bytes)).saturating_sub(self.taken);
        if more == 0 {
            return true;
        }
        let until = *self.until.get_or_insert_with(|| Instant::now() + TIMEOUT);
        let is_taken = timeout_at(until, self.quota.wait_for_bytes(more)).await.is_ok();
        if is_taken {
            self.taken += more;
        }
        is_taken
    }

    /// Waits for the room that was missing. False if there was none in time.
    pub(crate) async fn wait(&mut self) -> bool {
        self.reserve(self.wanted).await
    }

    /// Counts the finished reply instead of the room that was taken for it.
    pub(crate) fn made(self, reply: &impl Message) -> Option<Self> {
        self.weigh(reply.encoded_len())
    }

    fn weigh(mut self, bytes: usize) -> Option<Self> {
        self.bytes = bytes;
        let now = counted(bytes);
        let before = std::mem::replace(&mut self.taken, now);
        match now.checked_sub(before) {
            Some(more) => self.quota.owe_bytes(more),
            None => self.quota.give_bytes(before - now),
        }
        (now > 0).then_some(self)
    }

    /// The response of a service, with what its reply holds.
    pub(crate) fn answer<T>(weighed: Option<Self>, reply: T) -> Response<T> {
        let mut response = Response::new(reply);
        if let Some(weighed) = weighed {
            response.extensions_mut().insert(Arc::new(weighed));
        }
        response
    }
}

impl Room for ReplyBytes {
    fn take(&mut self, bytes: usize) -> bool {
        let after = self.bytes.saturating_add(bytes);
        let more = counted(after).saturating_sub(self.taken);
        // Earlier waiters come first.
        let is_taken = more == 0 || (!self.quota.is_waited_for() && self.quota.take_bytes(more));
        if is_taken {
            self.bytes = after;
            self.taken += more;
        } else {
            self.wanted = bytes;
        }
        is_taken
    }
}

fn counted(bytes: usize) -> u64 {
    u64::try_from(bytes.saturating_sub(FREE_BYTES)).unwrap_or(u64::MAX)
}

impl Drop for ReplyBytes {
    fn drop(&mut self) {
        self.quota.give_bytes(self.taken);
    }
}
