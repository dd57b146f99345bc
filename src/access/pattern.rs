//! The principals that a binding admits.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::glob::{Glob, Prefix};
use super::principal::Principal;
use crate::model::{
    Invalid, OperatorName, RunAs, RunAsKind, StepName, WorkflowName, read_from_text,
};

/// The principals that a binding admits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub enum Pattern {
    /// `operator:NAME`
    Operator(OperatorName),
    /// `user:NAME`, `team:NAME`, `role:NAME` or `service-account:NAME`
    RunAs(RunAs),
    /// `workflow:deploy`, `workflow:team-a-*`, `workflow:*`
    Workflow(Glob<WorkflowName>),
    /// `workflow:deploy/step:build`
    WorkflowStep(WorkflowName, StepName),
    /// `workflow:deploy/step:notify-*`
    WorkflowSteps(WorkflowName, Prefix<StepName>),
}

impl Pattern {
    /// Whether it admits this caller, or a principal on whose behalf the caller runs.
    pub fn admits(&self, principal: &Principal) -> bool {
        match (self, principal) {
            (Self::Operator(name), Principal::Operator(operator, ..)) => name == operator,
            (Self::RunAs(name), Principal::Step { run_as, .. }) => run_as.contains(name),
            (Self::Workflow(glob), Principal::Step { workflow, .. }) => glob.admits(workflow),
            (Self::WorkflowStep(name, of), Principal::Step { workflow, step, .. }) => {
                name == workflow && of == step
            }
            (Self::WorkflowSteps(name, start), Principal::Step { workflow, step, .. }) => {
                name == workflow && start.admits(step)
            }
            _ => false,
        }
    }

    /// Whether it binds what the other pattern names: the same, something narrower, or some steps of the workflow.
    pub fn concerns(&self, named: &Self) -> bool {
        use Glob::Exact;
        match (self, named) {
            (
                Self::Workflow(glob),
                Self::Workflow(Exact(name))
                | Self::WorkflowStep(name, _)
                | Self::WorkflowSteps(name, _),
            ) => glob.admits(name),
            (
                Self::WorkflowStep(own, _) | Self::WorkflowSteps(own, _),
                Self::Workflow(Exact(name)),
            ) => own == name,
            (Self::WorkflowSteps(own, start), Self::WorkflowStep(name, step)) => {
                own == name && start.admits(step)
            }
            (own, named) => own == named,
        }
    }

    /// Whether it names a `run_as` principal.
    pub fn is_run_as(&self) -> bool {
        matches!(self, Self::RunAs(_))
    }

    /// The pattern as text, in one piece: each decision contains the pattern that allows it.
    pub fn to_text(&self) -> String {
        match self {
            Self::Operator(name) => ["operator:", name.as_str()].concat(),
            Self::RunAs(name) => name.to_string(),
            Self::Workflow(Glob::Any) => "workflow:*".to_owned(),
            Self::Workflow(Glob::Exact(name)) => ["workflow:", name.as_str()].concat(),
            Self::Workflow(Glob::Prefix(start)) => ["workflow:", start.as_str(), "*"].concat(),
            Self::WorkflowStep(workflow, step) => {
                ["workflow:", workflow.as_str(), "/step:", step.as_str()].concat()
            }
            Self::WorkflowSteps(workflow, start) => {
                ["workflow:", workflow.as_str(), "/step:", start.as_str(), "*"].concat()
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl FromStr for Pattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "operator" => OperatorName::parse(name).map(Self::Operator),
            // A workflow's name has no colon, so the first colon separates.
            "workflow" => match name.split_once("/step:") {
                Some((workflow, steps)) => steps_of(WorkflowName::parse(workflow)?, steps),
                None => name.parse().map(Self::Workflow),
            },
            kind if RunAsKind::ALL.iter().any(|known| known.as_str() == kind) => {
                text.parse().map(Self::RunAs)
            }
            _ => {
                let rule = "write workflow:NAME, workflow:NAME/step:NAME, workflow:NAME/step:PREFIX*, \
                            workflow:PREFIX*, workflow:*, operator:NAME, user:NAME, team:NAME, role:NAME or \
                            service-account:NAME";
                Err(Invalid::new("principal", text, rule))
            }
        }
    }
}

/// A pattern of the steps of a workflow. All steps have one form only, without `/step:`.
fn steps_of(workflow: WorkflowName, steps: &str) -> Result<Pattern, Invalid> {
    match steps.parse()? {
        Glob::Any => {
            let rule = "workflow:NAME alone binds all steps of a workflow";
            Err(Invalid::new("principal", &format!("workflow:{workflow}/step:*"), rule))
        }
        Glob::Exact(step) => Ok(Pattern::WorkflowStep(workflow, step)),
        Glob::Prefix(start) => Ok(Pattern::WorkflowSteps(workflow, start)),
    }
}

read_from_text!(Pattern, str::parse);

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_concerns_what_it_binds_and_nothing_else() {
        for (own, named, expected) in [
            ("workflow:*", "workflow:deploy", true),
            ("workflow:de*", "workflow:deploy/step:build", true),
            ("workflow:deploy", "workflow:deploy", true),
            ("workflow:deploy/step:b*", "workflow:deploy", true),
            ("workflow:deploy/step:b*", "workflow:deploy/step:build", true),
            ("workflow:deploy/step:build", "workflow:deploy/step:test", false),
            ("workflow:deploy", "workflow:deploy2", false),
            ("workflow:deploy", "workflow:*", false),
            ("team:ops", "team:ops", true),
            ("team:ops", "user:ops", false),
        ] {
            let [own, named] = [own, named].map(|text| text.parse::<Pattern>().unwrap());
            assert_eq!(own.concerns(&named), expected, "{own} {named}");
        }
    }

    #[test]
    fn a_star_is_at_the_end_and_never_in_run_as_principals() {
        for bad in [
            "workflow:a*b",
            "workflow:**",
            "workflow:",
            "workflow:a/step:*",
            "workflow:a*/step:b",
            "workflow:a/step:b*c",
            "workflow:a/step: *",
            "workflow:a/",
            "workflow:a/step:",
            "workflow:a:b",
            "user:",
            "user:a*",
            "user",
            "org:x",
            "*",
        ] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_comes_back_from_its_text() {
        for text in [
            "operator:a",
            "workflow:*",
            "workflow:team-a-*",
            "workflow:deploy",
            "workflow:deploy/step:build",
            "workflow:deploy/step:notify-*",
            "workflow:owner/repo",
            "workflow:owner/*",
            "workflow:owner/repo/step:build (ubuntu, 3.12)",
            "workflow:a/run/step:b/step:c/run:d",
            "workflow:a/step:b/step:*",
            "user:alice@example.com",
            "service-account:ci",
        ] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
    }
}
