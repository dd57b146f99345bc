//! The lines of credentials that an upstream makes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::decision_id::DecisionId;
use crate::integration::Source;
use crate::lease::{MintState, MintedCredential};
use crate::model::{ExecutorName, Id, Timestamp, WorkflowPath};

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
    /// The executor that opened it. With the step it names the run, whose lines go on after the opening is closed.
    pub executor: ExecutorName,
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
    /// True if the upstream may have made a credential nevertheless, and the broker owes it an ending.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owed: bool,
}

/// A credential is about to be ended upstream: what ends it is about to be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndingLine {
    /// The mint that made it.
    pub mint: Id,
    /// The opening that it was made for, which may be closed.
    pub opening: Id,
    /// The step of that opening, with its workflow and run.
    #[serde(with = "super::step_path")]
    pub principal: Arc<WorkflowPath>,
    /// The full name of the connection.
    pub resource: String,
    /// Why it ends.
    pub reason: EndingReason,
}

/// An upstream has ended a credential (`ended_upstream`), the credential is left to expire (`left_to_expire`), or it can no
/// longer be used but something of it stays (`left_disabled`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndedLine {
    /// The mint that made it.
    pub mint: Id,
    /// The opening that it was made for, which may be closed.
    pub opening: Id,
    /// The step of that opening, with its workflow and run.
    #[serde(with = "super::step_path")]
    pub principal: Arc<WorkflowPath>,
    /// The full name of the connection.
    pub resource: String,
    /// Its name in the upstream's audit log, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// When the upstream no longer accepts it, if it is left to expire and the upstream has told that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_expire_time: Option<Timestamp>,
    /// Why it was left, for operators.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Why a credential is ended upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndingReason {
    /// Its connection has changed: another root, or disabled.
    ConnectionChanged,
    /// Its connection was deleted.
    ConnectionDeleted,
    /// The upstream's answer was not journaled: it may or may not have made the credential.
    Interrupted,
    /// No lease is on it any more: the leases expired, or were revoked with access or by hand.
    LeaseEnded,
    /// Its step was closed.
    StepClosed,
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
    /// True if the upstream may have done what it was asked for nevertheless.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncertain: bool,
}

impl MintFault {
    /// A fault after which the upstream has done nothing.
    pub fn new(reason: &str, detail: &str) -> Self {
        let (reason, detail) = (reason.to_owned(), detail.to_owned());
        Self { reason, detail, upstream_request: None, uncertain: false }
    }

    /// The fault of a mint that was under way when the daemon stopped: whether the upstream has made a credential is
    /// not known.
    pub(in crate::journal) fn interrupted() -> Self {
        let detail = "the daemon stopped before the upstream's answer was journaled";
        Self { uncertain: true, ..Self::new("INTERRUPTED", detail) }
    }
}
