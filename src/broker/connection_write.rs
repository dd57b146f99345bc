//! How a connection is written: the check against its integration, the rule of destinations, versions.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::Action;
use super::connections::{Access, ConnectionDocument, Part, Stamp, note, require_editor};
use super::error::Error;
use super::group_write::check_membership;
use super::operators::require_role;
use super::writer::{Draft, Written};
use crate::access::{Bindings, Pattern, Principal, Relation, Role};
use crate::catalog::{Catalog, Connection, ConnectionMetadata, FieldMetadata, Values};
use crate::integration::{
    self, Checked, CheckedField, CredentialKind, FieldRule, Present, PresentField, Problem,
};
use crate::model::limits::{MAX_TTL, MIN_TTL};
use crate::model::{ConnectionRef, FieldName, Fields, KindName, ResourceName, Value};
use crate::seal::{Change, ReadValues, RecordKey, RecordKind, random_id};

/// Creates the connection of a document, or changes it to be like the document.
pub(super) fn put(
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
pub(super) fn create(
    draft: &mut Draft,
    caller: &Principal,
    document: ConnectionDocument,
) -> Result<ConnectionMetadata, Error> {
    let catalog = draft.catalog.clone();
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
pub(super) fn first_access(caller: &Principal, given: Access) -> Result<Bindings, Error> {
    let mut access = Bindings::default();
    access.replace_all(given).map_err(Error::PrincipalInvalid)?;
    if let Principal::Operator(name, _) = caller {
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
    })
}

/// Changes a connection to be like a document; whether the caller may is decided before.
pub(super) fn update(
    draft: &mut Draft,
    caller: &Principal,
    old: &Connection,
    document: ConnectionDocument,
) -> Result<Action, Error> {
    let resource = ResourceName::Connection(document.name.clone());
    let catalog = draft.catalog.clone();
    let kind = kind_of_existing(&catalog, &old.metadata, document.kind.as_ref())?;
    let changes = Changes::find(draft, kind, old, document.fields, &document.removed)?;
    changes.check_destinations(old, &resource)?;

    let stamp = Stamp::new(caller, draft.now);
    let mut metadata = old.metadata.clone();
    metadata.access = document.access.bindings(metadata.access)?;
    metadata.tags = match document.tags {
        Part::Merge(tags) => metadata.tags.with(&tags).map_err(Error::IdentifierTagInvalid)?,
        Part::Replace(tags) => tags,
    };
    metadata.labels = match document.labels {
        Part::Merge(labels) => metadata.labels.with(&labels).map_err(Error::LabelInvalid)?,
        Part::Replace(labels) => labels,
    };
    metadata.disabled = document.disabled.unwrap_or(metadata.disabled);
    set_max_ttl(&mut metadata, document.max_ttl)?;
    set_default(draft, caller, &mut metadata, document.is_default)?;
    let settings = settings_changed(&old.metadata, &metadata);
    let access = (metadata.access != old.metadata.access).then(|| metadata.access.clone());
    if changes.is_empty() && access.is_none() && settings.is_empty() {
        return Ok(Action::Unchanged);
    }
    let is_retagged = metadata.tags != old.metadata.tags;
    if is_retagged {
        check_membership(draft, &metadata)?;
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
    if is_retagged {
        // Which member a group selects may be another now.
        draft.note_group(noted);
    } else {
        draft.note(noted);
    }
    draft.put_connection(Connection { metadata, values }, stored)?;
    Ok(Action::Changed)
}

impl<T> Part<T> {
    /// What is given, for a resource that has nothing yet.
    pub(super) fn into_inner(self) -> T {
        match self {
            Self::Merge(given) | Self::Replace(given) => given,
        }
    }
}

impl Part<Access> {
    /// The bindings afterwards.
    pub(super) fn bindings(self, old: Bindings) -> Result<Bindings, Error> {
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
        return Err(Error::TtlOutOfRange { least: MIN_TTL, most: MAX_TTL });
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

/// The fields of a document beside those that a connection has.
struct Changes {
    /// Every field that the document gives a value, changed or not.
    given: BTreeSet<FieldName>,
    /// Those whose value is another, with its fingerprint.
    changed: BTreeMap<FieldName, (CheckedField, [u8; 32])>,
    /// Those that go.
    removed: BTreeSet<FieldName>,
}

impl Changes {
    fn find(
        draft: &Draft,
        kind: &CredentialKind,
        old: &Connection,
        fields: Part<BTreeMap<String, Value>>,
        named: &BTreeSet<String>,
    ) -> Result<Self, Error> {
        let stored = &old.metadata.fields;
        let is_whole = matches!(fields, Part::Replace(_));
        let fields = fields.into_inner();
        let canonical = |name: &str| {
            let ours = integration::find_field(kind, name).and_then(|rule| rule.canonical(name));
            ours.or_else(|| FieldName::parse(name).ok())
        };
        let named: BTreeSet<FieldName> = named.iter().filter_map(|name| canonical(name)).collect();
        let given: BTreeSet<FieldName> = fields.keys().filter_map(|name| canonical(name)).collect();
        let rule_of = |name: &FieldName| integration::find_field(kind, name.as_str());
        let goes = |name: &&FieldName| {
            let is_generated = rule_of(name).is_some_and(|rule| rule.generated);
            let is_named = named.contains(*name) || (is_whole && !is_generated);
            is_named && !given.contains(*name)
        };
        let removed: BTreeSet<FieldName> = stored.keys().filter(goes).cloned().collect();
        let stays = stored.iter().filter(|(name, _)| !removed.contains(*name));
        let present: Present = stays
            .map(|(name, field)| {
                let field = PresentField { bytes: field.bytes, value: field.value.clone() };
                (name.clone(), field)
            })
            .collect();
        let mut problems = cannot_go(kind, &removed, &present, &given);
        let checked = match integration::check(kind, fields, Some(&present)) {
            Ok(checked) => checked,
            Err(others) => {
                problems.extend(others);
                Checked::new()
            }
        };
        if !problems.is_empty() {
            return Err(Error::FieldsInvalid(problems));
        }
        let with_print = checked.into_iter().map(|(name, field)| {
            let uid = old.metadata.uid;
            let print = draft.keyring.fingerprint(uid, name.as_str(), field.value.expose());
            (name, (field, print))
        });
        let changed = with_print
            .filter(|(name, (_, print))| {
                stored.get(name).is_none_or(|field| field.fingerprint != *print)
            })
            .collect();
        Ok(Self { given, changed, removed })
    }

    fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    fn names(&self) -> Vec<FieldName> {
        self.changed.keys().chain(&self.removed).cloned().collect()
    }

    /// Nobody learns a secret by sending it somewhere else: a destination is added, changed or removed
    /// only together with every sensitive field. A value that is given again counts, even if it is the
    /// same.
    fn check_destinations(&self, old: &Connection, resource: &ResourceName) -> Result<(), Error> {
        let fields = &old.metadata.fields;
        let was_destination =
            |name: &FieldName| fields.get(name).is_some_and(|old| old.destination);
        let changed = self.changed.iter();
        let moved = changed
            .filter(|(name, (field, _))| field.destination || was_destination(name))
            .map(|(name, _)| name)
            .chain(self.removed.iter().filter(|name| was_destination(name)))
            .next();
        let Some(destination) = moved else { return Ok(()) };
        let stays = |name: &FieldName| !self.given.contains(name) && !self.removed.contains(name);
        let missing = fields.iter().filter(|(name, field)| field.sensitive && stays(name));
        let missing: Vec<&str> = missing.map(|(name, _)| name.as_str()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::SecretsRequired {
            resource: resource.clone(),
            destination: destination.to_string(),
            missing: missing.join(", "),
        })
    }

    /// Makes a new version of the credential.
    fn write(
        self,
        draft: &Draft,
        metadata: &mut ConnectionMetadata,
        old: &Connection,
        stamp: &Stamp,
    ) -> Result<Values, Error> {
        metadata.version += 1;
        let mut changes = BTreeMap::new();
        for name in self.removed {
            metadata.fields.remove(&name);
            changes.insert(name, Change::Remove);
        }
        for (name, (field, print)) in self.changed {
            metadata.fields.insert(name.clone(), field_metadata(stamp, &field, print));
            changes.insert(name, Change::Set(field.value));
        }
        let key = old.values.key;
        let sealed = draft
            .keyring
            .reseal_values(key, &old.values.sealed, metadata.version, changes)
            .map_err(|error| match error {
                ReadValues::Open(_) => Error::Corrupt,
                ReadValues::NoRandomness(error) => error.into(),
            })?;
        Ok(Values { key, sealed })
    }
}

/// Fields that have to stay.
fn cannot_go(
    kind: &CredentialKind,
    removed: &BTreeSet<FieldName>,
    present: &Present,
    given: &BTreeSet<FieldName>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for rule in &kind.fields {
        let covers = |name: &FieldName| rule.covers(name.as_str());
        let Some(gone) = removed.iter().find(|name| covers(name)) else { continue };
        let is_left = present.keys().chain(given).any(covers);
        if rule.generated || (rule.required && !is_left) {
            problems.push(Problem::new(gone.as_str(), "it cannot be removed, only overwritten"));
        }
    }
    problems
}

fn field_metadata(stamp: &Stamp, field: &CheckedField, fingerprint: [u8; 32]) -> FieldMetadata {
    let readable = if field.sensitive { Vec::new() } else { field.value.expose().to_vec() };
    FieldMetadata {
        sensitive: field.sensitive,
        destination: field.destination,
        bytes: field.value.len(),
        fingerprint,
        value: readable,
        update_time: stamp.now,
        updated_by: stamp.by.clone(),
    }
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
