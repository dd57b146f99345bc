//! What somebody takes who comes to a socket: a slots, a place until the handshake is done, a place to share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::handshake_slots::{HandshakeLimits, HandshakeSlot, HandshakeSlots, PeerProcess};
use super::quota::{ConnectionShare, PeerQuota};
use super::refused::ConnectionRefusal;
use crate::identity::certificate::svid::Svid;

/// Finds what somebody may hold who has shown a certificate.
pub type FindQuota = Arc<dyn Fn(&Svid) -> Arc<PeerQuota> + Send + Sync>;

/// Who comes to a socket.
pub enum Admission {
    /// Whose socket it is. Beyond these numbers the listener waits.
    One {
        /// What it may hold.
        quota: Arc<PeerQuota>,
        /// Connections at a time.
        connections: u32,
        /// Unfinished handshakes at a time.
        handshakes: u32,
    },
    /// Many, who are known when their handshakes are done.
    Many {
        /// Until then.
        handshakes: HandshakeLimits,
        /// What each may hold.
        find_quota: FindQuota,
    },
}

/// The admission of one socket, with who is in it.
pub(crate) enum AdmissionControl {
    One { quota: Arc<PeerQuota>, connections: Arc<Semaphore>, handshakes: Arc<Semaphore> },
    Many { handshakes: Arc<HandshakeSlots>, find_quota: FindQuota },
}

/// The slots of the next who comes, where the listener waits for turns: its connection and its handshake.
pub(crate) type ListenerSlots = Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>;

/// Somebody in front of the handshake.
pub(crate) enum PendingPeer {
    One { quota: Arc<PeerQuota>, share: ConnectionShare, slots: ListenerSlots },
    Many { slot: HandshakeSlot, find_quota: FindQuota },
}

/// What a connection holds for as long as it lasts.
pub(crate) struct ConnectionSlot {
    pub(crate) quota: Arc<PeerQuota>,
    pub(super) _stay: ConnectionShare,
    pub(crate) _turn: Option<OwnedSemaphorePermit>,
}

impl AdmissionControl {
    pub(crate) fn new(admission: &Admission) -> Self {
        let places = |most: u32| Arc::new(Semaphore::new(most as usize));
        match admission {
            Admission::One { quota, connections, handshakes } => Self::One {
                quota: Arc::clone(quota),
                connections: places(*connections),
                handshakes: places(*handshakes),
            },
            Admission::Many { handshakes, find_quota } => Self::Many {
                handshakes: HandshakeSlots::new(*handshakes),
                find_quota: Arc::clone(find_quota),
            },
        }
    }

    /// Waits until the next may admitted.
    pub(crate) async fn slots(&self) -> ListenerSlots {
        let Self::One { connections, handshakes, .. } = self else { return None };
        let connection = Arc::clone(connections).acquire_owned().await;
        let handshake = Arc::clone(handshakes).acquire_owned().await;
        // The semaphores are never closed.
        connection.ok().zip(handshake.ok())
    }

    /// Lets somebody admitted in front of the handshake. Never waits: others find_quota behind.
    pub(crate) fn admit(
        &self,
        origin: PeerProcess,
        has_spoken: bool,
        slots: ListenerSlots,
    ) -> Result<PendingPeer, ConnectionRefusal> {
        match self {
            // Now that somebody is there: a socket before which nobody stands must hold no place of others.
            Self::One { quota, .. } => {
                let share = quota.connect().ok_or(ConnectionRefusal::TooMany)?;
                Ok(PendingPeer::One { quota: Arc::clone(quota), share, slots })
            }
            Self::Many { handshakes, find_quota } => {
                let slot = handshakes.admit(origin, has_spoken)?;
                Ok(PendingPeer::Many { slot, find_quota: Arc::clone(find_quota) })
            }
        }
    }
}

impl PendingPeer {
    /// It has said something.
    pub(crate) fn speak(&self) {
        if let Self::Many { slot, .. } = self {
            slot.speak();
        }
    }

    /// Waits until it has to give way to others.
    pub(super) async fn evicted(&self) {
        match self {
            Self::One { .. } => std::future::pending().await,
            Self::Many { slot, .. } => slot.evicted().await,
        }
    }

    /// Its handshake is done, with this certificate.
    pub(super) fn complete(self, svid: &Svid) -> Result<ConnectionSlot, ConnectionRefusal> {
        match self {
            Self::One { quota, share, slots } => {
                let connection = slots.map(|(connection, _handshake)| connection);
                Ok(ConnectionSlot { quota, _stay: share, _turn: connection })
            }
            Self::Many { find_quota, .. } => {
                let quota = find_quota(svid);
                let share = quota.connect().ok_or(ConnectionRefusal::TooMany)?;
                Ok(ConnectionSlot { quota, _stay: share, _turn: None })
            }
        }
    }
}
