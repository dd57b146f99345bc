//! Which credentials a step may have: pure decisions over one snapshot.

use std::sync::Arc;
use std::time::Duration;

use crate::access::{Bindings, Decision, Principal, Relation, decide, decide_secret};
use crate::broker::error::Error;
use crate::catalog::{Catalog, Connection, NotSelected, Values};
use crate::integration;
use crate::journal::Live;
use crate::lease::Lease;
use crate::model::{
    FieldName, Id, IntegrationName, KindName, Opening, Reference, ResourceName, SecretName,
    SecretRef, WorkflowName,
};

/// The one field of a secret.
const SECRET_FIELD: &str = "value";

/// The relation that a step needs on a group before it learns anything about the members.
pub(super) const ON_GROUP: Relation = Relation::Viewer;
/// The relation that a step needs on a connection to receive it, however it asks for the connection.
pub(super) const ON_CONNECTION: Relation = Relation::Resolver;

/// A credential that a step may have, still sealed.
pub(crate) struct Grant {
    /// The rule that allows it.
    pub(crate) by: String,
    /// The rule that lets the step view the group, if the target is a member of a group.
    by_group: Option<String>,
    pub(crate) name: ResourceName,
    pub(crate) kind: Option<(IntegrationName, KindName)>,
    pub(crate) version: u64,
    pub(crate) values: Values,
    /// The longest that a lease on it lasts.
    pub(crate) max_ttl: Option<Duration>,
    /// Pairs of the name asked for and our name; the former are unique.
    pub(crate) fields: Vec<(String, FieldName)>,
}

impl Grant {
    /// The rules that allow it, as one text.
    pub(super) fn rules(&self) -> String {
        match &self.by_group {
            Some(by_group) => ["group ", by_group, ", ", &self.by].concat(),
            None => self.by.clone(),
        }
    }

    /// The record and its version.
    pub(super) fn edition(&self) -> (Id, u64) {
        (self.values.key.uid, self.version)
    }

    /// The most bytes of values that are handed out: a field may be asked for by many of its names.
    pub(crate) fn bytes(&self) -> usize {
        let copies = |name| self.fields.iter().filter(|(_, other)| other == name).count();
        let most = self.fields.iter().map(|(_, name)| copies(name)).max().unwrap_or(0);
        self.values.sealed.as_bytes().len().saturating_mul(most)
    }
}

/// Why no credential is handed out.
#[derive(Debug)]
pub(crate) enum Refusal {
    Denied,
    Disabled(ResourceName),
    FieldUnknown {
        field: String,
        known: String,
    },
    NotFound(ResourceName),
    NotSelected(NotSelected),
    /// The step's executor does not let the step ask for it.
    Outside,
}

impl Refusal {
    /// The reason of the API, as the journal records it.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Denied | Self::Outside => "RESOLVE_DENIED",
            Self::Disabled(_) => "CONNECTION_DISABLED",
            Self::FieldUnknown { .. } => "FIELD_UNKNOWN",
            Self::NotFound(_) => "SECRET_NOT_FOUND",
            Self::NotSelected(NotSelected::Incomplete(_)) => "IDENTIFIERS_INCOMPLETE",
            Self::NotSelected(NotSelected::NoMember) => "GROUP_MEMBER_NOT_FOUND",
            Self::NotSelected(NotSelected::Unknown(_)) => "IDENTIFIER_UNKNOWN",
        }
    }

    /// The rule that refused it, if that is not access, as the journal records it.
    pub(crate) fn by(&self) -> &'static str {
        match self {
            Self::Outside => "allowed_targets",
            _ => "",
        }
    }

    /// The error for the step.
    pub(super) fn into_error(self, decision_id: String) -> Error {
        match self {
            Self::Denied | Self::Outside => Error::Denied { decision_id },
            Self::Disabled(name) => Error::Disabled(name),
            Self::FieldUnknown { field, known } => Error::FieldUnknown { field, known },
            Self::NotFound(name) => Error::NotFound(name),
            Self::NotSelected(NotSelected::Incomplete(key)) => {
                Error::IdentifiersIncomplete(key.to_string())
            }
            Self::NotSelected(NotSelected::NoMember) => Error::NoMember,
            Self::NotSelected(NotSelected::Unknown(key)) => {
                Error::IdentifierUnknown(key.to_string())
            }
        }
    }
}

/// The step of an opening, as a caller.
pub(super) fn step_principal(opening: &Opening) -> Principal {
    let key = &opening.key;
    Principal::Step {
        workflow: key.workflow.clone(),
        run: key.run.clone(),
        step: key.step.clone(),
        run_as: opening.run_as.clone(),
    }
}

/// The secret of this name in the step's own workflow.
pub(super) fn own_secret(workflow: &WorkflowName, name: &SecretName) -> SecretRef {
    SecretRef { workflow: workflow.clone(), name: name.clone() }
}

/// Decides whether a step of `workflow` may have what a target names: the one place that walks a target.
///
/// `fields` are the names asked for, all fields if empty; with `None` no fields are selected.
///
/// # Errors
/// Why the step may not have it. A connection that is absent has no bindings, and so is denied by the same path as a
/// connection that is not for this step.
pub(crate) fn authorize(
    catalog: &Catalog,
    principal: &Principal,
    workflow: &WorkflowName,
    target: &Reference,
    fields: Option<&[String]>,
) -> Result<Grant, Refusal> {
    let connection = |found: Option<&Arc<Connection>>| {
        authorize_connection(catalog, principal, found.map(AsRef::as_ref), fields)
    };
    match target {
        Reference::Connection(name) => connection(catalog.connection(name)),
        Reference::Default(integration) => {
            let name = catalog.default_of(integration);
            connection(name.and_then(|name| catalog.connection(&name)))
        }
        // "You can only use connections within a group if you have Resolver permission for those connections"
        // (Datadog). A step that may not view the group learns nothing of its identifiers or members.
        Reference::Group(target) => {
            let (group, none) = (catalog.group(&target.name), Bindings::default());
            let bindings = group.map_or(&none, |group| &group.metadata.access);
            let viewing = decide(principal, ON_GROUP, bindings);
            let (Decision::Allow(by_group), Some(group)) = (viewing, group) else {
                return Err(Refusal::Denied);
            };
            let member = group.select(&target.identifiers).map_err(Refusal::NotSelected)?;
            Ok(Grant { by_group: Some(by_group), ..connection(Some(member))? })
        }
        Reference::Secret(name) => {
            authorize_secret(catalog, principal, &own_secret(workflow, name), fields)
        }
    }
}

fn authorize_connection(
    catalog: &Catalog,
    principal: &Principal,
    connection: Option<&Connection>,
    asked: Option<&[String]>,
) -> Result<Grant, Refusal> {
    let none = Bindings::default();
    let bindings = connection.map_or(&none, |connection| &connection.metadata.access);
    let decision = decide(principal, ON_CONNECTION, bindings);
    let (Decision::Allow(by), Some(connection)) = (decision, connection) else {
        return Err(Refusal::Denied);
    };
    let metadata = &connection.metadata;
    let name = ResourceName::Connection(metadata.reference());
    if metadata.disabled {
        return Err(Refusal::Disabled(name));
    }
    let fields = asked.map(|asked| select(catalog, connection, asked)).transpose();
    let fields = fields.map_err(|field| {
        let known: Vec<_> = metadata.fields.keys().map(FieldName::as_str).collect();
        Refusal::FieldUnknown { field, known: known.join(", ") }
    })?;
    Ok(Grant {
        by,
        by_group: None,
        name,
        kind: Some((metadata.integration.clone(), metadata.kind.clone())),
        version: metadata.version,
        values: connection.values.clone(),
        max_ttl: metadata.max_ttl_seconds.map(Duration::from_secs),
        fields: fields.unwrap_or_default(),
    })
}

fn authorize_secret(
    catalog: &Catalog,
    principal: &Principal,
    name: &SecretRef,
    asked: Option<&[String]>,
) -> Result<Grant, Refusal> {
    let Decision::Allow(by) = decide_secret(principal, &name.workflow) else {
        return Err(Refusal::Denied);
    };
    let resource = ResourceName::Secret(name.clone());
    let Some(secret) = catalog.secret(name) else { return Err(Refusal::NotFound(resource)) };
    if let Some(field) = asked.unwrap_or_default().iter().find(|field| *field != SECRET_FIELD) {
        let (field, known) = (field.clone(), SECRET_FIELD.to_owned());
        return Err(Refusal::FieldUnknown { field, known });
    }
    let field = FieldName::parse(SECRET_FIELD).map_err(|_| Refusal::Denied)?;
    Ok(Grant {
        by,
        by_group: None,
        name: resource,
        kind: None,
        version: secret.metadata.version,
        values: secret.values.clone(),
        max_ttl: None,
        fields: vec![(SECRET_FIELD.to_owned(), field)],
    })
}

/// The fields to hand out, by the names asked for. The error is the first name that the connection does not have.
fn select(
    catalog: &Catalog,
    connection: &Connection,
    asked: &[String],
) -> Result<Vec<(String, FieldName)>, String> {
    let set = &connection.metadata.fields;
    if asked.is_empty() {
        return Ok(set.keys().map(|name| (name.as_str().to_owned(), name.clone())).collect());
    }
    let integration = catalog.integration(&connection.metadata.integration);
    let kind = integration.and_then(|found| found.kind(connection.metadata.kind.as_str()));
    let canonical = |asked: &str| {
        // A field that is stored under exactly this name comes first, even if the schema uses the name otherwise.
        let own = FieldName::parse(asked).ok().filter(|name| set.contains_key(name));
        let by_rule =
            || kind.and_then(|kind| integration::find_field(kind, asked)?.canonical(asked));
        own.or_else(by_rule).filter(|name| set.contains_key(name))
    };
    let pair = |asked: &String| {
        canonical(asked).map(|name| (asked.clone(), name)).ok_or_else(|| asked.clone())
    };
    let mut pairs = asked.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
    pairs.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    pairs.dedup_by(|one, other| one.0 == other.0);
    Ok(pairs)
}

/// Whether the executor that opened this step is still registered, under the same registration.
pub(crate) fn is_executors(catalog: &Catalog, opening: &Opening) -> bool {
    let executor = catalog.executor(&opening.key.executor);
    executor.is_some_and(|executor| executor.uid == opening.key.executor_uid)
}

/// Whether a lease would still be given: its resource exists, and access allows it.
pub(crate) fn is_still_allowed(catalog: &Catalog, live: &Live, lease: &Lease) -> bool {
    let Some(opening) = live.opening(lease.opening) else { return false };
    is_executors(catalog, opening.record()) && regrant(catalog, opening.record(), lease).is_some()
}

/// Decides on a lease again; `None` if the step may no longer have the resource of the lease.
pub(super) fn regrant(catalog: &Catalog, opening: &Opening, lease: &Lease) -> Option<Grant> {
    let (principal, target) = (step_principal(opening), lease.ask.target.reference());
    let grant = authorize(catalog, &principal, &opening.key.workflow, &target, None).ok()?;
    (grant.values.key.uid == lease.resource).then_some(grant)
}
