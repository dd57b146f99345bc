//! The connections that are served at a time. Each has a short time of its own, which no other can shorten. If all slots
//! are taken, the next connection waits in the kernel's queue until the time of another has passed.

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

/// The most connections at a time.
const MAX_CONNECTIONS: usize = 256;
/// The time of a connection that sends no request, or does not read its response.
const SILENT_TIME: Duration = Duration::from_millis(100);
/// The time of a connection whose response is being made.
const BUSY_TIME: Duration = Duration::from_secs(5);

/// The slots that are taken, the oldest first.
#[derive(Default)]
pub(super) struct ScrapeSlots {
    taken: Mutex<VecDeque<Arc<ScrapeSlot>>>,
    released: Notify,
}

/// The slot that one connection has taken.
pub(super) struct ScrapeSlot {
    /// The connection, to see whether it has sent anything that is not read yet.
    socket: Option<OwnedFd>,
    since: Instant,
    is_busy: AtomicBool,
    evicted: CancellationToken,
}

impl ScrapeSlot {
    /// Makes the response to the connection's request.
    pub(super) async fn respond<T>(&self, responding: impl Future<Output = T>) -> T {
        self.is_busy.store(true, Ordering::Release);
        let response = responding.await;
        self.is_busy.store(false, Ordering::Release);
        response
    }

    fn is_silent(&self) -> bool {
        let Some(socket) = &self.socket else { return false };
        let mut polled = [PollFd::new(socket, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !self.is_busy.load(Ordering::Acquire)
            && poll(&mut polled, Some(&now)).is_ok_and(|count| count == 0)
    }

    /// Waits until the connection loses its slot to another.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl ScrapeSlots {
    /// Waits until the next connection can have a slot: until one is released, or the time of a connection has passed.
    pub(super) async fn wait(&self) {
        loop {
            let released = self.released.notified();
            let Err(next) = self.make_room(Instant::now()) else { return };
            tokio::select! {
                () = released => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// Evicts a connection whose time has passed, if all slots are taken.
    ///
    /// # Errors
    /// When the time of the next connection passes, if none has passed yet.
    fn make_room(&self, now: Instant) -> Result<(), Instant> {
        let mut taken = self.taken.lock();
        if taken.len() < MAX_CONNECTIONS {
            return Ok(());
        }
        let silent = taken.iter().position(|slot| slot.is_silent());
        let silent = silent.map(|number| (number, SILENT_TIME));
        let times = [silent, Some((0, BUSY_TIME))].into_iter().flatten();
        let ends =
            times.filter_map(|(number, time)| Some((taken.get(number)?.since + time, number)));
        let Some((end, number)) = ends.min() else { return Ok(()) };
        if end > now {
            return Err(end);
        }
        if let Some(slot) = taken.remove(number) {
            slot.evicted.cancel();
        }
        Ok(())
    }

    /// Takes a slot for a connection that was accepted after [`Self::wait`].
    pub(super) fn acquire(&self, socket: Option<OwnedFd>) -> Arc<ScrapeSlot> {
        let slot = Arc::new(ScrapeSlot {
            socket,
            since: Instant::now(),
            is_busy: AtomicBool::new(false),
            evicted: CancellationToken::new(),
        });
        self.taken.lock().push_back(Arc::clone(&slot));
        slot
    }

    /// Gives a slot back.
    pub(super) fn release(&self, slot: &Arc<ScrapeSlot>) {
        self.taken.lock().retain(|other| !Arc::ptr_eq(other, slot));
        self.released.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_connection_is_evicted_first_then_the_oldest() {
        let slots = ScrapeSlots::default();
        let (mut all, mut others) = (Vec::new(), Vec::new());
        for _ in 0..MAX_CONNECTIONS {
            assert!(slots.make_room(Instant::now()).is_ok());
            let (socket, other) = std::os::unix::net::UnixStream::pair().unwrap();
            others.push(other);
            all.push(slots.acquire(Some(socket.into())));
        }
        let gone = |all: &[Arc<ScrapeSlot>]| {
            let gone = all.iter().enumerate().filter(|(_, slot)| slot.evicted.is_cancelled());
            gone.map(|(number, _)| number).collect::<Vec<_>>()
        };
        all.iter()
            .enumerate()
            .filter(|(number, _)| *number != 3)
            .for_each(|(_, slot)| slot.is_busy.store(true, Ordering::Release));
        let silent_end = all[3].since + SILENT_TIME;
        assert_eq!(slots.make_room(all[3].since), Err(silent_end));
        assert_eq!(gone(&all), [0; 0]);
        assert_eq!(slots.make_room(silent_end), Ok(()));
        assert_eq!(gone(&all), [3]);
        all.push(slots.acquire(None));
        let oldest_end = all[0].since + BUSY_TIME;
        assert_eq!(slots.make_room(silent_end), Err(oldest_end));
        assert_eq!(slots.make_room(oldest_end), Ok(()));
        assert_eq!(gone(&all), [0, 3]);
        all.push(slots.acquire(None));
        slots.release(&all[1]);
        assert_eq!(slots.make_room(silent_end), Ok(()));
        assert_eq!(gone(&all), [0, 3]);
    }
}
