//! Minted credentials, flights and failures, by key: pure, with the time as an argument.
//!
//! ```text
//! Missing, or Ready and to be replaced ─ join ─ queued ─ next ─ flying ─ land ─ Ready or Failing
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::back_off::Trouble;
use super::credential::Credential;
use super::key::MintKey;
use crate::mint::Failure;
use crate::model::{Id, IdMap, Timestamp};

/// The flights of one connection at a time.
const FLIGHTS_OF_ONE: usize = 16;
/// All flights at a time.
const FLIGHTS: usize = 64;
/// All flights that wait.
const QUEUED: usize = 4096;
/// How long a flight waits, at most.
pub(super) const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a flight has ended.
#[derive(Clone)]
pub(crate) enum Landing {
    /// With a credential.
    Minted(Arc<Credential>),
    /// With a failure.
    Failed(Arc<Trouble>),
    /// The connection's record fails authentication.
    Corrupt,
    /// Without asking the upstream: who waits decides again.
    GivenUp,
}

/// Reports how a flight ends.
pub(super) type Arrival = watch::Receiver<Option<Landing>>;

/// The state of a key.
pub(crate) enum Offer {
    /// A credential.
    Ready(Arc<Credential>),
    /// The upstream has failed, and is not asked yet.
    Failing(Arc<Trouble>),
    /// There is no credential.
    Missing,
}

/// All keys that have something. An order is what a flight needs to start.
pub(super) struct Book<O> {
    entries: HashMap<MintKey, Entry<O>>,
    queue: VecDeque<MintKey>,
    /// The flights of each connection.
    flying: IdMap<usize>,
}

struct Entry<O> {
    credential: Option<Arc<Credential>>,
    trouble: Option<Arc<Trouble>>,
    flight: Option<Flight<O>>,
}

struct Flight<O> {
    /// `None` once it flies.
    order: Option<O>,
    since: Timestamp,
    landing: watch::Sender<Option<Landing>>,
}

impl<O> Default for Book<O> {
    fn default() -> Self {
        Self { entries: HashMap::new(), queue: VecDeque::new(), flying: IdMap::default() }
    }
}

impl<O> Default for Entry<O> {
    fn default() -> Self {
        Self { credential: None, trouble: None, flight: None }
    }
}

impl<O> Entry<O> {
    fn credential(&self, now: Timestamp) -> Option<&Arc<Credential>> {
        self.credential.as_ref().filter(|credential| now < credential.end())
    }

    fn trouble(&self, now: Timestamp) -> Option<&Arc<Trouble>> {
        self.trouble.as_ref().filter(|trouble| now < trouble.until)
    }
}

impl<O> Book<O> {
    /// What there is for a key.
    pub(super) fn offer(&self, key: &MintKey, now: Timestamp) -> Offer {
        let Some(entry) = self.entries.get(key) else { return Offer::Missing };
        let trouble = entry.trouble(now);
        match (entry.credential(now), trouble) {
            (Some(credential), _) => Offer::Ready(Arc::clone(credential)),
            (None, Some(trouble)) if entry.flight.is_none() => Offer::Failing(Arc::clone(trouble)),
            (None, _) => Offer::Missing,
        }
    }

    /// Joins the flight of a key, or queues a new one; true if it is new. The caller then starts what [`Book::next`]
    /// returns.
    ///
    /// # Errors
    /// The state of the upstream, if it is not asked now. `None` if too many flights wait.
    pub(super) fn join(
        &mut self,
        key: &MintKey,
        order: O,
        now: Timestamp,
    ) -> Result<(Arrival, bool), Option<Arc<Trouble>>> {
        if let Some(entry) = self.entries.get(key) {
            if let Some(flight) = &entry.flight {
                return Ok((flight.landing.subscribe(), false));
            }
            if let Some(trouble) = entry.trouble(now) {
                return Err(Some(Arc::clone(trouble)));
            }
        }
        self.give_up_stale(now);
        if self.queue.len() >= QUEUED {
            return Err(None);
        }
        let (landing, arrival) = watch::channel(None);
        let entry = self.entries.entry(key.clone()).or_default();
        entry.flight = Some(Flight { order: Some(order), since: now, landing });
        self.queue.push_back(key.clone());
        Ok((arrival, true))
    }

    /// The next flight to start: the first that waits and whose connection has fewer than its share.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<(MintKey, O)> {
        self.give_up_stale(now);
        if self.flying.values().sum::<usize>() >= FLIGHTS {
            return None;
        }
        let flying = |key: &MintKey| self.flying.get(&key.connection).copied().unwrap_or_default();
        let place = self.queue.iter().position(|key| flying(key) < FLIGHTS_OF_ONE)?;
        let key = self.queue.remove(place)?;
        let order = self.entries.get_mut(&key)?.flight.as_mut()?.order.take()?;
        *self.flying.entry(key.connection).or_default() += 1;
        Some((key, order))
    }

    /// Gives up flights that have waited too long. They are at the front.
    fn give_up_stale(&mut self, now: Timestamp) {
        while let Some(key) = self.queue.front() {
            let flight = self.entries.get(key).and_then(|entry| entry.flight.as_ref());
            if flight.is_some_and(|flight| now.since(flight.since) < QUEUE_TIMEOUT) {
                return;
            }
            if let Some(key) = self.queue.pop_front() {
                self.end_flight(&key, Landing::GivenUp);
            }
        }
    }

    /// Takes in the end of a flight, and reports it to all who wait.
    pub(super) fn land(&mut self, key: &MintKey, outcome: Outcome, now: Timestamp) {
        if let Some(count) = self.flying.get_mut(&key.connection) {
            *count -= 1;
            if *count == 0 {
                self.flying.remove(&key.connection);
            }
        }
        let Some(entry) = self.entries.get_mut(key) else { return };
        let landing = match outcome {
            Outcome::Minted(credential) => {
                (entry.credential, entry.trouble) = (Some(Arc::clone(&credential)), None);
                Landing::Minted(credential)
            }
            Outcome::Failed(mint, failure) => {
                let trouble = Trouble::after(entry.trouble.as_deref(), mint, &failure, now);
                let trouble = Arc::new(trouble);
                entry.trouble = Some(Arc::clone(&trouble));
                Landing::Failed(trouble)
            }
            Outcome::Corrupt => Landing::Corrupt,
            Outcome::GivenUp => Landing::GivenUp,
        };
        self.end_flight(key, landing);
    }

    fn end_flight(&mut self, key: &MintKey, landing: Landing) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some(flight) = entry.flight.take() {
            flight.landing.send_replace(Some(landing));
        }
        if entry.credential.is_none() && entry.trouble.is_none() {
            self.entries.remove(key);
        }
    }

    /// The keys that have something.
    pub(super) fn keys(&self) -> impl Iterator<Item = &MintKey> {
        self.entries.keys()
    }

    /// Removes what has ended and what is of no use any more.
    pub(super) fn sweep(&mut self, now: Timestamp, is_useful: impl Fn(&MintKey) -> bool) {
        self.entries.retain(|key, entry| {
            if entry.flight.is_some() {
                return true;
            }
            let is_remembered = entry.credential(now).is_some()
                || entry.trouble.as_ref().is_some_and(|trouble| now < trouble.forgotten());
            is_remembered && is_useful(key)
        });
    }

    /// Gives up all flights that wait.
    pub(super) fn give_up_queued(&mut self) {
        while let Some(key) = self.queue.pop_front() {
            self.end_flight(&key, Landing::GivenUp);
        }
    }
}

/// What a flight returns with.
pub(super) enum Outcome {
    /// A credential.
    Minted(Arc<Credential>),
    /// A failure of this mint.
    Failed(Id, Failure),
    /// The connection's record fails authentication.
    Corrupt,
    /// Nothing: the upstream was not asked, or its answer has no line.
    GivenUp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::minting::key::SharedBy;
    use crate::catalog::Values;
    use crate::lease::MintedCredential;
    use crate::mint::FailureReason;
    use crate::seal::{RecordKey, RecordKind, Sealed};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn id(n: u8) -> Id {
        Id::from_bytes([n; 16])
    }

    /// The key of opening `n` and a connection.
    fn key(connection: u8, n: u8) -> MintKey {
        MintKey { connection: id(connection), version: 1, shared_by: SharedBy::Opening(id(n)) }
    }

    fn minted(end: i64) -> Outcome {
        let mint = id(9);
        let key = RecordKey { kind: RecordKind::MintedValues, uid: mint };
        // No test opens it.
        let sealed = Sealed::parse(&[&[1_u8][..], &[0; 200]].concat()).unwrap();
        let minted =
            MintedCredential { mint, handle: None, credential_expire_time: at(end) }.into();
        let values = Values { key, sealed };
        Outcome::Minted(Arc::new(Credential {
            minted,
            values,
            names: [].into(),
            refresh: at(end / 2),
        }))
    }

    fn failed() -> Outcome {
        let (reason, detail) = (FailureReason::Unavailable, String::new());
        Outcome::Failed(
            id(9),
            Failure { reason, detail, retry_after: None, upstream_request: None },
        )
    }

    fn landing(arrival: &Arrival) -> Option<&'static str> {
        arrival.borrow().as_ref().map(|landing| match landing {
            Landing::Minted(_) => "minted",
            Landing::Failed(_) => "failed",
            Landing::Corrupt => "corrupt",
            Landing::GivenUp => "given up",
        })
    }

    #[test]
    fn all_who_ask_for_one_key_join_one_flight() {
        let mut book = Book::default();
        let arrivals: Vec<_> =
            (0..1000).map(|n| book.join(&key(1, 1), n, at(0)).ok().unwrap().0).collect();
        assert_eq!(book.next(at(0)).map(|(_, order)| order), Some(0));
        assert!(book.next(at(0)).is_none());
        book.land(&key(1, 1), minted(100), at(1));
        assert!(arrivals.iter().all(|arrival| landing(arrival) == Some("minted")));
        assert!(matches!(book.offer(&key(1, 1), at(99)), Offer::Ready(_)));
        assert!(matches!(book.offer(&key(1, 1), at(100)), Offer::Missing));
        assert!(matches!(book.offer(&key(1, 2), at(1)), Offer::Missing));
    }

    #[test]
    fn flights_of_one_and_of_all_connections_are_limited() {
        let mut book = Book::default();
        let mut arrivals = Vec::new();
        for connection in 0..8 {
            for n in 0..20 {
                arrivals.push(book.join(&key(connection, n), connection, at(0)).ok().unwrap());
            }
        }
        let started: Vec<_> = std::iter::from_fn(|| book.next(at(0))).collect();
        assert_eq!(started.len(), FLIGHTS);
        for connection in 0..4 {
            assert_eq!(started.iter().filter(|(_, order)| *order == connection).count(), 16);
        }
        // Each landing starts the next flight, in order and within the share of its connection.
        book.land(&started[0].0, failed(), at(1));
        assert_eq!(book.next(at(1)).map(|(_, order)| order), Some(0));
        book.land(&started[63].0, failed(), at(1));
        assert_eq!(book.next(at(1)).map(|(_, order)| order), Some(3));
    }

    #[test]
    fn a_flight_that_waits_too_long_is_given_up() {
        let mut book = Book::default();
        let busy: Vec<_> =
            (0..16).map(|n| book.join(&key(1, n), (), at(0)).ok().unwrap()).collect();
        assert_eq!(std::iter::from_fn(|| book.next(at(0))).count(), busy.len());
        let (waits, _) = book.join(&key(1, 99), (), at(0)).ok().unwrap();
        assert!(book.next(at(9)).is_none() && landing(&waits).is_none());
        assert!(book.next(at(10)).is_none());
        assert_eq!(landing(&waits), Some("given up"));
        assert!(book.join(&key(1, 99), (), at(10)).is_ok(), "it may ask again");
    }

    #[test]
    fn a_failed_refresh_keeps_the_credential() {
        let mut book = Book::default();
        let fly = |book: &mut Book<()>, outcome, now| {
            let (arrival, _) = book.join(&key(1, 1), (), at(now)).ok().unwrap();
            assert!(book.next(at(now)).is_some());
            book.land(&key(1, 1), outcome, at(now));
            landing(&arrival)
        };
        assert_eq!(fly(&mut book, minted(100), 0), Some("minted"));
        assert_eq!(fly(&mut book, failed(), 60), Some("failed"));
        assert!(matches!(book.offer(&key(1, 1), at(60)), Offer::Ready(_)));
        assert!(matches!(book.join(&key(1, 1), (), at(60)), Err(Some(_))), "it backs off");
        assert_eq!(fly(&mut book, failed(), 99), Some("failed"));
        assert!(matches!(book.offer(&key(1, 1), at(100)), Offer::Failing(_)));
        assert_eq!(fly(&mut book, minted(900), 102), Some("minted"));
    }

    #[test]
    fn a_sweep_leaves_what_is_useful_and_flights() {
        let mut book = Book::default();
        for (n, outcome) in [(1, minted(100)), (2, minted(50)), (3, failed()), (4, minted(100))] {
            assert!(book.join(&key(1, n), (), at(0)).is_ok() && book.next(at(0)).is_some());
            book.land(&key(1, n), outcome, at(0));
        }
        let _flying = book.join(&key(1, 5), (), at(0));
        let left = |book: &Book<()>| {
            let mut left: Vec<_> =
                (1..=5).filter(|n| book.entries.contains_key(&key(1, *n))).collect();
            left.sort_unstable();
            left
        };
        book.sweep(at(50), |key| key.opening() != Some(id(4)));
        assert_eq!(left(&book), [1, 3, 5]);
        book.sweep(at(61), |_| true);
        assert_eq!(left(&book), [1, 5]);
    }
}
