//! Connection groups: created, renamed, re-identified, filled and emptied.
//!
//! Every member has every identifier, and no two have the same values. That is checked wherever it could
//! break: when a member is added, when a member's tags change, when the identifiers are replaced.

use std::collections::{BTreeMap, BTreeSet};

use super::Broker;
use super::connections::{Stamp, require_editor};
use super::error::Error;
use super::operators::{require_operator, require_role};
use super::writer::Draft;
use crate::access::{Bindings, Decision, Pattern, Principal, Relation, Role, decide, decide_edit};
use crate::catalog::{Connection, ConnectionMetadata, Group, GroupMetadata, NotAdmitted};
use crate::integration;
use crate::journal::ChangeNote;
use crate::model::{ConnectionRef, GroupName, Identifiers, IntegrationName, Invalid, ResourceName};
use crate::seal::{RecordKey, RecordKind, random_id};

/// A new group.
pub struct NewGroup {
    /// Its name.
    pub name: GroupName,
    /// The type of its members.
    pub integration: IntegrationName,
    /// What tells its members apart.
    pub identifiers: Identifiers,
    /// Viewers and editors.
    pub access: BTreeMap<Relation, BTreeSet<Pattern>>,
}

/// What is to be different about a group.
#[derive(Default)]
pub struct GroupChange {
    /// Its new name.
    pub new_name: Option<GroupName>,
    /// Its identifiers from now on.
    pub identifiers: Option<Identifiers>,
    /// The relations to replace.
    pub access: BTreeMap<Relation, BTreeSet<Pattern>>,
    /// Change only if this is still its etag.
    pub etag: Option<String>,
}

/// A group as an operator sees it.
pub struct ListedGroup {
    /// The group.
    pub metadata: GroupMetadata,
    /// How many members it has.
    pub members: usize,
}

impl From<&Group> for ListedGroup {
    fn from(group: &Group) -> Self {
        Self { metadata: group.metadata.clone(), members: group.len() }
    }
}

impl Broker {
    /// Creates an empty group; the caller becomes an editor.
    ///
    /// # Errors
    /// See `GroupService.CreateGroup`.
    pub async fn create_group(
        &self,
        caller: Principal,
        new: NewGroup,
    ) -> Result<ListedGroup, Error> {
        require_role(&caller, Role::Operator)?;
        self.writer.submit(move |draft| create(draft, &caller, new)).await
    }

    /// A group.
    ///
    /// # Errors
    /// See `GroupService.GetGroup`.
    pub fn group(&self, caller: &Principal, name: &GroupName) -> Result<ListedGroup, Error> {
        require_operator(caller)?;
        let snapshot = self.snapshot();
        let found = snapshot.catalog.group(name).map(|group| ListedGroup::from(group.as_ref()));
        found.ok_or_else(|| absent(name))
    }

    /// Groups after `after`, by name, and where the next page starts.
    ///
    /// # Errors
    /// If the caller is no operator.
    pub fn groups(
        &self,
        caller: &Principal,
        after: Option<&GroupName>,
        size: usize,
    ) -> Result<(Vec<ListedGroup>, Option<GroupName>), Error> {
        require_operator(caller)?;
        let snapshot = self.snapshot();
        let mut found = snapshot.catalog.groups_after(after);
        let groups: Vec<_> =
            found.by_ref().take(size).map(|group| ListedGroup::from(group.as_ref())).collect();
        let more = found.next().is_some();
        let next = groups.last().filter(|_| more).map(|group| group.metadata.name.clone());
        Ok((groups, next))
    }

    /// The members of a group after `after`, by name, and where the next page starts.
    ///
    /// # Errors
    /// See `GroupService.ListMembers`.
    pub fn members(
        &self,
        caller: &Principal,
        name: &GroupName,
        after: Option<&ConnectionRef>,
        size: usize,
    ) -> Result<(Vec<ConnectionRef>, Option<ConnectionRef>), Error> {
        require_operator(caller)?;
        let snapshot = self.snapshot();
        let group = snapshot.catalog.group(name).ok_or_else(|| absent(name))?;
        let wanted = group.members().filter(|member| after.is_none_or(|after| *member > after));
        let mut members: Vec<ConnectionRef> = wanted.cloned().collect();
        members.sort_unstable();
        let more = members.len() > size;
        members.truncate(size);
        let next = members.last().filter(|_| more).cloned();
        Ok((members, next))
    }

    /// The groups that a connection is a member of, as resources.
    pub fn groups_of(&self, metadata: &ConnectionMetadata) -> Vec<String> {
        let snapshot = self.snapshot();
        let groups = metadata.groups.iter().filter_map(|uid| snapshot.catalog.group_by_uid(*uid));
        groups.map(|group| ResourceName::Group(group.metadata.name.clone()).to_string()).collect()
    }

    /// Renames a group, replaces its identifiers or its access.
    ///
    /// # Errors
    /// See `GroupService.UpdateGroup`.
    pub async fn update_group(
        &self,
        caller: Principal,
        name: GroupName,
        change: GroupChange,
    ) -> Result<ListedGroup, Error> {
        require_role(&caller, Role::Operator)?;
        self.writer.submit(move |draft| update(draft, &caller, &name, change)).await
    }

    /// Deletes a group; its members stay.
    ///
    /// # Errors
    /// See `GroupService.DeleteGroup`.
    pub async fn delete_group(&self, caller: Principal, name: GroupName) -> Result<(), Error> {
        require_role(&caller, Role::Operator)?;
        self.writer
            .submit(move |draft| {
                let group = editable(draft, &caller, &name)?;
                draft.catalog.remove_group(&name);
                draft.remove([RecordKey { kind: RecordKind::Group, uid: group.uid }]);
                draft.note_group(note(&caller, "group.delete", &group, None));
                Ok(())
            })
            .await
    }

    /// Adds members, or takes them out: all of them or none.
    ///
    /// # Errors
    /// See `GroupService.AddMembers` and `GroupService.RemoveMembers`.
    pub async fn change_members(
        &self,
        caller: Principal,
        name: GroupName,
        members: Vec<ConnectionRef>,
        add: bool,
    ) -> Result<ListedGroup, Error> {
        require_role(&caller, Role::Operator)?;
        self.writer
            .submit(move |draft| {
                let group = editable(draft, &caller, &name)?;
                for member in members {
                    change_member(draft, &caller, &group, &member, add)?;
                }
                let action = if add { "group.add_members" } else { "group.remove_members" };
                draft.note_group(note(&caller, action, &group, None));
                draft
                    .catalog
                    .group(&name)
                    .map(|group| group.as_ref().into())
                    .ok_or_else(|| absent(&name))
            })
            .await
    }
}

fn create(draft: &mut Draft, caller: &Principal, new: NewGroup) -> Result<ListedGroup, Error> {
    if draft.catalog.group(&new.name).is_some() {
        return Err(Error::AlreadyExists(ResourceName::Group(new.name)));
    }
    if integration::find(&new.integration).is_none() {
        return Err(Error::IntegrationUnknown(new.integration));
    }
    let mut access = bindings(Bindings::default(), new.access)?;
    if let Principal::Operator(name, _) = caller {
        access.add(Relation::Editor, Pattern::Operator(name.clone()));
    }
    let stamp = Stamp::new(caller, draft.now);
    let group = GroupMetadata {
        uid: random_id()?,
        name: new.name,
        integration: new.integration,
        identifiers: new.identifiers,
        access,
        revision: 1,
        create_time: stamp.now,
        update_time: stamp.now,
        updated_by: stamp.by,
    };
    draft.put([group.to_store(&draft.keyring.clone())?]);
    draft.note_group(note(caller, "group.create", &group, Some(&group.access)));
    draft.catalog.put_group(group.clone());
    Ok(ListedGroup { metadata: group, members: 0 })
}

fn update(
    draft: &mut Draft,
    caller: &Principal,
    name: &GroupName,
    change: GroupChange,
) -> Result<ListedGroup, Error> {
    let mut group = editable(draft, caller, name)?;
    if change.etag.is_some_and(|etag| etag != group.etag()) {
        return Err(Error::EtagMismatch(ResourceName::Group(name.clone())));
    }
    if let Some(new_name) = change.new_name.filter(|new_name| new_name != name) {
        if draft.catalog.group(&new_name).is_some() {
            return Err(Error::AlreadyExists(ResourceName::Group(new_name)));
        }
        group.name = new_name;
    }
    if let Some(identifiers) = change.identifiers {
        draft
            .catalog
            .replace_identifiers(group.uid, &identifiers)
            .map_err(|(member, why)| not_admitted(name, member, why))?;
        group.identifiers = identifiers;
    }
    let old_access = group.access.clone();
    group.access = bindings(group.access, change.access)?;
    let stamp = Stamp::new(caller, draft.now);
    group.revision += 1;
    group.update_time = stamp.now;
    group.updated_by = stamp.by;
    draft.put([group.to_store(&draft.keyring.clone())?]);
    let access = (group.access != old_access).then_some(&group.access);
    draft.note_group(note(caller, "group.update", &group, access));
    draft.catalog.put_group(group.clone());
    let members = draft.catalog.group_by_uid(group.uid).map_or(0, |group| group.len());
    Ok(ListedGroup { metadata: group, members })
}

fn change_member(
    draft: &mut Draft,
    caller: &Principal,
    group: &GroupMetadata,
    member: &ConnectionRef,
    add: bool,
) -> Result<(), Error> {
    let found = draft.catalog.connection(member).cloned();
    let found = found.ok_or_else(|| Error::NotFound(ResourceName::Connection(member.clone())))?;
    let mut metadata = found.metadata.clone();
    let changed = if add {
        require_resolver(caller, &metadata)?;
        let current = draft.catalog.group_by_uid(group.uid).ok_or_else(|| absent(&group.name))?;
        current.admits(&metadata).map_err(|why| not_admitted(&group.name, member.clone(), why))?;
        metadata.groups.insert(group.uid)
    } else {
        metadata.groups.remove(&group.uid)
    };
    if !changed {
        return Ok(());
    }
    metadata.revision += 1;
    let connection = Connection { metadata, values: found.values.clone() };
    draft.put_connection(connection)
}

/// Checks that a connection whose tags changed still fits into its groups.
pub(super) fn check_membership(draft: &Draft, metadata: &ConnectionMetadata) -> Result<(), Error> {
    for uid in &metadata.groups {
        let Some(group) = draft.catalog.group_by_uid(*uid) else { continue };
        group
            .admits(metadata)
            .map_err(|why| not_admitted(&group.metadata.name, metadata.reference(), why))?;
    }
    Ok(())
}

/// The groups that a connection is a member of, by name.
pub(super) fn groups_of(draft: &Draft, metadata: &ConnectionMetadata) -> Vec<GroupName> {
    let groups = metadata.groups.iter().filter_map(|uid| draft.catalog.group_by_uid(*uid));
    groups.map(|group| group.metadata.name.clone()).collect()
}

/// Datadog: "You can only add connections to a group for which you have Resolver permission."
fn require_resolver(caller: &Principal, member: &ConnectionMetadata) -> Result<(), Error> {
    let resource = ResourceName::Connection(member.reference());
    let is_resolver = decide(caller, Relation::Resolver, &member.access) != Decision::Deny;
    // An administrator may give itself the relation, so asking for it first would protect nothing.
    if is_resolver || decide_edit(caller, &member.access) != Decision::Deny {
        Ok(())
    } else {
        Err(Error::ResolverRequired(resource))
    }
}

fn editable(draft: &Draft, caller: &Principal, name: &GroupName) -> Result<GroupMetadata, Error> {
    let group = draft.catalog.group(name).ok_or_else(|| absent(name))?;
    require_editor(caller, &group.metadata.access, &ResourceName::Group(name.clone()))?;
    Ok(group.metadata.clone())
}

/// A group has viewers and editors; it never confers access to its members, so it has no resolvers.
fn bindings(
    mut access: Bindings,
    changes: BTreeMap<Relation, BTreeSet<Pattern>>,
) -> Result<Bindings, Error> {
    if changes.contains_key(&Relation::Resolver) {
        let rule = "a group has viewers and editors; resolvers are bound to its members";
        return Err(Error::PrincipalInvalid(Invalid::new("relation", "resolver", rule)));
    }
    access.replace_all(changes).map_err(Error::PrincipalInvalid)?;
    Ok(access)
}

fn not_admitted(group: &GroupName, connection: ConnectionRef, why: NotAdmitted) -> Error {
    let group = group.clone();
    match why {
        NotAdmitted::Integration => Error::IntegrationMismatch { group, connection },
        NotAdmitted::Missing(identifier) => {
            Error::IdentifierMissing { group, connection, identifier: identifier.to_string() }
        }
        NotAdmitted::Taken(other) => Error::IdentifiersNotUnique { group, connection, other },
    }
}

fn absent(name: &GroupName) -> Error {
    Error::NotFound(ResourceName::Group(name.clone()))
}

fn note(
    caller: &Principal,
    action: &str,
    group: &GroupMetadata,
    access: Option<&Bindings>,
) -> ChangeNote {
    ChangeNote {
        principal: caller.to_string(),
        action: action.to_owned(),
        resource: ResourceName::Group(group.name.clone()).to_string(),
        uid: group.uid,
        version: group.revision,
        fields: Vec::new(),
        access: access.cloned(),
    }
}
