//! Those at a door of many whose handshakes are not done, and of whom only the Unix user is known.
//!
//! Root and the daemon's own user have three quarters of the places, half of these for each, if they are two. Others have
//! the last quarter, half of that for each, at a pace of their own. Where there is no place a silent one gives way:
//! first whoever has said nothing, then whoever has begun and gone on for too long. A client that means it speaks at
//! once, so whoever keeps silence keeps nobody out. Where all speak, root waits for a moment, and others are turned
//! away.
//!
//! Processes of one user cannot be told from each other here. A step that runs as the daemon's own user, which could
//! as well end the daemon, can take turns of others of that user by speaking and stopping; it takes none of root's
//! and none of other users'.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pace::{Pace, PaceLimits};
use super::refused::Refusal;

/// The most users whose pace is remembered; who comes beyond them waits until one is forgotten.
const MAX_USERS: usize = 1024;
/// Who has spoken is given this long before another may take its place, and who has not, this long to begin.
const GRACE: Duration = Duration::from_millis(500);
const BEGINNING: Duration = Duration::from_millis(20);
/// How long root waits before it looks again whether somebody can give way.
const MOMENT: Duration = Duration::from_millis(20);

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub struct LobbyLimits {
    /// Unfinished handshakes.
    pub places: u32,
    /// New connections of each user who is neither root nor the daemon's own.
    pub guests: PaceLimits,
}

/// Who stands there, the oldest first.
pub(super) struct Lobby {
    limits: LobbyLimits,
    standing: Mutex<VecDeque<Entrant>>,
    left: Notify,
    paces: Mutex<HashMap<u32, Pace>>,
}

struct Entrant {
    uid: u32,
    since: Instant,
    has_spoken: Arc<AtomicBool>,
    evicted: CancellationToken,
}

/// A place there.
pub(super) struct Seat {
    lobby: Arc<Lobby>,
    has_spoken: Arc<AtomicBool>,
    evicted: CancellationToken,
}

impl Seat {
    /// It has said something.
    pub(super) fn speak(&self) {
        self.has_spoken.store(true, Ordering::Release);
    }

    /// Waits until it has to give way.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let is_it = |one: &Entrant| Arc::ptr_eq(&one.has_spoken, &self.has_spoken);
        self.lobby.standing.lock().retain(|one| !is_it(one));
        self.lobby.left.notify_one();
    }
}

impl Lobby {
    pub(super) fn new(limits: LobbyLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            standing: Mutex::default(),
            left: Notify::new(),
            paces: Mutex::default(),
        })
    }

    /// A place for somebody of this user, who may have spoken already, or why there is none.
    pub(super) async fn admit(
        self: &Arc<Self>,
        uid: u32,
        has_spoken: bool,
    ) -> Result<Seat, Refusal> {
        if !is_at_home(uid) && self.comes_too_often(uid) {
            return Err(Refusal::TooOften);
        }
        loop {
            match self.find_place(uid, has_spoken) {
                Some(seat) => return Ok(seat),
                None if uid == 0 => {
                    let _ = tokio::time::timeout(MOMENT, self.left.notified()).await;
                }
                None => return Err(Refusal::AtDoor),
            }
        }
    }

    fn find_place(self: &Arc<Self>, uid: u32, has_spoken: bool) -> Option<Seat> {
        let places = usize::try_from(self.limits.places).unwrap_or(usize::MAX);
        let guests = places.div_ceil(4);
        let of_kind = if is_at_home(uid) { places.saturating_sub(guests).max(1) } else { guests };
        // Root is the daemon's own user, or else another.
        let is_alone = is_at_home(uid) && own_uid() == 0;
        let of_user = if is_alone { of_kind } else { of_kind.div_ceil(2) };
        let mut standing = self.standing.lock();
        let count = |standing: &VecDeque<Entrant>, is_one: &dyn Fn(u32) -> bool| {
            standing.iter().filter(|one| is_one(one.uid)).count()
        };
        let is_alike = |other: u32| is_at_home(other) == is_at_home(uid);
        if count(&standing, &|other| other == uid) >= of_user {
            evict(&mut standing, |other| other == uid)?;
        } else if count(&standing, &is_alike) >= of_kind {
            // Of the user that takes the most.
            let alike = standing.iter().map(|one| one.uid).filter(|other| is_alike(*other));
            let most = alike.max_by_key(|other| count(&standing, &|one| one == *other))?;
            evict(&mut standing, |other| other == most)?;
        }
        let has_spoken = Arc::new(AtomicBool::new(has_spoken));
        let evicted = CancellationToken::new();
        let seat = Seat {
            lobby: Arc::clone(self),
            has_spoken: Arc::clone(&has_spoken),
            evicted: evicted.clone(),
        };
        standing.push_back(Entrant { uid, since: Instant::now(), has_spoken, evicted });
        Some(seat)
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
        let pace = paces.entry(uid).or_insert_with(|| Pace::new(self.limits.guests));
        pace.take().is_err()
    }
}

/// Has one of these users' give way, if one can.
fn evict(standing: &mut VecDeque<Entrant>, is_theirs: impl Fn(u32) -> bool) -> Option<()> {
    let oldest = |least: Duration, may_speak: bool| {
        standing.iter().position(|one| {
            let is_it = may_speak || !one.has_spoken.load(Ordering::Acquire);
            is_it && is_theirs(one.uid) && one.since.elapsed() >= least
        })
    };
    let oldest = oldest(BEGINNING, false).or_else(|| oldest(GRACE, true));
    let evicted = standing.remove(oldest?)?;
    evicted.evicted.cancel();
    Some(())
}

/// Whether a user is root, or the daemon's own.
fn is_at_home(uid: u32) -> bool {
    uid == 0 || uid == own_uid()
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUESTS: PaceLimits = PaceLimits { per_second: 1, burst: 30 };
    const GUEST: u32 = 70_000;

    fn lobby() -> Arc<Lobby> {
        Lobby::new(LobbyLimits { places: 16, guests: GUESTS })
    }

    async fn come(lobby: &Arc<Lobby>, uid: u32, has_spoken: bool) -> Option<Seat> {
        lobby.admit(uid, has_spoken).await.ok()
    }

    #[tokio::test]
    async fn a_silent_one_gives_way_to_its_like_and_keeps_nobody_out() {
        let lobby = lobby();
        let mut seats = vec![come(&lobby, GUEST, false).await.unwrap()];
        seats.push(come(&lobby, GUEST, false).await.unwrap());
        assert!(come(&lobby, GUEST, false).await.is_none(), "they are given a moment to begin");
        // Another user has places, though the first would have them all.
        for uid in [GUEST + 1, GUEST + 2, 0] {
            seats.push(come(&lobby, uid, false).await.unwrap());
        }
        tokio::time::sleep(BEGINNING).await;
        let next = come(&lobby, GUEST, true).await.unwrap();
        seats[0].evicted().await;
        assert!(!next.evicted.is_cancelled());
        assert!(seats.iter().skip(1).all(|seat| !seat.evicted.is_cancelled()));
    }

    #[tokio::test]
    async fn who_speaks_does_not_give_way_at_once() {
        let lobby = lobby();
        let mut seats = Vec::new();
        while let Some(seat) = come(&lobby, GUEST, true).await {
            seats.push(seat);
        }
        assert_eq!(seats.len(), 2);
        // Root waits for a moment, until one has left.
        let of_root = if own_uid() == 0 { 12 } else { 6 };
        for _ in 0..of_root {
            seats.push(come(&lobby, 0, true).await.unwrap());
        }
        let (waiting, ()) = tokio::join!(come(&lobby, 0, true), async { drop(seats.pop()) });
        assert!(waiting.is_some());
    }

    #[tokio::test]
    async fn guests_come_at_a_pace_and_those_that_are_remembered_are_bounded() {
        let lobby = lobby();
        let mut let_in = 0;
        for _ in 0..100 {
            let_in += usize::from(come(&lobby, GUEST, true).await.is_some());
        }
        assert_eq!(let_in, 30);
        for uid in 0..5000 {
            let _ = come(&lobby, GUEST + uid, true).await;
        }
        assert!(lobby.paces.lock().len() <= MAX_USERS);
    }
}
