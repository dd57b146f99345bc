//! The journal: one line for every decision and every change, written before it takes effect.
//!
//! - **No plaintext without a [`Permit`], no permit without a line.** Only [`Journal`] makes permits, after the line is
//!   written. Only a permit calls the function that opens values.
//! - It is the write-ahead log of openings and leases: [`Live`] is the fold of its lines, at start and while it runs.
//! - Publishing a snapshot, closing an opening and inserting a lease happen under its chain lock, so that no older
//!   decision overtakes them. A decision made on an older snapshot returns [`CommitError::Stale`], and the broker decides
//!   again.
//! - Lines are JSON, hash-chained, and carry a keyed tag: see [`write::line`]. They contain names, because people read
//!   them, and never a value.

mod commit;
mod event;
mod files;
mod read;
mod state;
pub mod write;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

pub use commit::actions::CommittedAction;
pub use commit::blocks::{BlockOn, Blocking, OperatorClose, TooManyBlocks};
pub use commit::endings::EndingRequest;
pub use commit::group::CommitGroup;
pub use commit::levers::{Ended, EndedBy};
pub use commit::mints::{Made, MintRequest, Waiter};
pub use commit::permit::{Act, HandOut, Permit, PermitError, Root};
pub use commit::quarantine::QuarantineEnd;
pub use commit::{Allowed, CommitError, Committed, Granted, Resolution};
pub use event::NAMES as EVENT_NAMES;
pub use event::decision_id::{DecisionId, DecisionName};
pub use event::{
    BlockLine, ChangeNote, Checkpoint, CloseReason, EndedLeases, EndedLine, EndingLine,
    EndingReason, Event, Intent, Leased, LoginLine, MintFailedLine, MintFault, MintedLine,
    MintingLine, OperatorCloseLine, Outcome, Refused, RenewalLine, RenewedLease, ResolveLine,
    RestoredAs, RevocationLine, RotatedKey, SentLine, SignLine, Signature, SshLogin, TestLine,
    UnblockLine, Upstream, Used,
};
pub use read::batch::Stopped;
pub use read::error::{ReadError, ReplayError};
pub use read::find::WhichRuns;
pub use read::last::last_time;
pub use read::replay::{Recovery, written_formats};
pub use read::tail::{TailRead, TailReader};
pub use read::tail_filter::{PrincipalFilter, TailFilter, TailLine};
pub use read::verify::{Proof, ProofError, verify};
pub use state::begun_counts::TooManyEndings;
pub use state::due::Standing;
pub use state::heads::Epoch;
pub use state::live::Live;
pub use state::lost::LostRefresh;
pub use state::open_step::ended_steps::EndedSteps;
pub use state::open_step::{LiveOpening, NotAccepted, WatchEnded};
pub use state::outliving::Outliving;
pub use state::owed::{BegunEnding, Candidates, Owed};
pub use state::requests::{DoneRequest, RequestNote, RequestTable};
pub use state::runs::{RunHistory, RunList};
pub use state::usage::Usage;
pub use state::use_counts::{Refusals, RunCounts, RunKey, Use};
pub use write::disk_reserve::{DISK_RESERVE_BYTES, ReserveState, free_bytes};
pub use write::line::Body;
pub use write::status::{JournalStatus, NewestSignature};
pub use write::sync::SyncFailed;

use crate::identity::Authority;
use crate::model::limits::JOURNAL_DEADLINE;
use crate::model::{Id, Opening, Timestamp};
use crate::seal::Keyring;
use commit::endings::left_to_expire;
use write::chain::Chain;
use write::sync::{SyncThread, Synced};
use write::watchdog::Pulse;

/// The journal cannot be written: no secret is handed out and no change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be written")]
pub struct Unavailable;

/// The number of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub(self) u64);

/// A batch that is in the store, and is to be in force.
#[derive(Clone, Copy, Debug)]
pub struct StoredBatch {
    /// Its number.
    pub number: u64,
    /// Whether it was found in the store at start.
    pub recovered: bool,
    /// True if no decision depends on it: it has only what the broker keeps for itself.
    pub is_apart: bool,
}

/// An opening that was closed.
pub struct Closing {
    /// The line.
    pub position: Position,
    /// The leases that were revoked.
    pub revoked: Vec<Id>,
    /// The mints of the opening that are under way, or whose credentials are owed an ending.
    pub mints: Vec<Id>,
}

/// The settings of a journal.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The size in bytes at which a file is followed by the next.
    pub file_bytes: u64,
}

/// The one journal of a broker.
pub struct Journal {
    chain: Mutex<Chain>,
    sync: SyncThread,
    pulse: Arc<Pulse>,
    directory: PathBuf,
    keyring: Arc<Keyring>,
    authority: Arc<Authority>,
    options: Options,
    /// The last line that is written, to be read without waiting.
    written: Synced,
    /// The last line that is signed.
    signed: Mutex<u64>,
    /// Behind a lock of its own, so that readers do not wait while a signature is made.
    newest_signature: Mutex<Option<NewestSignature>>,
    /// When to sign next.
    sign_due: Mutex<Timestamp>,
}

impl Journal {
    /// Makes a new journal with its first file, in a new directory.
    ///
    /// # Errors
    /// If the directory exists or cannot be written.
    pub fn create(directory: &Path, keyring: &Keyring, now: Timestamp) -> std::io::Result<()> {
        std::fs::DirBuilder::new().mode(0o700).create(directory)?;
        write::chain::create(directory, keyring, now)
    }

    /// Opens the journal: reads and checks every line, and appends from there on.
    ///
    /// # Errors
    /// If a line was changed or is missing, or the files cannot be read or written.
    pub fn open(
        directory: &Path,
        keyring: Arc<Keyring>,
        authority: Arc<Authority>,
        options: Options,
        now: Timestamp,
    ) -> Result<(Self, Recovery), ReplayError> {
        let pulse = write::watchdog::start().map_err(ReplayError::Threads)?;
        let at = |source| ReplayError::At { path: directory.to_owned(), source };
        let opened = read::replay::open(directory, Arc::clone(&keyring), now, Arc::clone(&pulse));
        let (chain, recovery) = opened.map_err(|error| match error {
            ReplayError::Io(source) => at(source),
            error => error,
        })?;
        let file = chain.file().map_err(at)?;
        let journal = Self {
            sync: SyncThread::start(file, chain.synced().clone(), Arc::clone(&pulse)),
            written: chain.written().clone(),
            chain: Mutex::new(chain),
            pulse,
            directory: directory.to_owned(),
            keyring,
            authority,
            options,
            signed: Mutex::new(0),
            newest_signature: Mutex::default(),
            sign_due: Mutex::new(now),
        };
        Ok((journal, recovery))
    }

    fn lock(&self) -> Result<MutexGuard<'_, Chain>, Unavailable> {
        match self.sync.has_failed() || self.pulse.sync.are_hanging() {
            true => Err(Unavailable),
            false => self.lock_unless_hanging(),
        }
    }

    /// Locks the chain for reading, even if it can no longer be written.
    fn lock_unless_hanging(&self) -> Result<MutexGuard<'_, Chain>, Unavailable> {
        if self.pulse.write.are_hanging() {
            return Err(Unavailable);
        }
        self.chain.try_lock_for(JOURNAL_DEADLINE).ok_or(Unavailable)
    }

    /// Locks it for a reader of files, who gets an I/O error.
    fn lock_to_read(&self) -> std::io::Result<MutexGuard<'_, Chain>> {
        self.lock_unless_hanging().map_err(|Unavailable| std::io::Error::other("it hangs"))
    }

    /// Writes one line that needs no check, and returns its decision id.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(
        &self,
        now: Timestamp,
        event: &Event,
    ) -> Result<(Position, DecisionId), Unavailable> {
        let mut chain = self.lock()?;
        let position = chain.append(now, event)?;
        Ok((position, chain.decision_id(position)))
    }

    /// Publishes a committed batch: writes its head line, and makes the new snapshot visible before it releases the
    /// lock.
    ///
    /// `changed` are the resources that it changes; `None` for any of them. `revoked` returns the leases that end by the
    /// batch. `publish` makes the snapshot visible, with the state after the batch.
    ///
    /// # Errors
    /// If the line cannot be written. Nothing is published then.
    pub fn publish(
        &self,
        now: Timestamp,
        batch: StoredBatch,
        changed: Option<&[Id]>,
        revoked: impl FnOnce(&Live) -> Vec<Id>,
        publish: impl FnOnce(&Live),
    ) -> Result<Position, Unavailable> {
        let mut chain = self.lock()?;
        chain.live_mut().expire(now);
        let revoked = revoked(chain.live());
        let (StoredBatch { number: batch, recovered, is_apart }, epoch) =
            (batch, chain.live().epoch());
        let position = chain.append(now, &Event::Head { batch, recovered, revoked })?;
        chain.live_mut().mints_mut().owed_mut().change_connections(changed);
        if is_apart {
            chain.live_mut().keep_epoch(epoch);
        }
        publish(chain.live());
        Ok(position)
    }

    /// Takes a new opening in; `allowed` may refuse it by what is open.
    ///
    /// # Errors
    /// As `allowed`, or if the line cannot be written.
    pub fn open_step<E: From<Unavailable>>(
        &self,
        now: Timestamp,
        opening: Opening,
        allowed: impl FnOnce(&Live) -> Result<(), E>,
    ) -> Result<Arc<LiveOpening>, E> {
        let id = opening.id;
        let mut chain = self.lock()?;
        allowed(chain.live())?;
        chain.append(now, &Event::Opened(Box::new(opening)))?;
        chain.live().opening(id).cloned().ok_or_else(|| Unavailable.into())
    }

    /// Closes an opening and revokes its leases. `None` if the opening is not open.
    /// `before` may write lines while it is still open. A credential that outlives the opening gets a line before.
    ///
    /// # Errors
    /// If the line cannot be written. The step stays open then.
    pub fn close(
        &self,
        now: Timestamp,
        opening: Id,
        reason: CloseReason,
        before: impl FnOnce(&mut dyn FnMut(&Event) -> bool),
    ) -> Result<Option<Closing>, Unavailable> {
        let mut chain = self.lock()?;
        if chain.live().opening(opening).is_none() {
            return Ok(None);
        }
        before(&mut |event| chain.append(now, event).is_ok());
        chain.live_mut().expire(now);
        let live = chain.live();
        let revoked = live.leases().of_opening(opening);
        let open = live.opening(opening);
        let mut events: Vec<Event> =
            open.map(|open| left_to_expire(live, open, now)).unwrap_or_default();
        events.push(Event::Closed { opening, reason, revoked: revoked.clone() });
        chain.append_all(now, &events)?;
        let mints = chain.live().mints().of_opening(opening);
        Ok(Some(Closing { position: chain.last(), revoked, mints }))
    }

    /// Reads what is open and leased, while nothing can change.
    ///
    /// # Errors
    /// If the journal hangs.
    pub fn with_live<T>(&self, read: impl FnOnce(&Live) -> T) -> Result<T, Unavailable> {
        Ok(read(self.lock_unless_hanging()?.live()))
    }

    /// Removes expired leases. Leases expire by themselves, so no line is written.
    pub fn expire(&self, now: Timestamp) {
        if let Ok(mut chain) = self.lock_unless_hanging() {
            chain.live_mut().expire(now);
        }
    }

    /// Waits until this line, and all lines before it, are on disk.
    ///
    /// # Errors
    /// If a sync has failed. That is final: from then on, the contents of the disk are unknown.
    pub async fn synced(&self, position: Position) -> Result<(), Unavailable> {
        self.sync.synced(position.0).await.map_err(|SyncFailed| Unavailable)
    }

    /// The number of the last line.
    ///
    /// # Errors
    /// If the journal hangs or has failed.
    pub fn last(&self) -> Result<Position, Unavailable> {
        Ok(self.lock()?.last())
    }

    /// The number of the last line, without waiting: for readers that check whether there is something to read.
    pub fn written(&self) -> u64 {
        self.written.line()
    }

    /// Follows whether a write hangs. The thread that writes is stuck as long as it does.
    pub fn write_hangs(&self) -> watch::Receiver<bool> {
        self.pulse.write_hangs()
    }

    /// Whether the journal has failed for good. Only a restart can find out what the disk holds.
    pub fn has_failed(&self) -> bool {
        self.sync.has_failed() || self.lock_unless_hanging().is_ok_and(|chain| chain.is_over())
    }
}

#[cfg(test)]
mod tests;
