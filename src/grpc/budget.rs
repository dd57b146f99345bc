//! Bytes of replies that are not on their way yet, counted against the share of who has asked.
//!
//! A place pays for [`FREE_BYTES`] of a message and of a reply. What is above that counts: of a credential before it
//! is opened, of everything else as soon as it is made. Whoever holds all that he may is refused before more is made.

use std::sync::Arc;

use prost::Message;
use tonic::Response;

use crate::broker::Room;
use crate::identity::Standing;

/// What nobody counts, in bytes: nearly all messages, and nearly all replies.
pub(super) const FREE_BYTES: usize = 4 * 1024;

/// Bytes that are held until this is dropped.
pub(super) struct Weighed {
    standing: Arc<Standing>,
    /// With what is free of them.
    bytes: usize,
}

impl Weighed {
    /// A reply of which nothing is there yet.
    pub(super) fn nothing(standing: &Arc<Standing>) -> Self {
        Self { standing: Arc::clone(standing), bytes: 0 }
    }

    /// Counts so many bytes that are there, if they are to be counted.
    pub(super) fn new(standing: &Arc<Standing>, bytes: usize) -> Option<Self> {
        Self::nothing(standing).weigh(bytes)
    }

    /// The same of a reply.
    pub(super) fn of(standing: &Arc<Standing>, reply: &impl Message) -> Option<Self> {
        Self::nothing(standing).made(reply)
    }

    /// The reply is made: what it has counts, and no longer what was taken for it.
    pub(super) fn made(self, reply: &impl Message) -> Option<Self> {
        self.weigh(reply.encoded_len())
    }

    fn weigh(mut self, bytes: usize) -> Option<Self> {
        let before = counted(std::mem::replace(&mut self.bytes, bytes));
        let now = counted(bytes);
        match now.checked_sub(before) {
            Some(more) => self.standing.owe_bytes(more),
            None => self.standing.give_bytes(before - now),
        }
        (now > 0).then_some(self)
    }

    /// The answer with what it holds, for the door.
    pub(super) fn answer<T>(weighed: Option<Self>, reply: T) -> Response<T> {
        let mut response = Response::new(reply);
        if let Some(weighed) = weighed {
            response.extensions_mut().insert(Arc::new(weighed));
        }
        response
    }
}

impl Room for Weighed {
    fn take(&mut self, bytes: usize) -> bool {
        let after = self.bytes.saturating_add(bytes);
        let more = counted(after) - counted(self.bytes);
        let is_taken = more == 0 || self.standing.take_bytes(more);
        if is_taken {
            self.bytes = after;
        }
        is_taken
    }
}

fn counted(bytes: usize) -> u64 {
    u64::try_from(bytes.saturating_sub(FREE_BYTES)).unwrap_or(u64::MAX)
}

impl Drop for Weighed {
    fn drop(&mut self) {
        self.standing.give_bytes(counted(self.bytes));
    }
}
