//! The end of a credential upstream.
//!
//! ```text
//! owed ─ ending ─ Permit<Root> ─ upstream ─ ended_upstream | left_to_expire | left_disabled
//! ```
//!
//! From `ending` on, nobody gets the credential any more. The ending goes on after a restart, and asks the upstream as often
//! as is needed: each time with a new permit for what the store keeps, under the same line.
//!
//! | a crash after | leaves | so the next start |
//! |---|---|---|
//! | `minting` | a mint under way, and nothing that ends it: nothing was asked, or nobody can end what was made | writes `mint_failed` |
//! | the store keeps what ends it | a mint under way that may have made it | writes `mint_failed`, owed; its ending is due |
//! | `minted` | a credential that is owed an ending; no lease is on it | begins its ending, which is due |
//! | `ending` | an ending that has begun | asks the upstream, once more perhaps |
//! | `ended_upstream` | a record that nothing needs ([`Journal::unneeded`]) | removes it |
//!
//! A record is removed by a batch, whose sync covers the line before. So no power cut leaves an ending without its record.

use std::sync::Arc;

use super::CommitError;
use crate::journal::commit::permit::{Permit, Root};
use crate::journal::event::{EndedLine, EndingLine, Event, MintingLine};
use crate::journal::{
    Candidates, Epoch, Journal, Live, LiveOpening, Owed, Position, Standing, Unavailable,
};
use crate::model::{Id, Timestamp};
use crate::seal::{RecordKey, RecordKind};

/// An ending that is due.
pub struct EndingRequest {
    /// The snapshot that says how the connection stands.
    pub epoch: Epoch,
    /// The mint.
    pub mint: Id,
    /// How the connection stands.
    pub standing: Standing,
}

impl Journal {
    /// Of these candidates, endings that are due, at most `most`, and how their connections stand. `standing` tells that by the
    /// snapshot `epoch`. There are none as long as the broker is not confirmed after it was restored.
    ///
    /// # Errors
    /// If that is not the newest snapshot, or the journal takes no lines.
    pub fn due_endings(
        &self,
        now: Timestamp,
        epoch: Epoch,
        candidates: Candidates<'_>,
        most: usize,
        mut standing: impl FnMut(&MintingLine) -> Standing,
    ) -> Result<Vec<(Owed, Standing)>, CommitError> {
        let mut chain = self.lock()?;
        let live = chain.live_mut();
        live.expire(now);
        if live.is_quarantined() {
            return Ok(Vec::new());
        }
        live.check_epoch(epoch)?;
        let mut due = Vec::new();
        for mint in live.mints().owed().candidates(candidates) {
            if due.len() == most {
                break;
            }
            let Some(owed) = live.mints().owed().find(mint) else { continue };
            let standing = standing(&owed.minting);
            if owed.due(live, standing).is_some() {
                due.push((owed.clone(), standing));
            } else {
                live.mints_mut().owed_mut().looked_at(mint);
            }
        }
        Ok(due)
    }

    /// Begins the ending of a credential: writes its line. Returns the line's place; `None` if the credential is in use
    /// again, or its ending has begun.
    ///
    /// # Errors
    /// If the decision is not on the newest snapshot, the broker was restored and is not confirmed yet, or the line cannot
    /// be written.
    pub fn begin_ending(
        &self,
        now: Timestamp,
        request: &EndingRequest,
    ) -> Result<Option<Position>, CommitError> {
        let EndingRequest { epoch, mint, standing } = *request;
        let mut chain = self.lock()?;
        chain.live_mut().expire(now);
        let live = chain.live();
        live.check_epoch(epoch)?;
        let due = live.mints().owed().find(mint);
        let due = due.and_then(|owed| Some((owed, owed.due(live, standing)?)));
        let Some((owed, reason)) = due else { return Ok(None) };
        let line = EndingLine {
            mint,
            opening: owed.minting.opening,
            principal: Arc::clone(&owed.minting.principal),
            resource: owed.minting.resource.clone(),
            reason,
        };
        Ok(Some(chain.append(now, &Event::Ending(Box::new(line)))?))
    }

    /// A credential whose ending has begun, and the permit for what the store keeps to end it. `None` if it has not begun, or
    /// is over.
    ///
    /// # Errors
    /// If the broker was restored and is not confirmed yet, or the journal takes no lines.
    pub fn permit_ending(&self, mint: Id) -> Result<Option<(Owed, Permit<Root>)>, CommitError> {
        let record = RecordKey { kind: RecordKind::Ending, uid: mint };
        self.permit_ending_with(mint, |made_from| Some((record, made_from.version)))
    }

    /// The permit for a later version of the connection's values, if the upstream has refused what the store keeps. `None`
    /// if the ending has not begun, or is over, or this is not the connection that the credential was made from.
    ///
    /// # Errors
    /// As [`Self::permit_ending`].
    pub fn permit_ending_by_newest(
        &self,
        mint: Id,
        (record, version): (RecordKey, u64),
    ) -> Result<Option<Permit<Root>>, CommitError> {
        let permitted = self.permit_ending_with(mint, |made_from| {
            let values = RecordKey { kind: RecordKind::ConnectionValues, uid: made_from.uid };
            let is_later = record == values && version > made_from.version;
            is_later.then_some((record, version))
        });
        Ok(permitted?.map(|(_, permit)| permit))
    }

    fn permit_ending_with(
        &self,
        mint: Id,
        choose: impl FnOnce(&MintingLine) -> Option<(RecordKey, u64)>,
    ) -> Result<Option<(Owed, Permit<Root>)>, CommitError> {
        let chain = self.lock()?;
        let live = chain.live();
        if live.is_quarantined() {
            return Err(CommitError::Quarantined);
        }
        let begun = live.mints().owed().find(mint).filter(|owed| owed.begun.is_some());
        Ok(begun.and_then(|owed| {
            let (record, version) = choose(&owed.minting)?;
            Some((owed.clone(), Permit::to_root(record, version, owed.minting.decision)))
        }))
    }

    /// Writes how an ending is over, or that something of the credential stays. `event` makes the line. Does nothing if the
    /// ending has not begun, or is over.
    ///
    /// # Errors
    /// If the line cannot be written. The ending is then repeated.
    pub fn end(
        &self,
        now: Timestamp,
        mint: Id,
        event: impl FnOnce(Box<EndedLine>) -> Event,
    ) -> Result<Option<Position>, Unavailable> {
        let mut chain = self.lock()?;
        let owed = chain.live().mints().owed().find(mint);
        let Some(owed) = owed.filter(|owed| owed.begun.is_some()) else { return Ok(None) };
        let line = Box::new(ended(owed));
        chain.append(now, &event(line)).map(Some)
    }

    /// The mints that need no record of what ends them any more, and did when this was asked last. They have their lines
    /// before: a snapshot that is taken later has their records.
    ///
    /// # Errors
    /// If the journal takes no lines.
    pub fn take_over(&self) -> Result<Vec<Id>, Unavailable> {
        let mut chain = self.lock()?;
        let mut over = chain.live_mut().mints_mut().owed_mut().take_over();
        over.retain(|mint| chain.live().mints().line(*mint).is_none());
        Ok(over)
    }

    /// Of these mints, for each of which the store keeps what ends its credential, those that are neither under way nor owed
    /// an ending: nothing needs their records. The caller takes the mints from a snapshot first: a mint has its line before
    /// its record.
    ///
    /// # Errors
    /// If the journal hangs.
    pub fn unneeded(&self, kept: impl Iterator<Item = Id>) -> Result<Vec<Id>, Unavailable> {
        self.with_live(|live| kept.filter(|mint| live.mints().line(*mint).is_none()).collect())
    }
}

/// The lines of credentials that an opening has for itself and that outlive it.
pub(in crate::journal) fn left_to_expire(
    live: &Live,
    opening: &LiveOpening,
    now: Timestamp,
) -> Vec<Event> {
    let lines = live.mints().outliving(opening.record().id, now).map(|one| {
        Event::LeftToExpire(Box::new(EndedLine {
            mint: one.credential.mint,
            opening: one.opening,
            principal: opening.principal(),
            resource: one.resource.clone(),
            handle: one.credential.handle.clone(),
            credential_expire_time: one.credential.told_end(),
            detail: String::new(),
        }))
    });
    lines.collect()
}

/// The line of the end of a credential, without why it was left.
fn ended(owed: &Owed) -> EndedLine {
    EndedLine {
        mint: owed.mint(),
        opening: owed.minting.opening,
        principal: Arc::clone(&owed.minting.principal),
        resource: owed.minting.resource.clone(),
        handle: owed.credential.as_ref().and_then(|made| made.handle.clone()),
        credential_expire_time: None,
        detail: String::new(),
    }
}
