//! Threads for long reads, of the journal's files or of the whole catalogue. Principals take turns on them.
//!
//! So the threads that serve the sockets never wait for a reader. Each read is short: a reader of many lines takes many
//! turns, and holds no thread while its client receives. Each principal has one turn at a time, so the queue is at most
//! as long as the number of principals. A read whose caller is gone is skipped, or stops where it can; the principal's
//! turn lasts until then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::shares::Shares;
use crate::model::Limits;

/// The number of threads.
const THREADS: usize = 2;

type Job = Box<dyn FnOnce() + Send>;

/// The threads, and each principal's share of them.
pub(crate) struct Readers {
    jobs: Sender<Job>,
    /// The shares, by the principals' text.
    shares: Shares<String, ReaderShare>,
    streams: Arc<Semaphore>,
    all_streams: u32,
    streams_of_one: u32,
}

/// One principal's share.
struct ReaderShare {
    turn: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// A principal's turn to read.
pub struct ReaderTurn {
    jobs: Sender<Job>,
    held: (OwnedSemaphorePermit, Arc<ReaderShare>),
}

/// Permission for one stream of lines, until it is dropped.
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
            shares: Shares::default(),
            streams: Arc::new(Semaphore::new(limits.journal_readers as usize)),
            all_streams: limits.journal_readers,
            streams_of_one: limits.journal_readers_of_one,
        })
    }

    /// Permits one more stream of lines.
    ///
    /// # Errors
    /// [`Error::TooManyReaders`] if the limit of this principal or of all principals is reached.
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

    /// Runs a read for a principal in its next turn.
    ///
    /// # Errors
    /// See [`ReaderTurn::read`].
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        caller: &Principal,
        work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.turn(caller).await?.read(work).await
    }

    fn share(&self, caller: &Principal) -> Arc<ReaderShare> {
        self.shares.of(caller.to_string(), || {
            let streams = Arc::new(Semaphore::new(self.streams_of_one as usize));
            ReaderShare { turn: Arc::new(Semaphore::new(1)), streams }
        })
    }
}

impl ReaderTurn {
    /// Runs a read. Its argument returns true if the caller is gone.
    ///
    /// # Errors
    /// [`Error::Draining`] at the end, [`Error::Internal`] if the read panics.
    pub async fn read<T: Send + 'static>(
        self,
        work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let Self { jobs, held } = self;
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            // A caller who disconnects gets no other turn before this one has ended.
            let _held = held;
            if !answer.is_closed() {
                let found = work(&|| answer.is_closed());
                let _ = answer.send(found);
            }
        });
        if jobs.send(job).is_err() {
            return Err(Error::Draining);
        }
        answered.await.map_err(|_| Error::Internal("a read was dropped".to_owned()))
    }
}

impl Broker {
    /// Waits for the caller's turn to make a long read.
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
        // The caller sees the dropped channel.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a read panicked");
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

    /// A read that ends when its caller is gone, and reports its begin and its end.
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
    async fn a_read_without_a_caller_stops_or_never_begins() {
        let readers = Arc::new(Readers::start(&Limits::default()).unwrap());
        let (said, heard) = mpsc::channel();
        let read = |name: &str| {
            let (readers, caller, work) = (Arc::clone(&readers), operator(name), endless(&said));
            tokio::spawn(async move { readers.read(&caller, work).await })
        };
        // Both threads are busy, and two reads wait: one for a thread, one for its principal's turn.
        let reads = [read("a"), read("b")];
        assert_eq!([heard.recv(), heard.recv()], [Ok("began"); 2]);
        let waiting = [read("c"), read("a")];
        for one in reads.iter().chain(&waiting).rev() {
            one.abort();
        }
        for one in reads.into_iter().chain(waiting) {
            assert!(one.await.is_err());
        }
        assert_eq!([heard.recv(), heard.recv()], [Ok("ended"); 2]);
        // The next read runs, and the waiting ones were skipped.
        assert_eq!(readers.read(&operator("d"), |_| 7).await.unwrap(), 7);
        assert!(heard.try_recv().is_err());
    }

    fn is_done<T>(future: &mut std::pin::Pin<Box<impl Future<Output = T>>>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        future.as_mut().poll(&mut context).is_ready()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_caller_who_left_waits_until_the_read_has_ended() {
        let readers = Arc::new(Readers::start(&Limits::default()).unwrap());
        let (said, heard) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let read = {
            let (readers, said) = (Arc::clone(&readers), said.clone());
            let work = move |_: &dyn Fn() -> bool| {
                said.send("began").unwrap();
                // It does not ask whether its caller is gone.
                let _ = released.recv();
            };
            tokio::spawn(async move { readers.read(&operator("a"), work).await })
        };
        assert_eq!(heard.recv(), Ok("began"));
        read.abort();
        assert!(read.await.is_err());
        let a = operator("a");
        let mut again = Box::pin(readers.read(&a, move |_| said.send("again").unwrap()));
        assert!(!is_done(&mut again));
        assert!(heard.try_recv().is_err());
        assert_eq!(readers.read(&operator("b"), |_| 7).await.unwrap(), 7);
        assert!(heard.try_recv().is_err());
        drop(release);
        again.await.unwrap();
        assert_eq!(heard.recv(), Ok("again"));
    }

    #[tokio::test]
    async fn a_read_that_panics_ends_alone() {
        let readers = Readers::start(&Limits::default()).unwrap();
        for _ in 0..2 * THREADS {
            let outcome = readers.read(&operator("a"), |_| -> u8 { panic!("on purpose") }).await;
            assert!(outcome.is_err());
        }
        assert_eq!(readers.read(&operator("a"), |_| 7).await.unwrap(), 7);
    }
}
