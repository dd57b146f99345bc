//! The name of a step with its run and workflow, in one text.

use std::fmt;
use std::str::FromStr;

use super::name::{Invalid, RunName, StepName, WorkflowName};

/// A step, or all of a run, or all of a workflow: `workflow:W/run:R/step:S`, `workflow:W/run:R`, `workflow:W`.
///
/// This is how the journal and other texts name a step as a principal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkflowPath {
    /// The workflow.
    pub workflow: WorkflowName,
    /// The run; `None` for all runs.
    pub run: Option<RunName>,
    /// The step; `None` for all steps.
    pub step: Option<StepName>,
}

impl WorkflowPath {
    /// The path of a single step.
    pub fn of_step(workflow: &WorkflowName, run: &RunName, step: &StepName) -> Self {
        Self { workflow: workflow.clone(), run: Some(run.clone()), step: Some(step.clone()) }
    }

    /// True if `other` is the same or part of this.
    pub fn includes(&self, other: &Self) -> bool {
        self.workflow == other.workflow
            && (self.run.is_none() || self.run == other.run)
            && (self.step.is_none() || self.step == other.step)
    }
}

impl fmt::Display for WorkflowPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "workflow:{}", self.workflow)?;
        let Some(run) = &self.run else { return Ok(()) };
        write!(f, "/run:{run}")?;
        let Some(step) = &self.step else { return Ok(()) };
        write!(f, "/step:{step}")
    }
}

impl FromStr for WorkflowPath {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let rule =
            "write workflow:NAME, workflow:NAME/run:NAME or workflow:NAME/run:NAME/step:NAME";
        let names = text.strip_prefix("workflow:");
        let names = names.ok_or_else(|| Invalid::new("workflow, run or step", text, rule))?;
        // No name before a separator can hold it, so the first occurrence separates.
        let (workflow, rest) = halves(names, "/run:");
        let (run, step) = rest.map_or((None, None), |rest| {
            let (run, step) = halves(rest, "/step:");
            (Some(run), step)
        });
        Ok(Self {
            workflow: WorkflowName::parse(workflow)?,
            run: run.map(RunName::parse).transpose()?,
            step: step.map(StepName::parse).transpose()?,
        })
    }
}

/// The text before the first separator, and the text after it, if there is a separator.
fn halves<'a>(text: &'a str, separator: &str) -> (&'a str, Option<&'a str>) {
    text.split_once(separator).map_or((text, None), |(before, after)| (before, Some(after)))
}
