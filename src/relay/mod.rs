//! Puppet Relay's step specs: read, and evaluated to the JSON that its steps ask for.
//!
//! ```text
//! YAML ─ yaml ─ spec ──────────── Tree ─ evaluate ─ JSON, what is unresolvable
//!        tags,  !Connection …     with    along a     ▲
//!        line   ${…} ─ expression path    query       └ KnownValues: what was looked up before
//! ```
//!
//! All of it is pure: what an evaluation lacks it names ([`Need`]), and it is repeated when that was looked up.
//! The rules are those of relay-core's `pkg/spec` and of Relay's documents on expressions.

mod datadog;
mod evaluate;
mod expression;
mod path;
mod query;
mod reference;
mod scalar;
mod spec;
mod workflow;
mod yaml;

#[cfg(test)]
mod tests;

use std::fmt;

pub use evaluate::error::EvaluationError;
pub use evaluate::{Evaluated, EvaluationProgress, KnownValues, LookedUp, Need, Unresolvable};
pub use query::{Language, Query};
pub use reference::{SpecReference, SpecScope};
pub use scalar::bytes as json_of;
pub use spec::{StepSpec, Tree};
pub use workflow::{UseTarget, WorkflowFile, WorkflowUse, find_uses};
pub use yaml::MAX_COST as MAX_FILE_BYTES;

/// Where something stands in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Counts from 1.
    pub line: usize,
    /// In characters; counts from 1.
    pub column: usize,
}

/// What is wrong with a file, and where. It shows keys and tags, never a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// Where.
    pub at: Position,
    /// What, and what to write instead.
    pub problem: String,
}

impl SpecError {
    fn new(at: Position, problem: impl Into<String>) -> Self {
        Self { at, problem: problem.into() }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.at.line, self.at.column, self.problem)
    }
}
