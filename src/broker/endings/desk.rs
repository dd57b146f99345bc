//! Where endings begin: the schedule behind its lock, and the parts that endings work with.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::schedule::{NewEnding, Schedule, Tries};
use super::standing::{last_try, standing};
use crate::broker::changes::writer::{AfterPublication, WriterParts};
use crate::broker::error::Error;
use crate::broker::minting::{Keeper, MintKey, Mints};
use crate::catalog::Snapshots;
use crate::journal::{Candidates, CommitError, EndingRequest, Journal, Owed, Unavailable};
use crate::model::{Clock, Fields, Id, LogLimit, Timestamp};
use crate::seal::{Keyring, RecordKey, RecordKind};

/// The endings that begin at a time: decisions wait while they are looked up.
const BEGUN_AT_ONCE: usize = 256;
/// How long endings that are under way get when the daemon stops.
const GRACE: Duration = Duration::from_secs(1);

/// What endings work with.
pub(crate) struct EndingParts {
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) journal: Arc<Journal>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) keeper: Keeper,
    pub(super) mints: Arc<Mints>,
    pub(super) clock: Clock,
}

impl EndingParts {
    pub(crate) fn new(parts: &WriterParts, keeper: Keeper, mints: &Arc<Mints>) -> Self {
        let WriterParts { snapshots, journal, keyring, clock, .. } = parts.clone();
        Self { snapshots, journal, keyring, keeper, mints: Arc::clone(mints), clock }
    }
}

/// The endings of a broker.
pub(crate) struct Endings {
    pub(super) parts: EndingParts,
    pub(super) schedule: Mutex<Schedule>,
    /// Whose turn it is to begin all that are due.
    beginning: tokio::sync::Mutex<()>,
    /// Tells the worker that the schedule has changed.
    pub(super) wake: Arc<Notify>,
    /// Cancelled when no more endings are started, and nobody waits for them any more.
    pub(super) draining: CancellationToken,
    /// Ends those that are under way, and the worker.
    pub(super) stop: CancellationToken,
    /// How many are under way.
    pub(super) under_way: watch::Sender<usize>,
    /// Whether records are being removed.
    pub(super) is_forgetting: AtomicBool,
}

impl Drop for Endings {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Endings {
    pub(crate) fn new(parts: EndingParts) -> Self {
        Self {
            parts,
            schedule: Mutex::default(),
            beginning: tokio::sync::Mutex::default(),
            wake: Arc::default(),
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
            under_way: watch::Sender::new(0),
            is_forgetting: AtomicBool::new(false),
        }
    }

    /// Begins the endings that are due among these mints: from then on nobody gets their credentials.
    ///
    /// # Errors
    /// If a line cannot be written. The worker begins later what is left.
    pub(crate) fn begin(&self, mints: &[Id]) -> Result<(), Unavailable> {
        for mints in mints.chunks(BEGUN_AT_ONCE) {
            self.begin_some(Candidates::Of(mints))?;
        }
        Ok(())
    }

    /// Begins the endings that a publication has made due, before its changes are acknowledged.
    pub(crate) fn after_publication(self: &Arc<Self>) -> AfterPublication {
        // The writer ends when the broker is dropped.
        let endings = Arc::downgrade(self);
        Arc::new(move || {
            let endings = endings.upgrade();
            Box::pin(async move {
                match endings {
                    Some(endings) => endings.begin_all(Candidates::Changed).await,
                    None => Ok(()),
                }
            })
        })
    }

    /// Begins all that are due. Many callers may wait for the same endings: the first of them begins these, and the others
    /// find nothing.
    ///
    /// # Errors
    /// If a line cannot be written. The worker begins later what is left.
    pub(crate) async fn begin_all(&self, candidates: Candidates<'_>) -> Result<(), Unavailable> {
        let _turn = self.beginning.lock().await;
        while self.begin_some(candidates)? == BEGUN_AT_ONCE {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Begins some that are due. Returns how many were.
    fn begin_some(&self, candidates: Candidates<'_>) -> Result<usize, Unavailable> {
        static LIMIT: LogLimit = LogLimit::new(1);
        // The loop ends: each turn needs another published change.
        loop {
            match self.begin_on_newest(candidates) {
                Ok(count) => return Ok(count),
                Err(CommitError::Stale) => {}
                Err(error) => {
                    if let Some(suppressed) = LIMIT.allow() {
                        tracing::warn!(%error, suppressed, "an ending could not be begun: it is begun later");
                    }
                    return Err(Unavailable);
                }
            }
        }
    }

    fn begin_on_newest(&self, candidates: Candidates<'_>) -> Result<usize, CommitError> {
        let EndingParts { snapshots, journal, mints, clock, .. } = &self.parts;
        let (snapshot, now) = (snapshots.load(), clock.now());
        let (epoch, mut known) = (snapshot.epoch, HashMap::new());
        // A connection with many credentials is looked up once.
        let due = journal.due_endings(now, epoch, candidates, BEGUN_AT_ONCE, |minting| {
            let found = known.entry((minting.uid, minting.version));
            *found.or_insert_with(|| standing(&snapshot.catalog, minting))
        })?;
        for (owed, standing) in &due {
            let standing = *standing;
            mints.forget(&MintKey::of_minting(&owed.minting), owed.mint());
            let request = EndingRequest { epoch, mint: owed.mint(), standing };
            if journal.begin_ending(now, &request)?.is_some() {
                self.schedule.lock().insert(&new_ending(owed, now), now);
                self.wake.notify_one();
            }
        }
        Ok(due.len())
    }

    /// Keeps what ends a credential, sealed in the store, and waits until it is on disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) async fn keep(
        &self,
        resource: String,
        key: (RecordKey, u64),
        ending: Fields,
    ) -> Result<(), Error> {
        self.parts.keeper.keep("ending.keep", resource, key, Arc::new(ending)).await
    }

    /// Takes endings into the schedule that have begun: an earlier daemon or another task has written their lines.
    pub(super) fn take_begun(&self, begun: &[NewEnding]) {
        let (now, mut schedule) = (self.parts.clock.now(), self.schedule.lock());
        begun.iter().for_each(|new| schedule.insert(new, now));
    }

    /// What has been tried for an ending since the daemon started.
    pub(crate) fn tries(&self, mint: Id) -> Tries {
        self.schedule.lock().tries(mint).unwrap_or_default()
    }

    /// Works until the broker drains; `None` if it does before the work is done.
    pub(crate) async fn until_draining<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.draining.run_until_cancelled(work).await
    }

    /// Starts no more endings, and lets nobody wait for them.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
    }

    /// Gives the endings that are under way a moment, then ends them. They go on with the next daemon.
    pub(crate) async fn stop(&self) {
        self.drain();
        let _ = tokio::time::timeout(GRACE, self.landed()).await;
        self.stop.cancel();
        self.landed().await;
    }

    /// Waits until no ending is under way.
    async fn landed(&self) {
        let _ = self.under_way.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// The record of what ends the credential of a mint.
pub(super) fn key_of(mint: Id) -> RecordKey {
    RecordKey { kind: RecordKind::Ending, uid: mint }
}

/// Of what is owed, the endings that have begun.
pub(super) fn begun<'a>(owed: impl Iterator<Item = &'a Owed>) -> Vec<NewEnding> {
    let begun = owed.filter_map(|owed| Some((owed, owed.begun.as_ref()?)));
    begun.map(|(owed, begun)| new_ending(owed, begun.time)).collect()
}

/// An ending for the schedule that begins or has begun at a time.
fn new_ending(owed: &Owed, begun: Timestamp) -> NewEnding {
    NewEnding {
        mint: owed.mint(),
        connection: owed.minting.uid,
        last: last_try(owed, begun),
        is_disabled: owed.begun.as_ref().is_some_and(|begun| begun.left_disabled.is_some()),
    }
}
