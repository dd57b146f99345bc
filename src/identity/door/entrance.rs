//! What somebody takes who comes to a socket: a turn, a place until the handshake is done, a place to stay.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lobby::{Lobby, LobbyLimits, Origin, Seat};
use super::refused::Refusal;
use super::standing::{Standing, Stay};
use crate::identity::certificate::svid::Svid;

/// Finds what somebody may hold who has shown a certificate.
pub type Stand = Arc<dyn Fn(&Svid) -> Arc<Standing> + Send + Sync>;

/// Who comes to a socket.
pub enum Entrance {
    /// Whose socket it is. Beyond these numbers the listener waits.
    One {
        /// What it may hold.
        standing: Arc<Standing>,
        /// Connections at a time.
        connections: u32,
        /// Unfinished handshakes at a time.
        handshakes: u32,
    },
    /// Many, who are known when their handshakes are done.
    Many {
        /// Until then.
        lobby: LobbyLimits,
        /// What each may hold.
        stand: Stand,
    },
}

/// The entrance of one socket, with who is in it.
pub(crate) enum Hall {
    One { standing: Arc<Standing>, connections: Arc<Semaphore>, handshakes: Arc<Semaphore> },
    Many { lobby: Arc<Lobby>, stand: Stand },
}

/// The turn of the next who comes, where the listener waits for turns: its connection and its handshake.
pub(crate) type Turn = Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>;

/// Somebody in front of the handshake.
pub(crate) enum Arrival {
    One { standing: Arc<Standing>, stay: Stay, turn: Turn },
    Many { seat: Seat, stand: Stand },
}

/// What a connection holds for as long as it lasts.
pub(crate) struct Place {
    pub(crate) standing: Arc<Standing>,
    pub(super) _stay: Stay,
    pub(crate) _turn: Option<OwnedSemaphorePermit>,
}

impl Hall {
    pub(crate) fn new(entrance: &Entrance) -> Self {
        let places = |most: u32| Arc::new(Semaphore::new(most as usize));
        match entrance {
            Entrance::One { standing, connections, handshakes } => Self::One {
                standing: Arc::clone(standing),
                connections: places(*connections),
                handshakes: places(*handshakes),
            },
            Entrance::Many { lobby, stand } => {
                Self::Many { lobby: Lobby::new(*lobby), stand: Arc::clone(stand) }
            }
        }
    }

    /// Waits until the next may come.
    pub(crate) async fn turn(&self) -> Turn {
        let Self::One { connections, handshakes, .. } = self else { return None };
        let connection = Arc::clone(connections).acquire_owned().await;
        let handshake = Arc::clone(handshakes).acquire_owned().await;
        // The semaphores are never closed.
        connection.ok().zip(handshake.ok())
    }

    /// Lets somebody come in front of the handshake. Never waits: others stand behind.
    pub(crate) fn admit(
        &self,
        origin: Origin,
        has_spoken: bool,
        turn: Turn,
    ) -> Result<Arrival, Refusal> {
        match self {
            // Now that somebody is there: a socket before which nobody stands must hold no place of others.
            Self::One { standing, .. } => {
                let stay = standing.connect().ok_or(Refusal::TooMany)?;
                Ok(Arrival::One { standing: Arc::clone(standing), stay, turn })
            }
            Self::Many { lobby, stand } => {
                let seat = lobby.admit(origin, has_spoken)?;
                Ok(Arrival::Many { seat, stand: Arc::clone(stand) })
            }
        }
    }
}

impl Arrival {
    /// It has said something.
    pub(crate) fn speak(&self) {
        if let Self::Many { seat, .. } = self {
            seat.speak();
        }
    }

    /// Waits until it has to give way to others.
    pub(super) async fn evicted(&self) {
        match self {
            Self::One { .. } => std::future::pending().await,
            Self::Many { seat, .. } => seat.evicted().await,
        }
    }

    /// Its handshake is done, with this certificate.
    pub(super) fn come_in(self, svid: &Svid) -> Result<Place, Refusal> {
        match self {
            Self::One { standing, stay, turn } => {
                let connection = turn.map(|(connection, _handshake)| connection);
                Ok(Place { standing, _stay: stay, _turn: connection })
            }
            Self::Many { stand, .. } => {
                let standing = stand(svid);
                let stay = standing.connect().ok_or(Refusal::TooMany)?;
                Ok(Place { standing, _stay: stay, _turn: None })
            }
        }
    }
}
