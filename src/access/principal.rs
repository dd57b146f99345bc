//! The authenticated caller.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{
    ExecutorName, Id, OperatorName, RunAs, RunName, StepName, WorkflowName, WorkflowPath,
};

/// The authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// An executor, with its registration: a name that is registered again is another executor.
    Executor(ExecutorName, Id),
    /// An operator, with the operator's role and registration.
    Operator(OperatorName, Role, Id),
    /// A step of a run.
    Step {
        /// Its workflow.
        workflow: WorkflowName,
        /// Its run.
        run: RunName,
        /// Its name.
        step: StepName,
        /// The principals on whose behalf it runs, as its executor asserts; may be empty.
        run_as: BTreeSet<RunAs>,
    },
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Executor(name, _) => write!(f, "executor:{name}"),
            Self::Operator(name, ..) => write!(f, "operator:{name}"),
            Self::Step { workflow, run, step, .. } => {
                WorkflowPath::of_step(workflow, run, step).fmt(f)
            }
        }
    }
}

/// The role of an operator. Each role includes those before it.
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
