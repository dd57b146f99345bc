//! The few who may ask for metrics at a time. When there is no place left, the oldest of those who have said nothing
//! gives way, or else the oldest. An answer takes far less time than as many newcomers as there are places.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio_util::sync::CancellationToken;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 32;

/// Who is connected, the oldest first.
#[derive(Default)]
pub(super) struct Places {
    taken: Mutex<VecDeque<Arc<Place>>>,
}

/// Somebody's.
pub(super) struct Place {
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

    fn is_silent(&self) -> bool {
        let Some(socket) = &self.socket else { return false };
        let mut asked = [PollFd::new(socket, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !self.has_asked.load(Ordering::Acquire)
            && poll(&mut asked, Some(&now)).is_ok_and(|count| count == 0)
    }

    /// Waits until it has to give way to somebody else.
    pub(super) async fn taken_away(&self) {
        self.taken_away.cancelled().await;
    }
}

impl Places {
    /// A place for somebody who has just connected.
    pub(super) fn take(&self, socket: Option<OwnedFd>) -> Arc<Place> {
        let (has_asked, taken_away) = (AtomicBool::new(false), CancellationToken::new());
        let place = Arc::new(Place { socket, has_asked, taken_away });
        let mut taken = self.taken.lock();
        if taken.len() >= MAX_CONNECTIONS {
            let silent = taken.iter().position(|place| place.is_silent());
            if let Some(oldest) = taken.remove(silent.unwrap_or_default()) {
                oldest.taken_away.cancel();
            }
        }
        taken.push_back(Arc::clone(&place));
        place
    }

    /// Gives it back.
    pub(super) fn give(&self, place: &Arc<Place>) {
        self.taken.lock().retain(|one| !Arc::ptr_eq(one, place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_asked_gives_way_and_else_the_oldest() {
        let places = Places::default();
        let (mut all, mut others) = (Vec::new(), Vec::new());
        for _ in 0..MAX_CONNECTIONS {
            let (socket, other) = std::os::unix::net::UnixStream::pair().unwrap();
            others.push(other);
            all.push(places.take(Some(socket.into())));
        }
        let gone = |all: &[Arc<Place>]| {
            let gone = all.iter().enumerate().filter(|(_, place)| place.taken_away.is_cancelled());
            gone.map(|(number, _)| number).collect::<Vec<_>>()
        };
        all.iter()
            .enumerate()
            .filter(|(number, _)| *number != 3)
            .for_each(|(_, place)| place.ask());
        all.push(places.take(None));
        assert_eq!(gone(&all), [3]);
        all.push(places.take(None));
        assert_eq!(gone(&all), [0, 3]);
        places.give(&all[1]);
        all.push(places.take(None));
        assert_eq!(gone(&all), [0, 3]);
    }
}
