//! A batch of changes: data that the catalogue folds, the store writes and the journal notes.

use std::collections::{BTreeSet, HashMap};

use crate::broker::error::Error;
use crate::broker::resolve::authorize::is_still_allowed;
use crate::catalog::{Catalog, Change, Resource};
use crate::journal::{ChangeNote, Live, RequestNote};
use crate::lease::Lease;
use crate::model::Id;
use crate::seal::Keyring;
use crate::store::Operation;

/// Everything that a batch does, in order.
#[derive(Default)]
pub(crate) struct Batch {
    /// The steps that lead from the catalogue before to the catalogue after.
    pub(super) changes: Vec<Change>,
    /// The notes of its intent.
    pub(super) notes: Vec<ChangeNote>,
    /// The requests with an id that it completes.
    pub(super) requests: Vec<RequestNote>,
    pub(super) affected: AffectedLeases,
}

/// An end of a batch, to which a refused change takes it back.
pub(super) struct BatchMark {
    changes: usize,
    notes: usize,
    requests: usize,
    resources: usize,
    all: bool,
}

/// The leases that are decided again when a batch is published.
#[derive(Default)]
pub(crate) struct AffectedLeases {
    pub(super) resources: Vec<Id>,
    /// True for all leases: a change of a group may concern any of them.
    pub(super) all: bool,
}

impl Batch {
    /// True if there is nothing to write. A completed request is written although it changed nothing: made again, it
    /// might change something.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.requests.is_empty()
    }

    /// True if no decision depends on it: all of its records are what the broker keeps for itself.
    pub(super) fn is_apart(&self) -> bool {
        let resource = |change: &Change| match change {
            Change::Put(resource) | Change::Remove(resource) => {
                matches!(resource, Resource::Kept(_))
            }
        };
        self.changes.iter().all(resource)
    }

    /// The batch's present end.
    pub(super) fn mark(&self) -> BatchMark {
        BatchMark {
            changes: self.changes.len(),
            notes: self.notes.len(),
            requests: self.requests.len(),
            resources: self.affected.resources.len(),
            all: self.affected.all,
        }
    }

    /// Takes back everything since the mark.
    pub(super) fn truncate(&mut self, mark: &BatchMark) {
        self.changes.truncate(mark.changes);
        self.notes.truncate(mark.notes);
        self.requests.truncate(mark.requests);
        self.affected.resources.truncate(mark.resources);
        self.affected.all = mark.all;
    }

    /// The notes since the mark.
    pub(super) fn notes_since(&self, mark: &BatchMark) -> impl Iterator<Item = &ChangeNote> {
        self.notes.iter().skip(mark.notes)
    }

    /// The sealed writes that bring a store at the catalogue `before` to the end of the batch.
    ///
    /// # Errors
    /// If there are no random numbers to seal with.
    pub(super) fn seal(
        &self,
        before: &Catalog,
        keyring: &Keyring,
    ) -> Result<Vec<Operation>, Error> {
        let mut operations = Vec::with_capacity(2 * self.changes.len());
        for change in &self.changes {
            let resource = match change {
                Change::Put(resource) => resource,
                Change::Remove(resource) => {
                    operations.extend(resource.keys().into_iter().map(Operation::Remove));
                    continue;
                }
            };
            let records = resource.seal(keyring)?;
            let Resource::Connection(connection) = resource else {
                let puts = records.into_iter().map(|(key, sealed)| Operation::Put(key, sealed));
                operations.extend(puts);
                continue;
            };
            let metadata = &connection.metadata;
            let old = before.connection(&metadata.reference());
            let old = old.filter(|old| old.metadata.uid == metadata.uid);
            for (key, sealed) in records {
                match old.map(|old| &old.values) {
                    None => operations.push(Operation::Add(key, sealed)),
                    // The store has these values already.
                    Some(values) if values.key == key && values.sealed == sealed => {}
                    Some(_) => operations.push(Operation::Put(key, sealed)),
                }
            }
        }
        Ok(operations)
    }
}

impl AffectedLeases {
    /// True if the batch changes nothing that a lease depends on.
    pub(super) fn is_empty(&self) -> bool {
        !self.all && self.resources.is_empty()
    }

    /// The resources that the batch changes, as far as leases depend on them; `None` for any of them.
    pub(super) fn changed(&self) -> Option<&[Id]> {
        (!self.all).then_some(&*self.resources)
    }

    /// The leases that the new catalogue no longer allows.
    pub(super) fn revoked(&self, catalog: &Catalog, live: &Live) -> Vec<Id> {
        if self.all {
            return revoked_by_all(catalog, live);
        }
        let resources: BTreeSet<Id> = self.resources.iter().copied().collect();
        let leases = resources.iter().flat_map(|uid| live.leases().of_resource(*uid));
        // Leases of a step on a resource by the same target are decided once: a step often has many Watches alike.
        let mut decided = HashMap::new();
        ended(leases, |lease| {
            // An action of the broker needs another relation than Resolve.
            let is_for_step = lease.ask.action.is_none();
            let alike = (lease.resource, lease.opening, &lease.ask.target, is_for_step);
            *decided.entry(alike).or_insert_with(|| is_still_allowed(catalog, live, lease))
        })
    }
}

/// The leases, of all live ones, that the catalogue does not allow.
pub(crate) fn revoked_by_all(catalog: &Catalog, live: &Live) -> Vec<Id> {
    ended(live.leases().iter(), |lease| is_still_allowed(catalog, live, lease))
}

fn ended<'a>(
    leases: impl Iterator<Item = &'a Lease>,
    mut is_allowed: impl FnMut(&'a Lease) -> bool,
) -> Vec<Id> {
    let ended = leases.filter(|lease| !is_allowed(lease));
    let mut ids: Vec<Id> = ended.map(|lease| lease.id).collect();
    ids.sort_unstable();
    ids
}
