//! How a connection is written: checked against its integration, under the rule of destinations, with versions.

use std::collections::{BTreeMap, BTreeSet};

use super::field_changes::{FieldChanges, field_metadata};
use crate::access::{Principal, Role};
use crate::broker::changes::checks::{change_note, check_etag, first_access, require_editor};
use crate::broker::changes::documents::{
    Action, ConnectionDocument, Deletion, NOTHING_KEPT, Patch,
};
use crate::broker::changes::draft::Draft;
use crate::broker::error::Error;
use crate::broker::groups::write::check_identifying;
use crate::broker::registry::operators::require_role;
use crate::catalog::{Catalog, Connection, ConnectionMetadata, Resource, Values};
use crate::integration::{
    self, Checked, CheckedField, CredentialKind, FieldRule, Problem, default_release,
};
use crate::journal::ChangeNote;
use crate::model::limits::{MAX_TTL, MIN_TTL};
use crate::model::{ConnectionRef, FieldName, Fields, KindName, Release, ResourceName, Value};
use crate::seal::{RecordKey, RecordKind, random_id};

/// Creates the connection of a document, or changes it to be like the document.
pub(crate) fn put(
    draft: &mut Draft,
    caller: &Principal,
    document: &ConnectionDocument,
) -> Result<Action, Error> {
    match draft.catalog().connection(&document.name).cloned() {
        None => create(draft, caller, document).map(|()| Action::Created),
        Some(old) => {
            let resource = ResourceName::Connection(document.name.clone());
            require_editor(caller, &old.metadata.access, &resource)?;
            update(draft, caller, &old, document)
        }
    }
}

/// Creates the connection of a document.
pub(crate) fn create(
    draft: &mut Draft,
    caller: &Principal,
    document: &ConnectionDocument,
) -> Result<(), Error> {
    let catalog = draft.catalog().clone();
    let nothing_kept = document.kept.iter().map(|name| Problem::new(name, NOTHING_KEPT));
    let nothing_kept: Vec<Problem> = nothing_kept.collect();
    if !nothing_kept.is_empty() {
        return Err(Error::FieldsInvalid(nothing_kept));
    }
    let given = document.copied_fields();
    let kind = kind_of(&catalog, &document.name, document.kind.as_ref(), &given)?;
    let (checked, release) = check_new(kind, given, document.release)?;
    let uid = random_id()?;
    let (by, now) = (caller.to_string(), draft.now);
    let fields = checked.iter().map(|(name, field)| {
        let print = draft.keyring.fingerprint(uid, name.as_str(), field.value.expose());
        (name.clone(), field_metadata((&by, now), field, print))
    });
    let mut metadata = ConnectionMetadata {
        uid,
        integration: document.name.integration.clone(),
        name: document.name.name.clone(),
        kind: kind.name.clone(),
        version: 1,
        revision: 1,
        fields: fields.collect(),
        tags: document.tags.given().clone(),
        groups: BTreeSet::new(),
        access: first_access(caller, document.access.given().clone())?,
        labels: document.labels.given().clone(),
        disabled: document.disabled.unwrap_or(false),
        max_ttl_seconds: None,
        send: document.send.clone().unwrap_or_default(),
        is_default: false,
        release,
        expires: document.expires.flatten(),
        refresh: None,
        create_time: now,
        update_time: now,
        updated_by: by.clone(),
    };
    set_max_ttl(&mut metadata, document.max_ttl)?;
    set_default(draft, caller, &mut metadata, document.is_default)?;
    let mut noted = note(caller, "connection.create", &metadata);
    noted.fields = checked.keys().cloned().collect();
    noted.access = Some(metadata.access.clone());
    let key = RecordKey { kind: RecordKind::ConnectionValues, uid };
    let values: Fields = checked.into_iter().map(|(name, field)| (name, field.value)).collect();
    let sealed = draft.keyring.seal_values(key, metadata.version, &values)?;
    draft.note(noted);
    draft.put_connection(Connection { metadata, values: Values { key, sealed } })
}

/// Checks the fields of a new connection, and adds those that the broker generates. If nobody says what the connection
/// releases, its kind does.
fn check_new(
    kind: &CredentialKind,
    given: BTreeMap<String, Value>,
    release: Option<Release>,
) -> Result<(Checked, Release), Error> {
    let has = |rule: &FieldRule| given.keys().any(|name| rule.covers(name));
    let release = release.unwrap_or_else(|| default_release(kind, has));
    let checked = integration::check(kind, given, None, release);
    let mut checked = checked.map_err(Error::FieldsInvalid)?;
    for rule in kind.fields.iter().filter(|rule| rule.generated) {
        checked.insert(FieldName::parse(&rule.name)?, generated(rule)?);
    }
    Ok((checked, release))
}

/// A value that the broker generates, such as the external id that an AWS role's trust policy names.
fn generated(rule: &FieldRule) -> Result<CheckedField, Error> {
    Ok(CheckedField {
        sensitive: rule.sensitive,
        destination: rule.destination,
        value: Value::new(random_id()?.to_string().into_bytes()),
        is_mended: false,
    })
}

/// Changes a connection to be like a document. The access is checked before.
pub(crate) fn update(
    draft: &mut Draft,
    caller: &Principal,
    old: &Connection,
    document: &ConnectionDocument,
) -> Result<Action, Error> {
    let resource = ResourceName::Connection(document.name.clone());
    let catalog = draft.catalog().clone();
    let kind = kind_of_existing(&catalog, &old.metadata, document.kind.as_ref())?;
    let mut metadata = old.metadata.clone();
    metadata.release = document.release.unwrap_or(metadata.release);
    metadata.send = document.send.clone().unwrap_or(metadata.send);
    let changes = FieldChanges::find(draft, kind, old, document, metadata.release)?;
    let is_wider = !metadata.send.is_within(&old.metadata.send);
    changes.check_destinations(kind, old, &resource, is_wider)?;

    metadata.access = document.access.bindings(&metadata.access)?;
    metadata.tags = match &document.tags {
        Patch::Merge(tags) => metadata.tags.with(tags).map_err(Error::IdentifierTagInvalid)?,
        Patch::Replace(tags) => tags.clone(),
    };
    metadata.labels = document.labels.labels(&metadata.labels)?;
    metadata.disabled = document.disabled.unwrap_or(metadata.disabled);
    metadata.expires = document.expires.unwrap_or(metadata.expires);
    set_max_ttl(&mut metadata, document.max_ttl)?;
    set_default(draft, caller, &mut metadata, document.is_default)?;
    let settings = settings_changed(&old.metadata, &metadata);
    let access = (metadata.access != old.metadata.access).then(|| metadata.access.clone());
    if changes.is_empty() && access.is_none() && settings.is_empty() {
        return Ok(Action::Unchanged);
    }
    let is_retagged = metadata.tags != old.metadata.tags;
    if is_retagged {
        check_identifying(draft, caller, &old.metadata, &metadata)?;
    }
    metadata.revision += 1;
    metadata.update_time = draft.now;
    metadata.updated_by = caller.to_string();
    let written = changes.names();
    // Another release is another credential for the steps.
    let values = match written.is_empty() && metadata.release == old.metadata.release {
        true => old.values.clone(),
        false => changes.write(draft, &mut metadata, old)?,
    };
    let mut noted = note(caller, "connection.update", &metadata);
    (noted.fields, noted.access, noted.settings) = (written, access, settings);
    if is_retagged && !metadata.groups.is_empty() {
        // A group may select another member now.
        draft.note_for_all(noted);
    } else {
        draft.note(noted);
    }
    draft.put_connection(Connection { metadata, values })?;
    Ok(Action::Changed)
}

/// Deletes a connection. `runs` are its recent users, as text for people.
pub(crate) fn delete(
    draft: &mut Draft,
    caller: &Principal,
    name: &ConnectionRef,
    deletion: &Deletion,
    runs: &[String],
) -> Result<(), Error> {
    let resource = ResourceName::Connection(name.clone());
    let connection = match draft.catalog().connection(name).cloned() {
        Some(found) => found,
        None if deletion.allow_missing && !draft.catalog().is_newer(&resource) => return Ok(()),
        None => return Err(Error::NotFound(resource)),
    };
    let metadata = &connection.metadata;
    require_editor(caller, &metadata.access, &resource)?;
    check_etag(deletion.etag.as_ref(), &metadata.etag(), &resource)?;
    let groups = draft.catalog().groups_of(metadata);
    let mut users: Vec<_> = groups.map(|group| format!("group {}", group.metadata.name)).collect();
    users.extend_from_slice(runs);
    if !users.is_empty() && !deletion.force {
        let hint = "with force (--force) it is deleted anyway, and leaves its groups";
        return Err(Error::InUse { resource, users: users.join(", "), hint });
    }
    draft.note(note(caller, "connection.delete", metadata));
    draft.forget_rotated_token(metadata.uid);
    draft.remove(Resource::Connection(connection));
    Ok(())
}

/// The changes beside fields and access, as the journal notes them.
fn settings_changed(old: &ConnectionMetadata, new: &ConnectionMetadata) -> Vec<String> {
    let mut settings = Vec::new();
    if new.tags != old.tags {
        settings.push("tags".to_owned());
    }
    if new.labels != old.labels {
        settings.push("labels".to_owned());
    }
    if new.disabled != old.disabled {
        settings.push(format!("disabled={}", new.disabled));
    }
    if new.max_ttl_seconds != old.max_ttl_seconds {
        let seconds = new.max_ttl_seconds.map_or_else(|| "none".to_owned(), |s| format!("{s}s"));
        settings.push(format!("max_ttl={seconds}"));
    }
    if new.expires != old.expires {
        let moment = new.expires.map_or_else(|| "none".to_owned(), |moment| moment.to_string());
        settings.push(format!("expires={moment}"));
    }
    if new.release != old.release {
        settings.push(format!("release={}", new.release));
    }
    if new.send != old.send {
        let listed = |entries: &[String]| match entries {
            [] => "all".to_owned(),
            entries => entries.join(","),
        };
        let (methods, paths) = (listed(new.send.methods()), listed(new.send.paths()));
        settings.push(format!("send={methods} {paths}"));
    }
    if new.is_default != old.is_default {
        settings.push(format!("default={}", new.is_default));
    }
    settings
}

fn set_max_ttl(
    metadata: &mut ConnectionMetadata,
    asked: Option<Option<std::time::Duration>>,
) -> Result<(), Error> {
    let Some(max_ttl) = asked else { return Ok(()) };
    if max_ttl.is_some_and(|ttl| !(MIN_TTL..=MAX_TTL).contains(&ttl)) {
        return Err(Error::TtlOutOfRange { what: "ttl", least: MIN_TTL, most: MAX_TTL });
    }
    metadata.max_ttl_seconds = max_ttl.map(|ttl| ttl.as_secs());
    Ok(())
}

/// Makes a connection the default of its integration instead of the present default, or ends that.
fn set_default(
    draft: &mut Draft,
    caller: &Principal,
    metadata: &mut ConnectionMetadata,
    asked: Option<bool>,
) -> Result<(), Error> {
    let Some(is_default) = asked.filter(|asked| *asked != metadata.is_default) else {
        return Ok(());
    };
    require_role(caller, Role::Administrator)?;
    metadata.is_default = is_default;
    let before = draft.catalog().default_of(&metadata.integration).filter(|_| is_default);
    let Some(before) = before.and_then(|name| draft.catalog().connection(&name).cloned()) else {
        return Ok(());
    };
    let mut connection = Connection::clone(&before);
    connection.metadata.is_default = false;
    connection.metadata.revision += 1;
    connection.metadata.update_time = draft.now;
    connection.metadata.updated_by = caller.to_string();
    let mut noted = note(caller, "connection.update", &connection.metadata);
    noted.settings = vec!["default=false".to_owned()];
    draft.note(noted);
    draft.put_connection(connection)
}

fn kind_of<'a>(
    catalog: &'a Catalog,
    name: &ConnectionRef,
    kind: Option<&KindName>,
    fields: &BTreeMap<String, Value>,
) -> Result<&'a CredentialKind, Error> {
    let integration = catalog
        .integration(&name.integration)
        .ok_or_else(|| Error::IntegrationUnknown(name.integration.clone()))?;
    let fields = fields.keys().map(String::as_str).collect();
    integration::infer_kind(integration, kind, &fields).map_err(Error::KindInvalid)
}

fn kind_of_existing<'a>(
    catalog: &'a Catalog,
    old: &ConnectionMetadata,
    named: Option<&KindName>,
) -> Result<&'a CredentialKind, Error> {
    if named.is_some_and(|named| *named != old.kind) {
        let text = format!("the kind of a connection never changes; this one is {}", old.kind);
        return Err(Error::KindInvalid(Problem::new("kind", text)));
    }
    let integration = catalog.integration(&old.integration);
    let kind = integration.and_then(|found| found.kind(old.kind.as_str()));
    kind.ok_or_else(|| Error::IntegrationUnknown(old.integration.clone()))
}

/// A note of a change of a connection, without the details of the change.
pub(super) fn note(caller: &Principal, action: &str, metadata: &ConnectionMetadata) -> ChangeNote {
    let resource = ResourceName::Connection(metadata.reference());
    change_note(caller, action, resource, metadata.uid, metadata.version)
}
