//! The identities on whose behalf a run runs, as an executor asserts them for the steps that it opens.
//!
//! Datadog, "Run as": "Every run of a workflow uses a single Datadog identity", which decides "which connections a run can
//! resolve".

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::name::{Invalid, RunAsName};
use crate::model::text::read_from_text;

/// A kind of identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunAsKind {
    /// `role:NAME`
    Role,
    /// `service-account:NAME`
    ServiceAccount,
    /// `team:NAME`
    Team,
    /// `user:NAME`
    User,
}

impl RunAsKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Role, Self::ServiceAccount, Self::Team, Self::User];

    /// The text before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::ServiceAccount => "service-account",
            Self::Team => "team",
            Self::User => "user",
        }
    }
}

/// One identity, such as `user:alice@example.com`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct RunAs {
    /// The kind.
    pub kind: RunAsKind,
    /// The name, as the executor knows it.
    pub name: RunAsName,
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.name)
    }
}

impl FromStr for RunAs {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let rule = "write user:NAME, team:NAME, role:NAME or service-account:NAME";
        let parts = text.split_once(':').and_then(|(kind, name)| {
            Some((RunAsKind::ALL.into_iter().find(|known| known.as_str() == kind)?, name))
        });
        let (kind, name) = parts.ok_or_else(|| Invalid::new("run_as principal", text, rule))?;
        Ok(Self { kind, name: RunAsName::parse(name)? })
    }
}

read_from_text!(RunAs, str::parse);

impl From<RunAs> for String {
    fn from(run_as: RunAs) -> Self {
        run_as.to_string()
    }
}
