//! How a connection is written: the check against its integration, the rule of destinations, versions.

use std::collections::{BTreeMap, BTreeSet};

use super::field_changes::FieldChanges;
use super::{Access, ConnectionDocument, NOTHING_KEPT, Patch, Stamp, note, require_editor};
use crate::access::{Bindings, Pattern, Principal, Relation, Role};
use crate::broker::changes::apply::Action;
use crate::broker::changes::draft::{Draft, Written};
use crate::broker::error::Error;
use crate::broker::groups::write::check_identifying;
use crate::broker::registry::operators::require_role;
use crate::catalog::{Catalog, Connection, ConnectionMetadata, FieldMetadata, Values};
use crate::identity::first_validity;
use crate::integration::{self, CheckedField, CredentialKind, FieldRule, Problem, token_end};
use crate::model::limits::{MAX_TTL, MIN_TTL};
use crate::model::{ConnectionRef, FieldName, Fields, KindName, ResourceName, Timestamp, Value};
use crate::seal::{RecordKey, RecordKind, random_id};

/// Creates the connection of a document, or changes it to be like the document.
pub(crate) fn put(
    draft: &mut Draft,
    caller: &Principal,
    document: ConnectionDocument,
) -> Result<Action, Error> {
    match draft.catalog.connection(&document.name).cloned() {
        None => create(draft, caller, document).map(|_| Action::Created),
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
    document: ConnectionDocument,
) -> Result<ConnectionMetadata, Error> {
    let catalog = draft.catalog.clone();
    let nothing_kept = document.kept.iter().map(|name| Problem::new(name, NOTHING_KEPT));
    let nothing_kept: Vec<Problem> = nothing_kept.collect();
    if !nothing_kept.is_empty() {
        return Err(Error::FieldsInvalid(nothing_kept));
    }
    let given = document.fields.into_inner();
    let kind = kind_of(&catalog, &document.name, document.kind.as_ref(), &given)?;
    let mut checked = integration::check(kind, given, None).map_err(Error::FieldsInvalid)?;
    for rule in kind.fields.iter().filter(|rule| rule.generated) {
        checked.insert(FieldName::parse(&rule.name)?, generated(rule)?);
    }
    let uid = random_id()?;
    let stamp = Stamp::new(caller, draft.now);
    let fields = checked.iter().map(|(name, field)| {
        let print = draft.keyring.fingerprint(uid, name.as_str(), field.value.expose());
        (name.clone(), field_metadata(&stamp, field, print))
    });
    let mut metadata = ConnectionMetadata {
        uid,
        integration: document.name.integration,
        name: document.name.name,
        kind: kind.name.clone(),
        version: 1,
        revision: 1,
        fields: fields.collect(),
        tags: document.tags.into_inner(),
        groups: BTreeSet::new(),
        access: first_access(caller, document.access.into_inner())?,
        labels: document.labels.into_inner(),
        disabled: document.disabled.unwrap_or(false),
        max_ttl_seconds: None,
        is_default: false,
        expires: document.expires.flatten(),
        create_time: draft.now,
        update_time: draft.now,
        updated_by: stamp.by.clone(),
    };
    set_max_ttl(&mut metadata, document.max_ttl)?;
    set_default(draft, caller, &mut metadata, document.is_default)?;
    let mut noted = note(caller, "connection.create", &metadata);
    noted.fields = checked.keys().cloned().collect();
    noted.access = Some(metadata.access.clone());
    let key = RecordKey { kind: RecordKind::ConnectionValues, uid };
    let values: Fields = checked.into_iter().map(|(name, field)| (name, field.value)).collect();
    let sealed = draft.keyring.seal_values(key, metadata.version, &values)?;
    let connection = Connection { metadata: metadata.clone(), values: Values { key, sealed } };
    draft.put_connection(connection, Written::New)?;
    draft.note(noted);
    Ok(metadata)
}

/// The bindings of a new resource: those given, and the creator as an editor.
pub(crate) fn first_access(caller: &Principal, given: Access) -> Result<Bindings, Error> {
    let mut access = Bindings::default();
    access.replace_all(given).map_err(Error::PrincipalInvalid)?;
    if let Principal::Operator(name, ..) = caller {
        access.add(Relation::Editor, Pattern::Operator(name.clone()));
    }
    Ok(access)
}

/// A value of the broker's own, such as the external id that an AWS role's trust policy names.
fn generated(rule: &FieldRule) -> Result<CheckedField, Error> {
    Ok(CheckedField {
        sensitive: rule.sensitive,
        destination: rule.destination,
        value: Value::new(random_id()?.to_string().into_bytes()),
        is_mended: false,
    })
}

/// FieldChanges a connection to be like a document; whether the caller may is decided before.
pub(crate) fn update(
    draft: &mut Draft,
    caller: &Principal,
    old: &Connection,
    document: ConnectionDocument,
) -> Result<Action, Error> {
    let resource = ResourceName::Connection(document.name.clone());
    let catalog = draft.catalog.clone();
    let kind = kind_of_existing(&catalog, &old.metadata, document.kind.as_ref())?;
    let changes =
        FieldChanges::find(draft, kind, old, document.fields, &document.removed, &document.kept)?;
    changes.check_destinations(old, &resource)?;

    let stamp = Stamp::new(caller, draft.now);
    let mut metadata = old.metadata.clone();
    metadata.access = document.access.bindings(metadata.access)?;
    metadata.tags = match document.tags {
        Patch::Merge(tags) => metadata.tags.with(&tags).map_err(Error::IdentifierTagInvalid)?,
        Patch::Replace(tags) => tags,
    };
    metadata.labels = match document.labels {
        Patch::Merge(labels) => metadata.labels.with(&labels).map_err(Error::LabelInvalid)?,
        Patch::Replace(labels) => labels,
    };
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
    metadata.update_time = stamp.now;
    metadata.updated_by.clone_from(&stamp.by);
    let written = changes.names();
    let (values, stored) = match written.is_empty() {
        true => (old.values.clone(), Written::Metadata),
        false => (changes.write(draft, &mut metadata, old, &stamp)?, Written::All),
    };
    let mut noted = note(caller, "connection.update", &metadata);
    (noted.fields, noted.access, noted.settings) = (written, access, settings);
    if is_retagged && !metadata.groups.is_empty() {
        // Which member a group selects may be another now.
        draft.note_group(noted);
    } else {
        draft.note(noted);
    }
    draft.put_connection(Connection { metadata, values }, stored)?;
    Ok(Action::Changed)
}

impl<T> Patch<T> {
    /// What is given, for a resource that has nothing yet.
    pub(crate) fn into_inner(self) -> T {
        match self {
            Self::Merge(given) | Self::Replace(given) => given,
        }
    }
}

impl Patch<Access> {
    /// The bindings afterwards.
    pub(crate) fn bindings(self, old: Bindings) -> Result<Bindings, Error> {
        let (mut bindings, given) = match self {
            Self::Merge(given) => (old, given),
            Self::Replace(given) => (Bindings::default(), given),
        };
        bindings.replace_all(given).map_err(Error::PrincipalInvalid)?;
        Ok(bindings)
    }
}

/// What changed beside fields and access, for the journal.
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

/// Makes a connection the default of its integration, in place of the one before, or takes that from it.
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
    let before = draft.catalog.default_of(&metadata.integration).filter(|_| is_default);
    let Some(before) = before.and_then(|name| draft.catalog.connection(&name).cloned()) else {
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
    draft.put_connection(connection, Written::Metadata)
}

pub(super) fn field_metadata(
    stamp: &Stamp,
    field: &CheckedField,
    fingerprint: [u8; 32],
) -> FieldMetadata {
    let readable = if field.sensitive { Vec::new() } else { field.value.expose().to_vec() };
    FieldMetadata {
        sensitive: field.sensitive,
        destination: field.destination,
        bytes: field.value.len(),
        fingerprint,
        value: readable,
        expire_time: end_of(&field.value),
        is_mended: field.is_mended,
        update_time: stamp.now,
        updated_by: stamp.by.clone(),
    }
}

/// When a value says itself that it ends.
fn end_of(value: &Value) -> Option<Timestamp> {
    let value = value.expose();
    token_end(value).or_else(|| first_validity(value).map(|validity| validity.not_after))
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
