//! Leases that end before they expire: by their step, or by an operator.
//!
//! What an operator ends is published like a change: decisions that were made before are stale, so that no delivery of a
//! Watch overtakes it.

use std::collections::BTreeMap;

use crate::journal::event::{EndedLeases, Event, LEASES_IN_LINE, RevocationLine};
use crate::journal::state::live::Live;
use crate::journal::{Journal, Position, Unavailable};
use crate::lease::Lease;
use crate::model::{Because, Id, IdSet, Timestamp};

/// Who ends something, and why.
#[derive(Clone, Debug)]
pub struct EndedBy {
    /// The operator.
    pub principal: String,
    /// Why, in the operator's words.
    pub reason: Because,
}

/// What an operator has ended.
#[derive(Debug)]
pub struct Ended {
    /// The last line.
    pub position: Position,
    /// How many leases.
    pub leases: usize,
    /// The mints whose credentials may be ended for it: those of the leases that are owed an ending, and those under way.
    pub mints: Vec<Id>,
}

impl Journal {
    /// Ends a lease of an opening before it expires; `None` if the opening holds no such lease. Returns the line, and the
    /// mints of the lease: of its credential if that is owed an ending, and of the next one that is under way.
    ///
    /// # Errors
    /// If the line cannot be written. The lease stays live then.
    pub fn revoke(
        &self,
        now: Timestamp,
        opening: Id,
        lease: Id,
    ) -> Result<Option<(Position, Vec<Id>)>, Unavailable> {
        let mut chain = self.lock()?;
        let live = chain.live();
        let found = live.leases().find(lease);
        let Some(found) = found.filter(|one| one.opening == opening && now < one.expire_time)
        else {
            return Ok(None);
        };
        let mints = mints_of(live, &[found]);
        let position = chain.append(now, &Event::LeaseRevoked { opening, lease })?;
        Ok(Some((position, mints)))
    }

    /// Ends the leases that `choose` finds. `publish` makes the next snapshot visible. `None` if there is no such lease.
    ///
    /// # Errors
    /// As `choose`, or if a line cannot be written: nothing has ended then.
    pub fn revoke_chosen<E: From<Unavailable>>(
        &self,
        now: Timestamp,
        by: &EndedBy,
        choose: impl FnOnce(&Live) -> Result<Vec<&Lease>, E>,
        publish: impl FnOnce(&Live),
    ) -> Result<Option<Ended>, E> {
        let mut chain = self.lock()?;
        chain.live_mut().expire(now);
        let chosen = choose(chain.live())?;
        let (leases, mints) = (chosen.len(), mints_of(chain.live(), &chosen));
        let lines = revocations(chain.live(), by, &chosen);
        if lines.is_empty() {
            return Ok(None);
        }
        chain.append_all(now, &lines)?;
        chain.live_mut().next_epoch();
        publish(chain.live());
        Ok(Some(Ended { position: chain.last(), leases, mints }))
    }
}

/// The lines that end leases.
pub(super) fn revocations(live: &Live, by: &EndedBy, leases: &[&Lease]) -> Vec<Event> {
    let line = |leases: &[&Lease]| {
        let EndedBy { principal, reason } = by.clone();
        let revoked = by_opening(live, leases);
        Event::LeasesRevoked(Box::new(RevocationLine { principal, reason, revoked }))
    };
    leases.chunks(LEASES_IN_LINE).map(line).collect()
}

/// The mints of leases: of their credentials that are owed an ending, and those that are under way for them.
pub(super) fn mints_of(live: &Live, leases: &[&Lease]) -> Vec<Id> {
    let ids: IdSet = leases.iter().map(|lease| lease.id).collect();
    let flying = live.mints().iter().filter(|line| ids.contains(&line.lease));
    let made = leases.iter().filter_map(|lease| lease.credential()).map(|made| made.mint);
    let owed = made.filter(|mint| live.mints().owed().find(*mint).is_some());
    let mut mints: Vec<Id> = flying.map(|line| line.mint).chain(owed).collect();
    mints.sort_unstable();
    mints.dedup();
    mints
}

/// Leases as lines name them. A lease without an opening cannot be.
pub(super) fn by_opening(live: &Live, leases: &[&Lease]) -> Vec<EndedLeases> {
    let mut by: BTreeMap<Id, EndedLeases> = BTreeMap::new();
    for lease in leases {
        let Some(opening) = live.opening(lease.opening) else { continue };
        let new = || EndedLeases {
            opening: lease.opening,
            step: opening.principal(),
            leases: Vec::new(),
        };
        by.entry(lease.opening).or_insert_with(new).leases.push(lease.id);
    }
    by.into_values().collect()
}
