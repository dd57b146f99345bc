//! The one writer, in two stages that work side by side, so that one batch is announced while the one
//! before it is brought to disk:
//!
//! ```text
//! announce   changes ─ fold onto a draft ─ intent line, synced ─┐
//!            ┌──────────────────────────────────────────────────┘
//! commit     └ store batch, fdatasync ─ head line + snapshot published (chain lock) ─┐
//!            ┌───────────────────────────────────────────────────────────────────────┘
//!            └ synced ─ acknowledged, all of the batch
//! ```
//!
//! Drafts are put together on what was announced last, in force or not. A change that is refused drops out
//! of its batch and leaves no trace. A write that fails is final: whatever was announced after it is
//! refused too, and the store takes nothing more, while reads go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::draft::{Changes, Draft, Finished, WriteRequest};
use crate::broker::error::Error;
use crate::broker::registry::budgets::Budgets;
use crate::catalog::{Catalog, Snapshot, Snapshots};
use crate::journal::{Event, Intent, Journal, Live, Position, RequestTable, Unavailable};
use crate::model::limits::{Allowance, DISK_DEADLINE};
use crate::model::{Clock, Id, LogLimit};
use crate::seal::Keyring;
use crate::store::Store;

/// How long to wait before the journal is tried again for a change that is in the store already.
const PUBLISH_AGAIN: Duration = Duration::from_millis(100);
/// The most changes in one batch.
const MAX_BATCH: usize = 256;

/// Tells the caller how its change ended.
type Acknowledge = Box<dyn FnOnce(Result<(), Error>) + Send>;
/// Stages a change; nothing comes back if it was refused, and the caller knows already.
type Job = Box<dyn FnOnce(&mut Draft) -> Option<Acknowledge> + Send>;

/// Where changes are handed in.
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
    /// What costs a line and changes nothing costs its caller.
    pub(crate) budgets: Arc<Budgets>,
}

/// The other end of a [`Writer`].
pub(crate) struct WriterQueue(mpsc::Receiver<Job>);

impl Writer {
    /// Where changes are handed in, and where the task takes them from; each caller may have so many lines for
    /// what changes nothing.
    pub(crate) fn new(lines: Allowance) -> (Self, WriterQueue) {
        let (sender, jobs) = mpsc::channel(MAX_BATCH);
        (Self { jobs: sender, budgets: Arc::new(Budgets::new(lines)) }, WriterQueue(jobs))
    }

    /// Runs a change as it was asked for, and waits until it is in force and on disk. `again` answers for
    /// a request that was done before.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        asked: WriteRequest,
        change: impl FnOnce(&mut Draft) -> Result<T, Error> + Send + 'static,
        again: impl FnOnce(&Catalog) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let budgets = Arc::clone(&self.budgets);
        self.submit(move |draft| draft.run(&asked, &budgets, change, again)).await
    }

    /// Runs a change on the draft, and waits until it is in force and on disk.
    pub(crate) async fn submit<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Draft) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |draft| match draft.attempt(change) {
            Ok(value) => Some(Box::new(move |committed: Result<(), Error>| {
                let _ = answer.send(committed.map(|()| value));
            })),
            Err(error) => {
                let _ = answer.send(Err(error));
                None
            }
        });
        self.jobs.send(job).await.map_err(|_| Error::Draining)?;
        answered.await.map_err(|_| Error::Internal("the change was dropped".to_owned()))?
    }
}

/// What the writer works with.
#[derive(Clone)]
pub(crate) struct WriterParts {
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) store: Arc<Store>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) clock: Clock,
}

/// The task that all changes go through: the first stage.
pub(crate) struct WriterTask {
    parts: WriterParts,
    jobs: mpsc::Receiver<Job>,
    /// What was announced last, in force or not.
    catalog: Catalog,
    /// The requests that were done, those that were announced included.
    known: RequestTable,
    /// The last batch number that was used, whether it was committed or not.
    last_batch: u64,
}

/// A batch that is announced.
struct Batch {
    number: u64,
    changes: Changes,
}

/// What one round of changes came to.
struct Round {
    /// None if there is nothing to write.
    batch: Option<Batch>,
    waiting: Vec<Acknowledge>,
}

impl WriterTask {
    /// A writer that goes on after the batch `last_batch`, with the requests that were done.
    pub(crate) fn new(
        parts: WriterParts,
        queue: WriterQueue,
        last_batch: u64,
        known: RequestTable,
    ) -> Self {
        let catalog = parts.snapshots.load().catalog.clone();
        Self { parts, jobs: queue.0, catalog, known, last_batch }
    }

    /// Runs until every [`Writer`] is gone.
    pub(crate) async fn run(mut self) {
        let (announced, rounds) = mpsc::channel(1);
        let committer = Committer { parts: self.parts.clone(), failed: false };
        let committing = tokio::spawn(committer.run(rounds));
        let mut jobs = Vec::with_capacity(MAX_BATCH);
        // There is room as soon as the batch before is being committed; what comes meanwhile gathers.
        while let Ok(room) = announced.reserve().await {
            if self.jobs.recv_many(&mut jobs, MAX_BATCH).await == 0 {
                break;
            }
            let mut draft = self.draft();
            let mut waiting = Vec::with_capacity(jobs.len());
            // A change that panics is our fault; what it left of the draft is nobody's to commit.
            let staged = catch_unwind(AssertUnwindSafe(|| {
                for job in jobs.drain(..) {
                    waiting.extend(job(&mut draft));
                }
            }));
            let announced = match staged {
                Ok(()) => self.announce(draft).await,
                Err(_) => Err(Error::Internal("a change panicked".to_owned())),
            };
            match announced {
                Ok(batch) => room.send(Round { batch, waiting }),
                Err(error) => acknowledge_all(waiting, &Err(error)),
            }
        }
        drop(announced);
        // It ends when it has committed what was announced.
        let _ = committing.await;
    }

    fn draft(&self) -> Draft {
        let keyring = Arc::clone(&self.parts.keyring);
        Draft::new(self.catalog.clone(), self.known.clone(), self.parts.clock.now(), keyring)
    }

    /// Writes the intent of a batch, and waits until it is on disk; none if there is nothing to write.
    async fn announce(&mut self, draft: Draft) -> Result<Option<Batch>, Error> {
        let now = draft.now;
        if !self.parts.store.is_writable() {
            return Err(Error::StoreReadOnly);
        }
        let Some(finished) = draft.finish() else {
            // As if there were something to write: else a full disk would tell who asks whether a value is the
            // stored one, and nothing would be written of it.
            return if self.parts.journal.has_room() { Ok(None) } else { Err(Error::DiskFull) };
        };
        // A number is used once, even if what it was for never reaches the store.
        self.last_batch += 1;
        let number = self.last_batch;
        let Finished { changes, notes, requests, known } = finished;
        let intent = Event::Intent(Intent { batch: number, changes: notes, requests });
        self.parts.journal.make_room(&intent).map_err(|_| Error::DiskFull)?;
        let (position, _) = self.parts.journal.append(now, &intent)?;
        self.parts.journal.synced(position).await?;
        self.catalog.clone_from(&changes.catalog);
        self.known = known;
        Ok(Some(Batch { number, changes }))
    }
}

/// The second stage: brings batches to disk and puts them in force, in order.
struct Committer {
    parts: WriterParts,
    failed: bool,
}

impl Committer {
    async fn run(mut self, mut rounds: mpsc::Receiver<Round>) {
        let mut acknowledging = JoinSet::new();
        while let Some(Round { batch, waiting }) = rounds.recv().await {
            let journal = Arc::clone(&self.parts.journal);
            let published = match batch {
                _ if self.failed => Err(Error::StoreReadOnly),
                // What wrote nothing may rest on a batch that is not in force yet, or not on disk: it waits
                // its turn, and for the same sync.
                None => journal.last().map_err(Error::from),
                Some(batch) => self.commit(batch).await,
            };
            match published {
                Ok(published) => {
                    acknowledging.spawn(async move {
                        let synced = journal.synced(published).await;
                        acknowledge_all(waiting, &synced.map_err(Error::from));
                    });
                    while acknowledging.try_join_next().is_some() {}
                }
                Err(error) => acknowledge_all(waiting, &Err(error)),
            }
        }
        acknowledging.join_all().await;
    }

    /// Puts a batch in force, and says which line must be on disk before anybody is told.
    async fn commit(&mut self, Batch { number, changes }: Batch) -> Result<Position, Error> {
        let Changes { catalog, operations, touched } = changes;
        let (store, keyring) = (Arc::clone(&self.parts.store), Arc::clone(&self.parts.keyring));
        let turn = self.parts.store.turn().await;
        let stored =
            tokio::task::spawn_blocking(move || store.commit(&keyring, number, &operations));
        let stored = match tokio::time::timeout(DISK_DEADLINE, stored).await {
            Ok(stored) => stored.map_err(|error| error.to_string()),
            Err(_) => {
                self.parts.store.give_up();
                Err("a write to the store hangs".to_owned())
            }
        };
        drop(turn);
        if let Err(error) = stored.and_then(|stored| stored.map_err(|error| error.to_string())) {
            tracing::error!(%error, "the store failed: it takes no more changes until a restart");
            self.failed = true;
            return Err(Error::StoreReadOnly);
        }
        self.publish(number, &catalog, |live| touched.revoked(&catalog, live)).await
    }

    /// Puts a batch that is in the store in force. The store cannot go back, so a journal that is full or
    /// hangs is tried again until it takes the line, or has failed for good.
    async fn publish(
        &mut self,
        number: u64,
        catalog: &Catalog,
        revoked: impl Fn(&Live) -> Vec<Id>,
    ) -> Result<Position, Error> {
        let WriterParts { snapshots, journal, clock, .. } = &self.parts;
        loop {
            let snapshot = Snapshot { head: number, catalog: catalog.clone() };
            let published = journal.publish(clock.now(), number, false, &revoked, || {
                snapshots.publish(snapshot);
            });
            match published {
                Ok(position) => return Ok(position),
                Err(Unavailable) if journal.has_failed() => {
                    self.failed = true;
                    return Err(Error::JournalUnavailable);
                }
                Err(Unavailable) => tokio::time::sleep(PUBLISH_AGAIN).await,
            }
        }
    }
}

fn acknowledge_all(waiting: Vec<Acknowledge>, outcome: &Result<(), Error>) {
    static LIMIT: LogLimit = LogLimit::new(1);
    if let Err(error) = outcome
        && let Some(suppressed) = LIMIT.allow()
    {
        tracing::error!(%error, suppressed, "a batch of changes was not committed");
    }
    for acknowledge in waiting {
        acknowledge(outcome.clone());
    }
}
