//! What changes are called: a batch that is announced.

use serde::{Deserialize, Serialize};

use crate::access::Bindings;
use crate::journal::state::requests::{RequestNote, of_registrations};
use crate::model::{FieldName, Id};

/// A batch on its way.
#[derive(Debug, Serialize, Deserialize)]
pub struct Intent {
    /// Its number, never used again.
    pub batch: u64,
    /// What it changes.
    pub changes: Vec<ChangeNote>,
    /// The requests that it does, of those that have an id.
    #[serde(default, deserialize_with = "of_registrations", skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestNote>,
}

/// One change in a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeNote {
    /// Who.
    pub principal: String,
    /// What, such as `connection.create`.
    pub action: String,
    /// On which resource.
    pub resource: String,
    /// Its uid.
    pub uid: Id,
    /// The version after the change.
    pub version: u64,
    /// The fields written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldName>,
    /// Everything else that changed, such as "tags" or "disabled=true".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
    /// The access after the change, where it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Bindings>,
}

impl ChangeNote {
    /// Whether the change removes something, disables it or changes who may have it.
    pub(super) fn takes_away(&self) -> bool {
        let disables = |setting: &String| setting == "disabled=true";
        self.action.ends_with(".delete")
            || self.access.is_some()
            || self.settings.iter().any(disables)
    }
}
