//! The few who may ask for metrics at a time. A place is for asking: when there is none left, the oldest of those who
//! have said nothing gives way, so that nobody keeps a place by keeping silence.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 8;
/// Who has asked, and does not read the answer, may keep its place for so long while others wait.
const GRACE: Duration = Duration::from_secs(1);
/// How long to wait before looking again whether somebody can give way.
const MOMENT: Duration = Duration::from_millis(50);

/// Who is connected, the oldest first.
#[derive(Default)]
pub(super) struct Places {
    taken: Mutex<VecDeque<Arc<Place>>>,
    left: Notify,
}

/// Somebody's.
pub(super) struct Place {
    since: Instant,
    /// The connection, to look whether anything was said on it that nobody has read yet.
    socket: Option<OwnedFd>,
    has_asked: AtomicBool,
    taken_away: CancellationToken,
}

impl Place {
    /// It has asked for something.
    pub(super) fn ask(&self) {
        self.has_asked.store(true, Ordering::Release);
    }

    pub(super) fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Acquire)
    }

    fn is_silent(&self) -> bool {
        let Some(socket) = &self.socket else { return false };
        let mut asked = [PollFd::new(socket, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !self.has_asked() && poll(&mut asked, Some(&now)).is_ok_and(|count| count == 0)
    }

    /// Waits until it has to give way to somebody else.
    pub(super) async fn taken_away(&self) {
        self.taken_away.cancelled().await;
    }
}

impl Places {
    /// A place for who has just connected. Where all have asked lately, one of them is waited for.
    pub(super) async fn take(&self, socket: Option<OwnedFd>) -> Arc<Place> {
        let (has_asked, taken_away) = (AtomicBool::new(false), CancellationToken::new());
        let place = Arc::new(Place { since: Instant::now(), socket, has_asked, taken_away });
        loop {
            if self.put(&place).is_some() {
                return place;
            }
            let _ = tokio::time::timeout(MOMENT, self.left.notified()).await;
        }
    }

    fn put(&self, place: &Arc<Place>) -> Option<()> {
        let mut taken = self.taken.lock();
        if taken.len() >= MAX_CONNECTIONS {
            let silent = taken.iter().position(|place| place.is_silent());
            let slow = || taken.iter().position(|place| place.since.elapsed() > GRACE);
            let oldest = silent.or_else(slow)?;
            taken.remove(oldest)?.taken_away.cancel();
        }
        taken.push_back(Arc::clone(place));
        Some(())
    }

    /// Gives it back.
    pub(super) fn give(&self, place: &Arc<Place>) {
        self.taken.lock().retain(|one| !Arc::ptr_eq(one, place));
        self.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_not_asked_gives_way_and_who_has_is_waited_for() {
        let places = Places::default();
        let (mut all, mut others) = (Vec::new(), Vec::new());
        for _ in 0..MAX_CONNECTIONS {
            let (socket, other) = std::os::unix::net::UnixStream::pair().unwrap();
            others.push(other);
            all.push(places.take(Some(socket.into())).await);
        }
        all.iter().skip(1).for_each(|place| place.ask());
        all.push(places.take(None).await);
        all.iter().for_each(|place| place.ask());
        let gone: Vec<_> = all.iter().map(|place| place.taken_away.is_cancelled()).collect();
        assert_eq!(gone.iter().position(|gone| *gone), Some(0));
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 1);
        let (last, ()) = tokio::join!(places.take(None), async { places.give(&all[3]) });
        assert!(!last.has_asked());
    }
}
