//! Who may do what: pure functions over parsed values.
//!
//! - Deny by default: what no binding admits is refused.
//! - Relations are cumulative, viewer ⊂ resolver ⊂ editor.
//!   Datadog: "Viewer: Can view the connection. Resolver: Can resolve and view the connection.
//!   Editor: Can edit, resolve, and view the connection."
//! - A connection that does not exist has no bindings, so it is refused by the same path as one that a
//!   step may not resolve.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::limits::MAX_PRINCIPALS;
use crate::model::{ExecutorName, Invalid, OperatorName, RunName, StepName, WorkflowName};

/// The authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// An executor.
    Executor(ExecutorName),
    /// An operator, with the one role it has.
    Operator(OperatorName, Role),
    /// A step of a run.
    Step {
        /// Its workflow.
        workflow: WorkflowName,
        /// Its run.
        run: RunName,
        /// Its name.
        step: StepName,
    },
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Executor(name) => write!(f, "executor:{name}"),
            Self::Operator(name, _) => write!(f, "operator:{name}"),
            Self::Step { workflow, run, step } => {
                write!(f, "workflow:{workflow}/run:{run}/step:{step}")
            }
        }
    }
}

/// What an operator may do at all. Each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees all metadata.
    Viewer,
    /// Creates connections; bindings govern edit and use.
    Operator,
    /// Everything but reading values.
    Administrator,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        })
    }
}

/// A relation of a principal to a resource. Each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// May see it.
    Viewer,
    /// May receive the credential.
    Resolver,
    /// May change and delete it.
    Editor,
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Resolver => "resolver",
            Self::Editor => "editor",
        })
    }
}

/// Whom a binding admits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pattern {
    /// `workflow:*`
    AnyWorkflow,
    /// `operator:NAME`
    Operator(OperatorName),
    /// `workflow:deploy`
    Workflow(WorkflowName),
    /// `workflow:team-a-*`: every workflow whose name starts so. The text is the part before the star.
    WorkflowPrefix(String),
    /// `workflow:deploy/step:build`
    WorkflowStep(WorkflowName, StepName),
}

impl Pattern {
    fn admits(&self, principal: &Principal) -> bool {
        match (self, principal) {
            (Self::AnyWorkflow, Principal::Step { .. }) => true,
            (Self::Workflow(name), Principal::Step { workflow, .. }) => name == workflow,
            (Self::WorkflowPrefix(prefix), Principal::Step { workflow, .. }) => {
                workflow.as_str().starts_with(prefix.as_str())
            }
            (Self::WorkflowStep(name, of), Principal::Step { workflow, step, .. }) => {
                name == workflow && of == step
            }
            (Self::Operator(name), Principal::Operator(operator, _)) => name == operator,
            _ => false,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyWorkflow => f.write_str("workflow:*"),
            Self::Operator(name) => write!(f, "operator:{name}"),
            Self::Workflow(name) => write!(f, "workflow:{name}"),
            Self::WorkflowPrefix(prefix) => write!(f, "workflow:{prefix}*"),
            Self::WorkflowStep(workflow, step) => write!(f, "workflow:{workflow}/step:{step}"),
        }
    }
}

impl FromStr for Pattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |rule| Invalid::new("principal", text, rule);
        if let Some(name) = text.strip_prefix("operator:") {
            return OperatorName::parse(name).map(Self::Operator);
        }
        let Some(workflow) = text.strip_prefix("workflow:") else {
            return Err(invalid(
                "write workflow:NAME, workflow:NAME/step:NAME, workflow:PREFIX*, workflow:* or operator:NAME",
            ));
        };
        if let Some((workflow, step)) = workflow.split_once("/step:") {
            return Ok(Self::WorkflowStep(WorkflowName::parse(workflow)?, StepName::parse(step)?));
        }
        match workflow.strip_suffix('*') {
            None => WorkflowName::parse(workflow).map(Self::Workflow),
            Some("") => Ok(Self::AnyWorkflow),
            // What stands before the star is the start of a name: with one more letter it must be one.
            Some(prefix) => match WorkflowName::parse(&format!("{prefix}x")) {
                Ok(_) => Ok(Self::WorkflowPrefix(prefix.to_owned())),
                Err(_) => Err(invalid("what stands before the * must be the start of a name")),
            },
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

/// The access bindings of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bindings(BTreeMap<Relation, BTreeSet<Pattern>>);

impl Bindings {
    /// Gives `patterns` this relation, and takes it from all others.
    ///
    /// # Errors
    /// If there are more than a binding may have.
    pub fn replace(
        &mut self,
        relation: Relation,
        patterns: BTreeSet<Pattern>,
    ) -> Result<(), Invalid> {
        if patterns.len() > MAX_PRINCIPALS {
            let text = relation.to_string();
            return Err(Invalid::new("access binding", &text, "at most 100 principals each"));
        }
        if patterns.is_empty() {
            self.0.remove(&relation);
        } else {
            self.0.insert(relation, patterns);
        }
        Ok(())
    }

    /// Replaces every relation that is named, and leaves the others.
    ///
    /// # Errors
    /// As [`Bindings::replace`].
    pub fn replace_all(
        &mut self,
        changes: BTreeMap<Relation, BTreeSet<Pattern>>,
    ) -> Result<(), Invalid> {
        changes.into_iter().try_for_each(|(relation, patterns)| self.replace(relation, patterns))
    }

    /// Gives one more principal this relation.
    pub fn add(&mut self, relation: Relation, pattern: Pattern) {
        self.0.entry(relation).or_default().insert(pattern);
    }

    /// Every relation with its principals.
    pub fn iter(&self) -> impl Iterator<Item = (Relation, &BTreeSet<Pattern>)> {
        self.0.iter().map(|(relation, patterns)| (*relation, patterns))
    }
}

/// What was decided, and by which rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Allowed; the text names the binding or role that says so.
    Allow(String),
    /// Refused: nothing admits the principal.
    Deny,
}

/// Decides whether `bindings` give `principal` at least the relation `needed`.
pub fn decide(principal: &Principal, needed: Relation, bindings: &Bindings) -> Decision {
    bindings
        .iter()
        .filter(|(relation, _)| *relation >= needed)
        .find_map(|(relation, patterns)| {
            let pattern = patterns.iter().find(|pattern| pattern.admits(principal))?;
            Some(Decision::Allow(format!("{relation} {pattern}")))
        })
        .unwrap_or(Decision::Deny)
}

/// Decides on a secret: only steps of its workflow resolve it, and it has no bindings.
///
/// Relay: secrets are "scoped to one workflow".
pub fn decide_secret(principal: &Principal, owner: &WorkflowName) -> Decision {
    match principal {
        Principal::Step { workflow, .. } if workflow == owner => {
            Decision::Allow(format!("own workflow:{owner}"))
        }
        _ => Decision::Deny,
    }
}

/// Decides whether an operator may change a resource: bindings say so, or it is an administrator.
pub fn decide_edit(principal: &Principal, bindings: &Bindings) -> Decision {
    match principal {
        Principal::Operator(_, Role::Administrator) => {
            Decision::Allow("role administrator".to_owned())
        }
        Principal::Operator(_, Role::Operator) => decide(principal, Relation::Editor, bindings),
        _ => Decision::Deny,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(workflow: &str, step: &str) -> Principal {
        Principal::Step {
            workflow: WorkflowName::parse(workflow).unwrap(),
            run: RunName::parse("1").unwrap(),
            step: StepName::parse(step).unwrap(),
        }
    }

    fn bound(relation: Relation, pattern: &str) -> Bindings {
        let mut bindings = Bindings::default();
        bindings.add(relation, pattern.parse().unwrap());
        bindings
    }

    #[test]
    fn a_binding_admits_exactly_whom_it_names() {
        let cases = [
            ("workflow:deploy", "deploy", "build", true),
            ("workflow:deploy", "deploy2", "build", false),
            ("workflow:deploy", "Deploy", "build", false),
            ("workflow:deploy/step:build", "deploy", "build", true),
            ("workflow:deploy/step:build", "deploy", "test", false),
            ("workflow:team-a-*", "team-a-x", "build", true),
            ("workflow:team-a-*", "team-b-x", "build", false),
            ("workflow:*", "anything", "build", true),
            ("operator:deploy", "deploy", "build", false),
        ];
        for (pattern, workflow, name, expected) in cases {
            let decision = decide(
                &step(workflow, name),
                Relation::Resolver,
                &bound(Relation::Resolver, pattern),
            );
            assert_eq!(decision != Decision::Deny, expected, "{pattern} {workflow}/{name}");
        }
    }

    #[test]
    fn relations_are_cumulative_and_nothing_is_allowed_by_default() {
        let caller = step("deploy", "build");
        let order = [Relation::Viewer, Relation::Resolver, Relation::Editor];
        for held in order {
            for needed in order {
                let decision = decide(&caller, needed, &bound(held, "workflow:deploy"));
                assert_eq!(decision != Decision::Deny, held >= needed, "{held} for {needed}");
            }
        }
        assert_eq!(decide(&caller, Relation::Viewer, &Bindings::default()), Decision::Deny);
    }

    #[test]
    fn a_star_stands_only_at_the_end() {
        for bad in ["workflow:a*b", "workflow:**", "workflow:", "workflow:a/step:*", "user:x", "*"]
        {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }
}
