//! Why an evaluation fails.

use std::fmt;

pub(in crate::relay) type Result<T> = std::result::Result<T, EvaluationError>;

/// A path that leads nowhere, or a wrong call of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluationError {
    path: Vec<String>,
    problem: String,
    /// True if something is absent.
    pub(super) is_absence: bool,
}

impl EvaluationError {
    pub(in crate::relay) fn unknown_key(key: &str) -> Self {
        let problem = format!("unknown key {key}");
        Self { path: vec![key.to_owned()], problem, is_absence: true }
    }

    pub(in crate::relay) fn new(problem: impl Into<String>) -> Self {
        Self { path: Vec::new(), problem: problem.into(), is_absence: false }
    }

    /// The error without keys, which may have been made of values.
    pub(in crate::relay) fn without_keys(self) -> Self {
        let problem = match self.is_absence {
            true => "a key that was made of values leads nowhere".to_owned(),
            false => self.problem,
        };
        Self { path: Vec::new(), problem, ..self }
    }

    /// The error as seen from the parent, which has the part under this key.
    pub(in crate::relay) fn under(mut self, key: String) -> Self {
        self.path.insert(0, key);
        self
    }
}

impl fmt::Display for EvaluationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.is_empty() {
            true => f.write_str(&self.problem),
            false => write!(f, "path {:?}: {}", self.path.join("."), self.problem),
        }
    }
}
