//! Bytes of replies that are not on their way yet, counted against the share of who has asked.
//!
//! A place pays for [`FREE_BYTES`] of a message and of a reply. What is above that counts when it is there: a reply
//! as soon as it is made, in whatever form it waits. Whoever holds all that he may is refused before more is made.

use std::sync::Arc;

use prost::Message;
use tonic::Response;

use crate::identity::Standing;

/// What nobody counts, in bytes: nearly all messages, and nearly all replies.
pub(super) const FREE_BYTES: usize = 4 * 1024;

/// Bytes that are held until this is dropped.
pub(super) struct Weighed {
    standing: Arc<Standing>,
    bytes: u64,
}

impl Weighed {
    /// Counts so many bytes, if they are to be counted.
    pub(super) fn new(standing: &Arc<Standing>, bytes: usize) -> Option<Self> {
        let counted = bytes.checked_sub(FREE_BYTES).filter(|counted| *counted > 0)?;
        let bytes = u64::try_from(counted).unwrap_or(u64::MAX);
        standing.owe_bytes(bytes);
        Some(Self { standing: Arc::clone(standing), bytes })
    }

    /// The same of a reply.
    pub(super) fn of(standing: &Arc<Standing>, reply: &impl Message) -> Option<Self> {
        Self::new(standing, reply.encoded_len())
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

impl Drop for Weighed {
    fn drop(&mut self) {
        self.standing.give_bytes(self.bytes);
    }
}
