//! Decisions become lines, and lines become permits.
//!
//! All of this happens under the chain lock: the check that nothing has changed since the decision, the line, and the
//! lease.

pub(super) mod actions;
pub(super) mod blocks;
pub(super) mod endings;
pub(super) mod group;
pub(super) mod levers;
pub(super) mod mints;
pub(super) mod permit;
pub(super) mod quarantine;
mod settle;
mod uses;

use std::sync::Arc;

use crate::journal::event::{Event, Refused, RenewalLine, TestLine, Upstream};
use crate::journal::{
    DecisionId, Epoch, Journal, LiveOpening, Position, TooManyEndings, Unavailable,
};
use crate::lease::{Ask, Lease, Terms};
use crate::model::{FieldName, Id, Timestamp};
use crate::seal::{RecordKey, RecordKind};
use permit::{HandOut, Permit, Root};

/// Why a decision was not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The opening was closed meanwhile.
    #[error("the step is closed")]
    Closed,
    /// The ending of the minted credential has begun, or is over: whoever keeps the credential forgets it and decides again.
    #[error("the minted credential is being ended")]
    CredentialEnding,
    /// The lease has ended.
    #[error("the lease has ended")]
    LeaseEnded,
    /// A newer snapshot was published meanwhile: the broker decides again.
    #[error("the decision is older than the published state")]
    Stale,
    /// The broker was restored from a backup, and no administrator has confirmed it.
    #[error("nothing is resolved until the restored broker is confirmed")]
    Quarantined,
    /// Too many endings of the connection have begun and are not over: nothing more is made of it.
    #[error(transparent)]
    TooManyEndings(#[from] TooManyEndings),
    /// The journal cannot be written.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A decision on a Resolve, ready to be committed.
pub struct Resolution {
    /// The snapshot that the decision was made on.
    pub epoch: Epoch,
    /// When it was decided.
    pub time: Timestamp,
    /// The step that asks.
    pub opening: Arc<LiveOpening>,
    /// The target, fields and TTL that the step asks for.
    pub ask: Ask,
    /// `Some` for a delivery of a Watch, with the lease of the delivery before.
    pub watch: Option<Option<Id>>,
    /// The decision.
    pub outcome: Result<Allowed, Refused>,
}

/// A decision to hand out a credential.
pub struct Allowed {
    /// The rule that allows it.
    pub by: String,
    /// The record with the connection's or secret's own values.
    pub record: RecordKey,
    /// The full name of the resource, if the target does not contain it.
    pub resource: Option<String>,
    /// The credential's version.
    pub version: u64,
    /// The names of the fields that are handed out.
    pub fields: Vec<FieldName>,
    /// When the lease expires, and what limits it.
    pub terms: Terms,
    /// The most leases that this opening may hold.
    pub max_leases: u32,
    /// How the credential is made; `None` if the record itself is handed out.
    pub upstream: Option<Upstream>,
}

/// A decision whose line is written.
pub struct Committed {
    /// The place of the line.
    pub decision_id: DecisionId,
    /// The lease and the permit. `None` if nothing is handed out: the decision was a refusal, or the opening already
    /// holds `max_leases` leases.
    pub granted: Option<Granted>,
}

/// What an allowed decision gives.
pub struct Granted {
    /// The lease.
    pub lease: Lease,
    /// The permit for what the step gets; `None` if an upstream is asked for it.
    pub permit: Option<Permit<HandOut>>,
}

impl Committed {
    fn new(decision_id: DecisionId, granted: Option<(RecordKey, Lease)>) -> Self {
        let granted = granted.map(|(stored, lease)| {
            let record = match &lease.mint {
                None => Some(stored),
                Some(_) => lease.credential().map(|made| minted_record(made.mint)),
            };
            let permit = record.map(|key| Permit::to_hand_out(key, lease.version, decision_id));
            Granted { lease, permit }
        });
        Self { decision_id, granted }
    }
}

/// The record of what a mint has made, in memory.
fn minted_record(mint: Id) -> RecordKey {
    RecordKey { kind: RecordKind::MintedValues, uid: mint }
}

impl Journal {
    /// Commits a decision: writes its line, takes its lease in, and makes the permit.
    ///
    /// # Errors
    /// If something has changed since the decision, or the journal cannot be written. No line is written then.
    pub fn commit(&self, now: Timestamp, resolution: Resolution) -> Result<Committed, CommitError> {
        let mut chain = self.lock()?;
        // Expired leases do not count.
        chain.live_mut().expire(now);
        let (line, granted) = resolution.settle(chain.live(), &[])?;
        let position = chain.append(now, &Event::Resolve(Box::new(line)))?;
        Ok(Committed::new(chain.decision_id(position), granted))
    }

    /// Commits decisions in order, as [`Journal::commit`] does, with one write for all of their lines.
    ///
    /// # Errors
    /// For each decision, as [`Journal::commit`].
    pub fn commit_all(
        &self,
        now: Timestamp,
        resolutions: Vec<Resolution>,
    ) -> Vec<Result<Committed, CommitError>> {
        let count = resolutions.len();
        let failed = |error: Unavailable| (0..count).map(|_| Err(error.into())).collect();
        let mut chain = match self.lock() {
            Ok(chain) => chain,
            Err(error) => return failed(error),
        };
        chain.live_mut().expire(now);
        let mut events = Vec::with_capacity(count);
        let mut settle = |resolution: Resolution| {
            let (line, granted) = resolution.settle(chain.live(), &events)?;
            events.push(Event::Resolve(Box::new(line)));
            Ok((events.len() as u64, granted))
        };
        let settled: Vec<Result<_, CommitError>> =
            resolutions.into_iter().map(&mut settle).collect();
        let Position(before) = chain.last();
        if let Err(error) = chain.append_all(now, &events) {
            return failed(error);
        }
        let committed =
            |(nth, granted)| Committed::new(chain.decision_id(Position(before + nth)), granted);
        settled.into_iter().map(|one| one.map(committed)).collect()
    }

    /// Commits a decision on the renewal of a lease, made on the snapshot `epoch`, and returns its id.
    ///
    /// # Errors
    /// As [`Journal::commit`]; [`CommitError::LeaseEnded`] if the lease has ended.
    pub fn commit_renewal(
        &self,
        now: Timestamp,
        epoch: Epoch,
        opening: &LiveOpening,
        line: RenewalLine,
    ) -> Result<DecisionId, CommitError> {
        let mut chain = self.lock()?;
        let live = chain.live();
        live.check_decision(epoch, opening)?;
        if live.leases().find(line.lease).is_none_or(|lease| now >= lease.expire_time) {
            return Err(CommitError::LeaseEnded);
        }
        let position = chain.append(now, &Event::LeaseRenewal(line))?;
        Ok(chain.decision_id(position))
    }

    /// Commits an operator's test of a record, decided on the snapshot `epoch`: writes its line, and makes the permit.
    ///
    /// # Errors
    /// If another snapshot was published since, or the journal cannot be written.
    pub fn commit_test(
        &self,
        now: Timestamp,
        epoch: Epoch,
        record: RecordKey,
        line: TestLine,
    ) -> Result<Permit<Root>, CommitError> {
        let mut chain = self.lock()?;
        chain.live().check_epoch(epoch)?;
        let version = line.version;
        let position = chain.append(now, &Event::Tested(line))?;
        Ok(Permit::to_root(record, version, chain.decision_id(position)))
    }

    /// Checks that decisions can be committed now, so that secrets can be handed out.
    ///
    /// # Errors
    /// The error of every decision, as [`Journal::commit`] returns it.
    pub fn may_decide(&self) -> Result<(), CommitError> {
        let chain = self.lock()?;
        if !chain.is_open_to_all() {
            return Err(Unavailable.into());
        }
        if chain.live().is_quarantined() { Err(CommitError::Quarantined) } else { Ok(()) }
    }
}
