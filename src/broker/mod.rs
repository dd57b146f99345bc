//! The use cases, in folders by noun. Nothing here knows gRPC, TLS or sled's calls.
//!
//! [`resolve`] hands out credentials. [`changes`] has the one writer that all changes go through. [`steps`] opens and
//! closes steps.

mod changes;
mod connections;
mod endings;
mod error;
mod groups;
mod health;
mod insight;
mod integrations;
mod keys;
mod levers;
mod lifecycle;
mod list;
mod minting;
mod registry;
mod resolve;
mod secrets;
mod send;
mod shares;
mod sign;
mod steps;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use changes::difference::{Difference, Differences};
pub use changes::documents::{
    Access, Action, Applied, ConnectionDocument, Deletion, Document, GroupChange, GroupDocument,
    MemberChange, NewGroup, Patch, SecretDocument, WriteOptions,
};
pub use changes::plan::{Plan, Planned};
pub use connections::inspect::Inspected;
pub use connections::list::ConnectionQuery;
pub use connections::lost::{LostCredentials, LostSearch};
pub use connections::trial::TestMint;
pub use connections::{ConnectionInUse, Holder, ListedConnection, TimeFilter};
pub use endings::list::{EndingCounts, ListedEnding, PendingEnding, Tries};
pub use endings::story::{EndingState, MintEnding};
pub use error::Error;
pub use groups::ListedGroup;
pub use groups::candidates::{CandidateConnection, CandidateQuery, Unfit};
pub use groups::list::GroupQuery;
pub use health::{Counts, Health, KeyState, State};
pub use insight::impact::{Impact, ImpactedLease, LostValues, ProposedChange, SomeOf};
pub use insight::readers::ReaderTurn;
pub use insight::runs::{RunPlace, RunQuery, RunSummary, WorkflowQuery, WorkflowSummary};
pub use insight::suggest::{Advice, Suggestion, Suggestions};
pub use insight::tail::{Tail, TailRequest};
pub use integrations::ListedIntegration;
pub use keys::issuer::PublishedIssuer;
pub use keys::{ListedDek, ListedKeys, RotatedKek};
pub use levers::blocks::Blocked;
pub use levers::closes::{CloseTarget, ClosedByOperator};
pub use levers::leases::{LeaseFilter, LeaseSelector, ListedLease, RevokedLeases};
pub use levers::refusal::LeverRefusal;
pub use lifecycle::backup::{
    BACKUP_FORMAT, Backup, Hashed, MANIFEST, Manifest, ManifestEntry, STORE_RECORDS, read_record,
};
pub use lifecycle::quarantine::Confirmed;
pub use lifecycle::start::{BrokerParts, StartError};
pub use list::{ListPage, Order, OrderBy, PageQuery, Position, Total};
pub use registry::offline::Offline;
pub use registry::tcp::TcpDoor;
pub use registry::{Enrolled, LOCAL_EXECUTOR, LocalExecutor, NewRegistration};
pub use resolve::batch::AuthorizedBatch;
pub use resolve::explain::{
    DryRun, ExaminedResource, Explanation, NearMember, PastDecision, PastOutcome,
};
pub use resolve::mint_story::{MintBegun, MintEnd, MintStory};
pub use resolve::minted::{Answer, Waiting};
pub use resolve::watch::Watch;
pub use resolve::watcher_state::Delivery;
pub use resolve::{ResolveRequest, Resolved, Room};
pub use secrets::list::{ListedSecret, SecretQuery};
pub use send::{Exchange, SendAnswer, SendPart, SendRequest};
pub use sign::{PublicSigningKey, SignRefusal, SignRequest};
pub use steps::list::{ListedStep, ListedSteps};
pub use steps::openings::{ClosedStep, OpenedStep, StepSelector};
pub use steps::request::StepRequest;
pub use steps::runs::{LeaseState, Received, RunStep};
pub use steps::runtime_dir::{RuntimeDir, RuntimeDirError};
pub use steps::session::StepSession;
pub use steps::sessions::StepListener;
pub use steps::used::{UsedConnection, UsedRequest};

use tokio::sync::Semaphore;

use crate::catalog::{Snapshot, Snapshots};
use crate::identity::Authority;
use crate::journal::{Epoch, Journal};
use crate::model::{Clock, JournalMode, Limits, RequestMac, SpiffeId, Timestamp};
use crate::seal::Keyring;
use crate::store::Store;
use changes::plan::Comparisons;
use changes::writer::Writer;
use connections::list::SharedIndex;
use connections::lost::Search;
use endings::Endings;
use insight::readers::Readers;
use insight::runs::MergedRuns;
use keys::Keys;
use minting::Mints;
use registry::rates::Rates;
use registry::tcp::Logins;
use resolve::watch::Watchers;
use send::Sends;
use sign::Signing;
use steps::sessions::Sessions;

/// What lists keep from one to the next. No step waits for it.
#[derive(Default)]
struct Lists {
    connections: SharedIndex,
    runs: MergedRuns,
}

/// The broker, with the parts that it works with.
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
    runtime: RuntimeDir,
    sealed_files: Vec<PathBuf>,
    readers: Readers,
    lists: Lists,
    backups: Arc<Semaphore>,
    comparisons: Comparisons,
    /// The request rates of operators and executors.
    requests: Rates<SpiffeId>,
    sessions: Sessions,
    writer: Writer,
    start_time: Timestamp,
    watchers: Watchers,
    sends: Sends,
    signing: Signing,
    lost_search: Search,
    mints: Arc<Mints>,
    endings: Arc<Endings>,
    is_draining: AtomicBool,
    readiness: tokio::sync::watch::Sender<bool>,
    /// When the daemon's certificate ends.
    certificate_end: tokio::sync::watch::Receiver<Timestamp>,
    tcp_door: Option<TcpDoor>,
    /// The logins over TCP that have a line.
    logins: Logins,
}

impl Broker {
    /// The time, by the broker's clock.
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

    /// The keyed MAC of a request: its method and its whole message.
    pub fn request_mac(&self, method: &str, message: &[u8]) -> RequestMac {
        self.keyring.request_mac(&[method.as_bytes(), message]).into()
    }

    /// The catalogue in force.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.load()
    }

    /// Reports every new catalogue on which decisions may depend from now on; of several at once, the last.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<Epoch> {
        self.snapshots.subscribe()
    }

    /// Refuses new requests from now on.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
        self.mints.drain();
        self.endings.drain();
        self.readiness.send_replace(false);
        self.snapshots.wake();
    }

    /// Checks that new requests are accepted.
    ///
    /// # Errors
    /// [`Error::Draining`] if they are not.
    pub fn check_serving(&self) -> Result<(), Error> {
        if self.is_draining.load(Ordering::Acquire) { Err(Error::Draining) } else { Ok(()) }
    }

    /// Waits until all decisions so far are on disk, if the journal's mode is `synced`.
    ///
    /// # Errors
    /// If the disk refuses: nothing may be handed out then.
    pub async fn synced(&self) -> Result<(), Error> {
        match self.journal_mode {
            JournalMode::Written => Ok(()),
            JournalMode::Synced => Ok(self.journal.synced(self.journal.last()?).await?),
        }
    }

    /// Reports whether the broker is [`State::Serving`].
    pub fn readiness(&self) -> tokio::sync::watch::Receiver<bool> {
        self.readiness.subscribe()
    }

    /// Checks the disk and the broker's state, and reports the readiness. Waits for a journal that begins to hang.
    pub fn update_readiness(&self) {
        self.journal.check_disk(self.now());
        let is_ready = self.state() == State::Serving;
        self.readiness.send_if_modified(|was| std::mem::replace(was, is_ready) != is_ready);
    }
}
