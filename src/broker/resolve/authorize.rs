//! What a step may have of the catalogue: pure decisions over one snapshot.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::access::{Bindings, Decision, Principal, Relation, decide, decide_secret};
use crate::broker::error::Error;
use crate::catalog::{Catalog, Connection, NotSelected, Values};
use crate::integration;
use crate::journal::Live;
use crate::lease::Lease;
use crate::model::{
    FieldName, GroupRef, Id, IntegrationName, Invalid, KindName, Opening, Reference, ResourceName,
    RunAs, RunName, SecretName, SecretRef, StepName, WorkflowName,
};

/// The one field of a secret.
const SECRET_FIELD: &str = "value";

/// A credential that was found and may be handed out, still sealed.
pub(crate) struct Found {
    /// The binding that says so.
    pub(crate) by: String,
    pub(crate) name: ResourceName,
    pub(crate) kind: Option<(IntegrationName, KindName)>,
    pub(crate) version: u64,
    pub(crate) values: Values,
    /// The longest that a lease on it lasts.
    pub(crate) max_ttl: Option<Duration>,
    /// The name asked for and our name, each of the former once.
    pub(crate) fields: Vec<(String, FieldName)>,
}

impl Found {
    /// Which record it is, in which version.
    pub(super) fn edition(&self) -> (Id, u64) {
        (self.values.key.uid, self.version)
    }

    /// The most bytes that its values have when they are handed out: a field may be asked for by many of its names.
    pub(crate) fn bytes(&self) -> usize {
        let copies = |name| self.fields.iter().filter(|(_, other)| other == name).count();
        let most = self.fields.iter().map(|(_, name)| copies(name)).max().unwrap_or(0);
        self.values.sealed.as_bytes().len().saturating_mul(most)
    }
}

/// Why nothing is handed out.
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
    /// Beyond what its executor lets the step ask for.
    Outside,
}

impl Refusal {
    /// The reason of the API, as the journal keeps it.
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

    /// What refused it, where that is not access, as the journal keeps it.
    pub(crate) fn by(&self) -> &'static str {
        match self {
            Self::Outside => "allowed_targets",
            _ => "",
        }
    }

    /// What the step is told.
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

/// The step that an opening is of, as a caller.
pub(super) fn step_principal(opening: &Opening) -> Principal {
    let key = &opening.key;
    Principal::Step {
        workflow: key.workflow.clone(),
        run: key.run.clone(),
        step: key.step.clone(),
        run_as: opening.run_as.clone(),
    }
}

/// A step that nobody has opened, as a caller.
///
/// # Errors
/// Never: the run's name is a constant one.
pub(super) fn step_principal_of(
    workflow: &WorkflowName,
    step: &StepName,
    run_as: &BTreeSet<RunAs>,
) -> Result<Principal, Invalid> {
    Ok(Principal::Step {
        workflow: workflow.clone(),
        run: RunName::parse("dry-run")?,
        step: step.clone(),
        run_as: run_as.clone(),
    })
}

/// The secret that a step of this workflow means.
pub(super) fn own_secret(workflow: &WorkflowName, name: &SecretName) -> SecretRef {
    SecretRef { workflow: workflow.clone(), name: name.clone() }
}

/// Decides what a step of `workflow` gets for this target and these fields.
pub(crate) fn judge(
    catalog: &Catalog,
    principal: &Principal,
    workflow: &WorkflowName,
    target: &Reference,
    asked: &[String],
) -> Result<Found, Refusal> {
    match target {
        Reference::Connection(name) => {
            let connection = catalog.connection(name).map(AsRef::as_ref);
            judge_connection(catalog, principal, connection, asked)
        }
        Reference::Default(integration) => {
            let name = catalog.default_of(integration);
            let connection = name.and_then(|name| catalog.connection(&name));
            judge_connection(catalog, principal, connection.map(AsRef::as_ref), asked)
        }
        Reference::Group(group) => judge_group(catalog, principal, group, asked),
        Reference::Secret(name) => {
            judge_secret(catalog, principal, &own_secret(workflow, name), asked)
        }
    }
}

/// Viewer on the group, and then resolver on the member that is selected: "You can only use connections
/// within a group if you have Resolver permission for those connections" (Datadog). Whoever may not view
/// the group learns nothing of its identifiers or members.
fn judge_group(
    catalog: &Catalog,
    principal: &Principal,
    target: &GroupRef,
    asked: &[String],
) -> Result<Found, Refusal> {
    let (group, none) = (catalog.group(&target.name), Bindings::default());
    let bindings = group.map_or(&none, |group| &group.metadata.access);
    let viewing = decide(principal, Relation::Viewer, bindings);
    let (Decision::Allow(by_group), Some(group)) = (viewing, group) else {
        return Err(Refusal::Denied);
    };
    let member = group.select(&target.identifiers).map_err(Refusal::NotSelected)?;
    let found = judge_connection(catalog, principal, Some(member), asked)?;
    Ok(Found { by: ["group ", &by_group, ", ", &found.by].concat(), ..found })
}

/// A connection that is absent has no bindings, and is refused by the same path as one that is not for
/// this step.
fn judge_connection(
    catalog: &Catalog,
    principal: &Principal,
    connection: Option<&Connection>,
    asked: &[String],
) -> Result<Found, Refusal> {
    let none = Bindings::default();
    let bindings = connection.map_or(&none, |connection| &connection.metadata.access);
    let decision = decide(principal, Relation::Resolver, bindings);
    let (Decision::Allow(by), Some(connection)) = (decision, connection) else {
        return Err(Refusal::Denied);
    };
    let metadata = &connection.metadata;
    let name = ResourceName::Connection(metadata.reference());
    if metadata.disabled {
        return Err(Refusal::Disabled(name));
    }
    let fields = select(catalog, connection, asked).map_err(|field| {
        let known: Vec<_> = metadata.fields.keys().map(FieldName::as_str).collect();
        Refusal::FieldUnknown { field, known: known.join(", ") }
    })?;
    Ok(Found {
        by,
        name,
        kind: Some((metadata.integration.clone(), metadata.kind.clone())),
        version: metadata.version,
        values: connection.values.clone(),
        max_ttl: metadata.max_ttl_seconds.map(Duration::from_secs),
        fields,
    })
}

fn judge_secret(
    catalog: &Catalog,
    principal: &Principal,
    name: &SecretRef,
    asked: &[String],
) -> Result<Found, Refusal> {
    let Decision::Allow(by) = decide_secret(principal, &name.workflow) else {
        return Err(Refusal::Denied);
    };
    let resource = ResourceName::Secret(name.clone());
    let Some(secret) = catalog.secret(name) else { return Err(Refusal::NotFound(resource)) };
    if let Some(field) = asked.iter().find(|field| *field != SECRET_FIELD) {
        let (field, known) = (field.clone(), SECRET_FIELD.to_owned());
        return Err(Refusal::FieldUnknown { field, known });
    }
    let field = FieldName::parse(SECRET_FIELD).map_err(|_| Refusal::Denied)?;
    Ok(Found {
        by,
        name: resource,
        kind: None,
        version: secret.metadata.version,
        values: secret.values.clone(),
        max_ttl: None,
        fields: vec![(SECRET_FIELD.to_owned(), field)],
    })
}

/// The fields to hand out, by the names asked for; the first name that is none is the error.
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
        // What is stored under exactly this name is meant, whatever a schema calls so since.
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

/// Why a lease would still be given, and what of.
pub(crate) struct LeaseCheck {
    /// The binding that says so.
    pub(crate) by: String,
    /// The version that there is now.
    pub(crate) version: u64,
    /// The longest that a lease lasts.
    pub(crate) max_ttl: Option<Duration>,
}

/// Whether the executor that opened this is still registered, and no other under its name.
pub(crate) fn is_executors(catalog: &Catalog, opening: &Opening) -> bool {
    let executor = catalog.executor(&opening.key.executor);
    executor.is_some_and(|executor| executor.uid == opening.key.executor_uid)
}

/// Whether a lease would still be given: its resource is there, and access allows it.
pub(crate) fn is_still_allowed(catalog: &Catalog, live: &Live, lease: &Lease) -> bool {
    let Some(opening) = live.opening(lease.opening) else { return false };
    is_executors(catalog, opening.record())
        && check_lease(catalog, &step_principal(opening.record()), lease).is_some()
}

/// Decides on a lease again, for whoever holds it.
pub(crate) fn check_lease(
    catalog: &Catalog,
    principal: &Principal,
    lease: &Lease,
) -> Option<LeaseCheck> {
    let target = lease.ask.target.as_str();
    let connection = match target.parse() {
        Ok(Reference::Default(integration)) => catalog.default_of(&integration)?,
        Ok(Reference::Group(group)) => {
            let found = catalog.group(&group.name)?;
            let viewing = decide(principal, Relation::Viewer, &found.metadata.access);
            let Decision::Allow(_) = viewing else { return None };
            found.select(&group.identifiers).ok()?.metadata.reference()
        }
        _ => match target.parse().ok()? {
            ResourceName::Connection(name) => name,
            ResourceName::Secret(name) => {
                return check_secret_lease(catalog, principal, &name, lease);
            }
            _ => return None,
        },
    };
    let metadata = &catalog.connection(&connection)?.metadata;
    let decision = decide(principal, Relation::Resolver, &metadata.access);
    let Decision::Allow(by) = decision else { return None };
    let max_ttl = metadata.max_ttl_seconds.map(Duration::from_secs);
    let same = metadata.uid == lease.resource && !metadata.disabled;
    same.then_some(LeaseCheck { by, version: metadata.version, max_ttl })
}

fn check_secret_lease(
    catalog: &Catalog,
    principal: &Principal,
    name: &SecretRef,
    lease: &Lease,
) -> Option<LeaseCheck> {
    let metadata = &catalog.secret(name)?.metadata;
    let Decision::Allow(by) = decide_secret(principal, &name.workflow) else { return None };
    let same = metadata.uid == lease.resource;
    same.then_some(LeaseCheck { by, version: metadata.version, max_ttl: None })
}
