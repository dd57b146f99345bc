//! A step, and one life of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::allowed::AllowedTarget;
use super::id::Id;
use super::names::name::{ExecutorName, RunName, StepName, WorkflowName};
use super::names::run_as::RunAs;
use super::names::spiffe::SpiffeId;
use super::request::NamedRequest;
use super::text::{base64_bytes, hex_bytes};
use super::time::Timestamp;

/// The key of a step, which all its openings share. The executor and its registration are part of the key: no executor can
/// close another's steps, and an executor that is registered again is another executor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StepKey {
    /// The executor that opened the step.
    pub executor: ExecutorName,
    /// The executor's registration.
    pub executor_uid: Id,
    /// Its workflow.
    pub workflow: WorkflowName,
    /// Its run.
    pub run: RunName,
    /// Its name.
    pub step: StepName,
}

impl StepKey {
    /// The SPIFFE ID of the step's certificate.
    pub fn spiffe_id(&self) -> SpiffeId {
        SpiffeId::Step {
            workflow: self.workflow.clone(),
            run: self.run.clone(),
            step: self.step.clone(),
        }
    }

    /// True if this SPIFFE ID is the step's.
    pub fn is_of(&self, id: &SpiffeId) -> bool {
        let SpiffeId::Step { workflow, run, step } = id else { return false };
        (workflow, run, step) == (&self.workflow, &self.run, &self.step)
    }
}

/// The Unix users who may use a step's directory and socket.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct StepOwner {
    /// The user whose connections the socket takes.
    pub uid: u32,
    /// A group that may use the directory, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// True if the socket takes connections from this uid only.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub is_uid_checked: bool,
    /// True if all users may use the directory.
    #[serde(default, skip_serializing_if = "is_no")]
    pub is_for_anybody: bool,
}

/// One life of a step, between OpenStep and CloseStep, as the journal records it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// A random id, which names the step's directory; leases belong to it.
    pub id: Id,
    /// The step.
    #[serde(flatten)]
    pub key: StepKey,
    /// The number of the attempt, from 1.
    pub attempt: i32,
    /// The principals on whose behalf the step runs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub run_as: BTreeSet<RunAs>,
    /// The Unix users who may use its directory.
    #[serde(flatten)]
    pub owner: StepOwner,
    /// The interval of the executor's heartbeats, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_seconds: Option<u32>,
    /// The targets that the step may ask for; every target if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_targets: Vec<AllowedTarget>,
    /// The request that opened the step, if it had an id.
    #[serde(default, flatten)]
    pub request: Option<NamedRequest>,
    /// When it was opened.
    pub open_time: Timestamp,
    /// When it is closed at the latest.
    pub expire_time: Timestamp,
    /// The step's public key (SubjectPublicKeyInfo, DER), for which certificates are renewed. It is never read back from a
    /// file that the step can write.
    #[serde(with = "base64_bytes")]
    pub public_key: Vec<u8>,
    /// The certificates issued for it, oldest first.
    pub certificates: Vec<PinnedCertificate>,
    /// Where the directory will be mounted, or `host`.
    pub mount_path: String,
}

// Lines of the journal omit the usual values.
fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_yes(it_is: &bool) -> bool {
    *it_is
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_no(it_is: &bool) -> bool {
    !*it_is
}

/// A certificate that was issued, and is accepted by its fingerprint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedCertificate {
    /// SHA-256 of the DER.
    #[serde(with = "hex_bytes")]
    pub sha256: [u8; 32],
    /// When it was issued.
    pub not_before: Timestamp,
    /// When it expires.
    pub not_after: Timestamp,
}
