//! Leases for operators: listed and revoked.

use std::sync::Arc;

use super::ended_by;
use super::refusal::LeverRefusal;
use crate::access::{Principal, Role};
use crate::broker::Broker;
use crate::broker::changes::checks::require_editor;
use crate::broker::error::Error;
use crate::broker::registry::operators::{require_operator, require_role};
use crate::broker::resolve::explain::target_connection;
use crate::catalog::{Catalog, ConnectionMetadata};
use crate::journal::{Live, LiveOpening};
use crate::lease::{Lease, LeaseTarget};
use crate::model::{
    Because, ConnectionRef, Id, IdSet, Opening, ResourceName, RunName, StepName, Timestamp,
    WorkflowName,
};

/// Which live leases are meant; unset parts admit every lease.
#[derive(Clone, Debug, Default)]
pub struct LeaseFilter {
    /// The connection that they are on.
    pub connection: Option<ConnectionRef>,
    /// The workflow of their steps.
    pub workflow: Option<WorkflowName>,
    /// The run of their steps.
    pub run: Option<RunName>,
    /// Their steps.
    pub step: Option<StepName>,
    /// The version that was handed out; only with a connection.
    pub version: Option<u64>,
}

/// Which leases are revoked.
#[derive(Clone, Debug)]
pub enum LeaseSelector {
    /// The lease of this id.
    One(Id),
    /// All that a filter admits.
    All(LeaseFilter),
}

/// A live lease in a list.
#[derive(Debug)]
pub struct ListedLease {
    /// The lease.
    pub lease: Lease,
    /// The full name of what it is on.
    pub resource: String,
    /// The opening that holds it.
    pub opening: Opening,
}

/// What the revocation of leases has done.
#[derive(Debug)]
pub struct RevokedLeases {
    /// How many leases were revoked.
    pub revoked: usize,
    /// The mints whose credentials are ended for it, those under way included.
    pub endings: Vec<Id>,
}

impl LeaseFilter {
    fn admits_step(&self, opening: &Opening) -> bool {
        let key = &opening.key;
        self.workflow.as_ref().is_none_or(|workflow| *workflow == key.workflow)
            && self.run.as_ref().is_none_or(|run| *run == key.run)
            && self.step.as_ref().is_none_or(|step| *step == key.step)
    }

    /// The uid of the filter's connection, if it names one.
    fn resource(&self, catalog: &Catalog) -> Result<Option<Id>, Error> {
        let Some(name) = &self.connection else { return Ok(None) };
        match catalog.connection(name) {
            Some(found) => Ok(Some(found.metadata.uid)),
            None => Err(Error::NotFound(ResourceName::Connection(name.clone())).or_newer(catalog)),
        }
    }

    /// The leases that it admits, of all that are live, in no order.
    fn find<'a>(&self, live: &'a Live, on: Option<Id>, now: Timestamp) -> Vec<&'a Lease> {
        let is_one = |lease: &&Lease| {
            now < lease.expire_time
                && self.version.is_none_or(|version| version == lease.version)
                && on.is_none_or(|resource| resource == lease.resource)
        };
        if let Some(resource) = on {
            let of_step = |lease: &&Lease| {
                live.opening(lease.opening).is_some_and(|one| self.admits_step(one.record()))
            };
            return live.leases().of_resource(resource).filter(is_one).filter(of_step).collect();
        }
        let openings = live.openings().filter(|one| self.admits_step(one.record()));
        let leases = openings.flat_map(|one| live.leases().held_by(one.record().id));
        leases.filter(is_one).collect()
    }

    /// The first `size` of them after a lease, in the order of their ids, with their openings; and whether there are more.
    fn page(
        &self,
        live: &Live,
        on: Option<Id>,
        now: Timestamp,
        after: Option<Id>,
        size: usize,
    ) -> (Vec<(Lease, Arc<LiveOpening>)>, bool) {
        let mut found = self.find(live, on, now);
        found.retain(|lease| after.is_none_or(|after| lease.id > after));
        let has_more = found.len() > size;
        if has_more {
            found.select_nth_unstable_by_key(size, |lease| lease.id);
            found.truncate(size);
        }
        found.sort_unstable_by_key(|lease| lease.id);
        let with_opening =
            |lease: &Lease| Some((lease.clone(), Arc::clone(live.opening(lease.opening)?)));
        (found.into_iter().filter_map(with_opening).collect(), has_more)
    }
}

impl Broker {
    /// Live leases that the filter admits, in the order of their ids after `after`, at most `size`; and whether there are more.
    ///
    /// # Errors
    /// See `LeaseService.ListLeases`.
    pub fn list_leases(
        &self,
        caller: &Principal,
        filter: &LeaseFilter,
        after: Option<Id>,
        size: usize,
    ) -> Result<(Vec<ListedLease>, bool), Error> {
        require_operator(caller)?;
        let (snapshot, now) = (self.snapshot(), self.now());
        let on = filter.resource(&snapshot.catalog)?;
        let page = self.journal.with_live(|live| filter.page(live, on, now, after, size));
        let (found, has_more) = page?;
        let listed = found.into_iter().map(|(lease, opening)| ListedLease {
            resource: resource_of(&snapshot.catalog, &lease),
            opening: opening.record().clone(),
            lease,
        });
        Ok((listed.collect(), has_more))
    }

    /// Revokes leases: their Watches and exchanges end, and their credentials are ended upstream where the broker owes
    /// that. With `is_trial` nothing is revoked, and the answer is how many would be.
    ///
    /// # Errors
    /// See `LeaseService.RevokeLeases`.
    pub async fn revoke_leases(
        &self,
        caller: &Principal,
        selector: &LeaseSelector,
        reason: Because,
        is_trial: bool,
    ) -> Result<RevokedLeases, Error> {
        require_role(caller, Role::Operator)?;
        let now = self.now();
        if is_trial {
            let revoked = self.journal.with_live(|live| {
                self.chosen(live, caller, selector, now).map(|chosen| chosen.len())
            })??;
            return Ok(RevokedLeases { revoked, endings: Vec::new() });
        }
        let by = ended_by(caller, reason);
        let ended = self.journal.revoke_chosen(
            now,
            &by,
            |live| self.chosen(live, caller, selector, now),
            |live| self.publish_again(live),
        )?;
        let Some(ended) = ended else {
            // Another request may have ended them.
            self.journal.synced(self.journal.last()?).await?;
            return Ok(RevokedLeases { revoked: 0, endings: Vec::new() });
        };
        self.settle_ended(&ended).await?;
        Ok(RevokedLeases { revoked: ended.leases, endings: ended.mints })
    }

    /// The leases to revoke, all of which the caller may revoke.
    fn chosen<'a>(
        &self,
        live: &'a Live,
        caller: &Principal,
        selector: &LeaseSelector,
        now: Timestamp,
    ) -> Result<Vec<&'a Lease>, Error> {
        let snapshot = self.snapshot();
        let catalog = &snapshot.catalog;
        let chosen = match selector {
            LeaseSelector::One(id) => {
                let found = live.leases().find(*id).filter(|lease| now < lease.expire_time);
                vec![found.ok_or(LeverRefusal::LeaseOver(*id))?]
            }
            LeaseSelector::All(filter) => filter.find(live, filter.resource(catalog)?, now),
        };
        let named = match selector {
            LeaseSelector::All(LeaseFilter { connection: Some(name), .. }) => {
                catalog.connection(name)
            }
            _ => None,
        };
        if let Some(connection) = named {
            let metadata = &connection.metadata;
            let name = ResourceName::Connection(metadata.reference());
            require_editor(caller, &metadata.access, &name)?;
        }
        let mut is_checked = IdSet::default();
        for lease in &chosen {
            if is_checked.insert(lease.resource)
                && let Some(metadata) = connection_of(catalog, lease)
            {
                let name = ResourceName::Connection(metadata.reference());
                require_editor(caller, &metadata.access, &name)?;
            }
        }
        Ok(chosen)
    }
}

/// The connection of a lease; `None` if it is on a secret, which every operator of that role may delete.
fn connection_of<'a>(catalog: &'a Catalog, lease: &Lease) -> Option<&'a ConnectionMetadata> {
    if matches!(lease.ask.target, LeaseTarget::Secret(_)) {
        return None;
    }
    let name = target_connection(catalog, &lease.ask.target.reference());
    let named = name.and_then(|name| catalog.connection(&name));
    let is_it = |metadata: &&ConnectionMetadata| metadata.uid == lease.resource;
    let named = named.map(|connection| &connection.metadata).filter(is_it);
    // The group or default may have another connection since.
    let all = || catalog.connections_after(None).map(|connection| &connection.metadata);
    named.or_else(|| all().find(is_it))
}

/// The full name of what a lease is on.
fn resource_of(catalog: &Catalog, lease: &Lease) -> String {
    match connection_of(catalog, lease) {
        Some(metadata) => ResourceName::Connection(metadata.reference()).to_text(),
        None => lease.ask.target.to_text(),
    }
}
