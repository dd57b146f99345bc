//! A step, and one life of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::id::Id;
use super::name::{ExecutorName, RunName, StepName, WorkflowName};
use super::run_as::RunAs;
use super::spiffe::SpiffeId;
use super::text::{base64_bytes, hex_bytes};
use super::time::Timestamp;

/// Which step: openings of one step share it. Steps are keyed by executor too, so that no executor can
/// close another's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StepKey {
    /// Who opened it.
    pub executor: ExecutorName,
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
}

/// One life of a step between OpenStep and CloseStep, as the journal records it.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// The Unix user whose connections its socket takes.
    pub uid: u32,
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

/// A certificate that is accepted because it was issued, by its fingerprint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PinnedCertificate {
    /// SHA-256 of the DER.
    #[serde(with = "hex_bytes")]
    pub sha256: [u8; 32],
    /// When it was issued.
    pub not_before: Timestamp,
    /// Its end.
    pub not_after: Timestamp,
}
