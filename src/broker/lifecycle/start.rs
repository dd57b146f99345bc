//! The start of a broker: journal, store and directories are read and reconciled.
//!
//! The journal's head, the store's last batch and the journal's last intent must be in this order:
//!
//! ```text
//! head ≤ store ≤ last intent
//! ```
//!
//! - store = head: later intents never reached the store and are journaled as abandoned.
//! - store > head: the daemon stopped between the two; the head is written now, as recovered.
//! - any other order: store or journal was replaced by an older copy, and the start is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::broker::changes::batch::revoked_by_all;
use crate::broker::changes::writer::{Writer, WriterParts, WriterTask};
use crate::broker::endings::{EndingParts, Endings};
use crate::broker::error::Error;
use crate::broker::insight::readers::Readers;
use crate::broker::keys::Keys;
use crate::broker::minting::{FlightParts, Keeper, LandedMint, Mints, Refresher};
use crate::broker::registry::tcp::{Logins, TcpDoor};
use crate::broker::resolve::watch::Watchers;
use crate::broker::send::Sends;
use crate::broker::sign::Signing;
use crate::broker::steps::runtime_dir::RuntimeDir;
use crate::broker::steps::sessions::{Sessions, StepListener};
use crate::broker::{Broker, Lists};
use crate::catalog::{LoadError, Snapshot, Snapshots, load};
use crate::identity::Authority;
use crate::journal::{
    Epoch, Event, Journal, Live, Options, Recovery, ReplayError, RequestTable, StoredBatch,
    Unavailable,
};
use crate::metrics::{MintMetrics, SendMetrics};
use crate::mint::Upstreams;
use crate::model::{Clock, JournalMode, Limits, Timestamp};
use crate::seal::{KeyStore, KeyStoreError, Keyring, RecordKey, RecordKind};
use crate::store::{Store, StoreError};

/// The records in one batch from the store to the catalogue; each batch wakes a thread.
const BATCH_RECORDS: usize = 256;
/// The batches that may wait for the catalogue.
const BATCHES_AHEAD: usize = 8;

/// Why a broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] ReplayError),
    /// The journal cannot be written.
    #[error(transparent)]
    JournalUnavailable(#[from] Unavailable),
    /// The first registrations were refused.
    #[error(transparent)]
    Registration(#[from] Error),
    /// The keys cannot be read.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// A record of the store cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// `--expect-head` names a later change than the store has.
    #[error(
        "the state directory is at change {head}, but change {expected} was seen before (--expect-head): it \
         was replaced by an older copy; restore the newest backup, or leave the option out to go on with this"
    )]
    OlderThanExpected {
        /// The expected change.
        expected: u64,
        /// The store's last change.
        head: u64,
    },
    /// The machine lacks a resource that the open steps need.
    #[error(
        "the open steps cannot listen again ({0}); raise the limit of open files, or free memory or disk space"
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
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No more threads can be started.
    #[error("the store and the journal cannot be read ({0}); raise the limit of processes")]
    Threads(std::io::Error),
}

/// The parts of a broker.
pub struct BrokerParts<'a> {
    /// The directory of the journal.
    pub journal: &'a Path,
    /// The directory of the store.
    pub store: &'a Path,
    /// The keys.
    pub keyring: Keyring,
    /// Their files.
    pub keys: KeyStore,
    /// The CA.
    pub authority: Arc<Authority>,
    /// The end of the daemon's certificate, which is renewed while it serves.
    pub certificate_end: watch::Receiver<Timestamp>,
    /// The clock.
    pub clock: Clock,
    /// The limits.
    pub limits: Limits,
    /// When step decisions must be on disk.
    pub journal_mode: JournalMode,
    /// The least change that the store must have, from `--expect-head`.
    pub expect_head: Option<u64>,
    /// The files beside journal and store that a backup copies.
    pub sealed_files: Vec<PathBuf>,
    /// The runtime directory.
    pub runtime: RuntimeDir,
    /// Receives the listening sockets of steps.
    pub listeners: mpsc::UnboundedSender<StepListener>,
    /// The upstreams that make credentials.
    pub upstreams: Upstreams,
    /// The runtime that waits for them.
    pub mints: Handle,
    /// What is counted of them.
    pub mint_metrics: Arc<MintMetrics>,
    /// The runtime of the requests that are sent for steps, and their counters.
    pub sends: (Handle, Arc<SendMetrics>),
    /// The door for operators over TCP, if there is one.
    pub tcp_door: Option<TcpDoor>,
}

/// Journal and store, opened and reconciled.
pub(crate) struct Foundation {
    pub(crate) parts: WriterParts,
    pub(crate) recovery: Recovery,
    /// The last batch number that was used, whether its batch was committed or not.
    pub(crate) last_batch: u64,
}

impl Foundation {
    /// Checks that the store has the change that is expected.
    fn checked(self, expected: Option<u64>) -> Result<Self, StartError> {
        let head = self.parts.snapshots.load().head;
        match expected.filter(|expected| head < *expected) {
            Some(expected) => Err(StartError::OlderThanExpected { expected, head }),
            None => Ok(self),
        }
    }

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
        parts.journal.with_live(|live| {
            let catalog = parts.snapshots.load().catalog.clone();
            let blocks = Arc::clone(live.blocks());
            parts.snapshots.publish(Snapshot { head, epoch: live.epoch(), catalog, blocks });
        })?;
        let last_batch = recovery.intent.max(head);
        Ok(Self { parts, recovery, last_batch })
    }
}

/// Opens the store. One thread reads records while this one folds them into the catalogue.
fn read(path: &Path, keyring: &Keyring) -> Result<(Store, Snapshot), StartError> {
    let (sender, batches) = std::sync::mpsc::sync_channel(BATCHES_AHEAD);
    let hand_over = move || {
        let mut batch = Vec::with_capacity(BATCH_RECORDS);
        let opened = Store::open(path, keyring, |key, sealed| {
            batch.push((key, sealed));
            if batch.len() == BATCH_RECORDS {
                // After a record that cannot be opened, no thread receives. The rest is still read for the store's own
                // error, which says more.
                let _ =
                    sender.send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH_RECORDS)));
            }
        });
        let _ = sender.send(batch);
        opened
    };
    let (store, catalog) = at_once(hand_over, || load(batches.into_iter().flatten(), keyring))?;
    let (store, head) = store?;
    Ok((
        store,
        Snapshot { head, epoch: Epoch::of_batch(head), catalog: catalog?, blocks: Arc::default() },
    ))
}

/// Runs both functions, the first on its own thread.
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
    let revoked = |live: &Live| revoked_by_all(&snapshot.catalog, live);
    let mut last = None;
    if store > head {
        tracing::warn!(head, store, "a change that was on disk but not in force is taken over");
        let batch = StoredBatch { number: store, recovered: true, is_apart: false };
        last = Some(journal.publish(now, batch, None, revoked, |_| {})?);
    }
    for batch in store.max(recovery.abandoned) + 1..=intent {
        last = Some(journal.append(now, &Event::Abandoned { batch })?.0);
    }
    if let Some(last) = last {
        journal.synced(last).await?;
    }
    Ok(())
}

/// The desks that make credentials and end them, and the mints that land.
fn desks(
    parts: &WriterParts,
    writer: &Writer,
    journal: &Path,
    (upstreams, metrics): (Upstreams, Arc<MintMetrics>),
    runtime: &Handle,
) -> (Arc<Mints>, Arc<Endings>, mpsc::UnboundedReceiver<LandedMint>) {
    let (landed, landings) = mpsc::unbounded_channel();
    let keeper = Keeper::new(writer.clone());
    let directory = journal.parent().unwrap_or(journal).to_owned();
    let refresher = Refresher::new(parts, keeper.clone(), directory);
    let flights = FlightParts::new(parts, keeper.clone(), refresher, upstreams, metrics);
    let mints = Arc::new(Mints::new(flights, runtime.clone(), landed));
    let endings = Endings::new(EndingParts::new(parts, keeper, &mints));
    (mints, Arc::new(endings), landings)
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Broker {
    /// Starts a broker. The returned future is its writer: changes wait until it runs, and it ends when the broker is
    /// dropped.
    ///
    /// # Errors
    /// If journal and store are damaged or do not belong together.
    pub async fn start(
        parts: BrokerParts<'_>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), StartError> {
        let (now, bytes) = (parts.clock.now(), parts.limits.journal_file_bytes);
        let keyring = Arc::new(parts.keyring);
        let (authority, clock) = (Arc::clone(&parts.authority), parts.clock.clone());
        let opened = Foundation::open(parts.journal, parts.store, keyring, authority, bytes, clock);
        let foundation = opened.await?.checked(parts.expect_head)?;
        let (writer, queue) = Writer::new(parts.limits.admin_lines());
        let issuer = Arc::clone(&parts.upstreams.issuer);
        let keys = Keys::new(parts.keys, issuer, foundation.parts.clone());
        let asking = (parts.upstreams, parts.mint_metrics);
        let (mints, endings, landings) =
            desks(&foundation.parts, &writer, parts.journal, asking, &parts.mints);
        let WriterParts { snapshots, journal, store, keyring, .. } = foundation.parts.clone();
        let broker = Self {
            keys: Arc::new(keys),
            snapshots,
            journal,
            store,
            keyring,
            authority: parts.authority,
            clock: parts.clock,
            readers: Readers::start(&parts.limits).map_err(StartError::Threads)?,
            lists: Lists::default(),
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
            sends: Sends::new(parts.sends),
            signing: Signing::default(),
            lost_search: watch::Sender::new(None),
            mints,
            endings: Arc::clone(&endings),
            is_draining: AtomicBool::new(false),
            readiness: watch::Sender::new(true),
            certificate_end: parts.certificate_end,
            tcp_door: parts.tcp_door,
            logins: Logins::default(),
        };
        let known = broker.resume(&foundation.recovery, now).await?;
        endings.start(&parts.mints, landings);
        let task = WriterTask::new(foundation.parts, queue, foundation.last_batch, known);
        Ok((broker, task.with(endings.after_publication()).run()))
    }

    /// Goes on from where the daemon stopped. Returns the requests that were completed.
    async fn resume(
        &self,
        recovery: &Recovery,
        now: Timestamp,
    ) -> Result<RequestTable, StartError> {
        self.restore_openings(recovery).await?;
        self.journal.append(now, &Event::Started { version: VERSION.to_owned() })?;
        self.interrupt_mints(now)?;
        self.journal.interrupt_actions(now)?;
        self.log_state();
        Ok(self.journal.with_live(|live| live.requests().clone())?)
    }

    /// Ends the mints that were under way when the daemon stopped.
    fn interrupt_mints(&self, now: Timestamp) -> Result<(), Unavailable> {
        let catalog = &self.snapshot().catalog;
        let key = |mint| RecordKey { kind: RecordKind::Ending, uid: mint };
        self.journal.interrupt_mints(now, |mint| catalog.kept(key(mint)).is_some())
    }

    fn log_state(&self) {
        self.update_readiness();
        if self.journal.with_live(Live::is_quarantined).unwrap_or_default() {
            tracing::warn!(
                "restored from a backup: nothing is resolved until an administrator runs: keyhatch restore --confirm"
            );
        }
    }

    /// Removes the admin socket of a daemon that has stopped.
    pub fn remove_admin_socket(&self) {
        self.runtime.remove_admin_socket();
    }

    /// Mints nothing more, and waits until no refresh token is in use.
    pub async fn end_refreshes(&self) {
        self.mints.end_refreshes().await;
    }

    /// Journals that the daemon stops in order.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub async fn stop(&self) -> Result<(), Unavailable> {
        self.endings.stop().await;
        self.mints.stop().await;
        self.journal_counted_refusals();
        // Earlier lines are synced first, so that the signature covers lines that are on disk.
        self.journal.synced(self.journal.last()?).await?;
        self.journal.append(self.now(), &Event::Stopped)?;
        self.journal.sign(self.now());
        self.journal.synced(self.journal.last()?).await
    }
}
