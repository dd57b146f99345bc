//! The identifier values that groups lose.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::proposed::ProposedChange;
use crate::catalog::{Catalog, Connection, ConnectionMetadata, Group};
use crate::model::{ConnectionRef, GroupName, Id, Tag, TagKey};

/// The values by which a group finds a member no more.
pub struct LostValues {
    /// The group.
    pub group: GroupName,
    /// The member.
    pub member: ConnectionRef,
    /// The values.
    pub lost: Vec<Tag>,
    /// The values by which the group finds it from then on; empty if it is no member then.
    pub new: Vec<Tag>,
}

/// The values that groups lose by a change.
pub(super) fn lost(old: &Catalog, new: &Catalog, change: &ProposedChange) -> Vec<LostValues> {
    if let Some(connection) = change.connection(old) {
        let member = &connection.metadata;
        let after = change.connection(new);
        let lost = old.groups_of(member).filter_map(|group| of_member(group, member, after));
        return lost.collect();
    }
    let Some(group) = change.group(old) else { return Vec::new() };
    let gone: Vec<&Arc<Connection>> = match change.group(new) {
        Some(after) => gone_members(group, after),
        None => group.members().collect(),
    };
    let mut lost: Vec<_> =
        gone.into_iter().filter_map(|one| of_member(group, &one.metadata, None)).collect();
    lost.sort_by(|one, other| one.member.cmp(&other.member));
    lost
}

/// The members of the old group that the new group does not have.
pub(super) fn gone_members<'g>(old: &'g Group, new: &Group) -> Vec<&'g Arc<Connection>> {
    let left: BTreeSet<Id> = new.members().map(|member| member.metadata.uid).collect();
    old.members().filter(|member| !left.contains(&member.metadata.uid)).collect()
}

/// The values that a group loses with a member as it was, which is `after` from then on.
fn of_member(
    group: &Group,
    member: &ConnectionMetadata,
    after: Option<&Arc<Connection>>,
) -> Option<LostValues> {
    let lost = values(group, member);
    let new = after.map(|after| values(group, &after.metadata)).unwrap_or_default();
    let (group, member) = (group.metadata.name.clone(), member.reference());
    (lost != new).then_some(LostValues { group, member, lost, new })
}

fn values(group: &Group, member: &ConnectionMetadata) -> Vec<Tag> {
    let of_key = |key: &TagKey| {
        let value = member.tags.value(key)?.clone();
        Some(Tag { key: key.clone(), value })
    };
    group.metadata.identifiers.iter().filter_map(of_key).collect()
}
