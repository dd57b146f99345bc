//! Connection groups: created, renamed, re-identified, filled and emptied.

pub(super) mod write;

use std::collections::BTreeSet;

use super::Broker;
use super::changes::draft::{Draft, WriteOptions, WriteRequest};
use super::connections::{Access, Deletion, Patch, check_etag};
use super::error::Error;
use super::registry::operators::{require_operator, require_role};
use crate::access::{Principal, Role};
use crate::catalog::{Catalog, ConnectionMetadata, Group, GroupMetadata};
use crate::model::{ConnectionRef, GroupName, Identifiers, IntegrationName, Labels, ResourceName};
use crate::seal::{RecordKey, RecordKind};
use write::{absent, change_members, create, editable, note, update};

/// A new group.
pub struct NewGroup {
    /// Its name.
    pub name: GroupName,
    /// The type of its members.
    pub integration: IntegrationName,
    /// What tells its members apart.
    pub identifiers: Identifiers,
    /// Its members.
    pub members: Vec<ConnectionRef>,
    /// Viewers and editors.
    pub access: Access,
    /// Its labels.
    pub labels: Labels,
}

/// What is to be different about a group.
#[derive(Default)]
pub struct GroupChange {
    /// Its new name.
    pub new_name: Option<GroupName>,
    /// Its identifiers from now on.
    pub identifiers: Option<Identifiers>,
    /// Its viewers and editors.
    pub access: Patch<Access>,
    /// Its labels.
    pub labels: Patch<Labels>,
    /// Members that leave.
    pub removed: Vec<ConnectionRef>,
    /// Members that come; after those that leave.
    pub added: Vec<ConnectionRef>,
}

/// A group as it should be. What it does not name stays as it is.
pub struct GroupDocument {
    /// Its name.
    pub name: GroupName,
    /// The type of its members.
    pub integration: IntegrationName,
    /// What tells its members apart; needed for a new group.
    pub identifiers: Option<Identifiers>,
    /// All of its members.
    pub members: Option<BTreeSet<ConnectionRef>>,
    /// The relations to replace.
    pub access: Access,
    /// The labels to set.
    pub labels: Labels,
}

/// Members to add to a group, or to take out of it.
pub struct MemberChange {
    /// Whether they are added.
    pub add: bool,
    /// Which.
    pub members: Vec<ConnectionRef>,
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
    /// Creates a group with its members; the caller becomes an editor.
    ///
    /// # Errors
    /// See `GroupService.CreateGroup`.
    pub async fn create_group(
        &self,
        caller: Principal,
        new: NewGroup,
        options: WriteOptions,
    ) -> Result<ListedGroup, Error> {
        require_role(&caller, Role::Operator)?;
        let name = new.name.clone();
        let asked = WriteRequest::new(&caller, options);
        let again = name.clone();
        let change = move |draft: &mut Draft| {
            create(draft, &caller, new)?;
            find(&draft.catalog, &name)
        };
        self.writer.run(asked, change, move |catalog| find(catalog, &again)).await
    }

    /// A group.
    ///
    /// # Errors
    /// See `GroupService.GetGroup`.
    pub fn group(&self, caller: &Principal, name: &GroupName) -> Result<ListedGroup, Error> {
        require_operator(caller)?;
        find(&self.snapshot().catalog, name)
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
        let names = group.members().map(|member| member.metadata.reference());
        let wanted = names.filter(|name| after.is_none_or(|after| name > after));
        let mut members: Vec<ConnectionRef> = wanted.collect();
        members.sort_unstable();
        let more = members.len() > size;
        members.truncate(size);
        let next = members.last().filter(|_| more).cloned();
        Ok((members, next))
    }

    /// Renames a group, replaces its identifiers or its access, changes its members: all of it or nothing.
    ///
    /// # Errors
    /// See `GroupService.UpdateGroup`.
    pub async fn update_group(
        &self,
        caller: Principal,
        name: GroupName,
        change: GroupChange,
        etag: Option<String>,
        options: WriteOptions,
    ) -> Result<ListedGroup, Error> {
        require_role(&caller, Role::Operator)?;
        let asked = WriteRequest::new(&caller, options);
        let new_name = change.new_name.clone().unwrap_or_else(|| name.clone());
        let again = new_name.clone();
        let change = move |draft: &mut Draft| {
            let group = editable(draft, &caller, &name)?;
            check_etag(etag, &group.etag(), || ResourceName::Group(name.clone()))?;
            update(draft, &caller, &group, change)?;
            find(&draft.catalog, &new_name)
        };
        self.writer.run(asked, change, move |catalog| find(catalog, &again)).await
    }

    /// Deletes a group; its members stay.
    ///
    /// # Errors
    /// See `GroupService.DeleteGroup`.
    pub async fn delete_group(
        &self,
        caller: Principal,
        name: GroupName,
        deletion: Deletion,
        options: WriteOptions,
    ) -> Result<(), Error> {
        require_role(&caller, Role::Operator)?;
        let asked = WriteRequest::new(&caller, options);
        let users = self.recent(|usage, since| usage.users_of_group(&name, since))?;
        let change = move |draft: &mut Draft| {
            let resource = ResourceName::Group(name.clone());
            let is_there =
                draft.catalog.group(&name).is_some() || draft.catalog.is_newer(&resource);
            if deletion.allow_missing && !is_there {
                return Ok(());
            }
            let group = editable(draft, &caller, &name)?;
            check_etag(deletion.etag, &group.etag(), || ResourceName::Group(name.clone()))?;
            if !users.is_empty() && !deletion.force {
                let (resource, users) = (ResourceName::Group(name), users.join(", "));
                return Err(Error::InUse {
                    resource,
                    users,
                    hint: "with force (--force) it is deleted all the same",
                });
            }
            draft.catalog.remove_group(&name);
            draft.remove([RecordKey { kind: RecordKind::Group, uid: group.uid }]);
            draft.note_group(note(&caller, "group.delete", &group));
            Ok(())
        };
        self.writer.run(asked, change, |_| Ok(())).await
    }

    /// Adds members, or takes them out: all of them or none.
    ///
    /// # Errors
    /// See `GroupService.AddMembers` and `GroupService.RemoveMembers`.
    pub async fn change_members(
        &self,
        caller: Principal,
        name: GroupName,
        change: MemberChange,
        options: WriteOptions,
    ) -> Result<ListedGroup, Error> {
        require_role(&caller, Role::Operator)?;
        let asked = WriteRequest::new(&caller, options);
        let again = name.clone();
        let change = move |draft: &mut Draft| {
            let group = editable(draft, &caller, &name)?;
            change_members(draft, &caller, &group, &change)?;
            find(&draft.catalog, &name)
        };
        self.writer.run(asked, change, move |catalog| find(catalog, &again)).await
    }
}

/// The groups that a connection is a member of, by name.
pub(super) fn groups_of(draft: &Draft, metadata: &ConnectionMetadata) -> Vec<GroupName> {
    let groups = metadata.groups.iter().filter_map(|uid| draft.catalog.group_by_uid(*uid));
    groups.map(|group| group.metadata.name.clone()).collect()
}

fn find(catalog: &Catalog, name: &GroupName) -> Result<ListedGroup, Error> {
    let found = catalog.group(name).map(|group| ListedGroup::from(group.as_ref()));
    found.ok_or_else(|| absent(name).or_newer(catalog))
}
