//! How a group and its membership are written.
//!
//! Every member has every identifier, and no two have the same values. That is checked where a change ends
//! ([`crate::catalog::Catalog::settle`]): members may come, their tags change and identifiers be replaced in any
//! order until then. A member's values say what a request to the group gets, so the editors of the group have a
//! say in them.

use std::collections::BTreeSet;

use super::{GroupChange, GroupDocument, MemberChange, NewGroup};
use crate::access::{Decision, Principal, Relation, decide, decide_edit};
use crate::broker::changes::apply::Action;
use crate::broker::changes::draft::{Draft, Written};
use crate::broker::connections::write::first_access;
use crate::broker::connections::{Access, Patch, Stamp, require_editor};
use crate::broker::error::Error;
use crate::catalog::{Connection, ConnectionMetadata, GroupMetadata};
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
    let Some(found) = draft.catalog.group(&name).cloned() else {
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
    if draft.catalog.group(&new.name).is_some() {
        return Err(Error::AlreadyExists(ResourceName::Group(new.name)));
    }
    if draft.catalog.integration(&new.integration).is_none() {
        return Err(Error::IntegrationUnknown(new.integration));
    }
    check_relations(&new.access)?;
    let stamp = Stamp::new(caller, draft.now);
    let group = GroupMetadata {
        uid: random_id()?,
        name: new.name,
        integration: new.integration,
        identifiers: new.identifiers,
        access: first_access(caller, new.access)?,
        labels: new.labels,
        revision: 1,
        create_time: stamp.now,
        update_time: stamp.now,
        updated_by: stamp.by,
    };
    draft.put([group.to_store(&draft.keyring.clone())?]);
    let access = Some(group.access.clone());
    draft.note(ChangeNote { access, ..note(caller, "group.create", &group) });
    draft.catalog.put_group(group.clone());
    change_members(draft, caller, &group, &MemberChange { add: true, members: new.members })?;
    Ok(())
}

/// Changes a group, its members and what tells them apart, as one.
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

/// Changes what a group is beside its members, and says whether that changed anything.
fn change_settings(
    draft: &mut Draft,
    caller: &Principal,
    old: &GroupMetadata,
    change: GroupChange,
) -> Result<bool, Error> {
    let mut group = old.clone();
    if let Some(new_name) = change.new_name.filter(|new_name| *new_name != old.name) {
        if draft.catalog.group(&new_name).is_some() {
            return Err(Error::AlreadyExists(ResourceName::Group(new_name)));
        }
        group.name = new_name;
    }
    if let Some(identifiers) = change.identifiers {
        draft.catalog.replace_identifiers(group.uid, &identifiers);
        group.identifiers = identifiers;
    }
    let (Patch::Merge(given) | Patch::Replace(given)) = &change.access;
    check_relations(given)?;
    group.access = change.access.bindings(group.access)?;
    group.labels = match change.labels {
        Patch::Merge(labels) => group.labels.with(&labels).map_err(Error::LabelInvalid)?,
        Patch::Replace(labels) => labels,
    };
    let settings = settings_changed(old, &group);
    let access = (group.access != old.access).then(|| group.access.clone());
    if settings.is_empty() && access.is_none() {
        return Ok(false);
    }
    let stamp = Stamp::new(caller, draft.now);
    group.revision += 1;
    group.update_time = stamp.now;
    group.updated_by = stamp.by;
    draft.put([group.to_store(&draft.keyring.clone())?]);
    draft.note_group(ChangeNote { access, settings, ..note(caller, "group.update", &group) });
    draft.catalog.put_group(group);
    Ok(true)
}

/// What changed beside access, for the journal.
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

/// Adds members, or takes them out, and says whether that changed anything.
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
    // As it is now: a document may have changed it before.
    let current = draft.catalog.group_by_uid(group.uid).ok_or_else(|| absent(&group.name))?;
    let mut group = current.metadata.clone();
    group.revision += 1;
    group.update_time = draft.now;
    group.updated_by = caller.to_string();
    draft.put([group.to_store(&draft.keyring.clone())?]);
    let action = if change.add { "group.add_members" } else { "group.remove_members" };
    let noted = ChangeNote { settings: changed, ..note(caller, action, &group) };
    // Nobody's lease rests on a member that was none.
    if change.add {
        draft.note(noted);
    } else {
        draft.note_group(noted);
    }
    draft.catalog.put_group(group);
    Ok(true)
}

/// Adds a member, or takes it out, and says whether that changed anything.
fn change_member(
    draft: &mut Draft,
    caller: &Principal,
    group: &GroupMetadata,
    member: &ConnectionRef,
    add: bool,
) -> Result<bool, Error> {
    let found = draft.catalog.connection(member).cloned();
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
        draft.put_connection(connection, Written::Metadata)?;
    }
    Ok(changed)
}

/// Checks that the caller edits each group whose members are told apart by what changed of a connection's tags.
/// Every operator sees every group, so a refusal may name one.
pub(crate) fn check_identifying(
    draft: &Draft,
    caller: &Principal,
    old: &ConnectionMetadata,
    new: &ConnectionMetadata,
) -> Result<(), Error> {
    let groups = new.groups.iter().filter_map(|uid| draft.catalog.group_by_uid(*uid));
    for GroupMetadata { name, identifiers, access, .. } in groups.map(|group| &group.metadata) {
        // Before it is known whether they fit: whose values they would be is not for everybody to try.
        if identifiers.select(&old.tags) != identifiers.select(&new.tags) {
            require_editor(caller, access, &ResourceName::Group(name.clone()))?;
        }
    }
    Ok(())
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

pub(super) fn editable(
    draft: &Draft,
    caller: &Principal,
    name: &GroupName,
) -> Result<GroupMetadata, Error> {
    let group = draft.catalog.group(name).ok_or_else(|| absent(name))?;
    require_editor(caller, &group.metadata.access, &ResourceName::Group(name.clone()))?;
    Ok(group.metadata.clone())
}

/// A group has viewers and editors; it never confers access to its members, so it has no resolvers.
fn check_relations(access: &Access) -> Result<(), Error> {
    match access.contains_key(&Relation::Resolver) {
        true => {
            let rule = "a group has viewers and editors; resolvers are bound to its members";
            Err(Error::PrincipalInvalid(Invalid::new("relation", "resolver", rule)))
        }
        false => Ok(()),
    }
}

pub(crate) fn absent(name: &GroupName) -> Error {
    Error::NotFound(ResourceName::Group(name.clone()))
}

/// What the journal says of a change of a group, without what changed.
pub(crate) fn note(caller: &Principal, action: &str, group: &GroupMetadata) -> ChangeNote {
    ChangeNote {
        principal: caller.to_string(),
        action: action.to_owned(),
        resource: ResourceName::Group(group.name.clone()).to_string(),
        uid: group.uid,
        version: group.revision,
        fields: Vec::new(),
        settings: Vec::new(),
        access: None,
    }
}
