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

/// Which step: openings of one step share it. Steps are keyed by executor too, and by its registration: no
/// executor can close another's, and another of the same name is another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StepKey {
    /// Who opened it.
    pub executor: ExecutorName,
    /// The registration of the executor.
    pub executor_uid: Id,
    /// Its workflow.
    pub workflow: WorkflowName,
    /// Its run.
    pub run: RunName,
    /// Its name.
    pub step: StepName,
}

impl StepKey {
    /// Whom the step's certificate speaks for.
    pub fn spiffe_id(&self) -> SpiffeId {
        SpiffeId::Step {
            workflow: self.workflow.clone(),
            run: self.run.clone(),
            step: self.step.clone(),
        }
    }

    /// Whether that is who this is.
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
    /// Whether the socket takes connections from this uid only.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub is_uid_checked: bool,
    /// Whether all users may use the directory.
    #[serde(default, skip_serializing_if = "is_no")]
    pub is_for_anybody: bool,
}

/// One life of a step between OpenStep and CloseStep, as the journal records it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// Random; names the directory, and what leases belong to.
    pub id: Id,
    /// Which step.
    #[serde(flatten)]
    pub key: StepKey,
    /// Which try at it, from 1.
    pub attempt: i32,
    /// On whose behalf it runs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub run_as: BTreeSet<RunAs>,
    /// The Unix users who may use its directory.
    #[serde(flatten)]
    pub owner: StepOwner,
    /// How often its executor says that it still runs, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_seconds: Option<u32>,
    /// What it may ask for at most; everything if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_targets: Vec<AllowedTarget>,
    /// The request that opened it, if its executor gave it an id.
    #[serde(default, flatten)]
    pub request: Option<NamedRequest>,
    /// When it was opened.
    pub open_time: Timestamp,
    /// When it is closed at the latest.
    pub expire_time: Timestamp,
    /// The step's public key (SubjectPublicKeyInfo, DER): certificates are renewed for it, and it is
    /// never read back from a file that the step can write.
    #[serde(with = "base64_bytes")]
    pub public_key: Vec<u8>,
    /// The certificates issued for it, oldest first.
    pub certificates: Vec<PinnedCertificate>,
    /// Where the directory will be mounted, or `host`.
    pub mount_path: String,
}

// Lines say only what is out of the ordinary.
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

/// A certificate that is accepted because it was issued, by its fingerprint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedCertificate {
    /// SHA-256 of the DER.
    #[serde(with = "hex_bytes")]
    pub sha256: [u8; 32],
    /// When it was issued.
    pub not_before: Timestamp,
    /// Its end.
    pub not_after: Timestamp,
}
