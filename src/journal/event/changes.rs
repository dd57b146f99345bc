//! The lines of changes: a batch that is announced.

use serde::{Deserialize, Serialize};

use crate::access::Bindings;
use crate::journal::state::requests::{RequestNote, of_registrations};
use crate::model::{FieldName, Id};

/// A batch that is announced.
#[derive(Debug, Serialize, Deserialize)]
pub struct Intent {
    /// The batch's number, which is never used again.
    pub batch: u64,
    /// The changes.
    pub changes: Vec<ChangeNote>,
    /// The requests that it does, if they have an id.
    #[serde(default, deserialize_with = "of_registrations", skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestNote>,
}

/// One change in a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeNote {
    /// The operator or executor who made it.
    pub principal: String,
    /// The action, such as `connection.create`.
    pub action: String,
    /// The full name of the resource.
    pub resource: String,
    /// The resource's uid.
    pub uid: Id,
    /// The resource's version after the change.
    pub version: u64,
    /// The names of the fields that were written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldName>,
    /// Other settings that changed, such as "tags" or "disabled=true".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
    /// The access after the change, if it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Bindings>,
}

impl ChangeNote {
    /// Whether the change removes or disables something, changes access, or keeps an operator from TCP.
    pub(super) fn takes_away(&self) -> bool {
        let disables =
            |setting: &String| ["disabled=true", "remote=false"].contains(&setting.as_str());
        self.action.ends_with(".delete")
            || self.access.is_some()
            || self.settings.iter().any(disables)
    }
}
