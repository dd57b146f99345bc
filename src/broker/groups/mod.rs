//! Connection groups: created, renamed, re-identified, filled and emptied.

pub(super) mod candidates;
pub(super) mod list;
pub(super) mod write;

use std::sync::Arc;

use super::Broker;
use super::changes::checks::check_etag;
use super::changes::documents::{
    Deletion, GroupChange, MemberChange, NewGroup, WriteOptions, WriteRequest,
};
use super::changes::draft::Draft;
use super::error::Error;
use super::registry::operators::{require_operator, require_role};
use crate::access::{Principal, Role};
use crate::catalog::{Catalog, Group, GroupMetadata};
use crate::journal::Use;
use crate::model::{ConnectionRef, GroupName, ResourceName, Timestamp, WorkflowName};
use write::{absent, change_members, create, delete, editable, update};

/// A group as an operator sees it.
pub struct ListedGroup {
    /// The group.
    pub metadata: Arc<GroupMetadata>,
    /// How many members it has.
    pub members: usize,
    /// How often steps have asked for it, and when last; `None` if never.
    pub used: Option<Use>,
    /// The workflows that have asked for it; empty in lists.
    pub users: Vec<(WorkflowName, Use)>,
}

impl From<&Group> for ListedGroup {
    fn from(group: &Group) -> Self {
        let (metadata, members) = (group.metadata.clone(), group.len());
        Self { metadata, members, used: None, users: Vec::new() }
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
        let request = WriteRequest::new(&caller, options);
        let change = move |draft: &mut Draft| create(draft, &caller, new.clone());
        let made = self.writer.write(request, change, move |catalog| find(catalog, &name)).await?;
        Ok(self.with_users(made))
    }

    /// A group.
    ///
    /// # Errors
    /// See `GroupService.GetGroup`.
    pub fn group(&self, caller: &Principal, name: &GroupName) -> Result<ListedGroup, Error> {
        require_operator(caller)?;
        find(&self.snapshot().catalog, name).map(|found| self.with_users(found))
    }

    /// The group with who has asked for it. For information only: status reports a journal that hangs.
    fn with_users(&self, group: ListedGroup) -> ListedGroup {
        let (name, always) = (&group.metadata.name, Timestamp::from_millis(i64::MIN));
        let users = self.journal.with_live(|live| live.usage().users_of_group(name, always));
        let users = users.unwrap_or_default();
        let used = users.iter().map(|(_, used)| *used).reduce(Use::and);
        ListedGroup { used, users, ..group }
    }

    /// The members of a group after `after`, by name, and the last of them if there is a next page.
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
        let request = WriteRequest::new(&caller, options);
        let new_name = change.new_name.clone().unwrap_or_else(|| name.clone());
        let change = move |draft: &mut Draft| {
            let group = editable(draft, &caller, &name)?;
            check_etag(etag.as_ref(), &group.etag(), &ResourceName::Group(name.clone()))?;
            update(draft, &caller, &group, change.clone()).map(drop)
        };
        let answer = move |catalog: &Catalog| find(catalog, &new_name);
        Ok(self.with_users(self.writer.write(request, change, answer).await?))
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
        let request = WriteRequest::new(&caller, options);
        let users = self.recent_users(|usage, since| usage.users_of_group(&name, since))?;
        let change = move |draft: &mut Draft| delete(draft, &caller, &name, &deletion, &users);
        self.writer.write(request, change, |_| Ok(())).await
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
        let request = WriteRequest::new(&caller, options);
        let changed = name.clone();
        let change = move |draft: &mut Draft| {
            let group = editable(draft, &caller, &changed)?;
            change_members(draft, &caller, &group, &change).map(drop)
        };
        let answer = move |catalog: &Catalog| find(catalog, &name);
        Ok(self.with_users(self.writer.write(request, change, answer).await?))
    }
}

fn find(catalog: &Catalog, name: &GroupName) -> Result<ListedGroup, Error> {
    let found = catalog.group(name).map(|group| ListedGroup::from(group.as_ref()));
    found.ok_or_else(|| absent(name).or_newer(catalog))
}
