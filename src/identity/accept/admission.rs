//! The bounds that a connection passes: listener slots, a handshake slot, and the connection quota of its peer.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::handshake_slots::{HandshakeLimits, HandshakeSlots};
use super::listener::Newcomer;
use super::network_slots::NetworkSlots;
use super::pending::HandshakeSlot;
use super::quota::{ConnectionShare, PeerQuota, WeakMap};
use super::refused::ConnectionRefusal;
use crate::identity::certificate::svid::Svid;
use crate::model::limits::MAX_TCP_CONNECTIONS;
use crate::model::{RateLimit, SpiffeId};

/// Finds the quota of the peer behind a certificate.
pub type FindQuota = Arc<dyn Fn(&Svid) -> Arc<PeerQuota> + Send + Sync>;

/// The bounds of one socket.
pub struct Admission(SocketBounds);

enum SocketBounds {
    One { quota: Arc<PeerQuota>, connections: Arc<Semaphore>, handshakes: Arc<Semaphore> },
    Many { handshakes: HandshakeSlots, find_quota: FindQuota },
    Network { networks: Arc<Networks>, find_quota: FindQuota },
}

/// The clients of a TCP listener: the networks of unfinished handshakes, and the connections of each identity.
struct Networks {
    handshakes: NetworkSlots,
    identities: WeakMap<SpiffeId, Semaphore>,
}

/// The connection slot and the handshake slot that the listener waits for; `None` where it waits for neither.
pub(crate) type ListenerSlots = Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>;

/// A connection whose handshake is not done.
pub(crate) enum PendingPeer {
    One { quota: Arc<PeerQuota>, share: ConnectionShare, slots: ListenerSlots },
    Many { slot: HandshakeSlot, find_quota: FindQuota, remote: Option<RemotePeer> },
}

/// A client of a TCP listener.
pub(crate) struct RemotePeer {
    networks: Arc<Networks>,
    address: SocketAddr,
}

impl RemotePeer {
    /// Takes a connection of the identity, and lets its network be known.
    fn log_in(self, svid: &Svid) -> Result<OwnedSemaphorePermit, ConnectionRefusal> {
        let Networks { handshakes, identities } = &*self.networks;
        let most = || Arc::new(Semaphore::new(MAX_TCP_CONNECTIONS));
        let connection = identities.of(svid.id.clone(), most).try_acquire_owned();
        let connection = connection.map_err(|_| ConnectionRefusal::TooMany)?;
        handshakes.know(self.address, Instant::now());
        Ok(connection)
    }
}

/// The parts of the bounds that a connection holds until it ends.
pub(crate) struct ConnectionSlot {
    pub(crate) quota: Arc<PeerQuota>,
    pub(super) _share: ConnectionShare,
    pub(crate) _connection: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// The bounds of a socket whose connections are all of one peer: how many connections and how many unfinished
    /// handshakes at a time. The listener waits while a bound is reached.
    pub fn of_one(quota: Arc<PeerQuota>, connections: u32, handshakes: u32) -> Self {
        let [connections, handshakes] =
            [connections, handshakes].map(|most| Arc::new(Semaphore::new(most as usize)));
        Self(SocketBounds::One { quota, connections, handshakes })
    }

    /// The bounds of a socket of many peers. The peer of a connection is known when its handshake is done.
    pub fn of_many(handshakes: HandshakeLimits, find_quota: FindQuota) -> Self {
        Self(SocketBounds::Many { handshakes: HandshakeSlots::new(handshakes), find_quota })
    }

    /// The bounds of a TCP listener: how many unfinished handshakes at a time, and the rate at which each network may
    /// connect.
    pub fn of_network(handshakes: u32, rate: RateLimit, find_quota: FindQuota) -> Self {
        let handshakes = NetworkSlots::new(handshakes, rate);
        let networks = Arc::new(Networks { handshakes, identities: WeakMap::default() });
        Self(SocketBounds::Network { networks, find_quota })
    }

    /// Waits for the slots of the next connection.
    pub(crate) async fn slots(&self) -> ListenerSlots {
        let SocketBounds::One { connections, handshakes, .. } = &self.0 else { return None };
        let connection = Arc::clone(connections).acquire_owned().await;
        let handshake = Arc::clone(handshakes).acquire_owned().await;
        // The semaphores are never closed, so both slots are there.
        connection.ok().zip(handshake.ok())
    }

    /// Admits a connection to the handshake. It never waits, because the listener must go on.
    ///
    /// # Errors
    /// The refusal, if a bound is reached.
    pub(crate) fn admit(
        &self,
        newcomer: Newcomer,
        has_spoken: bool,
        slots: ListenerSlots,
    ) -> Result<PendingPeer, ConnectionRefusal> {
        match (&self.0, newcomer) {
            // The quota is taken for a connection that exists. An idle listener must hold nothing of the shared pool.
            (SocketBounds::One { quota, .. }, Newcomer::Process(_)) => {
                let share = quota.connect().ok_or(ConnectionRefusal::TooMany)?;
                Ok(PendingPeer::One { quota: Arc::clone(quota), share, slots })
            }
            (SocketBounds::Many { handshakes, find_quota }, Newcomer::Process(process)) => {
                let slot = handshakes.admit(process, has_spoken)?;
                let find_quota = Arc::clone(find_quota);
                Ok(PendingPeer::Many { slot, find_quota, remote: None })
            }
            (SocketBounds::Network { networks, find_quota }, Newcomer::Address(address)) => {
                let slot = networks.handshakes.admit(address, has_spoken, Instant::now())?;
                let networks = Arc::clone(networks);
                let (find_quota, remote) =
                    (Arc::clone(find_quota), RemotePeer { networks, address });
                Ok(PendingPeer::Many { slot, find_quota, remote: Some(remote) })
            }
            (SocketBounds::One { .. } | SocketBounds::Many { .. }, Newcomer::Address(_))
            | (SocketBounds::Network { .. }, Newcomer::Process(_)) => {
                Err(ConnectionRefusal::NoCredentials)
            }
        }
    }
}

impl PendingPeer {
    /// Notes that the client has sent bytes.
    pub(crate) fn speak(&self) {
        if let Self::Many { slot, .. } = self {
            slot.speak();
        }
    }

    /// Waits until the slot is given to another client.
    pub(super) async fn evicted(&self) {
        match self {
            Self::One { .. } => std::future::pending().await,
            Self::Many { slot, .. } => slot.evicted().await,
        }
    }

    /// Takes a connection of the peer's quota when the handshake is done.
    ///
    /// # Errors
    /// [`ConnectionRefusal::TooMany`] if the quota is used up.
    pub(super) fn complete(self, svid: &Svid) -> Result<ConnectionSlot, ConnectionRefusal> {
        match self {
            Self::One { quota, share, slots } => {
                let connection = slots.map(|(connection, _handshake)| connection);
                Ok(ConnectionSlot { quota, _share: share, _connection: connection })
            }
            Self::Many { find_quota, remote, .. } => {
                let connection = remote.map(|remote| remote.log_in(svid)).transpose()?;
                let quota = find_quota(svid);
                let share = quota.connect().ok_or(ConnectionRefusal::TooMany)?;
                Ok(ConnectionSlot { quota, _share: share, _connection: connection })
            }
        }
    }
}
