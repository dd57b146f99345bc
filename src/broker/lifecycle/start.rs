//! A broker comes up: what the journal, the store and the directories say is brought together.
//!
//! The head of the journal, the store and the journal's last intent must stand in this order:
//!
//! ```text
//! head ≤ store ≤ last intent
//! ```
//!
//! - store = head: intents after it never reached the store and are journaled as abandoned.
//! - store > head: the daemon went down between the two; the head is written now, as recovered.
//! - anything else: one of the two was replaced by an older copy, and the broker refuses.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::{Semaphore, mpsc, watch};

use crate::broker::Broker;
use crate::broker::changes::draft::revoked_by_all;
use crate::broker::changes::writer::{Writer, WriterParts, WriterTask};
use crate::broker::error::Error;
use crate::broker::insight::readers::Readers;
use crate::broker::keys::Keys;
use crate::broker::resolve::watch::Watchers;
use crate::broker::steps::runtime_dir::RuntimeDir;
use crate::broker::steps::sessions::{Sessions, StepListener};
use crate::catalog::{LoadError, Snapshot, Snapshots, load};
use crate::identity::Authority;
use crate::journal::{
    CloseReason, Event, Journal, Live, Options, Recovery, ReplayError, Unavailable,
};
use crate::model::limits::MAX_CLOCK_STEP_BACK;
use crate::model::{Clock, Id, JournalMode, Limits, Timestamp};
use crate::seal::{KeyStore, KeyStoreError, Keyring};
use crate::store::{Store, StoreError};

/// Records go from the store to the catalogue so many at a time: each time a thread is woken.
const BATCH_RECORDS: usize = 256;
/// How many times more are read before the catalogue has taken what there is.
const BATCHES_AHEAD: usize = 8;

/// Why a broker cannot come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] ReplayError),
    /// The journal, while writing.
    #[error(transparent)]
    JournalUnavailable(#[from] Unavailable),
    /// The first registrations were refused.
    #[error(transparent)]
    Registration(#[from] Error),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// The store's contents.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An outside copy of the head says that there was more.
    #[error(
        "the state directory is at change {head}, but change {expected} was seen before (--expect-head): it \
         was replaced by an older copy; restore the newest backup, or leave the option out to go on with this"
    )]
    OlderThanExpected {
        /// The least that is expected.
        expected: u64,
        /// What there is.
        head: u64,
    },
    /// The machine has not what the open steps need.
    #[error(
        "the open steps cannot listen again ({0}); raise the limit of open files, or free what is short"
    )]
    OutOf(std::io::Error),
    /// Store and journal do not belong together.
    #[error(
        "the store is at change {store}, but the journal has {head} in force and {intent} announced: one \
         of them was replaced by an older copy; restore the whole state directory from one backup"
    )]
    OutOfStep {
        /// The last change in force, by the journal.
        head: u64,
        /// The last change announced, by the journal.
        intent: u64,
        /// The store's last change.
        store: u64,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There may be no more threads.
    #[error("the store and the journal cannot be read ({0}); raise the limit of processes")]
    Threads(std::io::Error),
}

/// What a broker is made of.
pub struct BrokerParts<'a> {
    /// The directory of the journal.
    pub journal: &'a Path,
    /// The directory of the store.
    pub store: &'a Path,
    /// The keys.
    pub keyring: Keyring,
    /// Where they are on disk.
    pub keys: KeyStore,
    /// The CA.
    pub authority: Arc<Authority>,
    /// When the daemon's certificate ends, which is renewed while it serves.
    pub certificate_end: watch::Receiver<Timestamp>,
    /// Where time comes from.
    pub clock: Clock,
    /// The limits.
    pub limits: Limits,
    /// How decisions on the step door are brought to disk.
    pub journal_mode: JournalMode,
    /// The least change that the store must have, if an outside copy of the head says one.
    pub expect_head: Option<u64>,
    /// The files beside journal and store that a backup takes as they are.
    pub sealed_files: Vec<PathBuf>,
    /// The runtime directory.
    pub runtime: RuntimeDir,
    /// Where listening sockets of steps go.
    pub listeners: mpsc::UnboundedSender<StepListener>,
}

/// Journal and store, opened and brought together.
pub(crate) struct Foundation {
    pub(crate) parts: WriterParts,
    pub(crate) recovery: Recovery,
    /// The last number that a batch of changes had, whether it was committed or not.
    pub(crate) last_batch: u64,
}

impl Foundation {
    pub(crate) async fn open(
        journal: &Path,
        store: &Path,
        keyring: Arc<Keyring>,
        authority: Arc<Authority>,
        file_bytes: u32,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let options = Options { file_bytes: u64::from(file_bytes) };
        let replay =
            || Journal::open(journal, Arc::clone(&keyring), authority, options, clock.now());
        let (replayed, stored) = at_once(replay, || read(store, &keyring))?;
        let (journal, recovery) = replayed?;
        let (store, snapshot) = stored?;
        let head = snapshot.head;
        let snapshots = Arc::new(Snapshots::new(snapshot));
        let (journal, store) = (Arc::new(journal), Arc::new(store));
        let parts = WriterParts { snapshots, journal, store, keyring, clock };
        reconcile(&parts, &recovery, head).await?;
        let last_batch = recovery.intent.max(head);
        Ok(Self { parts, recovery, last_batch })
    }
}

/// Opens the store. Its records become the catalogue while the rest of them is read.
fn read(path: &Path, keyring: &Keyring) -> Result<(Store, Snapshot), StartError> {
    let (sender, batches) = std::sync::mpsc::sync_channel(BATCHES_AHEAD);
    let hand_over = move || {
        let mut batch = Vec::with_capacity(BATCH_RECORDS);
        let opened = Store::open(path, keyring, |key, sealed| {
            batch.push((key, sealed));
            if batch.len() == BATCH_RECORDS {
                // Nobody takes any more if a record cannot be opened. The rest is read for the store's own verdict,
                // which says more.
                let _ =
                    sender.send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH_RECORDS)));
            }
        });
        let _ = sender.send(batch);
        opened
    };
    let (store, catalog) = at_once(hand_over, || load(batches.into_iter().flatten(), keyring))?;
    let (store, head) = store?;
    Ok((store, Snapshot { head, catalog: catalog? }))
}

/// Runs both, one of them on a thread of its own.
fn at_once<A: Send, B>(
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B,
) -> Result<(A, B), StartError> {
    std::thread::scope(|scope| {
        let one = std::thread::Builder::new().spawn_scoped(scope, one);
        let one = one.map_err(StartError::Threads)?;
        let other = other();
        Ok((one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), other))
    })
}

async fn reconcile(parts: &WriterParts, recovery: &Recovery, store: u64) -> Result<(), StartError> {
    let Recovery { head, intent, .. } = *recovery;
    let (journal, now) = (&parts.journal, parts.clock.now());
    if let Some(kept) = &recovery.torn {
        tracing::warn!(kept = %kept.display(), "the journal's torn end was cut off and kept");
    }
    if !(head <= store && store <= intent.max(head)) {
        return Err(StartError::OutOfStep { head, intent, store });
    }
    let snapshot = parts.snapshots.load();
    let everything = |live: &crate::journal::Live| revoked_by_all(&snapshot.catalog, live);
    let mut last = None;
    if store > head {
        tracing::warn!(head, store, "a change that was on disk but not in force is taken over");
        last = Some(journal.publish(now, store, true, everything, || {})?);
    }
    for batch in store.max(recovery.abandoned) + 1..=intent {
        last = Some(journal.append(now, &Event::Abandoned { batch })?.0);
    }
    if let Some(last) = last {
        journal.synced(last).await?;
    }
    Ok(())
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Broker {
    /// Brings a broker up, with the future that its changes go through: it must be run for changes to
    /// be taken, and ends when the broker is dropped.
    ///
    /// # Errors
    /// If journal and store are damaged or do not belong together.
    pub async fn start(
        parts: BrokerParts<'_>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), StartError> {
        let now = parts.clock.now();
        let keyring = Arc::new(parts.keyring);
        let foundation = Foundation::open(
            parts.journal,
            parts.store,
            keyring,
            Arc::clone(&parts.authority),
            parts.limits.journal_file_bytes,
            parts.clock.clone(),
        )
        .await?;
        let head = foundation.parts.snapshots.load().head;
        if let Some(expected) = parts.expect_head.filter(|expected| head < *expected) {
            return Err(StartError::OlderThanExpected { expected, head });
        }
        let (writer, queue) = Writer::new(parts.limits.admin_lines());
        let keys = Arc::new(Keys::new(parts.keys, foundation.parts.clone()));
        let WriterParts { snapshots, journal, store, keyring, .. } = foundation.parts.clone();
        let broker = Self {
            keys,
            snapshots,
            journal,
            store,
            keyring,
            authority: parts.authority,
            clock: parts.clock,
            readers: Readers::start(&parts.limits).map_err(StartError::Threads)?,
            limits: parts.limits,
            journal_mode: parts.journal_mode,
            runtime: parts.runtime,
            sealed_files: parts.sealed_files,
            backups: Arc::new(Semaphore::new(1)),
            comparisons: crate::broker::changes::plan::Comparisons::default(),
            requests: crate::broker::registry::rates::Rates::default(),
            sessions: Sessions::new(parts.listeners),
            writer,
            start_time: now,
            watchers: Watchers::default(),
            is_draining: AtomicBool::new(false),
            readiness: watch::Sender::new(true),
            certificate_end: parts.certificate_end,
        };
        broker.restore_openings(&foundation.recovery).await?;
        broker.journal.append(now, &Event::Started { version: VERSION.to_owned() })?;
        broker.say_how_it_is();
        let known = broker.journal.with_live(|live| live.requests().clone())?;
        let task = WriterTask::new(foundation.parts, queue, foundation.last_batch, known);
        Ok((broker, task.run()))
    }

    fn say_how_it_is(&self) {
        self.update_readiness();
        if self.journal.with_live(Live::is_quarantined).unwrap_or_default() {
            tracing::warn!(
                "restored from a backup: nothing is resolved until an administrator says: keyhatch restore --confirm"
            );
        }
    }

    /// Open steps listen again; what has lost its directory is closed; directories without an opening
    /// are removed.
    async fn restore_openings(&self, recovery: &Recovery) -> Result<(), StartError> {
        let now = self.now();
        if recovery.last_time.since(now) > MAX_CLOCK_STEP_BACK {
            tracing::error!(
                journal.time = %recovery.last_time, clock.time = %now,
                "the clock is behind the journal: all steps and leases are closed"
            );
            // One line for all of them: half of it would leave the other half open too long.
            let (position, _) = self.journal.append(now, &Event::ClockSetBack)?;
            self.journal.synced(position).await?;
        }
        self.journal.expire(now);
        let openings =
            self.journal.with_live(|live| live.openings().cloned().collect::<Vec<_>>())?;
        for opening in &openings {
            let id = opening.record().id;
            let reason = if now >= opening.record().expire_time {
                CloseReason::Expired
            } else {
                match self.reopen(Arc::clone(opening)) {
                    Ok(()) => continue,
                    Err(error) if is_passing(&error) => return Err(StartError::OutOf(error)),
                    Err(error) => {
                        tracing::warn!(opening.id = %id, %error, "a step has lost its directory");
                        CloseReason::DirectoryGone
                    }
                }
            };
            if let Err(error) = self.close_opening(id, reason).await {
                tracing::error!(opening.id = %id, %error, "a step could not be closed");
            }
        }
        let open: HashSet<Id> = openings.iter().map(|opening| opening.record().id).collect();
        let strays = self.runtime.step_ids().unwrap_or_default();
        for id in strays.into_iter().filter(|id| !open.contains(id)) {
            if let Err(error) = self.runtime.remove(id) {
                tracing::warn!(opening.id = %id, %error, "a stray directory could not be removed");
            }
        }
        Ok(())
    }

    /// Writes down that the daemon stops in order.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub async fn stop(&self) -> Result<(), Unavailable> {
        self.journal_counted_refusals();
        // First what came before, so that the last lines vouch for all of it.
        self.journal.synced(self.journal.last()?).await?;
        self.journal.append(self.now(), &Event::Stopped)?;
        self.journal.sign(self.now());
        self.journal.synced(self.journal.last()?).await
    }
}

/// Whether an error is the machine's and not the directory's: closing a step for it would be wrong.
fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{OutOfMemory, StorageFull};
    let files = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    let is_out_of_files =
        files.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
    is_out_of_files || matches!(error.kind(), OutOfMemory | StorageFull)
}
