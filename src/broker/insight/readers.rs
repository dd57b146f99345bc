//! Whoever reads much, of the journal's files or of all that is known: on a few threads that do nothing else, in turn.
//!
//! So what serves the doors never waits for a reader. A look is short: a reader of many lines looks again and again, and
//! nobody holds a thread while a client takes what was found. Each principal has one look at a time, so the queue is as
//! long as there are principals, and goes round. A look that nobody waits for any more is left out, or stops where it
//! can; the principal's turn lasts until then.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::model::Limits;

/// How many look at a time.
const THREADS: usize = 2;

type Job = Box<dyn FnOnce() + Send>;

/// The threads, and who may have what of them.
pub(crate) struct Readers {
    jobs: Sender<Job>,
    /// By what lines call the principals.
    shares: Mutex<HashMap<String, Arc<ReaderShare>>>,
    streams: Arc<Semaphore>,
    all_streams: u32,
    streams_of_one: u32,
}

/// What one principal has of them.
struct ReaderShare {
    turn: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// A principal's turn to look.
pub struct ReaderTurn {
    jobs: Sender<Job>,
    held: (OwnedSemaphorePermit, Arc<ReaderShare>),
}

/// Leave to be one of those who are told lines, until it is dropped.
pub struct StreamPermit {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
    _share: Arc<ReaderShare>,
}

impl Readers {
    /// Starts the threads; they end when this is dropped.
    ///
    /// # Errors
    /// If they cannot be started.
    pub(crate) fn start(limits: &Limits) -> std::io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..THREADS {
            let queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new().name("reader".to_owned());
            thread.spawn(move || work(&queue))?;
        }
        Ok(Self {
            jobs,
            shares: Mutex::default(),
            streams: Arc::new(Semaphore::new(limits.journal_readers as usize)),
            all_streams: limits.journal_readers,
            streams_of_one: limits.journal_readers_of_one,
        })
    }

    /// Leave for one more stream of lines.
    ///
    /// # Errors
    /// [`Error::TooManyReaders`] if this principal has as many as it may, or all have.
    pub(crate) fn begin_stream(&self, caller: &Principal) -> Result<StreamPermit, Error> {
        let share = self.share(caller);
        let own = Arc::clone(&share.streams).try_acquire_owned();
        let own = own.map_err(|_| Error::TooManyReaders(self.streams_of_one))?;
        let all = Arc::clone(&self.streams).try_acquire_owned();
        let all = all.map_err(|_| Error::TooManyReaders(self.all_streams))?;
        Ok(StreamPermit { _own: own, _all: all, _share: share })
    }

    /// Waits for a principal's turn.
    ///
    /// # Errors
    /// [`Error::Draining`] if there are no more turns.
    pub(crate) async fn turn(&self, caller: &Principal) -> Result<ReaderTurn, Error> {
        let share = self.share(caller);
        let turn = Arc::clone(&share.turn).acquire_owned().await.map_err(|_| Error::Draining)?;
        Ok(ReaderTurn { jobs: self.jobs.clone(), held: (turn, share) })
    }

    /// Looks for a principal, when its turn has come.
    ///
    /// # Errors
    /// See [`ReaderTurn::look`].
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        caller: &Principal,
        work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.turn(caller).await?.look(work).await
    }

    fn share(&self, caller: &Principal) -> Arc<ReaderShare> {
        let mut shares = self.shares.lock();
        // Of those who have nothing nothing need be known.
        shares.retain(|_, share| Arc::strong_count(share) > 1);
        let share = shares.entry(caller.to_string()).or_insert_with(|| {
            let streams = Arc::new(Semaphore::new(self.streams_of_one as usize));
            Arc::new(ReaderShare { turn: Arc::new(Semaphore::new(1)), streams })
        });
        Arc::clone(share)
    }
}

impl ReaderTurn {
    /// Looks. The work is told whether anybody waits for it still.
    ///
    /// # Errors
    /// If it fails by our fault.
    pub async fn look<T: Send + 'static>(
        self,
        work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let Self { jobs, held } = self;
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            // A caller who goes away has no other turn before this one has ended.
            let _held = held;
            if !answer.is_closed() {
                let found = work(&|| answer.is_closed());
                let _ = answer.send(found);
            }
        });
        if jobs.send(job).is_err() {
            return Err(Error::Draining);
        }
        answered.await.map_err(|_| Error::Internal("a look was dropped".to_owned()))
    }
}

impl Broker {
    /// Waits for the caller's turn to read what takes more than a moment.
    ///
    /// # Errors
    /// [`Error::Draining`] if there are no more turns.
    pub async fn reading_turn(&self, caller: &Principal) -> Result<ReaderTurn, Error> {
        self.readers.turn(caller).await
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let Ok(job) = queue.lock().recv() else { return };
        // Whoever waits for it is told by the channel.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a look panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::access::Role;
    use crate::model::{Id, OperatorName};

    fn operator(name: &str) -> Principal {
        let uid = Id::from_bytes([7; Id::BYTES]);
        Principal::Operator(OperatorName::parse(name).unwrap(), Role::Viewer, uid)
    }

    /// Looks until nobody waits for it, and says when it begins and when it ends.
    fn endless(said: &mpsc::Sender<&'static str>) -> impl FnOnce(&dyn Fn() -> bool) + use<> {
        let said = said.clone();
        move |is_cancelled: &dyn Fn() -> bool| {
            said.send("began").unwrap();
            while !is_cancelled() {
                std::thread::yield_now();
            }
            said.send("ended").unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_look_that_nobody_waits_for_stops_or_never_begins() {
        let readers = Arc::new(Readers::start(&Limits::default()).unwrap());
        let (said, heard) = mpsc::channel();
        let look = |name: &str| {
            let (readers, caller, work) = (Arc::clone(&readers), operator(name), endless(&said));
            tokio::spawn(async move { readers.look(&caller, work).await })
        };
        // Both threads are taken, and two more wait: one for a thread, one for its principal's turn.
        let looks = [look("a"), look("b")];
        assert_eq!([heard.recv(), heard.recv()], [Ok("began"); 2]);
        let waiting = [look("c"), look("a")];
        for one in looks.iter().chain(&waiting).rev() {
            one.abort();
        }
        for one in looks.into_iter().chain(waiting) {
            assert!(one.await.is_err());
        }
        assert_eq!([heard.recv(), heard.recv()], [Ok("ended"); 2]);
        // What comes next is done, and those that waited were left out.
        assert_eq!(readers.look(&operator("d"), |_| 7).await.unwrap(), 7);
        assert!(heard.try_recv().is_err());
    }

    fn is_done<T>(future: &mut std::pin::Pin<Box<impl Future<Output = T>>>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        future.as_mut().poll(&mut context).is_ready()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_goes_away_has_no_other_turn_before_the_look_has_ended() {
        let readers = Arc::new(Readers::start(&Limits::default()).unwrap());
        let (said, heard) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let look = {
            let (readers, said) = (Arc::clone(&readers), said.clone());
            let work = move |_: &dyn Fn() -> bool| {
                said.send("began").unwrap();
                // It does not ask whether anybody waits.
                let _ = released.recv();
            };
            tokio::spawn(async move { readers.look(&operator("a"), work).await })
        };
        assert_eq!(heard.recv(), Ok("began"));
        look.abort();
        assert!(look.await.is_err());
        let a = operator("a");
        let mut again = Box::pin(readers.look(&a, move |_| said.send("again").unwrap()));
        assert!(!is_done(&mut again));
        assert!(heard.try_recv().is_err());
        assert_eq!(readers.look(&operator("b"), |_| 7).await.unwrap(), 7);
        assert!(heard.try_recv().is_err());
        drop(release);
        again.await.unwrap();
        assert_eq!(heard.recv(), Ok("again"));
    }

    #[tokio::test]
    async fn a_look_that_panics_ends_alone() {
        let readers = Readers::start(&Limits::default()).unwrap();
        for _ in 0..2 * THREADS {
            let looked = readers.look(&operator("a"), |_| -> u8 { panic!("on purpose") }).await;
            assert!(looked.is_err());
        }
        assert_eq!(readers.look(&operator("a"), |_| 7).await.unwrap(), 7);
    }
}
