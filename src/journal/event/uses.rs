//! The lines of uses: of a credential by the broker, for a step that does not get it, and of the door over TCP.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::decisions::Outcome;
use crate::lease::LeaseTarget;
use crate::model::{Id, RunAs, WorkflowPath};

/// An operator over TCP. Further connections of the operator from the address are lines only after a minute.
#[derive(Debug, Serialize, Deserialize)]
pub struct LoginLine {
    /// The operator.
    pub principal: String,
    /// Where it is.
    pub address: IpAddr,
}

/// A decision to sign a login by ssh, or to tell the public key that logins are signed by.
#[derive(Debug, Serialize, Deserialize)]
pub struct SignLine {
    /// The opening that asked.
    pub opening: Id,
    /// The step, with its workflow and run.
    #[serde(with = "super::step_path")]
    pub principal: Arc<WorkflowPath>,
    /// The principals on whose behalf it runs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub run_as: BTreeSet<RunAs>,
    /// The target that it asked for.
    pub target: LeaseTarget,
    /// The login; `None` if the step asked for the public key alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Box<SshLogin>>,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome<Used>,
}

/// A login by ssh, as the client asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshLogin {
    /// The user of the server.
    pub user: String,
    /// The fingerprint of the public key. Nothing is signed if the connection has another key.
    pub key: String,
    /// The fingerprint of the host's key, if the signature is for this host alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
}

/// What a use that is allowed is of: the broker uses the credential.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Used {
    /// The rule that allows it.
    pub by: String,
    /// The resource's uid.
    pub uid: Id,
    /// The resource's full name, if the target is a group or a default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The version.
    pub version: u64,
}
