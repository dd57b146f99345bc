//! Puppet Relay's step specs: parsed, and evaluated to the JSON that steps ask for.
//!
//! ```text
//! YAML ─ yaml ─ spec ──────────── Tree ─ evaluate ─ JSON, what is unresolvable
//!        tags,  !Connection …     with    along a     ▲
//!        line   ${…} ─ expression path    query       └ KnownValues: what was looked up before
//! ```
//!
//! All of it is pure. An evaluation returns the look-ups that it needs ([`Need`]), and is repeated with their results. The
//! rules are those of relay-core's `pkg/spec` and of Relay's documents on expressions.

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

/// A position in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// An error of a file. It shows keys and tags, never a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// The position.
    pub at: Position,
    /// The problem, and what to write instead.
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
