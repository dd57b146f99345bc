//! The lines of credentials that an upstream makes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::decision_id::DecisionId;
use crate::integration::Source;
use crate::lease::{MintState, MintedCredential};
use crate::model::{Id, WorkflowPath};

/// How the credential of an allowed decision is made, if an upstream makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// The protocol.
    pub source: Source,
    /// The credential; `None` if the upstream is asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Arc<MintedCredential>>,
}

impl Upstream {
    /// The state of a lease on it.
    pub(in crate::journal) fn state(&self) -> MintState {
        self.credential.clone().map_or(MintState::Awaited, MintState::Minted)
    }
}

/// A mint begins: the root is about to be opened, and the upstream asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MintingLine {
    /// The mint. Its id is the opaque id of this line.
    pub mint: Id,
    /// The place of the decision that it is for.
    pub decision: DecisionId,
    /// The opening that asked.
    pub opening: Id,
    /// The step, with its workflow and run.
    #[serde(with = "super::step_path")]
    pub principal: Arc<WorkflowPath>,
    /// The lease of the decision.
    pub lease: Id,
    /// The protocol.
    pub source: Source,
    /// The full name of the connection.
    pub resource: String,
    /// The connection's uid.
    pub uid: Id,
    /// The version of its root.
    pub version: u64,
}

/// An upstream has made a credential (`minted`), or it is handed out under a lease (`mint_joined`).
#[derive(Debug, Serialize, Deserialize)]
pub struct MintedLine {
    /// The credential.
    #[serde(flatten)]
    pub credential: Arc<MintedCredential>,
    /// The opening that holds the lease.
    pub opening: Id,
    /// The lease: of the decision that the mint began for, or the lease that is on the credential from now on, and ends
    /// with it at the latest.
    pub lease: Id,
    /// The protocol.
    pub source: Source,
    /// The full name of the connection.
    pub resource: String,
    /// The version of the connection.
    pub version: u64,
    /// The upstream's number of the request, if it told the number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_request: Option<String>,
}

/// A lease gets no credential. If its credential was awaited, it ends.
#[derive(Debug, Serialize, Deserialize)]
pub struct MintFailedLine {
    /// The mint; `None` if the lease had not come to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mint: Option<Id>,
    /// The opening that holds the lease.
    pub opening: Id,
    /// The lease.
    pub lease: Id,
    /// The full name of the connection, or the target of the lease.
    pub resource: String,
    /// Why.
    #[serde(flatten)]
    pub fault: MintFault,
}

/// Why a lease gets no credential. It contains no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MintFault {
    /// The API's reason.
    pub reason: String,
    /// What was wrong, for operators.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The upstream's number of the request, if it told the number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_request: Option<String>,
}

impl MintFault {
    /// The fault of a mint that was under way when the daemon stopped: whether the upstream has made a credential is
    /// not known.
    pub(in crate::journal) fn interrupted() -> Self {
        let detail = "the daemon stopped before the upstream's answer was journaled";
        Self { reason: "INTERRUPTED".to_owned(), detail: detail.to_owned(), upstream_request: None }
    }
}
