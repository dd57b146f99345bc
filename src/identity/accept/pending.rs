//! The handshakes that are not done, and the slot that each of them holds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The pending handshakes of a listener, the oldest first. `O` says who makes them.
pub(super) type PendingList<O> = Arc<Mutex<VecDeque<PendingHandshake<O>>>>;

/// A handshake that is not done.
pub(super) struct PendingHandshake<O> {
    pub(super) origin: O,
    pub(super) since: Instant,
    has_spoken: Arc<AtomicBool>,
    evicted: CancellationToken,
}

impl<O> PendingHandshake<O> {
    /// True if the client has sent bytes.
    pub(super) fn has_spoken(&self) -> bool {
        self.has_spoken.load(Ordering::Acquire)
    }

    /// Takes its slot away.
    pub(super) fn evict(&self) {
        self.evicted.cancel();
    }
}

/// A slot of one pending handshake, free again when it is dropped.
pub(crate) struct HandshakeSlot {
    has_spoken: Arc<AtomicBool>,
    pub(super) evicted: CancellationToken,
    _place: Box<dyn Send + Sync>,
}

impl HandshakeSlot {
    /// Takes a slot at the end of a list, which is locked as `pending`.
    pub(super) fn take<O: Send + 'static>(
        list: &PendingList<O>,
        pending: &mut VecDeque<PendingHandshake<O>>,
        origin: O,
        has_spoken: bool,
    ) -> Self {
        let has_spoken = Arc::new(AtomicBool::new(has_spoken));
        let evicted = CancellationToken::new();
        pending.push_back(PendingHandshake {
            origin,
            since: Instant::now(),
            has_spoken: Arc::clone(&has_spoken),
            evicted: evicted.clone(),
        });
        let place = Place { list: Arc::clone(list), handshake: Arc::clone(&has_spoken) };
        Self { has_spoken, evicted, _place: Box::new(place) }
    }

    /// Notes that the client has sent bytes.
    pub(crate) fn speak(&self) {
        self.has_spoken.store(true, Ordering::Release);
    }

    /// Waits until the slot is given to another client.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

/// The place of a slot in its list.
struct Place<O> {
    list: PendingList<O>,
    handshake: Arc<AtomicBool>,
}

impl<O> Drop for Place<O> {
    fn drop(&mut self) {
        self.list.lock().retain(|one| !Arc::ptr_eq(&one.has_spoken, &self.handshake));
    }
}
