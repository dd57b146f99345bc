//! The lines of the broker's actions.

use serde::{Deserialize, Serialize};

use crate::model::Id;

/// An HTTP exchange has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentLine {
    /// The opening that asked.
    pub opening: Id,
    /// The lease of the decision.
    pub lease: Id,
    /// The full name of the connection.
    pub resource: String,
    /// The answer's status; `None` if there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The bytes of the request's body that were sent.
    pub sent_bytes: u64,
    /// The bytes of the answer's body that the step got.
    pub received_bytes: u64,
    /// Why the exchange is not complete: a reason of the API, `CANCELLED` if the step went away, or `INTERRUPTED` if the
    /// daemon stopped. `None` if it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}
