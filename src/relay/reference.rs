//! References of a spec to other values.

use serde_json::{Value as Json, json};

use super::path::Segment;

/// A reference of a spec to another value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpecReference {
    /// The answer to a question.
    Answer {
        /// The step that asked.
        ask_ref: String,
        /// The name of the answer.
        name: String,
    },
    /// A connection.
    Connection {
        /// Its type, which is an integration's name.
        kind: String,
        /// Its name.
        name: String,
    },
    /// A part of the event that triggered the run.
    Data {
        /// The part.
        query: String,
    },
    /// An output of another step.
    Output {
        /// The step.
        from: String,
        /// The name of the output.
        name: String,
    },
    /// A parameter of the run.
    Parameter {
        /// Its name.
        name: String,
    },
    /// A secret of the workflow.
    Secret {
        /// Its name.
        name: String,
    },
    /// The status of another step.
    Status {
        /// The step.
        action: String,
        /// The property of the status.
        property: String,
    },
}

impl SpecReference {
    /// The reference as a `$type` map.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Answer { ask_ref, name } => {
                json!({ "$type": "Answer", "askRef": ask_ref, "name": name })
            }
            Self::Connection { kind, name } => {
                json!({ "$type": "Connection", "type": kind, "name": name })
            }
            Self::Data { query } => json!({ "$type": "Data", "query": query }),
            Self::Output { from, name } => json!({ "$type": "Output", "from": from, "name": name }),
            Self::Parameter { name } => json!({ "$type": "Parameter", "name": name }),
            Self::Secret { name } => json!({ "$type": "Secret", "name": name }),
            Self::Status { action, property } => {
                json!({ "$type": "Status", "action": action, "property": property })
            }
        }
    }

    /// Types of references with the keys of their `$type` maps, in the order of their sequence form.
    pub(super) fn forms() -> [(&'static str, &'static [&'static str]); 6] {
        [
            ("Answer", &["askRef", "name"]),
            ("Connection", &["type", "name"]),
            ("Data", &["query"]),
            ("Output", &["from", "name"]),
            ("Parameter", &["name"]),
            ("Secret", &["name"]),
        ]
    }

    pub(super) fn new(kind: &str, mut values: Vec<String>) -> Option<Self> {
        let name = values.pop()?;
        match (kind, values.pop()) {
            ("Answer", Some(ask_ref)) => Some(Self::Answer { ask_ref, name }),
            ("Connection", Some(kind)) => Some(Self::Connection { kind, name }),
            ("Data", None) => Some(Self::Data { query: name }),
            ("Output", Some(from)) => Some(Self::Output { from, name }),
            ("Parameter", None) => Some(Self::Parameter { name }),
            ("Secret", None) => Some(Self::Secret { name }),
            _ => None,
        }
    }

    /// The reference that the keys after a scope's name select, and the number of keys that it takes; `None` if there are
    /// too few.
    pub fn of_scope(scope: SpecScope, keys: &[Segment]) -> Option<(Self, usize)> {
        let key = |index: usize| keys.get(index).map(Segment::key);
        let reference = match scope {
            SpecScope::Connections => Self::Connection { kind: key(0)?, name: key(1)? },
            SpecScope::Event => Self::Data { query: key(0)? },
            SpecScope::Outputs => Self::Output { from: key(0)?, name: key(1)? },
            SpecScope::Parameters => Self::Parameter { name: key(0)? },
            SpecScope::Secrets => Self::Secret { name: key(0)? },
            SpecScope::Steps => Self::Status { action: key(0)?, property: key(1)? },
        };
        Some((reference, scope.keys()))
    }
}

/// The names that expressions of a spec begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpecScope {
    /// Connections.
    Connections,
    /// The event that triggered the run.
    Event,
    /// Outputs of other steps.
    Outputs,
    /// Parameters of the run.
    Parameters,
    /// Secrets of the workflow.
    Secrets,
    /// Statuses of other steps.
    Steps,
}

impl SpecScope {
    /// The scope of a name; `None` if there is no such scope.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "connections" => Some(Self::Connections),
            "event" => Some(Self::Event),
            "outputs" => Some(Self::Outputs),
            "parameters" => Some(Self::Parameters),
            "secrets" => Some(Self::Secrets),
            "steps" => Some(Self::Steps),
            _ => None,
        }
    }

    /// How many keys select one value of the scope.
    pub const fn keys(self) -> usize {
        match self {
            Self::Connections | Self::Outputs | Self::Steps => 2,
            Self::Event | Self::Parameters | Self::Secrets => 1,
        }
    }
}
