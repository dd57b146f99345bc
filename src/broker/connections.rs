//! Connections: created, changed, read without their values, deleted.

use std::collections::{BTreeMap, BTreeSet};

use super::Broker;
use super::apply::Action;
use super::error::Error;
use super::groups::{check_membership, groups_of};
use super::operators::{require_operator, require_role};
use super::writer::Draft;
use crate::access::{Bindings, Decision, Pattern, Principal, Relation, Role, decide_edit};
use crate::catalog::{Connection, ConnectionMetadata, FieldMetadata, Values};
use crate::integration::{self, Checked, CredentialKind, Problem};
use crate::journal::ChangeNote;
use crate::model::{
    ConnectionRef, FieldName, Fields, KindName, ResourceName, Tags, Timestamp, Value,
};
use crate::seal::{Change, ReadValues, RecordKey, RecordKind, random_id};

/// A connection as it should be. What it does not name stays as it is.
pub struct ConnectionDocument {
    /// Integration and name.
    pub name: ConnectionRef,
    /// The kind, unless it is clear from the fields.
    pub kind: Option<KindName>,
    /// The fields to set, by names or aliases.
    pub fields: BTreeMap<String, Value>,
    /// The identifier tags to set.
    pub tags: Tags,
    /// The relations to replace.
    pub access: BTreeMap<Relation, BTreeSet<Pattern>>,
}

/// One page of connections.
pub struct ListedConnections {
    /// Without their values.
    pub connections: Vec<ConnectionMetadata>,
    /// Where the next page starts, if there is one.
    pub next: Option<ConnectionRef>,
}

impl Broker {
    /// Creates a connection; the caller becomes an editor.
    ///
    /// # Errors
    /// See `ConnectionService.CreateConnection`.
    pub async fn create_connection(
        &self,
        caller: Principal,
        document: ConnectionDocument,
    ) -> Result<ConnectionMetadata, Error> {
        require_role(&caller, Role::Operator)?;
        self.writer
            .submit(move |draft| {
                if draft.catalog.connection(&document.name).is_some() {
                    return Err(Error::AlreadyExists(ResourceName::Connection(document.name)));
                }
                create(draft, &caller, document)
            })
            .await
    }

    /// A connection without its values.
    ///
    /// # Errors
    /// See `ConnectionService.GetConnection`.
    pub fn connection(
        &self,
        caller: &Principal,
        name: &ConnectionRef,
    ) -> Result<ConnectionMetadata, Error> {
        require_operator(caller)?;
        let snapshot = self.snapshot();
        let found = snapshot.catalog.connection(name);
        found
            .map(|connection| connection.metadata.clone())
            .ok_or_else(|| Error::NotFound(ResourceName::Connection(name.clone())))
    }

    /// Connections after `after`, by integration and name.
    ///
    /// # Errors
    /// If the caller is no operator.
    pub fn connections(
        &self,
        caller: &Principal,
        integration: Option<&str>,
        after: Option<&ConnectionRef>,
        size: usize,
    ) -> Result<ListedConnections, Error> {
        require_operator(caller)?;
        let snapshot = self.snapshot();
        let mut found = snapshot
            .catalog
            .connections_after(after)
            .map(|connection| &connection.metadata)
            .filter(|one| integration.is_none_or(|wanted| one.integration.as_str() == wanted));
        let connections: Vec<_> = found.by_ref().take(size).cloned().collect();
        let more = found.next().is_some();
        let next = connections.last().filter(|_| more).map(ConnectionMetadata::reference);
        Ok(ListedConnections { connections, next })
    }

    /// Deletes a connection and revokes its leases.
    ///
    /// # Errors
    /// See `ConnectionService.DeleteConnection`.
    pub async fn delete_connection(
        &self,
        caller: Principal,
        name: ConnectionRef,
        etag: Option<String>,
        force: bool,
    ) -> Result<(), Error> {
        require_role(&caller, Role::Operator)?;
        self.writer
            .submit(move |draft| {
                let resource = ResourceName::Connection(name.clone());
                let found = draft.catalog.connection(&name);
                let metadata =
                    found.ok_or_else(|| Error::NotFound(resource.clone()))?.metadata.clone();
                require_editor(&caller, &metadata.access, &resource)?;
                if etag.is_some_and(|etag| etag != metadata.etag()) {
                    return Err(Error::EtagMismatch(resource));
                }
                let groups = groups_of(draft, &metadata);
                if !groups.is_empty() && !force {
                    let users = groups.iter().map(|group| format!("group {group}"));
                    let users = users.collect::<Vec<_>>().join(", ");
                    return Err(Error::InUse { resource, users });
                }
                draft.catalog.remove_connection(&name);
                let kinds = [RecordKind::Connection, RecordKind::ConnectionValues];
                draft.remove(kinds.map(|kind| RecordKey { kind, uid: metadata.uid }));
                draft.note(note(&caller, "connection.delete", &metadata, Vec::new(), None));
                Ok(())
            })
            .await
    }
}

/// Creates the connection of a document, or changes it to be like the document.
pub(super) fn put(
    draft: &mut Draft,
    caller: &Principal,
    document: ConnectionDocument,
) -> Result<Action, Error> {
    match draft.catalog.connection(&document.name).cloned() {
        None => create(draft, caller, document).map(|_| Action::Created),
        Some(old) => update(draft, caller, &old, document),
    }
}

fn create(
    draft: &mut Draft,
    caller: &Principal,
    document: ConnectionDocument,
) -> Result<ConnectionMetadata, Error> {
    let kind = kind_of(&document)?;
    let mut checked =
        integration::check(kind, document.fields, None).map_err(Error::FieldsInvalid)?;
    for rule in kind.fields.iter().filter(|rule| rule.generated) {
        checked.insert(FieldName::parse(&rule.name)?, generated(rule)?);
    }
    let uid = random_id()?;
    let mut access = Bindings::default();
    access.replace_all(document.access).map_err(Error::PrincipalInvalid)?;
    if let Principal::Operator(name, _) = caller {
        access.add(Relation::Editor, Pattern::Operator(name.clone()));
    }
    let stamp = Stamp::new(caller, draft.now);
    let fields = checked.iter().map(|(name, field)| {
        let print = draft.keyring.fingerprint(uid, name.as_str(), field.value.expose());
        (name.clone(), stamp.field(field, print))
    });
    let metadata = ConnectionMetadata {
        uid,
        integration: document.name.integration,
        name: document.name.name,
        kind: kind.name.clone(),
        version: 1,
        revision: 1,
        fields: fields.collect(),
        tags: document.tags,
        groups: BTreeSet::new(),
        access,
        create_time: draft.now,
        update_time: draft.now,
        updated_by: stamp.by.clone(),
    };
    let key = RecordKey { kind: RecordKind::ConnectionValues, uid };
    let written: Vec<FieldName> = checked.keys().cloned().collect();
    let values: Fields = checked.into_iter().map(|(name, field)| (name, field.value)).collect();
    let sealed = draft.keyring.seal_values(key, metadata.version, &values)?;
    let connection = Connection { metadata: metadata.clone(), values: Values { key, sealed } };
    draft.put_connection(connection)?;
    let access = Some(metadata.access.clone());
    draft.note(note(caller, "connection.create", &metadata, written, access));
    Ok(metadata)
}

/// A value of the broker's own, such as the external id that an AWS role's trust policy names.
fn generated(rule: &integration::FieldRule) -> Result<integration::CheckedField, Error> {
    Ok(integration::CheckedField {
        sensitive: rule.sensitive,
        destination: rule.destination,
        value: Value::new(random_id()?.to_string().into_bytes()),
    })
}

fn update(
    draft: &mut Draft,
    caller: &Principal,
    old: &Connection,
    document: ConnectionDocument,
) -> Result<Action, Error> {
    let resource = ResourceName::Connection(document.name.clone());
    require_editor(caller, &old.metadata.access, &resource)?;
    let kind = kind_of_existing(&old.metadata, document.kind.as_ref())?;
    let present =
        old.metadata.fields.iter().map(|(name, field)| (name.clone(), field.bytes)).collect();
    let checked = integration::check(kind, document.fields, Some(&present));
    let checked = checked.map_err(Error::FieldsInvalid)?;
    let changes = Changes::find(draft, old, checked);
    changes.check_destinations(old, &resource)?;

    let stamp = Stamp::new(caller, draft.now);
    let mut metadata = old.metadata.clone();
    metadata.access.replace_all(document.access).map_err(Error::PrincipalInvalid)?;
    let access = (metadata.access != old.metadata.access).then(|| metadata.access.clone());
    metadata.tags = metadata.tags.with(&document.tags);
    let is_retagged = metadata.tags != old.metadata.tags;
    if changes.changed.is_empty() && access.is_none() && !is_retagged {
        return Ok(Action::Unchanged);
    }
    if is_retagged {
        check_membership(draft, &metadata)?;
    }
    metadata.revision += 1;
    metadata.update_time = stamp.now;
    metadata.updated_by.clone_from(&stamp.by);
    let written: Vec<FieldName> = changes.changed.keys().cloned().collect();
    let values = match written.is_empty() {
        true => old.values.clone(),
        false => write_fields(draft, &mut metadata, old, changes, &stamp)?,
    };
    let mut noted = note(caller, "connection.update", &metadata, written, access);
    if is_retagged {
        // Which member a group selects may be another now.
        noted.action = "connection.update_tags".to_owned();
        draft.note_group(noted);
    } else {
        draft.note(noted);
    }
    draft.put_connection(Connection { metadata, values })?;
    Ok(Action::Changed)
}

/// Makes a new version of the credential with the changed fields.
fn write_fields(
    draft: &Draft,
    metadata: &mut ConnectionMetadata,
    old: &Connection,
    changes: Changes,
    stamp: &Stamp,
) -> Result<Values, Error> {
    metadata.version += 1;
    for (name, (field, print)) in &changes.changed {
        metadata.fields.insert(name.clone(), stamp.field(field, *print));
    }
    let changed = changes.changed.into_iter();
    let changed = changed.map(|(name, (field, _))| (name, Change::Set(field.value))).collect();
    let key = old.values.key;
    let sealed = draft
        .keyring
        .reseal_values(key, &old.values.sealed, metadata.version, changed)
        .map_err(|error| match error {
            ReadValues::Open(_) => Error::Corrupt,
            ReadValues::NoRandomness(error) => error.into(),
        })?;
    Ok(Values { key, sealed })
}

/// The fields of a document beside those that a connection has.
struct Changes {
    /// Every field that the document gives a value, changed or not.
    given: BTreeSet<FieldName>,
    /// Those whose value is another, with its fingerprint.
    changed: BTreeMap<FieldName, (integration::CheckedField, [u8; 32])>,
}

impl Changes {
    fn find(draft: &Draft, old: &Connection, checked: Checked) -> Self {
        let given = checked.keys().cloned().collect();
        let with_print = checked.into_iter().map(|(name, field)| {
            let uid = old.metadata.uid;
            let print = draft.keyring.fingerprint(uid, name.as_str(), field.value.expose());
            (name, (field, print))
        });
        let changed = with_print
            .filter(|(name, (_, print))| {
                old.metadata.fields.get(name).is_none_or(|field| field.fingerprint != *print)
            })
            .collect();
        Self { given, changed }
    }

    /// Nobody learns a secret by sending it somewhere else: a destination changes only together with
    /// every sensitive field. A value that is given again counts, even if it is the same.
    fn check_destinations(&self, old: &Connection, resource: &ResourceName) -> Result<(), Error> {
        let fields = &old.metadata.fields;
        let is_destination = |name: &FieldName, field: &integration::CheckedField| {
            field.destination || fields.get(name).is_some_and(|old| old.destination)
        };
        let moved = self.changed.iter().find(|(name, (field, _))| is_destination(name, field));
        let Some((destination, _)) = moved else { return Ok(()) };
        let missing =
            fields.iter().filter(|(name, field)| field.sensitive && !self.given.contains(*name));
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
}

/// Who writes, and when.
pub(super) struct Stamp {
    pub(super) by: String,
    pub(super) now: Timestamp,
}

impl Stamp {
    pub(super) fn new(caller: &Principal, now: Timestamp) -> Self {
        Self { by: caller.to_string(), now }
    }

    fn field(&self, field: &integration::CheckedField, fingerprint: [u8; 32]) -> FieldMetadata {
        let readable = if field.sensitive { Vec::new() } else { field.value.expose().to_vec() };
        FieldMetadata {
            sensitive: field.sensitive,
            destination: field.destination,
            bytes: field.value.len(),
            fingerprint,
            value: readable,
            update_time: self.now,
            updated_by: self.by.clone(),
        }
    }
}

fn kind_of(document: &ConnectionDocument) -> Result<&'static CredentialKind, Error> {
    let name = &document.name.integration;
    let integration =
        integration::find(name).ok_or_else(|| Error::IntegrationUnknown(name.clone()))?;
    let fields = document.fields.keys().map(String::as_str).collect();
    integration::infer_kind(integration, document.kind.as_ref(), &fields)
        .map_err(Error::KindInvalid)
}

fn kind_of_existing(
    old: &ConnectionMetadata,
    named: Option<&KindName>,
) -> Result<&'static CredentialKind, Error> {
    if named.is_some_and(|named| *named != old.kind) {
        let text = format!("the kind of a connection never changes; this one is {}", old.kind);
        return Err(Error::KindInvalid(Problem::new("kind", text)));
    }
    let kind = integration::find(&old.integration).and_then(|found| found.kind(old.kind.as_str()));
    kind.ok_or_else(|| Error::IntegrationUnknown(old.integration.clone()))
}

pub(super) fn require_editor(
    caller: &Principal,
    access: &Bindings,
    resource: &ResourceName,
) -> Result<(), Error> {
    match decide_edit(caller, access) {
        Decision::Allow(_) => Ok(()),
        Decision::Deny => Err(Error::EditDenied(resource.clone())),
    }
}

fn note(
    caller: &Principal,
    action: &str,
    metadata: &ConnectionMetadata,
    fields: Vec<FieldName>,
    access: Option<Bindings>,
) -> ChangeNote {
    ChangeNote {
        principal: caller.to_string(),
        action: action.to_owned(),
        resource: ResourceName::Connection(metadata.reference()).to_string(),
        uid: metadata.uid,
        version: metadata.version,
        fields,
        access,
    }
}
