//! How a group and its membership are written.
//!
//! Every member has every identifier, and no two members have the same values. [`crate::catalog::Catalog::settle`]
//! checks that at the end of a change: until then members, their tags and the identifiers may change in any order. A
//! member's values decide what a request to the group gets, so they change only with the group's editors.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::access::{Decision, Principal, Relation, decide, decide_edit};
use crate::broker::changes::checks::{change_note, check_etag, first_access, require_editor};
use crate::broker::changes::documents::{
    Access, Action, Deletion, GroupChange, GroupDocument, MemberChange, NewGroup, Patch,
};
use crate::broker::changes::draft::Draft;
use crate::broker::error::Error;
use crate::catalog::{Connection, ConnectionMetadata, GroupMetadata, Resource};
use crate::journal::ChangeNote;
use crate::model::{ConnectionRef, GroupName, Invalid, ResourceName};
use crate::seal::random_id;

/// Creates the group of a document, or changes it to be like the document.
pub(crate) fn put(
    draft: &mut Draft,
    caller: &Principal,
    document: GroupDocument,
) -> Result<Action, Error> {
    let GroupDocument { name, integration, identifiers, members, access, labels } = document;
    let Some(found) = draft.catalog().group(&name).cloned() else {
        let identifiers = identifiers.ok_or_else(|| {
            let rule = "a new group needs one to three identifiers";
            Error::IdentifierTagInvalid(Invalid::new("list of identifiers", "", rule))
        })?;
        let members = members.unwrap_or_default().into_iter().collect();
        let group = NewGroup { name, integration, identifiers, members, access, labels };
        create(draft, caller, group)?;
        return Ok(Action::Created);
    };
    if found.metadata.integration != integration {
        let rule = "the integration of a group never changes";
        return Err(Invalid::new("integration", integration.as_str(), rule).into());
    }
    let current: BTreeSet<ConnectionRef> =
        found.members().map(|member| member.metadata.reference()).collect();
    let wanted = members.unwrap_or_else(|| current.clone());
    let group = editable(draft, caller, &name)?;
    let change = GroupChange {
        new_name: None,
        identifiers: identifiers.filter(|keys| *keys != group.identifiers),
        access: Patch::Merge(access),
        labels: Patch::Merge(labels),
        removed: current.difference(&wanted).cloned().collect(),
        added: wanted.difference(&current).cloned().collect(),
    };
    update(draft, caller, &group, change)
}

pub(crate) fn create(draft: &mut Draft, caller: &Principal, new: NewGroup) -> Result<(), Error> {
    if draft.catalog().group(&new.name).is_some() {
        return Err(Error::AlreadyExists(ResourceName::Group(new.name)));
    }
    if draft.catalog().integration(&new.integration).is_none() {
        return Err(Error::IntegrationUnknown(new.integration));
    }
    check_relations(&new.access)?;
    let group = Arc::new(GroupMetadata {
        uid: random_id()?,
        name: new.name,
        integration: new.integration,
        identifiers: new.identifiers,
        access: first_access(caller, new.access)?,
        labels: new.labels,
        revision: 1,
        create_time: draft.now,
        update_time: draft.now,
        updated_by: caller.to_string(),
    });
    let access = Some(group.access.clone());
    draft.note(ChangeNote { access, ..note(caller, "group.create", &group) });
    draft.put(Resource::Group(Arc::clone(&group)));
    change_members(draft, caller, &group, &MemberChange { add: true, members: new.members })?;
    Ok(())
}

/// Changes a group, its members and its identifiers as one.
pub(crate) fn update(
    draft: &mut Draft,
    caller: &Principal,
    old: &GroupMetadata,
    change: GroupChange,
) -> Result<Action, Error> {
    let GroupChange { removed, added, .. } = &change;
    let gone = MemberChange { add: false, members: removed.clone() };
    let come = MemberChange { add: true, members: added.clone() };
    let is_changed = change_settings(draft, caller, old, change)?
        | change_members(draft, caller, old, &gone)?
        | change_members(draft, caller, old, &come)?;
    Ok(if is_changed { Action::Changed } else { Action::Unchanged })
}

/// Deletes a group. `users` are its recent users, as text for people.
pub(crate) fn delete(
    draft: &mut Draft,
    caller: &Principal,
    name: &GroupName,
    deletion: &Deletion,
    users: &[String],
) -> Result<(), Error> {
    let resource = ResourceName::Group(name.clone());
    let catalog = draft.catalog();
    let exists = catalog.group(name).is_some() || catalog.is_newer(&resource);
    if deletion.allow_missing && !exists {
        return Ok(());
    }
    let group = editable(draft, caller, name)?;
    check_etag(deletion.etag.as_ref(), &group.etag(), &resource)?;
    if !users.is_empty() && !deletion.force {
        let hint = "with force (--force) it is deleted anyway";
        return Err(Error::InUse { resource, users: users.join(", "), hint });
    }
    draft.note_for_all(note(caller, "group.delete", &group));
    draft.remove(Resource::Group(group));
    Ok(())
}

/// Changes a group, but not its members. Returns whether anything changed.
fn change_settings(
    draft: &mut Draft,
    caller: &Principal,
    old: &GroupMetadata,
    change: GroupChange,
) -> Result<bool, Error> {
    let mut group = old.clone();
    if let Some(new_name) = change.new_name.filter(|new_name| *new_name != old.name) {
        if draft.catalog().group(&new_name).is_some() {
            return Err(Error::AlreadyExists(ResourceName::Group(new_name)));
        }
        group.name = new_name;
    }
    if let Some(identifiers) = change.identifiers {
        group.identifiers = identifiers;
    }
    check_relations(change.access.given())?;
    group.access = change.access.bindings(&group.access)?;
    group.labels = change.labels.labels(&group.labels)?;
    let settings = settings_changed(old, &group);
    let access = (group.access != old.access).then(|| group.access.clone());
    if settings.is_empty() && access.is_none() {
        return Ok(false);
    }
    group.revision += 1;
    group.update_time = draft.now;
    group.updated_by = caller.to_string();
    draft.note_for_all(ChangeNote { access, settings, ..note(caller, "group.update", &group) });
    draft.put(Resource::Group(Arc::new(group)));
    Ok(true)
}

/// The changes beside access, as the journal notes them.
fn settings_changed(old: &GroupMetadata, new: &GroupMetadata) -> Vec<String> {
    let mut settings = Vec::new();
    if new.name != old.name {
        settings.push(format!("name={}, before {}", new.name, old.name));
    }
    if new.identifiers != old.identifiers {
        let keys: Vec<_> = new.identifiers.iter().map(ToString::to_string).collect();
        settings.push(format!("identifiers={}", keys.join(",")));
    }
    if new.labels != old.labels {
        settings.push("labels".to_owned());
    }
    settings
}

/// Adds members, or removes them. Returns whether anything changed.
pub(crate) fn change_members(
    draft: &mut Draft,
    caller: &Principal,
    group: &GroupMetadata,
    change: &MemberChange,
) -> Result<bool, Error> {
    let mut changed = Vec::new();
    for member in &change.members {
        if change_member(draft, caller, group, member, change.add)? {
            changed.push(member.to_string());
        }
    }
    if changed.is_empty() {
        return Ok(false);
    }
    // The group as it is now: the same change may have changed it before.
    let current = draft.catalog().group_by_uid(group.uid).ok_or_else(|| absent(&group.name))?;
    let mut group = GroupMetadata::clone(&current.metadata);
    group.revision += 1;
    group.update_time = draft.now;
    group.updated_by = caller.to_string();
    let action = if change.add { "group.add_members" } else { "group.remove_members" };
    let noted = ChangeNote { settings: changed, ..note(caller, action, &group) };
    // No lease rests on a connection that was not a member.
    if change.add {
        draft.note(noted);
    } else {
        draft.note_for_all(noted);
    }
    draft.put(Resource::Group(Arc::new(group)));
    Ok(true)
}

/// Adds a member, or removes it. Returns whether anything changed.
fn change_member(
    draft: &mut Draft,
    caller: &Principal,
    group: &GroupMetadata,
    member: &ConnectionRef,
    add: bool,
) -> Result<bool, Error> {
    let found = draft.catalog().connection(member).cloned();
    let found = found.ok_or_else(|| Error::NotFound(ResourceName::Connection(member.clone())))?;
    let mut metadata = found.metadata.clone();
    let changed = if add {
        require_resolver(caller, &metadata)?;
        if metadata.integration != group.integration {
            let (group, connection) = (group.name.clone(), member.clone());
            return Err(Error::IntegrationMismatch { group, connection });
        }
        metadata.groups.insert(group.uid)
    } else {
        metadata.groups.remove(&group.uid)
    };
    if changed {
        metadata.revision += 1;
        metadata.update_time = draft.now;
        metadata.updated_by = caller.to_string();
        let connection = Connection { metadata, values: found.values.clone() };
        draft.put_connection(connection)?;
    }
    Ok(changed)
}

/// Checks that the caller is an editor of each group in which the new tags give the connection other identifier values.
/// Every operator sees every group, so a refusal may name a group.
pub(crate) fn check_identifying(
    draft: &Draft,
    caller: &Principal,
    old: &ConnectionMetadata,
    new: &ConnectionMetadata,
) -> Result<(), Error> {
    for group in draft.catalog().groups_of(new) {
        let GroupMetadata { name, identifiers, access, .. } = group.metadata.as_ref();
        // Checked before uniqueness: a refusal for that would reveal another member's values.
        if identifiers.select(&old.tags) != identifiers.select(&new.tags) {
            require_editor(caller, access, &ResourceName::Group(name.clone()))?;
        }
    }
    Ok(())
}

/// Datadog: "You can only add connections to a group for which you have Resolver permission."
fn require_resolver(caller: &Principal, member: &ConnectionMetadata) -> Result<(), Error> {
    let resource = || ResourceName::Connection(member.reference());
    may_add(caller, member).then_some(()).ok_or_else(|| Error::ResolverRequired(resource()))
}

/// Whether the caller may add the connection to a group. Administrators and editors could give themselves the relation, so it is
/// not required of them.
pub(super) fn may_add(caller: &Principal, member: &ConnectionMetadata) -> bool {
    decide(caller, Relation::Resolver, &member.access, None) != Decision::Deny
        || decide_edit(caller, &member.access) != Decision::Deny
}

pub(crate) fn editable(
    draft: &Draft,
    caller: &Principal,
    name: &GroupName,
) -> Result<Arc<GroupMetadata>, Error> {
    let group = draft.catalog().group(name).ok_or_else(|| absent(name))?;
    require_editor(caller, &group.metadata.access, &ResourceName::Group(name.clone()))?;
    Ok(Arc::clone(&group.metadata))
}

/// Refuses users and resolvers of a group: a group never confers access to its members.
fn check_relations(access: &Access) -> Result<(), Error> {
    let of_members = [Relation::User, Relation::Resolver];
    match of_members.into_iter().find(|relation| access.contains_key(relation)) {
        Some(relation) => {
            let rule =
                "a group has viewers and editors; users and resolvers are bound to its members";
            Err(Error::PrincipalInvalid(Invalid::new("relation", relation.as_str(), rule)))
        }
        None => Ok(()),
    }
}

pub(crate) fn absent(name: &GroupName) -> Error {
    Error::NotFound(ResourceName::Group(name.clone()))
}

/// A note of a change of a group, without the details of the change.
pub(crate) fn note(caller: &Principal, action: &str, group: &GroupMetadata) -> ChangeNote {
    let resource = ResourceName::Group(group.name.clone());
    change_note(caller, action, resource, group.uid, group.revision)
}
