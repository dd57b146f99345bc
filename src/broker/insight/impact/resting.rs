//! The live leases that rest on what a change changes, found in short looks at the journal.

use std::sync::Arc;

use super::proposed::ProposedChange;
use crate::access::Blocks;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::list::scan::CHUNK;
use crate::broker::resolve::authorize::is_allowed_in;
use crate::catalog::{Catalog, InForce};
use crate::journal::LiveOpening;
use crate::lease::{Lease, LeaseTarget};
use crate::model::{GroupName, Id, ResourceName, StepKey, Timestamp};

/// A live lease that a change ends, or whose credential is ended upstream.
pub struct ImpactedLease {
    /// The step that holds it.
    pub step: StepKey,
    /// The full name of the resource that was handed out.
    pub resource: String,
    /// The version that was handed out.
    pub version: u64,
    /// When it would expire.
    pub expire_time: Timestamp,
}

/// A live lease with the opening that holds it.
pub(super) struct RestingLease {
    pub(super) lease: Lease,
    pub(super) opening: Arc<LiveOpening>,
    /// The full name of its resource.
    resource: String,
}

impl RestingLease {
    pub(super) fn step(&self) -> &StepKey {
        &self.opening.record().key
    }

    /// Whether a catalogue allows it.
    pub(super) fn is_allowed_by(&self, catalog: &Catalog) -> bool {
        // A blocked resource has no lease to lose.
        let rules = InForce { catalog, blocks: &Blocks::default() };
        is_allowed_in(rules, self.opening.record(), &self.lease)
    }

    pub(super) fn impacted(&self) -> ImpactedLease {
        ImpactedLease {
            step: self.step().clone(),
            resource: self.resource.clone(),
            version: self.lease.version,
            expire_time: self.lease.expire_time,
        }
    }
}

impl Broker {
    /// The live leases that a change may end.
    pub(super) fn resting_on(
        &self,
        old: &Catalog,
        change: &ProposedChange,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<RestingLease>, Error> {
        let mut found = Vec::new();
        let mut take = |uid: Id, name: &str, group: Option<&GroupName>| {
            for (lease, opening) in self.leases_on(uid, group, is_cancelled)? {
                found.push(RestingLease { lease, opening, resource: name.to_owned() });
            }
            Ok::<(), Error>(())
        };
        if let Some(connection) = change.connection(old) {
            let name = ResourceName::Connection(connection.metadata.reference());
            take(connection.metadata.uid, &name.to_text(), None)?;
        }
        if let (Some(uid), ProposedChange::Delete(name)) = (change.secret(old), change) {
            take(uid, &name.to_text(), None)?;
        }
        if let Some(group) = change.group(old) {
            let members: Vec<_> = group.members().collect();
            for members in members.chunks(CHUNK) {
                let held = self.journal.with_live(|live| {
                    let is_held = |uid| live.leases().count_on(uid) > 0;
                    members.iter().map(|one| is_held(one.metadata.uid)).collect::<Vec<_>>()
                })?;
                for (member, _) in members.iter().zip(held).filter(|(_, is_held)| *is_held) {
                    let metadata = &member.metadata;
                    let name = ResourceName::Connection(metadata.reference());
                    take(metadata.uid, &name.to_text(), Some(&group.metadata.name))?;
                }
                std::thread::yield_now();
            }
        }
        Ok(found)
    }

    /// The live leases on a resource, with the openings that hold them: all, or those that were asked for by a group.
    fn leases_on(
        &self,
        uid: Id,
        group: Option<&GroupName>,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<(Lease, Arc<LiveOpening>)>, Error> {
        let ids: Vec<Id> = self.journal.with_live(|live| live.leases().ids_on(uid).collect())?;
        let mut found = Vec::new();
        for ids in ids.chunks(CHUNK) {
            if is_cancelled() {
                return Err(Error::Draining);
            }
            let is_wanted = |lease: &&Lease| match (&lease.ask.target, group) {
                (_, None) => true,
                (LeaseTarget::Group(asked), Some(group)) => asked.name == *group,
                (_, Some(_)) => false,
            };
            self.journal.with_live(|live| {
                let leases = ids.iter().filter_map(|id| live.leases().find(*id)).filter(is_wanted);
                let held = leases.filter_map(|lease| {
                    Some((lease.clone(), Arc::clone(live.opening(lease.opening)?)))
                });
                found.extend(held);
            })?;
            std::thread::yield_now();
        }
        Ok(found)
    }
}
