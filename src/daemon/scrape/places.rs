//! The few who may ask for metrics at a time. Each newcomer has a moment to ask and to be answered, which nobody can
//! shorten. When no place is left, the next connection waits in the kernel's queue until the oldest has had its moment.

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
const MAX_CONNECTIONS: usize = 256;
/// How long a connection that asks nothing, or does not read its answer, has for itself when others wait.
const SILENT_MOMENT: Duration = Duration::from_millis(100);
/// How long a connection whose answer is being made has for itself when others wait.
const ASKED_MOMENT: Duration = Duration::from_secs(5);

/// Who is connected, the oldest first.
#[derive(Default)]
pub(super) struct Places {
    taken: Mutex<VecDeque<Arc<Place>>>,
    given: Notify,
}

/// The place of one connection.
pub(super) struct Place {
    /// The connection, to look whether anything was said on it that nobody has read yet.
    socket: Option<OwnedFd>,
    since: Instant,
    is_being_answered: AtomicBool,
    taken_away: CancellationToken,
}

impl Place {
    /// Makes the answer to what the connection has asked.
    pub(super) async fn answer<T>(&self, making: impl Future<Output = T>) -> T {
        self.is_being_answered.store(true, Ordering::Release);
        let answer = making.await;
        self.is_being_answered.store(false, Ordering::Release);
        answer
    }

    fn is_silent(&self) -> bool {
        let Some(socket) = &self.socket else { return false };
        let mut asked = [PollFd::new(socket, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !self.is_being_answered.load(Ordering::Acquire)
            && poll(&mut asked, Some(&now)).is_ok_and(|count| count == 0)
    }

    /// Waits until the connection has to give way to another.
    pub(super) async fn taken_away(&self) {
        self.taken_away.cancelled().await;
    }
}

impl Places {
    /// Waits until there is a place for the next connection: until a connection goes, or one has had its moment.
    pub(super) async fn wait(&self) {
        loop {
            let given = self.given.notified();
            let Err(next) = self.make_room(Instant::now()) else { return };
            tokio::select! {
                () = given => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// Takes away the place of a connection that has had its moment, if no place is left.
    ///
    /// # Errors
    /// The time when the next moment ends, if all have some time left.
    fn make_room(&self, now: Instant) -> Result<(), Instant> {
        let mut taken = self.taken.lock();
        if taken.len() < MAX_CONNECTIONS {
            return Ok(());
        }
        let silent = taken.iter().position(|place| place.is_silent());
        let silent = silent.map(|number| (number, SILENT_MOMENT));
        let moments = [silent, Some((0, ASKED_MOMENT))].into_iter().flatten();
        let ends = moments
            .filter_map(|(number, moment)| Some((taken.get(number)?.since + moment, number)));
        let Some((end, number)) = ends.min() else { return Ok(()) };
        if end > now {
            return Err(end);
        }
        if let Some(place) = taken.remove(number) {
            place.taken_away.cancel();
        }
        Ok(())
    }

    /// A place for a connection that was accepted after [`Self::wait`].
    pub(super) fn take(&self, socket: Option<OwnedFd>) -> Arc<Place> {
        let place = Arc::new(Place {
            socket,
            since: Instant::now(),
            is_being_answered: AtomicBool::new(false),
            taken_away: CancellationToken::new(),
        });
        self.taken.lock().push_back(Arc::clone(&place));
        place
    }

    /// Gives it back.
    pub(super) fn give(&self, place: &Arc<Place>) {
        self.taken.lock().retain(|other| !Arc::ptr_eq(other, place));
        self.given.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_connection_gives_way_after_a_moment_then_the_oldest() {
        let places = Places::default();
        let (mut all, mut others) = (Vec::new(), Vec::new());
        for _ in 0..MAX_CONNECTIONS {
            assert!(places.make_room(Instant::now()).is_ok());
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
            .for_each(|(_, place)| place.is_being_answered.store(true, Ordering::Release));
        let silent_end = all[3].since + SILENT_MOMENT;
        assert_eq!(places.make_room(all[3].since), Err(silent_end));
        assert_eq!(gone(&all), [0; 0]);
        assert_eq!(places.make_room(silent_end), Ok(()));
        assert_eq!(gone(&all), [3]);
        all.push(places.take(None));
        let oldest_end = all[0].since + ASKED_MOMENT;
        assert_eq!(places.make_room(silent_end), Err(oldest_end));
        assert_eq!(places.make_room(oldest_end), Ok(()));
        assert_eq!(gone(&all), [0, 3]);
        all.push(places.take(None));
        places.give(&all[1]);
        assert_eq!(places.make_room(silent_end), Ok(()));
        assert_eq!(gone(&all), [0, 3]);
    }
}
