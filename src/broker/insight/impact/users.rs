//! The workflows that a change concerns, by what they have used.

use std::collections::{BTreeMap, BTreeSet};

use super::proposed::ProposedChange;
use super::values::{self, gone_members};
use crate::access::Relation;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::insight::suggest::admitting;
use crate::catalog::Catalog;
use crate::journal::Use;
use crate::model::limits::RECENTLY_USED;
use crate::model::{GroupName, Id, WorkflowName};

impl Broker {
    /// The workflows that have used it recently, and that the change concerns.
    pub(super) fn losing_workflows(
        &self,
        old: &Catalog,
        new: &Catalog,
        change: &ProposedChange,
    ) -> Result<Vec<(WorkflowName, Use)>, Error> {
        let since = self.now().before(RECENTLY_USED);
        let (uids, groups) = (used_directly(change, old, new), used_by_group(change, old, new));
        let mut all = BTreeMap::<WorkflowName, Use>::new();
        let mut add = |users: Vec<(WorkflowName, Use)>| {
            for (name, used) in users {
                all.entry(name).and_modify(|known| *known = known.and(used)).or_insert(used);
            }
        };
        for uid in &uids {
            add(self.journal.with_live(|live| live.usage().users_of(*uid, since))?);
        }
        let mut by_group = Vec::new();
        for name in &groups {
            let users = self.journal.with_live(|live| live.usage().users_of_group(name, since))?;
            by_group.extend(users);
        }
        // A group that loses a member matters to those who have used both.
        let names: BTreeSet<WorkflowName> = by_group.iter().map(|(name, _)| name.clone()).collect();
        if uids.is_empty() && !is_of_members(change) {
            add(by_group);
        }
        let is_by_group = !groups.is_empty() && !uids.is_empty();
        all.retain(|name, _| {
            (!is_by_group || names.contains(name)) && concerns(change, old, new, name)
        });
        Ok(all.into_iter().collect())
    }
}

fn is_of_members(change: &ProposedChange) -> bool {
    matches!(change, ProposedChange::Members { .. })
}

/// The resources whose users a change concerns.
fn used_directly(change: &ProposedChange, old: &Catalog, new: &Catalog) -> Vec<Id> {
    if is_of_members(change) {
        let groups = change.group(old).zip(change.group(new));
        let gone = groups.map(|(old, new)| gone_members(old, new)).unwrap_or_default();
        return gone.iter().map(|one| one.metadata.uid).collect();
    }
    let connection = change.connection(old).map(|found| found.metadata.uid);
    connection.into_iter().chain(change.secret(old)).collect()
}

/// The groups whose users a change concerns.
fn used_by_group(change: &ProposedChange, old: &Catalog, new: &Catalog) -> Vec<GroupName> {
    match change {
        ProposedChange::Tags(..) => {
            values::lost(old, new, change).into_iter().map(|one| one.group).collect()
        }
        _ => change.group(old).map(|group| group.metadata.name.clone()).into_iter().collect(),
    }
}

/// Whether a change concerns a workflow that has used what it changes.
fn concerns(
    change: &ProposedChange,
    old: &Catalog,
    new: &Catalog,
    workflow: &WorkflowName,
) -> bool {
    match change {
        ProposedChange::Access(..) => {
            let admits = |catalog| {
                let group =
                    change.group(catalog).map(|found| (Relation::Viewer, &found.metadata.access));
                let connection = change
                    .connection(catalog)
                    .map(|found| (Relation::User, &found.metadata.access));
                let of = connection.or(group);
                of.is_some_and(|(needed, access)| !admitting(workflow, needed, access).is_empty())
            };
            admits(old) && !admits(new)
        }
        // Tags matter to steps only where a group selects by them.
        ProposedChange::Tags(..) => !values::lost(old, new, change).is_empty(),
        ProposedChange::Release(_, release) => {
            let before = change.connection(old).map(|found| found.metadata.release);
            release.is_some_and(|release| before != Some(release))
        }
        ProposedChange::Delete(_) | ProposedChange::Members { .. } => true,
    }
}
