//! Credentials that an upstream makes: from a decision to the root, and from the upstream's answer to the step.
//!
//! ```text
//! resolve ─ minting ─ Permit<Root> ─ upstream ─ minted ─┬─ mint_joined ─ Permit<HandOut>
//! resolve ──────────────────────────────────────────────┴─ mint_joined ─ Permit<HandOut>
//! ```
//!
//! A decision whose credential is awaited has a lease and no permit. `minting` gives the permit for the root. After
//! `minted`, each lease that waits gets a line and a permit for what was made, if it is live and nothing has changed. A
//! lease without that line has handed nothing out, so it ends when nobody waits any more, or with the daemon.

use std::collections::HashSet;
use std::sync::Arc;

use super::{CommitError, minted_record};
use crate::integration::Source;
use crate::journal::commit::permit::{HandOut, Permit, Root};
use crate::journal::event::{Event, MintFailedLine, MintFault, MintedLine, MintingLine};
use crate::journal::{DecisionId, Epoch, Journal, LiveOpening, Unavailable};
use crate::lease::{Lease, MintedCredential};
use crate::model::{Id, Timestamp};
use crate::seal::RecordKey;

/// A mint that is about to begin, for a decision that is committed.
pub struct MintRequest<'a> {
    /// The snapshot that the decision was made on.
    pub epoch: Epoch,
    /// The step that asks.
    pub opening: &'a LiveOpening,
    /// The decision.
    pub decision: DecisionId,
    /// Its lease.
    pub lease: Id,
    /// The protocol.
    pub source: Source,
    /// The full name of the connection.
    pub resource: String,
    /// The record with the root.
    pub record: RecordKey,
    /// The version of the root.
    pub version: u64,
}

/// What an upstream tells of a credential that it has made. It contains no secret.
pub struct Made {
    /// Its name in the upstream's audit log, if it has one.
    pub handle: Option<String>,
    /// When it counts as ended.
    pub credential_expire_time: Timestamp,
    /// True if the upstream has told this very end.
    pub is_end_told: bool,
    /// The upstream's number of the request, if it told the number.
    pub upstream_request: Option<String>,
    /// True if the upstream can end the credential, and the store keeps what that needs.
    pub is_owed: bool,
    /// True if one opening has it for itself.
    pub is_own: bool,
}

/// A lease that waits for what a mint makes.
pub struct Waiter<'a> {
    /// The newest snapshot, which still allows the decision.
    pub epoch: Epoch,
    /// The step that waits.
    pub opening: &'a LiveOpening,
    /// Its decision.
    pub decision: DecisionId,
    /// Its lease.
    pub lease: Id,
    /// The protocol.
    pub source: Source,
    /// The full name of the connection.
    pub resource: String,
}

impl Journal {
    /// Begins a mint: writes its line, and makes the permit for the root. The mint's id is the opaque id of that line.
    ///
    /// # Errors
    /// As [`Journal::commit`]; [`CommitError::LeaseEnded`] if the lease of the decision has ended;
    /// [`CommitError::TooManyEndings`] if the step, its workflow or the connection has too many endings.
    pub fn begin_mint(
        &self,
        now: Timestamp,
        request: MintRequest<'_>,
    ) -> Result<(Id, Permit<Root>), CommitError> {
        let MintRequest { epoch, opening, decision, lease, source, resource, record, version } =
            request;
        let mut chain = self.lock()?;
        chain.live_mut().expire(now);
        chain.live().check_decision(epoch, opening)?;
        chain.live().leases().find(lease).ok_or(CommitError::LeaseEnded)?;
        chain.live().mints().owed().check_room(
            opening.record().id,
            &opening.record().key.workflow,
            record.uid,
        )?;
        let mint = chain.next_decision_id().to_mint(&self.keyring);
        let line = MintingLine {
            mint,
            decision,
            opening: opening.record().id,
            principal: opening.principal(),
            executor: opening.record().key.executor.clone(),
            lease,
            source,
            resource,
            uid: record.uid,
            version,
        };
        let position = chain.append(now, &Event::Minting(Box::new(line)))?;
        Ok((mint, Permit::to_root(record, version, chain.decision_id(position))))
    }

    /// Begins the mint of a test, whose permit is that of its `tested` line. Nobody gets what it makes.
    ///
    /// # Errors
    /// If the connection has too many endings, or the line cannot be written.
    pub fn begin_trial(&self, now: Timestamp, line: MintingLine) -> Result<(), CommitError> {
        let mut chain = self.lock()?;
        let (opening, workflow) = (line.opening, &line.principal.workflow);
        chain.live().mints().owed().check_room(opening, workflow, line.uid)?;
        chain.append(now, &Event::Minting(Box::new(line)))?;
        Ok(())
    }

    /// Of the credentials that an upstream lists, those that the journal has lost: made by this broker, or by one that it was
    /// restored from, and neither under way nor owed an ending. `of` tells the mint of a credential, and the credential's name in
    /// the upstream's audit log.
    ///
    /// # Errors
    /// If the journal hangs.
    pub fn lost<T>(
        &self,
        listed: Vec<T>,
        of: impl Fn(&T) -> (Id, &str),
    ) -> Result<Vec<T>, Unavailable> {
        let is_ours = |one: &T| DecisionId::is_of_mint(of(one).0, &self.keyring);
        let mut lost: Vec<T> = listed.into_iter().filter(is_ours).collect();
        self.with_live(|live| {
            let owed = live.mints().owed().iter().filter_map(|owed| owed.credential.as_ref());
            let known: HashSet<&str> = owed.filter_map(|made| made.handle.as_deref()).collect();
            lost.retain(|one| {
                let (mint, handle) = of(one);
                live.mints().line(mint).is_none() && !known.contains(handle)
            });
        })?;
        Ok(lost)
    }

    /// Begins a mint in place of one that the journal has lost, whose credential is to be ended. `line` gets the
    /// new mint's id, because a later line may have the lost one's.
    ///
    /// # Errors
    /// If the connection has too many endings, or the line cannot be written.
    pub fn begin_lost(&self, now: Timestamp, line: MintingLine) -> Result<Id, CommitError> {
        let mut chain = self.lock()?;
        let mint = chain.next_decision_id().to_mint(&self.keyring);
        let line = MintingLine { mint, opening: mint, lease: mint, ..line };
        let (opening, workflow) = (line.opening, &line.principal.workflow);
        chain.live().mints().owed().check_room(opening, workflow, line.uid)?;
        chain.append(now, &Event::Minting(Box::new(line)))?;
        Ok(mint)
    }

    /// Ends a mint whose credential the upstream has made. The lease of its decision awaits the credential until
    /// [`Journal::hand_out`], as all others do.
    ///
    /// # Errors
    /// If the mint is not under way, or the line cannot be written. The credential must not be used then.
    pub fn minted(
        &self,
        now: Timestamp,
        mint: Id,
        made: Made,
    ) -> Result<Arc<MintedCredential>, Unavailable> {
        let credential = Arc::new(MintedCredential {
            mint,
            handle: made.handle,
            credential_expire_time: made.credential_expire_time,
            end_told: made.is_end_told,
            outlives: made.is_own && !made.is_owed,
            owed: made.is_owed,
        });
        let mut chain = self.lock()?;
        let begun = chain.live().mints().find(mint).ok_or(Unavailable)?;
        let line = MintedLine {
            credential: Arc::clone(&credential),
            opening: begun.opening,
            lease: begun.lease,
            source: begun.source,
            resource: begun.resource.clone(),
            version: begun.version,
            upstream_request: made.upstream_request,
        };
        chain.append(now, &Event::Minted(Box::new(line)))?;
        Ok(credential)
    }

    /// Ends a mint that has made nothing. If the lease of its decision awaits the credential, the lease ends. `is_owed` if
    /// the upstream may have made it nevertheless, and the store keeps what ends it. Does nothing if the mint is not under
    /// way.
    ///
    /// # Errors
    /// If the line cannot be written. The mint then stays under way.
    pub fn mint_failed(
        &self,
        now: Timestamp,
        mint: Id,
        fault: MintFault,
        is_owed: bool,
    ) -> Result<(), Unavailable> {
        let mut chain = self.lock()?;
        let Some(begun) = chain.live().mints().find(mint) else { return Ok(()) };
        let line = failed(begun, fault, is_owed);
        chain.append(now, &line).map(drop)
    }

    /// Hands a minted credential to a step that has waited for it: writes the line, makes the permit, and returns the
    /// lease, which ends with the credential at the latest.
    ///
    /// # Errors
    /// As [`Journal::commit`]; [`CommitError::LeaseEnded`] if the lease has ended. [`CommitError::CredentialEnding`] is
    /// told first.
    pub fn hand_out(
        &self,
        now: Timestamp,
        waiter: Waiter<'_>,
        credential: &Arc<MintedCredential>,
    ) -> Result<(Permit<HandOut>, Lease), CommitError> {
        let decision = waiter.decision;
        let lease = self.join_mint(now, waiter, credential)?;
        Ok((Permit::to_hand_out(minted_record(credential.mint), lease.version, decision), lease))
    }

    /// Binds a lease that has waited for a minted credential to it: writes the line, and returns the lease.
    pub(super) fn join_mint(
        &self,
        now: Timestamp,
        waiter: Waiter<'_>,
        credential: &Arc<MintedCredential>,
    ) -> Result<Lease, CommitError> {
        let Waiter { epoch, opening, lease, source, resource, .. } = waiter;
        let mut chain = self.lock()?;
        chain.live_mut().expire(now);
        chain.live().check_decision(epoch, opening)?;
        chain.live().check_credential(credential)?;
        let is_its = |found: &&Lease| found.opening == opening.record().id && found.is_awaited();
        let found = chain.live().leases().find(lease).filter(is_its);
        let line = MintedLine {
            credential: Arc::clone(credential),
            opening: opening.record().id,
            lease,
            source,
            resource,
            version: found.ok_or(CommitError::LeaseEnded)?.version,
            upstream_request: None,
        };
        chain.append(now, &Event::MintJoined(Box::new(line)))?;
        chain.live().leases().find(lease).cloned().ok_or(CommitError::LeaseEnded)
    }

    /// Ends a lease that gets no credential. Does nothing if its credential is no longer awaited.
    ///
    /// # Errors
    /// If the line cannot be written. The lease then stays until it expires; nothing is handed out under it.
    pub fn stop_waiting(
        &self,
        now: Timestamp,
        lease: Id,
        mint: Option<Id>,
        resource: String,
        fault: MintFault,
    ) -> Result<(), Unavailable> {
        let mut chain = self.lock()?;
        let live = chain.live();
        let found = live.leases().find(lease).filter(|lease| lease.is_awaited());
        let Some(opening) = found.map(|lease| lease.opening) else { return Ok(()) };
        // Only its flight knows whether a mint is owed an ending. Without the flight's line, the mint is still under way.
        let mint = mint.filter(|mint| live.mints().find(*mint).is_none());
        let line = MintFailedLine { mint, opening, lease, resource, fault, owed: false };
        chain.append(now, &Event::MintFailed(Box::new(line))).map(drop)
    }

    /// At start: ends the mints that were under way when the daemon stopped, and the leases that awaited a credential.
    /// `is_kept` tells whether the store keeps what ends the credential of a mint: it is owed an ending then.
    ///
    /// # Errors
    /// If the lines cannot be written.
    pub fn interrupt_mints(
        &self,
        now: Timestamp,
        is_kept: impl Fn(Id) -> bool,
    ) -> Result<(), Unavailable> {
        let mut chain = self.lock()?;
        let live = chain.live();
        let interrupted =
            |begun: &MintingLine| failed(begun, MintFault::interrupted(), is_kept(begun.mint));
        let mut lines: Vec<Event> = live.mints().iter().map(interrupted).collect();
        let is_ended = |lease: &Lease| live.mints().iter().any(|begun| begun.lease == lease.id);
        let awaited = live.leases().iter().filter(|lease| lease.is_awaited() && !is_ended(lease));
        lines.extend(awaited.map(|lease| {
            let (lease, opening, resource) = (lease.id, lease.opening, lease.ask.target.to_text());
            let fault = MintFault::interrupted();
            Event::MintFailed(Box::new(MintFailedLine {
                mint: None,
                opening,
                lease,
                resource,
                fault,
                owed: false,
            }))
        }));
        chain.append_all(now, &lines).map(drop)
    }
}

/// The line of a mint that has made nothing.
fn failed(begun: &MintingLine, fault: MintFault, owed: bool) -> Event {
    Event::MintFailed(Box::new(MintFailedLine {
        mint: Some(begun.mint),
        opening: begun.opening,
        lease: begun.lease,
        resource: begun.resource.clone(),
        fault,
        owed,
    }))
}
