//! Bytes of replies that are not on their way yet, counted against the share of who has asked.
//!
//! A place pays for [`FREE_BYTES`] of a message and of a reply. What is above that counts before it is made, where its
//! size can be bounded: of credentials and of pages; of everything else as soon as it is made. What has no room waits
//! for it, in order and for [a moment](PATIENCE); then it is refused.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::time::{Instant, timeout_at};
use tonic::Response;

use crate::broker::Room;
use crate::identity::PeerQuota;

/// What nobody counts, in bytes: nearly all messages, and nearly all replies.
pub(super) const FREE_BYTES: usize = 4 * 1024;
/// How long one call waits for room.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes that are held until this is dropped.
pub(crate) struct ReplyBytes {
    quota: Arc<PeerQuota>,
    /// With what is free of them.
    bytes: usize,
    /// What is taken for them: what counts of them, or more.
    taken: u64,
    /// How many more there should have been when there was no room.
    wanted: usize,
    /// Until when room is waited for.
    until: Option<Instant>,
}

impl ReplyBytes {
    /// A reply of which nothing is there yet.
    pub(crate) fn nothing(quota: &Arc<PeerQuota>) -> Self {
        Self { quota: Arc::clone(quota), bytes: 0, taken: 0, wanted: 0, until: None }
    }

    /// Counts so many bytes that are there, if they are to be counted.
    pub(crate) fn new(quota: &Arc<PeerQuota>, bytes: usize) -> Option<Self> {
        Self::nothing(quota).weigh(bytes)
    }

    /// The same of a reply.
    pub(crate) fn of(quota: &Arc<PeerQuota>, reply: &impl Message) -> Option<Self> {
        Self::nothing(quota).made(reply)
    }

    /// Takes room for so many bytes more, and waits for it; false if none has come.
    pub(crate) async fn reserve(&mut self, bytes: usize) -> bool {
        let more = counted(self.bytes.saturating_add(bytes)).saturating_sub(self.taken);
        if more == 0 {
            return true;
        }
        let until = *self.until.get_or_insert_with(|| Instant::now() + PATIENCE);
        let is_taken = timeout_at(until, self.quota.wait_for_bytes(more)).await.is_ok();
        if is_taken {
            self.taken += more;
        }
        is_taken
    }

    /// Waits for the room that there was none of; false if none has come.
    pub(crate) async fn wait(&mut self) -> bool {
        self.reserve(self.wanted).await
    }

    /// The reply is made: what it has counts, and no longer what was taken for it.
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

    /// The answer with what it holds, for the door.
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
        // Those who wait are before.
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
