//! Which credentials a step may have: pure decisions over one snapshot.

use std::sync::Arc;
use std::time::Duration;

pub(crate) use super::refusal::Refusal;
use crate::access::{
    Bindings, Decision, Principal, Purpose, Relation, decide, decide_secret, held,
};
use crate::broker::minting::Credential;
use crate::catalog::{Catalog, Connection, InForce, Unusable, Values};
use crate::integration::{
    self, CredentialKind, Source, find_released_field, released_names, source_of,
};
use crate::journal::{Live, Upstream};
use crate::lease::{Edition, Lease};
use crate::model::{
    FieldName, IntegrationName, KindName, Opening, Reference, Release, ResourceName, SecretName,
    SecretRef, WorkflowName,
};

/// The one field of a secret.
const SECRET_FIELD: &str = "value";

/// The relation that a step needs on a group before it learns anything about the members.
pub(super) const ON_GROUP: Relation = Relation::Viewer;

/// What a step gets of a resource.
pub(crate) enum Material {
    /// The stored values.
    Stored,
    /// A credential that an upstream makes from them.
    Minted {
        /// The protocol.
        source: Source,
        /// True if each opening has a credential for itself.
        is_own: bool,
        /// The credential. `None` if the upstream is to be asked for it.
        credential: Option<Arc<Credential>>,
    },
}

/// A credential that a step may have, still sealed.
pub(crate) struct Grant {
    /// The rule that allows it.
    pub(crate) by: String,
    /// The rule that lets the step view the group, if the target is a member of a group.
    by_group: Option<String>,
    pub(crate) name: ResourceName,
    pub(crate) kind: Option<(IntegrationName, KindName)>,
    pub(crate) version: u64,
    /// The stored values.
    pub(crate) values: Values,
    /// What the step gets.
    pub(crate) material: Material,
    /// Why no further credential is minted, if the refresh token is of no use.
    pub(crate) unusable: Option<Unusable>,
    /// The longest that a lease on it lasts.
    pub(crate) max_ttl: Option<Duration>,
    /// Pairs of the name asked for and our name; the former are unique.
    pub(crate) fields: Vec<(String, FieldName)>,
}

impl Grant {
    /// The rules that allow it, as one text.
    pub(crate) fn rules(&self) -> String {
        match &self.by_group {
            Some(by_group) => ["group ", by_group, ", ", &self.by].concat(),
            None => self.by.clone(),
        }
    }

    /// The minted credential that the step gets, if there is one.
    pub(crate) fn credential(&self) -> Option<&Arc<Credential>> {
        match &self.material {
            Material::Minted { credential, .. } => credential.as_ref(),
            Material::Stored => None,
        }
    }

    /// The record that the step gets. `None` if the upstream is to be asked for it.
    pub(crate) fn handed_out(&self) -> Option<&Values> {
        match &self.material {
            Material::Stored => Some(&self.values),
            Material::Minted { .. } => self.credential().map(|credential| &credential.values),
        }
    }

    /// How the credential is made, if an upstream makes it.
    pub(super) fn upstream(&self) -> Option<Upstream> {
        match &self.material {
            Material::Stored => None,
            Material::Minted { source, credential, .. } => {
                let credential = credential.as_ref().map(|made| Arc::clone(&made.minted));
                Some(Upstream { source: *source, credential })
            }
        }
    }

    /// What the step gets, without its values.
    pub(super) fn edition(&self) -> Edition {
        let mint = self.credential().map(|credential| credential.minted.mint);
        Edition { resource: self.values.key.uid, version: self.version, mint }
    }

    /// The most bytes of values that are handed out: a field may be asked for by many of its names.
    pub(crate) fn bytes(&self) -> usize {
        let copies = |name| self.fields.iter().filter(|(_, other)| other == name).count();
        let most = self.fields.iter().map(|(_, name)| copies(name)).max().unwrap_or(0);
        let bytes = self.handed_out().map_or(0, |values| values.sealed.as_bytes().len());
        bytes.saturating_mul(most)
    }

    /// The same decision on a minted credential. `is_for_all` if the step asked for no field by name.
    ///
    /// # Errors
    /// If the credential has no field that the step asked for.
    pub(crate) fn on(
        mut self,
        credential: Arc<Credential>,
        is_for_all: bool,
    ) -> Result<Self, Refusal> {
        let names = &credential.names;
        if is_for_all {
            let all = names.iter().map(|name| (name.as_str().to_owned(), name.clone()));
            self.fields = all.collect();
        } else if let Some((field, _)) = self.fields.iter().find(|(_, name)| !names.contains(name))
        {
            return Err(Refusal::field_unknown(field.clone(), names));
        }
        if let Material::Minted { credential: made, .. } = &mut self.material {
            *made = Some(credential);
        }
        Ok(self)
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

/// Decides whether a step of `workflow` may have what a target names, or use it: the one place that walks a target.
///
/// `fields` are the names asked for, all fields if empty; with `None` no fields are selected. With [`Purpose::Use`] none
/// are selected either: the grant is for the broker's own requests, and nothing of it is for the step.
///
/// # Errors
/// Why the step may not have it. A connection that is absent has no bindings, and so is denied by the same path as a
/// connection that is not for this step.
pub(crate) fn authorize(
    rules: InForce<'_>,
    principal: &Principal,
    workflow: &WorkflowName,
    target: &Reference,
    purpose: Purpose,
    fields: Option<&[String]>,
) -> Result<Grant, Refusal> {
    let fields = fields.filter(|_| purpose == Purpose::Reveal);
    let catalog = rules.catalog;
    let connection = |found: Option<&Arc<Connection>>| {
        authorize_connection(rules, principal, found.map(AsRef::as_ref), purpose, fields)
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
            let block = rules.blocks.between(principal, None);
            let viewing = decide(principal, ON_GROUP, bindings, block);
            let (Decision::Allow(by_group), Some(group)) = (viewing, group) else {
                return Err(block.map_or(Refusal::Denied, Refusal::blocked));
            };
            let member = group.select(&target.identifiers).map_err(Refusal::NotSelected)?;
            Ok(Grant { by_group: Some(by_group), ..connection(Some(member))? })
        }
        Reference::Secret(name) => {
            authorize_secret(rules, principal, &own_secret(workflow, name), fields)
        }
    }
}

fn authorize_connection(
    rules: InForce<'_>,
    principal: &Principal,
    connection: Option<&Connection>,
    purpose: Purpose,
    asked: Option<&[String]>,
) -> Result<Grant, Refusal> {
    let (none, catalog) = (Bindings::default(), rules.catalog);
    let bindings = connection.map_or(&none, |connection| &connection.metadata.access);
    let uid = connection.map(|connection| connection.metadata.uid);
    let block = rules.blocks.between(principal, uid);
    let decision = decide(principal, purpose.relation(), bindings, block);
    let (Decision::Allow(by), Some(connection)) = (decision, connection) else {
        return Err(match (held(principal, bindings), connection, block) {
            (.., Some(block)) => Refusal::blocked(block),
            (Some((_, by)), Some(connection), None) => {
                Refusal::TooLow { uid: connection.metadata.uid, by }
            }
            _ => Refusal::Denied,
        });
    };
    let metadata = &connection.metadata;
    let name = ResourceName::Connection(metadata.reference());
    if metadata.disabled {
        return Err(Refusal::Disabled(name));
    }
    let (fields, material) = match metadata.release {
        Release::Stored => (select(catalog, connection, asked)?, Material::Stored),
        Release::Minted => select_minted(catalog, connection, asked)?,
    };
    Ok(Grant {
        by,
        by_group: None,
        name,
        kind: Some((metadata.integration.clone(), metadata.kind.clone())),
        version: metadata.version,
        values: connection.values.clone(),
        material,
        unusable: metadata.unusable().cloned(),
        max_ttl: metadata.max_ttl_seconds.map(Duration::from_secs),
        fields,
    })
}

fn authorize_secret(
    rules: InForce<'_>,
    principal: &Principal,
    name: &SecretRef,
    asked: Option<&[String]>,
) -> Result<Grant, Refusal> {
    let block = rules.blocks.between(principal, None);
    let Decision::Allow(by) = decide_secret(principal, &name.workflow, block) else {
        return Err(block.map_or(Refusal::Denied, Refusal::blocked));
    };
    let resource = ResourceName::Secret(name.clone());
    let Some(secret) = rules.catalog.secret(name) else { return Err(Refusal::NotFound(resource)) };
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
        material: Material::Stored,
        unusable: None,
        max_ttl: None,
        fields: vec![(SECRET_FIELD.to_owned(), field)],
    })
}

/// Pairs of the name asked for and our name.
type Selection = Vec<(String, FieldName)>;

/// The stored fields to hand out, by the names asked for.
fn select(
    catalog: &Catalog,
    connection: &Connection,
    asked: Option<&[String]>,
) -> Result<Selection, Refusal> {
    let (set, Some(asked)) = (&connection.metadata.fields, asked) else { return Ok(vec![]) };
    if asked.is_empty() {
        return Ok(set.keys().map(|name| (name.as_str().to_owned(), name.clone())).collect());
    }
    let kind = kind_of(catalog, connection);
    let canonical = |asked: &str| {
        // A field that is stored under exactly this name comes first, even if the schema uses the name otherwise.
        let own = FieldName::parse(asked).ok().filter(|name| set.contains_key(name));
        let by_rule =
            || kind.and_then(|kind| integration::find_field(kind, asked)?.canonical(asked));
        own.or_else(by_rule).filter(|name| set.contains_key(name))
    };
    pairs(asked, canonical).map_err(|field| Refusal::field_unknown(field, set.keys()))
}

/// The fields of a minted connection, by the names asked for. No root is among them. A minted credential may lack some.
fn select_minted(
    catalog: &Catalog,
    connection: &Connection,
    asked: Option<&[String]>,
) -> Result<(Selection, Material), Refusal> {
    // Without a rule nothing tells the roots from the other fields.
    let kind = kind_of(catalog, connection).ok_or(Refusal::Denied)?;
    let source = source_of(kind, |rule| connection.metadata.has(&rule.name));
    let source = source.ok_or(Refusal::Denied)?;
    let is_own = source.is_own(|field| connection.metadata.has(field));
    let material = Material::Minted { source, is_own, credential: None };
    let Some(asked) = asked else { return Ok((vec![], material)) };
    let names = released_names(kind, Release::Minted, connection.metadata.fields.keys());
    if asked.is_empty() {
        let all = names.into_iter().map(|name| (name.as_str().to_owned(), name));
        return Ok((all.collect(), material));
    }
    let canonical = |asked: &str| {
        let rule = find_released_field(kind, Release::Minted, asked)?;
        // A field that only some credentials have is no stored field.
        let may_be_minted = || kind.minted.iter().any(|minted| minted.name == rule.name);
        let is_single = rule.family().is_none();
        rule.canonical(asked).filter(|name| names.contains(name) || is_single && may_be_minted())
    };
    let fields = pairs(asked, canonical);
    Ok((fields.map_err(|field| Refusal::field_unknown(field, &names))?, material))
}

fn kind_of<'a>(catalog: &'a Catalog, connection: &Connection) -> Option<&'a CredentialKind> {
    catalog.integration(&connection.metadata.integration)?.kind(connection.metadata.kind.as_str())
}

/// Each name asked for, once, with our name for it. The error is the first name that has none.
fn pairs(
    asked: &[String],
    canonical: impl Fn(&str) -> Option<FieldName>,
) -> Result<Selection, String> {
    let pair = |asked: &String| {
        canonical(asked).map(|name| (asked.clone(), name)).ok_or_else(|| asked.clone())
    };
    let mut pairs = asked.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
    pairs.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    pairs.dedup_by(|one, other| one.0 == other.0);
    Ok(pairs)
}

/// Decides by one snapshot what a step gets, within what its executor lets the step ask for.
///
/// # Errors
/// See [`authorize`].
pub(crate) fn authorize_step(
    rules: InForce<'_>,
    opening: &Opening,
    target: &Reference,
    purpose: Purpose,
    fields: Option<&[String]>,
) -> Result<Grant, Refusal> {
    let allowed = &opening.allowed_targets;
    if !allowed.is_empty() && !allowed.iter().any(|one| one.admits(target)) {
        return Err(Refusal::Outside);
    }
    authorize(rules, &step_principal(opening), &opening.key.workflow, target, purpose, fields)
}

/// Whether the executor that opened this step is still registered, under the same registration.
pub(crate) fn is_executors(catalog: &Catalog, opening: &Opening) -> bool {
    let executor = catalog.executor(&opening.key.executor);
    executor.is_some_and(|executor| executor.uid == opening.key.executor_uid)
}

/// Whether a lease would still be given: its resource exists, and access allows it.
pub(crate) fn is_still_allowed(catalog: &Catalog, live: &Live, lease: &Lease) -> bool {
    let rules = InForce { catalog, blocks: live.blocks() };
    let opening = live.opening(lease.opening);
    opening.is_some_and(|opening| is_allowed_in(rules, opening.record(), lease))
}

/// Whether a lease of an opening would be given.
pub(crate) fn is_allowed_in(rules: InForce<'_>, opening: &Opening, lease: &Lease) -> bool {
    is_executors(rules.catalog, opening) && regrant(rules, opening, lease).is_some()
}

/// Decides on a lease again; `None` if the step may no longer have the resource of the lease.
pub(super) fn regrant(rules: InForce<'_>, opening: &Opening, lease: &Lease) -> Option<Grant> {
    let (principal, target) = (step_principal(opening), lease.ask.target.reference());
    let workflow = &opening.key.workflow;
    let purpose = Purpose::of(lease.ask.action.as_ref());
    let grant = authorize(rules, &principal, workflow, &target, purpose, None).ok()?;
    (grant.values.key.uid == lease.resource).then_some(grant)
}
