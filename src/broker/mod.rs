//! The use cases, one file a story. Nothing here knows gRPC, TLS or sled's calls.
//!
//! [`resolve`] is the story that the rest is for. Changes go through the one [`writer`]; steps come and
//! go in [`openings`].

mod apply;
mod backup;
mod batch;
mod budgets;
mod connection_write;
mod connections;
mod difference;
mod draft;
mod error;
mod explain;
mod fan_out;
mod field_changes;
mod group_write;
mod groups;
mod health;
mod housekeeping;
mod inspect;
mod integrations;
mod judge;
mod keys;
mod leases;
mod listeners;
mod may_open;
mod offline;
mod openings;
mod operators;
mod plan;
mod quarantine;
mod rates;
mod readers;
mod reaper;
mod registry;
mod reseal;
mod resolve;
mod runs;
mod secrets;
mod start;
mod step_directory;
mod step_list;
mod suggest;
mod tail;
mod watch;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use apply::{Action, Applied, Document};
pub use backup::{
    BACKUP_FORMAT, Backup, Hashed, MANIFEST, Manifest, ManifestEntry, STORE_RECORDS, read_record,
};
pub use batch::JudgedBatch;
pub use connections::{
    Access, ConnectionDocument, ConnectionInUse, Deletion, Holder, ListedConnection,
    ListedConnections, Part, Wanted,
};
pub use difference::{Difference, Differences};
pub use draft::WriteOptions;
pub use error::Error;
pub use explain::{DryRun, ExaminedResource, Explanation, NearMember, PastDecision};
pub use groups::{GroupChange, GroupDocument, ListedGroup, MemberChange, NewGroup};
pub use health::{Counts, Health, KeyState, State};
pub use inspect::Inspected;
pub use integrations::ListedIntegration;
pub use keys::{ListedDek, ListedKeys, RotatedKek};
pub use offline::{LocalExecutor, Offline};
pub use openings::{ClosedStep, OpenedStep, StepOwner, StepRequest, StepSelector};
pub use plan::{Plan, Planned};
pub use readers::Turn;
pub use registry::{Enrolled, LOCAL_EXECUTOR, NewRegistration};
pub use resolve::{ResolveRequest, Resolved, Room};
pub use runs::{LeaseState, Received, RunStep};
pub use secrets::SecretDocument;
pub use start::{Parts, StartError};
pub use step_directory::{Runtime, RuntimeError, StepListener};
pub use step_list::{ListedStep, ListedSteps};
pub use suggest::{Advice, Suggestion, Suggestions};
pub use tail::{Tail, TailRequest};
pub use watch::{Delivery, Watch};

use tokio::sync::Semaphore;

use crate::catalog::{Snapshot, Snapshots};
use crate::identity::Authority;
use crate::journal::Journal;
use crate::model::{Clock, JournalMode, Limits, RequestMac, SpiffeId, Timestamp};
use crate::seal::Keyring;
use crate::store::Store;
use keys::Keys;
use listeners::Listeners;
use plan::Comparisons;
use rates::Rates;
use readers::Readers;
use watch::Watchers;
use writer::Writer;

/// One broker, with everything it works with.
pub struct Broker {
    keys: Arc<Keys>,
    snapshots: Arc<Snapshots>,
    journal: Arc<Journal>,
    store: Arc<Store>,
    keyring: Arc<Keyring>,
    authority: Arc<Authority>,
    clock: Clock,
    limits: Limits,
    journal_mode: JournalMode,
    runtime: Runtime,
    sealed_files: Vec<PathBuf>,
    readers: Readers,
    backups: Arc<Semaphore>,
    comparisons: Comparisons,
    /// Of operators and executors.
    requests: Rates<SpiffeId>,
    listeners: Listeners,
    writer: Writer,
    start_time: Timestamp,
    watchers: Watchers,
    is_draining: AtomicBool,
    readiness: tokio::sync::watch::Sender<bool>,
    /// When the daemon's certificate ends.
    certificate_end: tokio::sync::watch::Receiver<Timestamp>,
}

impl Broker {
    /// The present moment, by the broker's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The CA.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What stands for a request: its method and all that it says, bound by a key that nobody else has.
    pub fn request_mac(&self, method: &str, message: &[u8]) -> RequestMac {
        self.keyring.request_mac(&[method.as_bytes(), message]).into()
    }

    /// The catalogue in force.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.load()
    }

    /// Tells of every new catalogue from now on; of several at once, of the last.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.snapshots.subscribe()
    }

    /// Takes no new requests from now on.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
        self.readiness.send_replace(false);
        self.snapshots.wake();
    }

    /// Whether new requests are taken.
    ///
    /// # Errors
    /// [`Error::Draining`] if not.
    pub fn check_serving(&self) -> Result<(), Error> {
        if self.is_draining.load(Ordering::Acquire) { Err(Error::Draining) } else { Ok(()) }
    }

    /// Waits until what was decided is on disk, where that is asked for.
    ///
    /// # Errors
    /// If the disk refuses: nothing may be handed out then.
    pub async fn settle(&self) -> Result<(), Error> {
        match self.journal_mode {
            JournalMode::Written => Ok(()),
            JournalMode::Synced => Ok(self.journal.synced(self.journal.last()?).await?),
        }
    }

    /// Tells whether whatever may be asked of the broker can be done: whether it is [`State::Serving`].
    pub fn readiness(&self) -> tokio::sync::watch::Receiver<bool> {
        self.readiness.subscribe()
    }

    /// Looks at the disk and whether it is so, and tells it. It waits for a journal that begins to hang.
    pub fn look_at_readiness(&self) {
        self.journal.look_at_disk(self.now());
        let is_ready = self.state() == State::Serving;
        self.readiness.send_if_modified(|was| std::mem::replace(was, is_ready) != is_ready);
    }
}
