//! The one writer.
//!
//! ```text
//! changes ─ fold onto a draft ─ intent line, synced ─ store batch, fdatasync ─┐
//! ┌───────────────────────────────────────────────────────────────────────────┘
//! └ head line + snapshot published (chain lock) ─ synced ─ acknowledged, all of the batch
//!                                               └ the next batch may begin: its intent is synced with it
//! ```
//!
//! A change that is refused drops out of its batch and leaves no trace. A write that fails is final:
//! the store takes nothing more, while reads go on.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::error::Error;
use super::judge::is_still_allowed;
use crate::access::Principal;
use crate::catalog::{Catalog, Connection, Snapshot, Snapshots};
use crate::journal::{
    ChangeNote, Event, Journal, Live, Position, RequestNote, RequestTable, Unavailable,
};
use crate::lease::Lease;
use crate::model::{Clock, Id, RequestId, Timestamp};
use crate::seal::{Keyring, RecordKey, Sealed};
use crate::store::{Operation, Store};

/// How long to wait before the journal is tried again for a change that is in the store already.
const PUBLISH_AGAIN: Duration = Duration::from_millis(100);
/// The most changes in one batch.
const MAX_BATCH: usize = 256;

/// A catalogue with changes on it that are not in force yet.
pub(super) struct Draft {
    /// The catalogue with the changes.
    pub(super) catalog: Catalog,
    /// When the batch was begun.
    pub(super) now: Timestamp,
    /// For sealing.
    pub(super) keyring: Arc<Keyring>,
    operations: Vec<Operation>,
    notes: Vec<ChangeNote>,
    touched: Vec<Id>,
    /// Nothing of what is done now is kept: answers tell nothing about stored values then.
    pub(super) is_trial: bool,
    /// The requests that were done, those of this draft included; none if the journal hangs.
    known: Option<RequestTable>,
    requests: Vec<RequestNote>,
    /// Every lease is decided again: a group may stand behind any of them.
    everything: bool,
}

impl Draft {
    /// Records to put into the store.
    pub(super) fn put(&mut self, records: impl IntoIterator<Item = (RecordKey, Sealed)>) {
        self.operations
            .extend(records.into_iter().map(|(key, sealed)| Operation::Put(key, sealed)));
    }

    /// Puts a connection into the catalogue, and what is new of it into the store.
    pub(super) fn put_connection(
        &mut self,
        mut connection: Connection,
        written: Written,
    ) -> Result<(), Error> {
        // Groups that were deleted meanwhile are forgotten.
        connection.metadata.groups.retain(|uid| self.catalog.group_by_uid(*uid).is_some());
        let [metadata, values] = connection.to_store(&self.keyring)?;
        match written {
            Written::All => self.put([metadata, values]),
            Written::Metadata => self.put([metadata]),
            Written::New => {
                let added = [metadata, values].map(|(key, sealed)| Operation::Add(key, sealed));
                self.operations.extend(added);
            }
        }
        self.catalog.put_connection(connection);
        Ok(())
    }

    /// Records to remove from the store.
    pub(super) fn remove(&mut self, keys: impl IntoIterator<Item = RecordKey>) {
        self.operations.extend(keys.into_iter().map(Operation::Remove));
    }

    /// What the journal says of the change. Leases on the resource are decided again when it is
    /// published.
    pub(super) fn note(&mut self, note: ChangeNote) {
        self.touched.push(note.uid);
        self.notes.push(note);
    }

    /// What the journal says of a change of a group. All leases are decided again.
    pub(super) fn note_group(&mut self, note: ChangeNote) {
        self.everything = true;
        self.notes.push(note);
    }

    /// Runs one change; if it is refused, the draft is as it was before.
    pub(super) fn attempt<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.attempt_and_keep(true, change)
    }

    /// Runs one change; the draft is as it was before if it is refused, or not to be kept.
    fn attempt_and_keep<T>(
        &mut self,
        keep: bool,
        change: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let before = self.catalog.clone();
        let lengths = (self.operations.len(), self.notes.len(), self.touched.len());
        let everything = self.everything;
        self.is_trial = !keep;
        let outcome = change(self);
        self.is_trial = false;
        if outcome.is_err() || !keep {
            self.catalog = before;
            self.operations.truncate(lengths.0);
            self.notes.truncate(lengths.1);
            self.touched.truncate(lengths.2);
            self.everything = everything;
        }
        outcome
    }

    /// Runs one change as it was asked for: once under its id, and only on trial if that was asked.
    fn run<T>(
        &mut self,
        asked: &Asked,
        change: impl FnOnce(&mut Self) -> Result<T, Error>,
        again: impl FnOnce(&Catalog) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.check_caller(&asked.caller)?;
        let principal = asked.caller.to_string();
        let id = asked.options.request_id.as_ref().filter(|_| !asked.options.validate_only);
        let known = self.known.as_ref().ok_or(Error::JournalUnavailable)?;
        if let Some(id) = id
            && let Some(done) = known.find(&principal, id)
        {
            return match done == asked.what {
                true => again(&self.catalog),
                false => Err(Error::RequestIdReused(id.clone())),
            };
        }
        let outcome = self.attempt_and_keep(!asked.options.validate_only, change)?;
        if let Some(id) = id {
            let note = RequestNote { principal, id: id.clone(), what: asked.what.clone() };
            if let Some(known) = &mut self.known {
                known.insert(note.clone());
            }
            self.requests.push(note);
        }
        Ok(outcome)
    }

    /// Whether whoever asked is still who he was: changes wait, and others may have removed him meanwhile.
    pub(super) fn check_caller(&self, caller: &Principal) -> Result<(), Error> {
        match caller {
            Principal::Operator(name, role) => match self.catalog.operator(name) {
                Some(found) if found.role == Some(*role) => Ok(()),
                _ => Err(Error::Unregistered),
            },
            Principal::Executor(_) | Principal::Step { .. } => Err(Error::OperatorRequired),
        }
    }
}

/// What of a connection the store has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Metadata and values.
    All,
    /// Metadata; the values are as they were.
    Metadata,
    /// All of it: there was none before.
    New,
}

/// How a change is to be made.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// What the client calls the request, so that it is done once.
    pub request_id: Option<RequestId>,
    /// Check everything and change nothing.
    pub validate_only: bool,
}

/// Who asks for a change, for what, and how.
pub(super) struct Asked {
    caller: Principal,
    what: String,
    options: WriteOptions,
}

impl Asked {
    /// A change by `caller`: the method and the resource say what it is.
    pub(super) fn new(
        caller: &Principal,
        method: &str,
        resource: &dyn std::fmt::Display,
        options: WriteOptions,
    ) -> Self {
        Self { caller: caller.clone(), what: format!("{method} {resource}"), options }
    }
}

/// Tells the caller how its change ended.
type Acknowledge = Box<dyn FnOnce(Result<(), Error>) + Send>;
/// Stages a change; nothing comes back if it was refused, and the caller knows already.
type Job = Box<dyn FnOnce(&mut Draft) -> Option<Acknowledge> + Send>;

/// Where changes are handed in.
pub(super) struct Writer(mpsc::Sender<Job>);

impl Writer {
    /// Runs a change as it was asked for, and waits until it is in force and on disk. `again` answers for
    /// a request that was done before.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        asked: Asked,
        change: impl FnOnce(&mut Draft) -> Result<T, Error> + Send + 'static,
        again: impl FnOnce(&Catalog) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.submit(move |draft| draft.run(&asked, change, again)).await
    }

    /// Runs a change on the draft, and waits until it is in force and on disk.
    pub(super) async fn submit<T: Send + 'static>(
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
        self.0.send(job).await.map_err(|_| Error::Draining)?;
        answered.await.map_err(|_| Error::Internal("the change was dropped".to_owned()))?
    }
}

/// The task that all changes go through.
pub(super) struct WriterTask {
    jobs: mpsc::Receiver<Job>,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) journal: Arc<Journal>,
    pub(super) store: Arc<Store>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) clock: Clock,
    /// The last batch number that was used, whether it was committed or not.
    pub(super) last_batch: u64,
    failed: bool,
}

impl WriterTask {
    pub(super) fn new(
        snapshots: Arc<Snapshots>,
        journal: Arc<Journal>,
        store: Arc<Store>,
        keyring: Arc<Keyring>,
        clock: Clock,
        last_batch: u64,
    ) -> (Writer, Self) {
        let (sender, jobs) = mpsc::channel(MAX_BATCH);
        let task =
            Self { jobs, snapshots, journal, store, keyring, clock, last_batch, failed: false };
        (Writer(sender), task)
    }

    /// Runs until every [`Writer`] is gone.
    pub(super) async fn run(mut self) {
        let mut jobs = Vec::with_capacity(MAX_BATCH);
        let mut acknowledging = JoinSet::new();
        while self.jobs.recv_many(&mut jobs, MAX_BATCH).await > 0 {
            let mut draft = self.draft();
            let mut waiting = Vec::with_capacity(jobs.len());
            // A change that panics is our fault; what it left of the draft is nobody's to commit.
            let staged = catch_unwind(AssertUnwindSafe(|| {
                for job in jobs.drain(..) {
                    waiting.extend(job(&mut draft));
                }
            }));
            let outcome = match staged {
                Ok(()) => self.commit(draft).await,
                Err(_) => Err(Error::Internal("a change panicked".to_owned())),
            };
            match outcome {
                Ok(Some(published)) => {
                    let journal = Arc::clone(&self.journal);
                    acknowledging.spawn(async move {
                        let synced = journal.synced(published).await;
                        acknowledge_all(waiting, &synced.map_err(Error::from));
                    });
                    while acknowledging.try_join_next().is_some() {}
                }
                outcome => acknowledge_all(waiting, &outcome.map(|_| ())),
            }
        }
        acknowledging.join_all().await;
    }

    fn draft(&self) -> Draft {
        let known = self.journal.look(|live| live.requests().clone());
        Draft {
            catalog: self.snapshots.load().catalog.clone(),
            now: self.clock.now(),
            keyring: Arc::clone(&self.keyring),
            operations: Vec::new(),
            notes: Vec::new(),
            touched: Vec::new(),
            is_trial: false,
            known: known.ok(),
            requests: Vec::new(),
            everything: false,
        }
    }

    /// Puts a batch in force, and says which line must be on disk before anybody is told; none if there is
    /// nothing to tell.
    async fn commit(&mut self, draft: Draft) -> Result<Option<Position>, Error> {
        // A request that was done is remembered though it wrote nothing: done again, it might.
        if draft.operations.is_empty() && draft.requests.is_empty() {
            return Ok(None);
        }
        if self.failed {
            return Err(Error::StoreReadOnly);
        }
        let Draft { catalog, now, operations, notes, touched, requests, everything, .. } = draft;
        // A number is used once, even if what it was for never reached the store.
        self.last_batch += 1;
        let batch = self.last_batch;
        let (intent, _) =
            self.journal.append(now, &Event::Intent { batch, changes: notes, requests })?;
        self.journal.synced(intent).await?;

        let (store, keyring) = (Arc::clone(&self.store), Arc::clone(&self.keyring));
        let stored =
            tokio::task::spawn_blocking(move || store.commit(&keyring, batch, &operations));
        let stored = stored.await.map_err(|error| error.to_string());
        if let Err(error) = stored.and_then(|stored| stored.map_err(|error| error.to_string())) {
            tracing::error!(%error, "the store failed: it takes no more changes until a restart");
            self.failed = true;
            return Err(Error::StoreReadOnly);
        }
        let revoked = |live: &Live| match everything {
            true => revoked_by_all(&catalog, live),
            false => revoked_by(&catalog, live, &touched),
        };
        self.publish(batch, &catalog, revoked).await.map(Some)
    }

    /// Puts a batch that is in the store in force. The store cannot go back, so a journal that is full or
    /// hangs is tried again until it takes the line, or has failed for good.
    async fn publish(
        &mut self,
        batch: u64,
        catalog: &Catalog,
        revoked: impl Fn(&Live) -> Vec<Id>,
    ) -> Result<Position, Error> {
        loop {
            let snapshot = Snapshot { head: batch, catalog: catalog.clone() };
            let published = self.journal.publish(self.clock.now(), batch, false, &revoked, || {
                self.snapshots.publish(snapshot);
            });
            match published {
                Ok(position) => return Ok(position),
                Err(Unavailable) if self.journal.has_failed() => {
                    self.failed = true;
                    return Err(Error::JournalUnavailable);
                }
                Err(Unavailable) => tokio::time::sleep(PUBLISH_AGAIN).await,
            }
        }
    }
}

fn acknowledge_all(waiting: Vec<Acknowledge>, outcome: &Result<(), Error>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "a batch of changes was not committed");
    }
    for acknowledge in waiting {
        acknowledge(outcome.clone());
    }
}

/// The leases, of all there are, that the catalogue does not allow.
pub(super) fn revoked_by_all(catalog: &Catalog, live: &Live) -> Vec<Id> {
    ended(catalog, live, live.leases().iter())
}

/// The leases on these resources that the new catalogue no longer allows.
fn revoked_by(catalog: &Catalog, live: &Live, touched: &[Id]) -> Vec<Id> {
    let touched: BTreeSet<Id> = touched.iter().copied().collect();
    ended(catalog, live, touched.iter().flat_map(|uid| live.leases().of_resource(*uid)))
}

fn ended<'a>(catalog: &Catalog, live: &Live, leases: impl Iterator<Item = &'a Lease>) -> Vec<Id> {
    let ended = leases.filter(|lease| !is_still_allowed(catalog, live, lease));
    let mut ids: Vec<Id> = ended.map(|lease| lease.id).collect();
    ids.sort_unstable();
    ids
}
