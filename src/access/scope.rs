//! The scope of an executor, so that a stolen executor key does not open the whole store.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::glob::Glob;
use crate::model::{Invalid, RunAs, RunAsKind, RunAsName, WorkflowName, read_from_text};

/// The workflows whose steps an executor may open, and the principals on whose behalf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The workflows.
    pub workflows: BTreeSet<Glob<WorkflowName>>,
    /// The `run_as` principals that the executor may assert.
    pub run_as: BTreeSet<RunAsPattern>,
}

impl Scope {
    /// Everything, for the executor of this host.
    pub fn all() -> Self {
        let any = |kind| RunAsPattern { kind, name: Glob::Any };
        Self {
            workflows: BTreeSet::from([Glob::Any]),
            run_as: RunAsKind::ALL.into_iter().map(any).collect(),
        }
    }

    /// Whether the executor may open steps of this workflow.
    pub fn admits_workflow(&self, workflow: &WorkflowName) -> bool {
        self.workflows.iter().any(|glob| glob.admits(workflow))
    }

    /// Whether the executor may assert this principal.
    pub fn admits_run_as(&self, principal: &RunAs) -> bool {
        let admits = |pattern: &RunAsPattern| {
            pattern.kind == principal.kind && pattern.name.admits(&principal.name)
        };
        self.run_as.iter().any(admits)
    }
}

/// `run_as` principals of one kind: `user:alice`, `team:a-*`, `role:*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct RunAsPattern {
    /// Which kind of principals.
    pub kind: RunAsKind,
    /// Which names.
    pub name: Glob<RunAsName>,
}

impl fmt::Display for RunAsPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.name)
    }
}

impl FromStr for RunAsPattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let rule = "write user:, team:, role: or service-account: and then NAME, PREFIX* or *";
        let parts = text.split_once(':').and_then(|(kind, name)| {
            Some((RunAsKind::ALL.into_iter().find(|known| known.as_str() == kind)?, name))
        });
        let (kind, name) = parts.ok_or_else(|| Invalid::new("run_as pattern", text, rule))?;
        Ok(Self { kind, name: name.parse()? })
    }
}

read_from_text!(RunAsPattern, str::parse);

impl From<RunAsPattern> for String {
    fn from(pattern: RunAsPattern) -> Self {
        pattern.to_string()
    }
}
