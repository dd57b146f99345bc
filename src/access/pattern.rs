//! Whom a binding admits.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::principal::Principal;
use crate::model::{
    Invalid, OperatorName, RunAs, RunAsKind, StepName, WorkflowName, read_from_text,
};

/// A name, the start of names, or any name: `deploy`, `team-a-*`, `*`. A star stands at the end only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub enum Glob {
    /// `*`
    Any,
    /// `deploy`
    Exact(String),
    /// `team-a-*`: the text is the part before the star.
    Prefix(String),
}

impl Glob {
    /// Whether it admits this name. Names are case-sensitive.
    pub fn admits(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl FromStr for Glob {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // Workflows and run_as principals have the same grammar.
        match text.strip_suffix('*') {
            None => WorkflowName::parse(text).map(|name| Self::Exact(name.as_str().to_owned())),
            Some("") => Ok(Self::Any),
            // What stands before the star is the start of a name: with one more letter it must be one.
            Some(prefix) => match WorkflowName::parse(&format!("{prefix}x")) {
                Ok(_) => Ok(Self::Prefix(prefix.to_owned())),
                Err(_) => {
                    let rule = "what stands before the * must be the start of a name";
                    Err(Invalid::new("pattern", text, rule))
                }
            },
        }
    }
}

read_from_text!(Glob, str::parse);

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.to_string()
    }
}

/// Whom a binding admits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub enum Pattern {
    /// `operator:NAME`
    Operator(OperatorName),
    /// `user:NAME`, `team:NAME`, `role:NAME` or `service-account:NAME`
    RunAs(RunAs),
    /// `workflow:deploy`, `workflow:team-a-*`, `workflow:*`
    Workflow(Glob),
    /// `workflow:deploy/step:build`
    WorkflowStep(WorkflowName, StepName),
}

impl Pattern {
    /// Whether it admits this caller, or one of those on whose behalf it runs.
    pub fn admits(&self, principal: &Principal) -> bool {
        match (self, principal) {
            (Self::Operator(name), Principal::Operator(operator, _)) => name == operator,
            (Self::RunAs(name), Principal::Step { run_as, .. }) => run_as.contains(name),
            (Self::Workflow(glob), Principal::Step { workflow, .. }) => {
                glob.admits(workflow.as_str())
            }
            (Self::WorkflowStep(name, of), Principal::Step { workflow, step, .. }) => {
                name == workflow && of == step
            }
            _ => false,
        }
    }

    /// Whether it names a `run_as` principal.
    pub fn is_run_as(&self) -> bool {
        matches!(self, Self::RunAs(_))
    }

    /// As text, in one piece: each decision names the pattern that allows it.
    pub fn to_text(&self) -> String {
        match self {
            Self::Operator(name) => ["operator:", name.as_str()].concat(),
            Self::RunAs(name) => name.to_string(),
            Self::Workflow(Glob::Any) => "workflow:*".to_owned(),
            Self::Workflow(Glob::Exact(name)) => ["workflow:", name].concat(),
            Self::Workflow(Glob::Prefix(start)) => ["workflow:", start, "*"].concat(),
            Self::WorkflowStep(workflow, step) => {
                ["workflow:", workflow.as_str(), "/step:", step.as_str()].concat()
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
            "workflow" => match name.split_once("/step:") {
                Some((workflow, step)) => {
                    Ok(Self::WorkflowStep(WorkflowName::parse(workflow)?, StepName::parse(step)?))
                }
                None => name.parse().map(Self::Workflow),
            },
            kind if RunAsKind::ALL.iter().any(|known| known.as_str() == kind) => {
                text.parse().map(Self::RunAs)
            }
            _ => {
                let rule = "write workflow:NAME, workflow:NAME/step:NAME, workflow:PREFIX*, workflow:*, \
                            operator:NAME, user:NAME, team:NAME, role:NAME or service-account:NAME";
                Err(Invalid::new("principal", text, rule))
            }
        }
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
    fn a_star_stands_only_at_the_end_and_run_as_principals_have_none() {
        for bad in [
            "workflow:a*b",
            "workflow:**",
            "workflow:",
            "workflow:a/step:*",
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
            "user:alice@example.com",
            "service-account:ci",
        ] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
    }
}
