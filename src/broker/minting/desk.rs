//! Where minted credentials are asked for: the book behind its lock, and the flights on their runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::back_off::Trouble;
use super::book::{Arrival, Book, Landing, Offer, Outcome};
use super::flight::{FlightParts, Order};
use super::in_use::InUse;
use super::key::MintKey;
use super::refresh::RefreshToken;
use super::turns::Turn;
use crate::egress::Egress;
use crate::integration::Source;
use crate::journal::{Live, MintingLine};
use crate::lease::MintedCredential;
use crate::metrics::{EndingOutcome, MintLookup};
use crate::mint::{self, Ask, End, Failure, Minted};
use crate::model::{Fields, Id, IdMap, ResourceName, Timestamp};

/// The mints for tests of connections at a time, besides the flights.
const TRIALS: usize = 4;
/// How long a test waits until no other uses the refresh token.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// The minted credentials of a broker. Flights are detached from those who ask: they go on if a caller goes away.
pub(crate) struct Mints {
    book: Mutex<Book<Order>>,
    parts: FlightParts,
    runtime: Handle,
    /// Ends all flights.
    stop: CancellationToken,
    is_stopping: AtomicBool,
    /// How many flights and trials are on.
    flying: watch::Sender<usize>,
    trials: Arc<Semaphore>,
    /// The names of the connections that the book has keys of. Locked while the book is, if it changes.
    names: Mutex<IdMap<ResourceName>>,
    /// Takes the flights that have ended.
    landed: mpsc::UnboundedSender<LandedMint>,
}

/// A flight that has ended.
pub(crate) struct LandedMint {
    pub(crate) mint: Id,
    /// The credential that the book has got, and its key.
    pub(crate) made: Option<(MintKey, Arc<MintedCredential>)>,
}

/// A test that uses a refresh token.
pub(crate) struct RefreshTest {
    pub(crate) source: Source,
    pub(crate) roots: Fields,
    pub(crate) ask: Ask,
    pub(crate) token: RefreshToken,
    /// The turn of its connection, since before the roots were opened.
    pub(crate) turn: Turn,
}

/// Counts a trial as long as it is on.
struct Trial<'a> {
    flying: &'a watch::Sender<usize>,
    /// Of a test whose connection takes no turns.
    _place: Option<OwnedSemaphorePermit>,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.flying.send_modify(|count| *count -= 1);
    }
}

/// Tells when a flight has ended.
pub(crate) struct Ticket {
    arrival: Arrival,
    /// True if the flight was begun for this ticket.
    pub(crate) is_first: bool,
}

impl Ticket {
    /// Waits for the end of the flight. A flight whose end nobody reports was given up.
    pub(crate) async fn landing(mut self) -> Landing {
        match self.arrival.wait_for(Option::is_some).await {
            Ok(landing) => landing.clone().unwrap_or(Landing::GivenUp),
            Err(_) => Landing::GivenUp,
        }
    }
}

impl Mints {
    /// `landed` takes the flights that have ended.
    pub(crate) fn new(
        parts: FlightParts,
        runtime: Handle,
        landed: mpsc::UnboundedSender<LandedMint>,
    ) -> Self {
        Self {
            book: Mutex::new(Book::new(|order: &Order| order.source.flights_of_one())),
            parts,
            runtime,
            stop: CancellationToken::new(),
            is_stopping: AtomicBool::new(false),
            flying: watch::Sender::new(0),
            trials: Arc::new(Semaphore::new(TRIALS)),
            names: Mutex::default(),
            landed,
        }
    }

    /// The way to the upstreams.
    pub(crate) fn egress(&self) -> &Egress {
        &self.parts.upstreams.egress
    }

    /// Asks an upstream for a credential that nobody gets. `None` if there is no place, or the broker stops.
    pub(crate) async fn try_out(
        &self,
        source: Source,
        roots: &Fields,
        ask: &Ask,
    ) -> Option<Result<Minted, Failure>> {
        let place = Arc::clone(&self.trials).try_acquire_owned().ok()?;
        self.flying.send_modify(|count| *count += 1);
        let _trial = Trial { flying: &self.flying, _place: Some(place) };
        let asked = mint::mint(&self.parts.upstreams, source, roots, ask);
        self.stop.run_until_cancelled(asked).await.map(|answer| answer.made)
    }

    /// Waits for the turn of a connection whose root may be replaced. `None` if its turn does not come in time, or the broker
    /// stops.
    pub(crate) async fn turn(&self, connection: Id) -> Option<Turn> {
        let turn = timeout(TURN_TIMEOUT, self.parts.refresher.turn(connection));
        self.stop.run_until_cancelled(turn).await?.ok()
    }

    /// Uses a refresh token for a test: as a flight does, and to its end even if the caller goes away. Returns the roots, too;
    /// `None` if the broker stops.
    pub(crate) async fn try_refresh(
        self: &Arc<Self>,
        test: RefreshTest,
    ) -> Option<(Result<Minted, Failure>, Fields)> {
        let mints = Arc::clone(self);
        let task = self.runtime.spawn(async move {
            mints.flying.send_modify(|count| *count += 1);
            let _trial = Trial { flying: &mints.flying, _place: None };
            let RefreshTest { source, roots, ask, token, turn: _turn } = test;
            let refresher = &mints.parts.refresher;
            let made = match refresher.prepare(&token).await {
                Ok(()) => {
                    let answer = mint::mint(&mints.parts.upstreams, source, &roots, &ask).await;
                    refresher.settle(&token, ask.mint, answer, &mints.stop).await
                }
                Err(failure) => Err(failure),
            };
            refresher.end_test(&token, &made).await;
            (made, roots)
        });
        task.await.ok()
    }

    /// Starts nothing more, and waits until no refresh token is in use: the answer may have the only copy of the next.
    pub(crate) async fn end_refreshes(&self) {
        self.drain();
        self.stop.cancel();
        self.parts.refresher.is_over().await;
    }

    /// Moves refresh tokens from files to the store, as far as it takes them.
    pub(crate) async fn take_spares(&self) {
        self.parts.refresher.take_spares().await;
    }

    /// Ends a credential upstream, as [`mint::end`] does.
    pub(crate) async fn end(&self, source: Source, ending: &Fields) -> Result<End, Failure> {
        mint::end(&self.parts.upstreams.egress, source, ending).await
    }

    /// Counts how an attempt to end a credential went out.
    pub(crate) fn count_ending(&self, source: Source, outcome: EndingOutcome) {
        self.parts.metrics.end_credential(source.name(), outcome);
    }

    /// What there is for a key.
    pub(crate) fn offer(&self, key: &MintKey, now: Timestamp) -> Offer {
        self.book.lock().offer(key, now)
    }

    /// Counts what a decision has found.
    pub(crate) fn count(&self, source: Source, found: MintLookup) {
        self.parts.metrics.look_up(source.name(), found);
    }

    /// Joins the flight of the order's key, or starts one.
    ///
    /// # Errors
    /// The state of the upstream, if it is not asked now; `None` if the broker has too much to do or stops.
    pub(crate) fn join(
        self: &Arc<Self>,
        order: Order,
        now: Timestamp,
    ) -> Result<Ticket, Option<Arc<Trouble>>> {
        if self.is_stopping.load(Ordering::Acquire) {
            return Err(None);
        }
        let (key, name) = (order.key.clone(), order.name.clone());
        let mut book = self.book.lock();
        let (arrival, is_first) = book.join(&key, order, now)?;
        self.names.lock().entry(key.connection).or_insert(name);
        drop(book);
        self.start_flights(now);
        Ok(Ticket { arrival, is_first })
    }

    /// The flights of these mints whose credentials belong to one opening.
    pub(crate) fn flights(&self, begun: &[MintingLine]) -> Vec<Ticket> {
        let book = self.book.lock();
        let arrivals = begun.iter().filter_map(|one| book.flight(&MintKey::of_minting(one)));
        arrivals.map(|arrival| Ticket { arrival, is_first: false }).collect()
    }

    /// Starts flights as long as there are places.
    fn start_flights(self: &Arc<Self>, now: Timestamp) {
        loop {
            let Some(key) = self.book.lock().next(now) else { return };
            self.flying.send_modify(|count| *count += 1);
            let flight = Landed { mints: Arc::clone(self), key, outcome: Outcome::GivenUp };
            self.runtime.spawn(flight.end());
        }
    }

    /// Forgets a credential, if this mint has made it.
    pub(crate) fn forget(&self, key: &MintKey, mint: Id) {
        self.book.lock().forget(key, mint);
    }

    /// Forgets credentials that have ended, those of steps that are closed, and those of connections that have changed
    /// since. Writes the lines of flights that could not be written.
    pub(crate) fn sweep(&self, now: Timestamp) {
        self.parts.ends.write_rest(&self.parts.journal, now);
        let mut in_use = {
            let book = self.book.lock();
            let in_use = InUse::of(book.keys());
            self.names.lock().retain(|uid, _| in_use.is_of(*uid));
            in_use
        };
        if in_use.is_empty() {
            return;
        }
        let take_open = |live: &Live| {
            let open = live.openings().map(|open| open.record());
            in_use.take_open(open.map(|open| (open.id, &open.key.workflow)));
        };
        if self.parts.journal.with_live(take_open).is_err() {
            // The journal hangs: nothing is known to be closed.
            self.book.lock().sweep(now, |_| true);
            return;
        }
        let snapshot = self.parts.snapshots.load();
        let names = self.names.lock();
        let connections = names.values().filter_map(|name| match name {
            ResourceName::Connection(name) => snapshot.catalog.connection(name),
            _ => None,
        });
        in_use.take_versions(connections.map(|one| (one.metadata.uid, one.metadata.version)));
        drop(names);
        self.book.lock().sweep(now, |key| in_use.has(key));
    }

    /// Starts no more flights: those that wait are given up.
    pub(crate) fn drain(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.book.lock().give_up_queued();
    }

    /// Ends all flights and trials. Each flight writes its line first.
    pub(crate) async fn stop(&self) {
        self.drain();
        self.stop.cancel();
        let _ = self.flying.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// A flight that is on. It lands when this is dropped, even if its task panics.
struct Landed {
    mints: Arc<Mints>,
    key: MintKey,
    outcome: Outcome,
}

impl Landed {
    async fn end(mut self) {
        let mints = Arc::clone(&self.mints);
        let orders = std::iter::from_fn(|| mints.book.lock().next_order(&self.key));
        self.outcome = mints.parts.run(orders, &mints.stop).await;
    }
}

impl Drop for Landed {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Outcome::GivenUp);
        let landed = match &outcome {
            Outcome::Minted(credential) => {
                let made = Some((self.key.clone(), Arc::clone(&credential.minted)));
                Some(LandedMint { mint: credential.minted.mint, made })
            }
            Outcome::Failed(mint, _) => mint.map(|mint| LandedMint { mint, made: None }),
            Outcome::Corrupt | Outcome::GivenUp => None,
        };
        let now = self.mints.parts.clock.now();
        self.mints.book.lock().land(&self.key, outcome, now);
        if let Some(landed) = landed {
            // Nobody listens any more if the broker stops.
            let _ = self.mints.landed.send(landed);
        }
        self.mints.start_flights(now);
        self.mints.flying.send_modify(|count| *count -= 1);
    }
}
