//! The one writer, in two stages that work side by side: a batch is announced while the batch before it is written to
//! disk.
//!
//! ```text
//! announce   changes ─ decided on a draft ─ intent line, synced ─┐
//!            ┌───────────────────────────────────────────────────┘
//! commit     └ store batch, fdatasync ─ head line + snapshot published (chain lock) ─┐
//!            ┌───────────────────────────────────────────────────────────────────────┘
//!            └ endings begun ─ synced ─ all changes of the batch acknowledged
//! ```
//!
//! The writer waits for no acknowledgement: it goes on with the next batch.
//!
//! A draft starts from the newest announced catalogue, whether that is in force yet or not. A refused change drops out
//! of its batch and leaves no trace. A change can be decided again, on a newer draft: it keeps its documents, and takes
//! time, versions and etags from the draft. A failed write is final: the batches announced after it are refused, and
//! the store takes no more, while reads continue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::batch::AffectedLeases;
use super::documents::WriteRequest;
use super::draft::Draft;
use crate::broker::error::Error;
use crate::broker::registry::budgets::Budgets;
use crate::catalog::{Catalog, Snapshot, Snapshots};
use crate::journal::{
    Event, Intent, Journal, Live, Position, RequestTable, StoredBatch, Unavailable,
};
use crate::model::RateLimit;
use crate::model::limits::DISK_DEADLINE;
use crate::model::{Clock, LogLimit};
use crate::seal::Keyring;
use crate::store::{Operation, Store};

/// How long to wait before the journal is tried again for a change that is in the store already.
const PUBLISH_RETRY: Duration = Duration::from_millis(100);
/// The most changes in one batch.
const MAX_BATCH: usize = 256;

/// A change that waits for its batch, and its caller.
pub(super) trait Job: Send {
    /// Decides the change on a draft; false if it is refused. May be called again with a newer draft: the last decision
    /// counts.
    fn decide(&mut self, draft: &mut Draft) -> bool;

    /// Answers the caller with the decision, or with the error of its batch.
    fn acknowledge(self: Box<Self>, committed: Result<(), Error>);
}

/// The change of one [`Job`].
pub(super) struct PendingChange<T, F> {
    change: F,
    decided: Option<Result<T, Error>>,
    caller: oneshot::Sender<Result<T, Error>>,
}

impl<T, F> PendingChange<T, F> {
    pub(super) fn new(change: F, caller: oneshot::Sender<Result<T, Error>>) -> Self {
        Self { change, decided: None, caller }
    }
}

impl<T: Send, F: FnMut(&mut Draft) -> Result<T, Error> + Send> Job for PendingChange<T, F> {
    fn decide(&mut self, draft: &mut Draft) -> bool {
        self.decided.insert(draft.attempt(true, &mut self.change)).is_ok()
    }

    fn acknowledge(self: Box<Self>, committed: Result<(), Error>) {
        let Self { change, decided, caller } = *self;
        // Its documents are wiped before anybody reads the answer.
        drop(change);
        if let Some(decided) = decided {
            let _ = caller.send(committed.and(decided));
        }
    }
}

/// The entrance for changes.
#[derive(Clone)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Box<dyn Job>>,
    /// The lines that each caller may have for requests that change nothing.
    pub(crate) budgets: Arc<Budgets>,
}

/// The other end of a [`Writer`].
pub(crate) struct WriterQueue(mpsc::Receiver<Box<dyn Job>>);

impl Writer {
    /// A writer and the queue for its task. `lines` is each caller's budget of lines for what changes nothing.
    pub(crate) fn new(lines: RateLimit) -> (Self, WriterQueue) {
        let (sender, jobs) = mpsc::channel(MAX_BATCH);
        (Self { jobs: sender, budgets: Arc::new(Budgets::new(lines)) }, WriterQueue(jobs))
    }

    /// Makes a change as it was requested, and waits until it is in force and on disk. `answer` finds the reply in the
    /// catalogue, also for a request that was completed before.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        request: WriteRequest,
        mut change: impl FnMut(&mut Draft) -> Result<(), Error> + Send + 'static,
        answer: impl Fn(&Catalog) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let budgets = Arc::clone(&self.budgets);
        // Decided again, it is not charged again.
        let mut is_charged = false;
        self.submit(move |draft| {
            let charge = |now| {
                if !is_charged {
                    budgets.take(&request.caller, "unchanged", now)?;
                    is_charged = true;
                }
                Ok(())
            };
            draft.complete(&request, charge, &mut change, &answer)
        })
        .await
    }

    /// Makes a change, and waits until it is in force and on disk.
    pub(crate) async fn submit<T: Send + 'static>(
        &self,
        change: impl FnMut(&mut Draft) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (caller, answered) = oneshot::channel();
        let job = Box::new(PendingChange::new(change, caller));
        self.jobs.send(job).await.map_err(|_| Error::Draining)?;
        answered.await.map_err(|_| Error::Internal("the change was dropped".to_owned()))?
    }
}

/// The parts that the writer works with.
#[derive(Clone)]
pub(crate) struct WriterParts {
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) store: Arc<Store>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) clock: Clock,
}

/// Writes what a publication makes due, before its changes are acknowledged. If a line cannot be written, it is called again.
pub(crate) type AfterPublication =
    Arc<dyn Fn() -> BoxFuture<'static, Result<(), Unavailable>> + Send + Sync>;

/// The task that all changes go through: the first stage.
pub(crate) struct WriterTask {
    parts: WriterParts,
    jobs: mpsc::Receiver<Box<dyn Job>>,
    /// The newest announced catalogue, in force or not.
    catalog: Catalog,
    /// The completed requests, the announced ones included.
    completed: RequestTable,
    /// The last batch number that was used, whether it was committed or not.
    last_batch: u64,
    after: Option<AfterPublication>,
}

/// A batch whose intent is on disk.
struct AnnouncedBatch {
    number: u64,
    /// The catalogue after it.
    catalog: Catalog,
    operations: Vec<Operation>,
    affected: AffectedLeases,
    is_apart: bool,
}

/// One round of changes.
struct Round {
    /// `None` if there is nothing to write.
    batch: Option<AnnouncedBatch>,
    waiting: Vec<Box<dyn Job>>,
}

impl WriterTask {
    /// A writer that continues after the batch `last_batch`, with the completed requests.
    pub(crate) fn new(
        parts: WriterParts,
        queue: WriterQueue,
        last_batch: u64,
        completed: RequestTable,
    ) -> Self {
        let catalog = parts.snapshots.load().catalog.clone();
        Self { parts, jobs: queue.0, catalog, completed, last_batch, after: None }
    }

    /// The same, with work after each publication that may end leases.
    pub(crate) fn with(self, after: AfterPublication) -> Self {
        Self { after: Some(after), ..self }
    }

    /// Runs until every [`Writer`] is gone.
    pub(crate) async fn run(mut self) {
        let (announced, rounds) = mpsc::channel(1);
        let (parts, after) = (self.parts.clone(), self.after.take());
        let committer = Committer { parts, after, failed: false };
        let committing = tokio::spawn(committer.run(rounds));
        let mut jobs = Vec::with_capacity(MAX_BATCH);
        // There is room as soon as the batch before is being committed; meanwhile changes gather.
        while let Ok(room) = announced.reserve().await {
            if self.jobs.recv_many(&mut jobs, MAX_BATCH).await == 0 {
                break;
            }
            let mut draft = self.draft();
            let mut waiting = Vec::with_capacity(jobs.len());
            // A change that panics is our fault; the draft that it leaves is not committed.
            let decided = catch_unwind(AssertUnwindSafe(|| {
                for mut job in jobs.drain(..) {
                    if job.decide(&mut draft) {
                        waiting.push(job);
                    } else {
                        job.acknowledge(Ok(()));
                    }
                }
            }));
            let announced = match decided {
                Ok(()) => self.announce(draft).await,
                Err(_) => Err(Error::Internal("a change panicked".to_owned())),
            };
            match announced {
                Ok(batch) => room.send(Round { batch, waiting }),
                Err(error) => acknowledge_all(waiting, &Err(error)),
            }
        }
        drop(announced);
        // The committer ends after the last announced batch.
        let _ = committing.await;
    }

    fn draft(&self) -> Draft {
        let keyring = Arc::clone(&self.parts.keyring);
        Draft::new(self.catalog.clone(), self.completed.clone(), self.parts.clock.now(), keyring)
    }

    /// Writes the intent of a batch, and waits until it is on disk. `None` if there is nothing to write.
    async fn announce(&mut self, draft: Draft) -> Result<Option<AnnouncedBatch>, Error> {
        let WriterParts { journal, store, keyring, .. } = &self.parts;
        let now = draft.now;
        if !store.is_writable() {
            return Err(Error::StoreReadOnly);
        }
        let (batch, catalog, completed) = draft.finish();
        if batch.is_empty() {
            // The same refusal as for a write: else a full disk would reveal whether a value equals the stored value,
            // without a line in the journal.
            return if journal.has_room() { Ok(None) } else { Err(Error::DiskFull) };
        }
        let operations = batch.seal(&self.catalog, keyring)?;
        let is_apart = batch.is_apart();
        // A number is used once, even if its batch never reaches the store.
        self.last_batch += 1;
        let number = self.last_batch;
        let intent =
            Event::Intent(Intent { batch: number, changes: batch.notes, requests: batch.requests });
        journal.make_room(&intent).map_err(|_| Error::DiskFull)?;
        let (position, _) = journal.append(now, &intent)?;
        journal.synced(position).await?;
        self.catalog.clone_from(&catalog);
        self.completed = completed;
        let affected = batch.affected;
        Ok(Some(AnnouncedBatch { number, catalog, operations, affected, is_apart }))
    }
}

/// A batch that is in force.
struct Published {
    /// The line that must be on disk before any caller is told.
    line: Position,
    /// True if endings may be due: leases may have ended, or an acknowledgement before it waits for endings.
    ends_leases: bool,
}

/// The second stage: brings batches to disk and puts them in force, in order.
struct Committer {
    parts: WriterParts,
    after: Option<AfterPublication>,
    failed: bool,
}

impl Committer {
    async fn run(mut self, mut rounds: mpsc::Receiver<Round>) {
        let mut acknowledging = JoinSet::new();
        while let Some(Round { batch, waiting }) = rounds.recv().await {
            while acknowledging.try_join_next().is_some() {}
            let journal = Arc::clone(&self.parts.journal);
            let published = match batch {
                _ if self.failed => Err(Error::StoreReadOnly),
                // A change that wrote nothing may rest on a batch that is not in force or on disk yet: it waits its
                // turn, and for the same sync.
                None => {
                    let ends_leases = !acknowledging.is_empty();
                    journal.last().map(|line| Published { line, ends_leases }).map_err(Error::from)
                }
                Some(batch) => self.commit(batch).await,
            };
            match published {
                Ok(published) => {
                    let after = self.after.clone().filter(|_| published.ends_leases);
                    acknowledging.spawn(async move {
                        let on_disk = on_disk(&journal, published.line, after).await;
                        acknowledge_all(waiting, &on_disk);
                    });
                }
                Err(error) => acknowledge_all(waiting, &Err(error)),
            }
        }
        acknowledging.join_all().await;
    }

    /// Puts a batch in force.
    async fn commit(&mut self, batch: AnnouncedBatch) -> Result<Published, Error> {
        let AnnouncedBatch { number, catalog, operations, affected, is_apart } = batch;
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
        let batch = StoredBatch { number, recovered: false, is_apart };
        let line = self.publish(batch, &catalog, &affected).await?;
        Ok(Published { line, ends_leases: !affected.is_empty() })
    }

    /// Puts a batch that is in the store in force. The store cannot go back, so a journal that is full or
    /// hangs is tried again until it takes the line, or has failed for good.
    async fn publish(
        &mut self,
        batch: StoredBatch,
        catalog: &Catalog,
        affected: &AffectedLeases,
    ) -> Result<Position, Error> {
        let WriterParts { snapshots, journal, clock, .. } = &self.parts;
        loop {
            let (head, newest) = (batch.number, catalog.clone());
            let revoked = |live: &Live| affected.revoked(catalog, live);
            let changed = affected.changed();
            let published = journal.publish(clock.now(), batch, changed, revoked, |live| {
                let (epoch, blocks) = (live.epoch(), Arc::clone(live.blocks()));
                snapshots.publish(Snapshot { head, epoch, catalog: newest, blocks });
            });
            match published {
                Ok(position) => return Ok(position),
                Err(Unavailable) if journal.has_failed() => {
                    self.failed = true;
                    return Err(Error::JournalUnavailable);
                }
                Err(Unavailable) => tokio::time::sleep(PUBLISH_RETRY).await,
            }
        }
    }
}

/// Waits until a line is on disk, with what a publication has made due. A journal that is full or hangs is tried again until
/// it takes the lines, or has failed for good.
async fn on_disk(
    journal: &Journal,
    line: Position,
    after: Option<AfterPublication>,
) -> Result<(), Error> {
    let Some(after) = after else { return Ok(journal.synced(line).await?) };
    loop {
        // Another task may have written what is due: the line is among all of now.
        match after().await.and_then(|()| journal.last()) {
            Ok(last) => return Ok(journal.synced(last).await?),
            Err(Unavailable) if journal.has_failed() => return Err(Error::JournalUnavailable),
            Err(Unavailable) => tokio::time::sleep(PUBLISH_RETRY).await,
        }
    }
}

fn acknowledge_all(waiting: Vec<Box<dyn Job>>, outcome: &Result<(), Error>) {
    static LIMIT: LogLimit = LogLimit::new(1);
    if let Err(error) = outcome
        && let Some(suppressed) = LIMIT.allow()
    {
        tracing::error!(%error, suppressed, "a batch of changes was not committed");
    }
    for job in waiting {
        job.acknowledge(outcome.clone());
    }
}
