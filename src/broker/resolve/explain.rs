//! Explain: why a step was refused, or would be, in full for operators.

use super::authorize::{ON_GROUP, authorize, own_secret};
use super::mint_story::MintStory;
use crate::access::{
    Bindings, Block, Decision, Examined, Glob, Pattern, Principal, Purpose, Relation, decide,
    examine, held,
};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::registry::operators::require_operator;
use crate::catalog::{Catalog, Group};
use crate::journal::{Body, DecisionName, Event, Outcome, Refused, ResolveLine, SignLine};
use crate::model::{
    ConnectionRef, FieldName, GroupRef, Reference, ResourceName, RunAs, RunName, StepName,
    Timestamp, WorkflowName, WorkflowPath,
};

/// The most members that are shown as nearly fitting.
const MAX_NEAR: usize = 5;

/// A decision to explain as it would be made now.
pub struct DryRun {
    /// The workflow of the step that asks.
    pub workflow: WorkflowName,
    /// Its run; `None` for any.
    pub run: Option<RunName>,
    /// The step that asks.
    pub step: StepName,
    /// The principals on whose behalf the step runs.
    pub run_as: std::collections::BTreeSet<RunAs>,
    /// The credential that the step asks for.
    pub target: Reference,
    /// What it asks for the credential for.
    pub purpose: Purpose,
    /// The fields that it asks for; all if empty.
    pub fields: Vec<String>,
}

/// The outcome of a decision in the journal.
pub enum PastOutcome {
    /// It was allowed.
    Allowed {
        /// The rule that allows it.
        by: String,
        /// The version.
        version: u64,
        /// The names of the fields that the step got.
        fields: Vec<FieldName>,
    },
    /// It was refused.
    Refused {
        /// The API's reason.
        reason: String,
        /// The rule that refused it, if that is not access, or the bindings of a relation that is too low.
        by: String,
    },
}

/// A decision in the journal.
pub struct PastDecision {
    /// The place of its line, "FILE.LINE".
    pub decision_id: String,
    /// When it was made.
    pub time: Timestamp,
    /// The outcome.
    pub outcome: PastOutcome,
    /// The credential that an upstream was asked for, if so.
    pub mint: Option<MintStory>,
}

/// The explanation of a decision.
pub struct Explanation {
    /// The decision in the journal; `None` for a dry run.
    pub past: Option<PastDecision>,
    /// The step that asks, with its workflow and run.
    pub principal: String,
    /// The principals on whose behalf the step runs.
    pub run_as: Vec<String>,
    /// The target, as text.
    pub target: String,
    /// The decision as it would be made now: the rule that allows it, or the error.
    pub outcome: Result<String, Error>,
    /// The reason of the API, or "ALLOWED".
    pub reason: &'static str,
    /// The connection that the target names.
    pub connection: Option<ConnectionRef>,
    /// The block that refuses it, whatever the bindings say.
    pub block: Option<Block>,
    /// The resources whose bindings count.
    pub resources: Vec<ExaminedResource>,
    /// The members of the group that nearly fit.
    pub near_members: Vec<NearMember>,
}

/// A resource whose bindings count.
pub struct ExaminedResource {
    /// The full name.
    pub name: ResourceName,
    /// When it was last changed; `None` if it does not exist.
    pub update_time: Option<Timestamp>,
    /// The relation that the step needs.
    pub needed: Relation,
    /// Whether its bindings give the step that relation.
    pub is_allowed: bool,
    /// The relation below that they give the step, if they do not.
    pub held: Option<Relation>,
    /// Every bound principal.
    pub principals: Vec<Examined>,
    /// Principals that an operator could bind to allow it.
    pub would_allow: Vec<String>,
    /// The `run_as` principals that the step would need, if it runs on nobody's behalf.
    pub run_as_needed: Vec<String>,
}

/// A member of a group, and how it differs from the target.
pub struct NearMember {
    /// The member.
    pub name: ConnectionRef,
    /// The identifier, the value asked for, and the value of the member.
    pub differences: Vec<(String, String, String)>,
}

impl PastOutcome {
    /// The outcome of a line. `allowed` tells of what was allowed the rule, the version, and the fields that the step got.
    fn of<A>(
        outcome: Outcome<A>,
        allowed: impl FnOnce(A) -> (String, u64, Vec<FieldName>),
    ) -> Self {
        match outcome {
            Outcome::Allow(one) => {
                let (by, version, fields) = allowed(one);
                Self::Allowed { by, version, fields }
            }
            Outcome::Refuse(Refused { reason, by, .. }) => Self::Refused { reason, by },
        }
    }
}

impl Broker {
    /// Explains a decision of the journal, or the decision that a mint was begun for. Reads files.
    ///
    /// # Errors
    /// See `SystemService.Explain`.
    pub fn explain_decision(
        &self,
        caller: &Principal,
        name: DecisionName,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Explanation, Error> {
        require_operator(caller)?;
        let absent = || Error::DecisionNotFound;
        let mut found = self.journal.find(name)?;
        if let Some((_, Body { event: Event::Minting(line), .. })) = &found {
            found = self.journal.find(DecisionName::Clear(line.decision))?;
        }
        let Some((id, Body { time, event, .. })) = found else { return Err(absent()) };
        let (asked, outcome, mint) = match event {
            Event::Resolve(line) | Event::Send(line) => {
                let mint = self.mint_story(time, &line, is_cancelled)?;
                let ResolveLine { principal, run_as, ask, outcome, .. } = *line;
                let purpose = Purpose::of(ask.action.as_ref());
                let asked =
                    (principal, run_as, ask.target.reference(), purpose, ask.fields.clone());
                let past = PastOutcome::of(outcome, |one| (one.by, one.version, one.released));
                (asked, past, mint)
            }
            Event::Sign(line) => {
                let SignLine { principal, run_as, target, outcome, .. } = *line;
                let asked = (principal, run_as, target.reference(), Purpose::Use, Vec::new());
                let past = PastOutcome::of(outcome, |one| (one.by, one.version, Vec::new()));
                (asked, past, None)
            }
            _ => return Err(absent()),
        };
        let (principal, run_as, target, purpose, fields) = asked;
        let WorkflowPath { workflow, run, step: Some(step) } = (*principal).clone() else {
            return Err(absent());
        };
        let dry_run = DryRun { workflow, run, step, run_as, target, purpose, fields };
        let past = PastDecision { decision_id: id.to_string(), time, outcome, mint };
        let now = self.explain_now(&dry_run)?;
        Ok(Explanation { past: Some(past), principal: principal.to_string(), ..now })
    }

    /// Explains a decision that would be made now. No decision is made or journaled.
    ///
    /// # Errors
    /// If the caller is not an operator.
    pub fn explain(&self, caller: &Principal, dry_run: &DryRun) -> Result<Explanation, Error> {
        require_operator(caller)?;
        self.explain_now(dry_run)
    }

    fn explain_now(&self, asked: &DryRun) -> Result<Explanation, Error> {
        let snapshot = self.snapshot();
        let catalog = &snapshot.catalog;
        let DryRun { workflow, run, step, run_as, target, purpose, fields } = asked;
        let principal = Principal::Step {
            workflow: workflow.clone(),
            run: run.clone().map_or_else(|| RunName::parse("dry-run"), Ok)?,
            step: step.clone(),
            run_as: run_as.clone(),
        };
        let decided =
            authorize(snapshot.in_force(), &principal, workflow, target, *purpose, Some(fields));
        let connection = target_connection(catalog, target);
        check_newer(catalog, workflow, target, connection.as_ref())?;
        let resources = examine_all(catalog, &principal, target, *purpose, connection.as_ref());
        let is_quarantined = self.journal.with_live(crate::journal::Live::is_quarantined)?;
        let reason = match &decided {
            Ok(_) if is_quarantined => "QUARANTINED",
            Ok(_) => "ALLOWED",
            Err(refusal) => refusal.reason(),
        };
        let uid = connection.as_ref().and_then(|name| catalog.connection(name));
        let uid = uid.map(|connection| connection.metadata.uid);
        let block = snapshot.blocks.between(&principal, uid).cloned();
        let near_members = match (target, reason) {
            (Reference::Group(group), "GROUP_MEMBER_NOT_FOUND") => nearest_members(catalog, group),
            _ => Vec::new(),
        };
        Ok(Explanation {
            past: None,
            principal: Pattern::WorkflowStep(workflow.clone(), step.clone()).to_text(),
            run_as: run_as.iter().map(ToString::to_string).collect(),
            target: match target {
                Reference::Secret(name) => {
                    ResourceName::Secret(own_secret(workflow, name)).to_string()
                }
                other => other.to_string(),
            },
            outcome: match decided {
                Ok(_) if is_quarantined => Err(Error::Quarantined),
                Ok(grant) => Ok(grant.rules()),
                Err(refusal) => Err(refusal.into_error(String::new())),
            },
            reason,
            connection,
            block,
            resources,
            near_members,
        })
    }
}

/// The connection that a target names, whether it exists or not.
pub(crate) fn target_connection(catalog: &Catalog, target: &Reference) -> Option<ConnectionRef> {
    match target {
        Reference::Connection(name) => Some(name.clone()),
        Reference::Default(integration) => catalog.default_of(integration),
        Reference::Group(group) => {
            let member = catalog.group(&group.name)?.select(&group.identifiers).ok()?;
            Some(member.metadata.reference())
        }
        Reference::Secret(_) => None,
    }
}

/// The resources of a target whose bindings count: the group, if any, and the connection.
fn examine_all(
    catalog: &Catalog,
    principal: &Principal,
    target: &Reference,
    purpose: Purpose,
    connection: Option<&ConnectionRef>,
) -> Vec<ExaminedResource> {
    let mut resources = Vec::new();
    if let Reference::Group(GroupRef { name, .. }) = target {
        let found = catalog.group(name).map(|group| &group.metadata);
        let found = found.map(|group| (group.update_time, &group.access));
        resources.push(examined(ResourceName::Group(name.clone()), ON_GROUP, principal, found));
    }
    if let Some(name) = connection {
        let found = catalog.connection(name).map(|connection| &connection.metadata);
        let found = found.map(|connection| (connection.update_time, &connection.access));
        let name = ResourceName::Connection(name.clone());
        resources.push(examined(name, purpose.relation(), principal, found));
    }
    resources
}

/// Checks that this version can read the resource that a target names.
fn check_newer(
    catalog: &Catalog,
    workflow: &WorkflowName,
    target: &Reference,
    connection: Option<&ConnectionRef>,
) -> Result<(), Error> {
    let asked_for = match target {
        Reference::Group(group) => Some(ResourceName::Group(group.name.clone())),
        Reference::Secret(name) => Some(ResourceName::Secret(own_secret(workflow, name))),
        Reference::Connection(_) | Reference::Default(_) => {
            connection.cloned().map(ResourceName::Connection)
        }
    };
    match asked_for.filter(|name| catalog.is_newer(name)) {
        Some(newer) => Err(Error::Newer(newer.to_string())),
        None => Ok(()),
    }
}

fn examined(
    name: ResourceName,
    needed: Relation,
    principal: &Principal,
    found: Option<(Timestamp, &Bindings)>,
) -> ExaminedResource {
    let none = Bindings::default();
    let (update_time, bindings) =
        (found.map(|(time, _)| time), found.map_or(&none, |found| found.1));
    let is_allowed = decide(principal, needed, bindings, None) != Decision::Deny;
    let lower = if is_allowed { None } else { held(principal, bindings) };
    let principals = examine(principal, needed, bindings);
    let would_allow = if is_allowed { Vec::new() } else { missing(principal, &principals) };
    let has_no_run_as = matches!(principal, Principal::Step { run_as, .. } if run_as.is_empty());
    let bound = principals.iter().filter(|one| one.is_enough && one.pattern.is_run_as());
    let run_as_needed = match has_no_run_as {
        true => bound.map(|one| one.pattern.to_string()).collect(),
        false => Vec::new(),
    };
    ExaminedResource {
        name,
        update_time,
        needed,
        is_allowed,
        held: lower.map(|(relation, _)| relation),
        principals,
        would_allow,
        run_as_needed,
    }
}

/// The principals that an operator could bind, narrowest first: the step, its workflow, and the step's `run_as`
/// principals.
fn missing(principal: &Principal, examined: &[Examined]) -> Vec<String> {
    let Principal::Step { workflow, step, run_as, .. } = principal else { return Vec::new() };
    let has = |is_run_as: bool| {
        let mut enough = examined.iter().filter(|one| one.is_enough && one.admits);
        enough.any(|one| one.pattern.is_run_as() == is_run_as)
    };
    let mut missing = Vec::new();
    if !has(false) {
        let narrowest = Pattern::WorkflowStep(workflow.clone(), step.clone());
        let own = Pattern::Workflow(Glob::Exact(workflow.clone()));
        missing.extend([narrowest.to_text(), own.to_text()]);
    }
    if !run_as.is_empty() && !has(true) {
        missing.extend(run_as.iter().map(ToString::to_string));
    }
    missing
}

/// The members that differ in the fewest identifiers.
fn nearest_members(catalog: &Catalog, target: &GroupRef) -> Vec<NearMember> {
    let Some(group) = catalog.group(&target.name) else { return Vec::new() };
    let mut near: Vec<NearMember> = Vec::new();
    for member in group.members() {
        let differences = differences(group, target, &member.metadata.tags);
        near.push(NearMember { name: member.metadata.reference(), differences });
        if near.len() > 64 * MAX_NEAR {
            keep_nearest(&mut near);
        }
    }
    keep_nearest(&mut near);
    near
}

fn keep_nearest(near: &mut Vec<NearMember>) {
    near.sort_by(|one, other| {
        let key = |one: &NearMember| (one.differences.len(), one.name.clone());
        key(one).cmp(&key(other))
    });
    near.truncate(MAX_NEAR);
}

fn differences(
    group: &Group,
    target: &GroupRef,
    tags: &crate::model::Tags,
) -> Vec<(String, String, String)> {
    let text = |value: Option<&crate::model::TagValue>| {
        value.map_or_else(String::new, ToString::to_string)
    };
    let identifiers = group.metadata.identifiers.iter();
    identifiers
        .map(|key| (key.to_string(), text(target.identifiers.value(key)), text(tags.value(key))))
        .filter(|(_, asked, has)| asked != has)
        .collect()
}
