//! A step gets its credential.
//!
//! ```text
//! bindings(name) → decide → find → propose a lease → journal.commit → permit → open
//! ```
//!
//! All of it on one snapshot. If another was published before the journal took the line, everything is
//! decided again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::error::Error;
use crate::access::{Decision, Principal, Relation, decide, decide_secret};
use crate::catalog::{Catalog, Connection, NotSelected, Values};
use crate::integration;
use crate::journal::{
    CommitError, Committed, Live, LiveOpening, Permit, Resolution, Unavailable, Verdict,
};
use crate::lease::{Ask, Bounds, Lease, propose};
use crate::model::limits::{MAX_REQUESTED_FIELDS, MAX_TTL, MIN_TTL};
use crate::model::{
    ConnectionRef, FieldName, GroupRef, IntegrationName, KindName, Reference, ResourceName,
    SecretName, SecretRef, StepKey, Timestamp, Value,
};

/// The one field of a secret.
const SECRET_FIELD: &str = "value";

/// What a step asks for.
#[derive(Clone, Debug)]
pub struct ResolveRequest {
    /// Which credential.
    pub target: Reference,
    /// Which fields, by names or aliases; all if empty.
    pub fields: Vec<String>,
    /// For how long.
    pub ttl: Option<Duration>,
}

/// What a step gets.
pub struct Resolved {
    /// The full name of the resource.
    pub name: ResourceName,
    /// A connection's integration and kind.
    pub kind: Option<(IntegrationName, KindName)>,
    /// The version.
    pub version: u64,
    /// The values, by the names asked for.
    pub fields: BTreeMap<String, Value>,
    /// The lease.
    pub lease: Lease,
}

/// A credential that was found and may be handed out, still sealed.
struct Found {
    by: String,
    name: ResourceName,
    kind: Option<(IntegrationName, KindName)>,
    version: u64,
    values: Values,
    /// The name asked for → our name.
    fields: BTreeMap<String, FieldName>,
}

/// What the decision on one snapshot came to.
enum Judgement {
    Deny,
    FieldUnknown { field: String, known: String },
    Found(Box<Found>),
    NotFound(ResourceName),
    NotSelected(NotSelected),
}

impl Broker {
    /// Resolves a credential for the step behind this opening.
    ///
    /// # Errors
    /// See `StepService.Resolve` in `proto/keyhatch/v1/step.proto`.
    pub fn resolve(
        &self,
        opening: &Arc<LiveOpening>,
        request: &ResolveRequest,
    ) -> Result<Resolved, Error> {
        check_form(request)?;
        let now = self.now();
        opening.check_refusals(now, &self.limits).map_err(Error::TooManyRequests)?;
        let outcome = self.resolve_until_current(opening, request, now);
        if let Err(
            Error::Denied { .. }
            | Error::FieldUnknown { .. }
            | Error::IdentifierUnknown(_)
            | Error::IdentifiersIncomplete(_)
            | Error::NoMember
            | Error::NotFound(_)
            | Error::TooManyLeases(_),
        ) = outcome
        {
            opening.count_refusal(now, &self.limits);
        }
        outcome
    }

    fn resolve_until_current(
        &self,
        opening: &LiveOpening,
        request: &ResolveRequest,
        now: Timestamp,
    ) -> Result<Resolved, Error> {
        // Each turn means that somebody's change was published, so this ends.
        loop {
            match self.resolve_once(opening, request, now) {
                Err(CommitError::Stale) => {}
                Err(CommitError::Closed) => {
                    return Err(Error::NotAccepted(crate::journal::NotAccepted::NotOpen));
                }
                Err(CommitError::TooManyLeases) => {
                    return Err(Error::TooManyLeases(self.limits.step_live_leases));
                }
                Err(CommitError::Unavailable(Unavailable)) => {
                    return Err(Error::JournalUnavailable);
                }
                Ok(outcome) => return outcome,
            }
        }
    }

    fn resolve_once(
        &self,
        opening: &LiveOpening,
        request: &ResolveRequest,
        now: Timestamp,
    ) -> Result<Result<Resolved, Error>, CommitError> {
        let snapshot = self.snapshot();
        let judgement = judge(&snapshot.catalog, &opening.record().key, request);
        let ask = Ask {
            target: target_text(&opening.record().key, &request.target),
            fields: request.fields.clone(),
            ttl_millis: request.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        };
        let commit = |verdict| {
            let resolution = Resolution { epoch: snapshot.head, opening, ask, verdict };
            self.journal.commit(now, resolution)
        };
        let found = match judgement {
            Judgement::Found(found) => *found,
            Judgement::Deny => {
                let Committed::Refused(decision_id) = commit(Verdict::Refuse("RESOLVE_DENIED"))?
                else {
                    return Ok(Err(Error::Internal("a refusal was permitted".to_owned())));
                };
                return Ok(Err(Error::Denied { decision_id }));
            }
            Judgement::FieldUnknown { field, known } => {
                commit(Verdict::Refuse("FIELD_UNKNOWN"))?;
                return Ok(Err(Error::FieldUnknown { field, known }));
            }
            Judgement::NotFound(name) => {
                commit(Verdict::Refuse("SECRET_NOT_FOUND"))?;
                return Ok(Err(Error::NotFound(name)));
            }
            Judgement::NotSelected(why) => {
                let (reason, error) = not_selected(why);
                commit(Verdict::Refuse(reason))?;
                return Ok(Err(error));
            }
        };
        let terms = propose(request.ttl, &self.lease_bounds(opening), now);
        let verdict = Verdict::Allow {
            by: found.by.clone(),
            record: found.values.key,
            version: found.version,
            fields: found.fields.values().cloned().collect(),
            terms,
            max_leases: self.limits.step_live_leases,
        };
        match commit(verdict)? {
            Committed::Permitted(permit, lease) => Ok(self.hand_out(found, permit, lease)),
            Committed::Refused(decision_id) => Ok(Err(Error::Denied { decision_id })),
        }
    }

    fn hand_out(&self, found: Found, permit: Permit, lease: Lease) -> Result<Resolved, Error> {
        let opened = permit.open(&found.values.sealed, &self.keyring).map_err(|error| {
            tracing::error!(resource.name = %found.name, %error, "a stored credential cannot be opened");
            Error::Corrupt
        })?;
        // Copied, not moved: one field may have been asked for under two of its names.
        let copy = |(asked, name): (String, FieldName)| {
            let value = opened.get(&name).ok_or(Error::Corrupt)?;
            Ok((asked, Value::new(value.expose().to_vec())))
        };
        let fields = found.fields.into_iter().map(copy).collect::<Result<_, Error>>()?;
        Ok(Resolved { name: found.name, kind: found.kind, version: found.version, fields, lease })
    }

    fn lease_bounds(&self, opening: &LiveOpening) -> Bounds {
        Bounds {
            default: Duration::from_secs(self.limits.default_lease_seconds.into()),
            server: Duration::from_secs(self.limits.max_lease_seconds.into()),
            connection: None,
            step_end: opening.record().expire_time,
        }
    }
}

/// Form errors come before the decision.
fn check_form(request: &ResolveRequest) -> Result<(), Error> {
    if request.fields.len() > MAX_REQUESTED_FIELDS {
        let text = format!("at most {MAX_REQUESTED_FIELDS} fields can be named");
        return Err(Error::TargetInvalid(text));
    }
    for field in &request.fields {
        FieldName::parse(field)?;
    }
    match request.ttl {
        Some(ttl) if !(MIN_TTL..=MAX_TTL).contains(&ttl) => {
            Err(Error::TtlOutOfRange { least: MIN_TTL, most: MAX_TTL })
        }
        _ => Ok(()),
    }
}

/// What was asked, as the journal and the lease keep it.
fn target_text(key: &StepKey, target: &Reference) -> String {
    match target {
        Reference::Connection(name) => ResourceName::Connection(name.clone()).to_string(),
        Reference::Group(group) => group.to_string(),
        Reference::Secret(name) => ResourceName::Secret(own_secret(key, name)).to_string(),
    }
}

fn own_secret(key: &StepKey, name: &SecretName) -> SecretRef {
    SecretRef { workflow: key.workflow.clone(), name: name.clone() }
}

fn not_selected(why: NotSelected) -> (&'static str, Error) {
    match why {
        NotSelected::Incomplete(key) => {
            ("IDENTIFIERS_INCOMPLETE", Error::IdentifiersIncomplete(key.to_string()))
        }
        NotSelected::NoMember => ("GROUP_MEMBER_NOT_FOUND", Error::NoMember),
        NotSelected::Unknown(key) => {
            ("IDENTIFIER_UNKNOWN", Error::IdentifierUnknown(key.to_string()))
        }
    }
}

fn principal(key: &StepKey) -> Principal {
    Principal::Step { workflow: key.workflow.clone(), run: key.run.clone(), step: key.step.clone() }
}

fn judge(catalog: &Catalog, key: &StepKey, request: &ResolveRequest) -> Judgement {
    match &request.target {
        Reference::Connection(name) => judge_connection(catalog, key, name, &request.fields),
        Reference::Group(group) => judge_group(catalog, key, group, &request.fields),
        Reference::Secret(name) => {
            judge_secret(catalog, key, &own_secret(key, name), &request.fields)
        }
    }
}

/// Viewer on the group, and then resolver on the member that is selected: "You can only use connections
/// within a group if you have Resolver permission for those connections" (Datadog). Whoever may not view
/// the group learns nothing of its identifiers or members.
fn judge_group(catalog: &Catalog, key: &StepKey, target: &GroupRef, asked: &[String]) -> Judgement {
    let viewing = decide(&principal(key), Relation::Viewer, catalog.group_bindings(&target.name));
    let Decision::Allow(by_group) = viewing else { return Judgement::Deny };
    let Some(group) = catalog.group(&target.name) else { return Judgement::Deny };
    let member = match group.select(&target.identifiers) {
        Ok(member) => member,
        Err(why) => return Judgement::NotSelected(why),
    };
    match judge_connection(catalog, key, member, asked) {
        Judgement::Found(mut found) => {
            found.by = format!("group {by_group}, {}", found.by);
            Judgement::Found(found)
        }
        other => other,
    }
}

fn judge_connection(
    catalog: &Catalog,
    key: &StepKey,
    name: &ConnectionRef,
    asked: &[String],
) -> Judgement {
    // By name, before any lookup: what is absent is refused by the same path.
    let decision = decide(&principal(key), Relation::Resolver, catalog.bindings(name));
    let Decision::Allow(by) = decision else { return Judgement::Deny };
    let Some(connection) = catalog.connection(name) else { return Judgement::Deny };
    match select(connection, asked) {
        Err(field) => {
            let known: Vec<_> = connection.metadata.fields.keys().map(FieldName::as_str).collect();
            Judgement::FieldUnknown { field, known: known.join(", ") }
        }
        Ok(fields) => Judgement::Found(Box::new(Found {
            by,
            name: ResourceName::Connection(name.clone()),
            kind: Some((connection.metadata.integration.clone(), connection.metadata.kind.clone())),
            version: connection.metadata.version,
            values: connection.values.clone(),
            fields,
        })),
    }
}

fn judge_secret(catalog: &Catalog, key: &StepKey, name: &SecretRef, asked: &[String]) -> Judgement {
    let Decision::Allow(by) = decide_secret(&principal(key), &name.workflow) else {
        return Judgement::Deny;
    };
    let resource = ResourceName::Secret(name.clone());
    let Some(secret) = catalog.secret(name) else { return Judgement::NotFound(resource) };
    if let Some(field) = asked.iter().find(|field| *field != SECRET_FIELD) {
        return Judgement::FieldUnknown { field: field.clone(), known: SECRET_FIELD.to_owned() };
    }
    let Ok(field) = FieldName::parse(SECRET_FIELD) else { return Judgement::Deny };
    Judgement::Found(Box::new(Found {
        by,
        name: resource,
        kind: None,
        version: secret.metadata.version,
        values: secret.values.clone(),
        fields: BTreeMap::from([(SECRET_FIELD.to_owned(), field)]),
    }))
}

/// The fields to hand out, by the names asked for; the first name that is none is the error.
fn select(
    connection: &Connection,
    asked: &[String],
) -> Result<BTreeMap<String, FieldName>, String> {
    let set = &connection.metadata.fields;
    if asked.is_empty() {
        return Ok(set.keys().map(|name| (name.as_str().to_owned(), name.clone())).collect());
    }
    let integration = integration::find(&connection.metadata.integration);
    let kind = integration.and_then(|found| found.kind(connection.metadata.kind.as_str()));
    let canonical = |asked: &str| {
        let ours = kind.and_then(|kind| integration::find_field(kind, asked)?.canonical(asked));
        ours.or_else(|| FieldName::parse(asked).ok()).filter(|name| set.contains_key(name))
    };
    let pair = |asked: &String| {
        canonical(asked).map(|name| (asked.clone(), name)).ok_or_else(|| asked.clone())
    };
    asked.iter().map(pair).collect()
}

/// Whether a lease would still be given: its resource is there, and access allows it.
pub(super) fn is_still_allowed(catalog: &Catalog, live: &Live, lease: &Lease) -> bool {
    let Some(opening) = live.opening(lease.opening) else { return false };
    let principal = principal(&opening.record().key);
    let target = lease.ask.target.as_str();
    if let Ok(group) = target.parse::<GroupRef>() {
        let viewing = decide(&principal, Relation::Viewer, catalog.group_bindings(&group.name));
        let found = catalog.group(&group.name);
        let member = found.and_then(|found| found.select(&group.identifiers).ok());
        return viewing != Decision::Deny
            && member.is_some_and(|member| is_resolver(catalog, &principal, member, lease));
    }
    match target.parse() {
        Ok(ResourceName::Connection(name)) => is_resolver(catalog, &principal, &name, lease),
        Ok(ResourceName::Secret(name)) => {
            let same = catalog.secret(&name).is_some_and(|s| s.metadata.uid == lease.resource);
            same && decide_secret(&principal, &name.workflow) != Decision::Deny
        }
        _ => false,
    }
}

/// Whether this is still the connection that the lease is for, and the principal still resolves it.
fn is_resolver(
    catalog: &Catalog,
    principal: &Principal,
    name: &ConnectionRef,
    lease: &Lease,
) -> bool {
    let same = catalog.connection(name).is_some_and(|c| c.metadata.uid == lease.resource);
    same && decide(principal, Relation::Resolver, catalog.bindings(name)) != Decision::Deny
}
