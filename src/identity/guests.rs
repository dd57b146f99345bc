//! Users who are neither root nor the daemon's own, at a door where not all are alike: how many of them
//! may stand in it unfinished, and how often each may come. Beyond it they are turned away at once, so that
//! they take nobody's turn.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::pace::{Pace, PaceLimits};
use super::refused::Refusal;

/// The most users whose pace is remembered; who comes beyond them waits until one is forgotten.
const MAX_USERS: usize = 1024;

/// What guests are allowed.
#[derive(Clone, Copy, Debug)]
pub struct GuestLimits {
    /// Unfinished handshakes of all guests together.
    pub pending_handshakes: u32,
    /// Connections of all guests together.
    pub connections: u32,
    /// New connections of each user.
    pub pace: PaceLimits,
}

/// What one guest holds.
pub(super) struct Guest {
    /// Until its handshake is over.
    pub(super) pending: OwnedSemaphorePermit,
    /// For as long as it is connected.
    pub(super) stay: OwnedSemaphorePermit,
}

/// The guests at one door.
pub(super) struct Guests {
    limits: GuestLimits,
    pending: Arc<Semaphore>,
    staying: Arc<Semaphore>,
    paces: Mutex<HashMap<u32, Pace>>,
}

impl Guests {
    pub(super) fn new(limits: GuestLimits) -> Self {
        Self {
            pending: Arc::new(Semaphore::new(limits.pending_handshakes as usize)),
            staying: Arc::new(Semaphore::new(limits.connections as usize)),
            limits,
            paces: Mutex::default(),
        }
    }

    /// The places of one more connection of this user, or why there are none.
    pub(super) fn admit(&self, uid: u32) -> Result<Guest, Refusal> {
        let place = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned();
        let pending = place(&self.pending).map_err(|_| Refusal::GuestsAtDoor)?;
        let stay = place(&self.staying).map_err(|_| Refusal::GuestsConnected)?;
        if self.comes_too_often(uid) {
            return Err(Refusal::GuestTooOften);
        }
        Ok(Guest { pending, stay })
    }

    fn comes_too_often(&self, uid: u32) -> bool {
        let mut paces = self.paces.lock();
        if paces.len() >= MAX_USERS && !paces.contains_key(&uid) {
            // Whoever has its whole burst again is as if it had never come.
            paces.retain(|_, pace| !pace.is_rested());
            if paces.len() >= MAX_USERS {
                return true;
            }
        }
        let pace = paces.entry(uid).or_insert_with(|| Pace::new(self.limits.pace));
        pace.take().is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: GuestLimits = GuestLimits {
        pending_handshakes: 4,
        connections: 6,
        pace: PaceLimits { per_second: 1, burst: 3 },
    };

    #[test]
    fn each_user_has_a_pace_of_its_own_and_all_together_so_many_places() {
        let guests = Guests::new(LIMITS);
        assert_eq!((0..10).filter(|_| guests.admit(7).is_ok()).count(), 3);
        let held: Vec<_> = (100..110).filter_map(|uid| guests.admit(uid).ok()).collect();
        assert_eq!(held.len(), 4);
        let stay: Vec<_> = held.into_iter().map(|guest| guest.stay).collect();
        let more: Vec<_> = (200..210).filter_map(|uid| guests.admit(uid).ok()).collect();
        assert_eq!(more.len(), 2, "those who are in hold places, too");
        drop((stay, more));
        assert!(guests.admit(300).is_ok());
    }

    #[test]
    fn the_users_that_are_remembered_are_bounded() {
        let guests = Guests::new(LIMITS);
        for uid in 0..5000 {
            let _ = guests.admit(uid);
        }
        assert!(guests.paces.lock().len() <= MAX_USERS);
    }
}
