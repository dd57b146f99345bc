//! Minted credentials, flights and failures, by key: pure, with the time as an argument.
//!
//! ```text
//! Missing, or Ready and to be replaced ─ join ─ queued ─ next ─ flying ─ land ─ Ready or Failing
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::back_off::Trouble;
use super::credential::Credential;
use super::key::MintKey;
use crate::mint::Failure;
use crate::model::{Id, IdMap, Timestamp};

/// The flights of one connection at a time, unless a book says otherwise.
const FLIGHTS_OF_ONE: usize = 16;
/// All flights at a time.
const FLIGHTS: usize = 64;
/// All flights that wait.
const QUEUED: usize = 4096;
/// The flights of one workflow that wait: an eighth of all.
const QUEUED_OF_ONE: usize = 512;
/// The orders that a flight keeps. If the first no longer holds, the flight begins with the next.
const ORDERS: usize = 16;
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
    /// Oldest first.
    queue: VecDeque<MintKey>,
    flying: HashSet<MintKey>,
    /// How many flights one connection may have at a time, by an order for it.
    flights_of_one: fn(&O) -> usize,
}

struct Entry<O> {
    credential: Option<Arc<Credential>>,
    trouble: Option<Arc<Trouble>>,
    flight: Option<Flight<O>>,
}

struct Flight<O> {
    /// Of those who wait, oldest first.
    orders: VecDeque<O>,
    since: Timestamp,
    landing: watch::Sender<Option<Landing>>,
}

impl<O> Default for Book<O> {
    fn default() -> Self {
        Self::new(|_| FLIGHTS_OF_ONE)
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
    /// An empty book. `flights_of_one` is how many flights one connection may have at a time, by an order for it.
    pub(super) fn new(flights_of_one: fn(&O) -> usize) -> Self {
        let (entries, queue, flying) = (HashMap::new(), VecDeque::new(), HashSet::new());
        Self { entries, queue, flying, flights_of_one }
    }

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
        if let Some(entry) = self.entries.get_mut(key) {
            if let Some(flight) = &mut entry.flight {
                if flight.orders.len() < ORDERS {
                    flight.orders.push_back(order);
                }
                return Ok((flight.landing.subscribe(), false));
            }
            if let Some(trouble) = entry.trouble(now) {
                return Err(Some(Arc::clone(trouble)));
            }
        }
        self.give_up_stale(now);
        let of_one = self.queue.iter().filter(|queued| queued.workflow == key.workflow);
        if self.queue.len() >= QUEUED || of_one.count() >= QUEUED_OF_ONE {
            return Err(None);
        }
        let (landing, arrival) = watch::channel(None);
        let entry = self.entries.entry(key.clone()).or_default();
        entry.flight = Some(Flight { orders: [order].into(), since: now, landing });
        self.queue.push_back(key.clone());
        Ok((arrival, true))
    }

    /// The next flight to start: of the connection with the fewest flights, then of the workflow with the fewest, then
    /// the oldest. No connection has more than its share, so upstreams that hang do not take the places of others.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<MintKey> {
        self.give_up_stale(now);
        if self.queue.is_empty() || self.flying.len() >= FLIGHTS {
            return None;
        }
        let (mut of_connection, mut of_workflow) = (IdMap::<usize>::default(), HashMap::new());
        for key in &self.flying {
            *of_connection.entry(key.connection).or_default() += 1;
            *of_workflow.entry(&key.workflow).or_insert(0_usize) += 1;
        }
        let flights = |key: &MintKey| {
            let of_connection = of_connection.get(&key.connection).copied().unwrap_or_default();
            let of_workflow = || of_workflow.get(&key.workflow).copied().unwrap_or_default();
            let flight = self.entries.get(key).and_then(|entry| entry.flight.as_ref());
            let order = flight.and_then(|flight| flight.orders.front());
            let limit = order.map_or(FLIGHTS_OF_ONE, self.flights_of_one);
            (of_connection < limit).then(|| (of_connection, of_workflow()))
        };
        let waiting = self.queue.iter().enumerate();
        let waiting = waiting.filter_map(|(place, key)| Some((flights(key)?, place)));
        let (_, place) = waiting.min()?;
        let key = self.queue.remove(place)?;
        self.flying.insert(key.clone());
        Some(key)
    }

    /// Follows the flight of a key, if it is on.
    pub(super) fn flight(&self, key: &MintKey) -> Option<Arrival> {
        let entry = self.entries.get(key).filter(|_| self.flying.contains(key))?;
        entry.flight.as_ref().map(|flight| flight.landing.subscribe())
    }

    /// The next order that a flight may begin with, once.
    pub(super) fn next_order(&mut self, key: &MintKey) -> Option<O> {
        self.entries.get_mut(key)?.flight.as_mut()?.orders.pop_front()
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
        self.flying.remove(key);
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
        self.remove_if_empty(key);
    }

    fn remove_if_empty(&mut self, key: &MintKey) {
        let is_empty = |entry: &Entry<O>| {
            entry.credential.is_none() && entry.trouble.is_none() && entry.flight.is_none()
        };
        if self.entries.get(key).is_some_and(is_empty) {
            self.entries.remove(key);
        }
    }

    /// Forgets the credential of a key, if this mint has made it.
    pub(super) fn forget(&mut self, key: &MintKey, mint: Id) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.credential.as_ref().is_some_and(|credential| credential.minted.mint == mint) {
            entry.credential = None;
            self.remove_if_empty(key);
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
    /// A failure of this mint; `None` if it had not begun.
    Failed(Option<Id>, Failure),
    /// The connection's record fails authentication.
    Corrupt,
    /// Nothing: the upstream was not asked, or its answer has no line.
    GivenUp,
}

#[cfg(test)]
mod tests;
