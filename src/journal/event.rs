//! What journal lines say.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::requests::RequestNote;
use crate::access::Bindings;
use crate::lease::{Ask, Lease, TtlLimit};
use crate::model::{FieldName, Id, Opening, PinnedCertificate, RunAs, Timestamp};
use crate::seal::KeyId;

/// One line's content.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A batch that never reached the store.
    Abandoned {
        /// Its number.
        batch: u64,
    },
    /// An operator or executor was refused.
    AdminRefused {
        /// Who.
        principal: String,
        /// Which method.
        method: String,
        /// Which resource, if the method names one.
        resource: String,
        /// The API's reason.
        reason: String,
    },
    /// A step's certificate was renewed.
    CertificateRenewed {
        /// Whose.
        opening: Id,
        /// The new one.
        certificate: PinnedCertificate,
    },
    /// The first line of a file: what was live before it.
    Checkpoint(Box<Checkpoint>),
    /// The clock was set back while the daemon was down: no end can be trusted, so every step is closed
    /// and every lease revoked.
    ClockSetBack,
    /// A step was closed and its leases revoked.
    Closed {
        /// Which.
        opening: Id,
        /// Why.
        reason: CloseReason,
        /// The leases.
        revoked: Vec<Id>,
    },
    /// A batch is in the store and in force.
    Head {
        /// Its number.
        batch: u64,
        /// Whether it was found in the store at start.
        recovered: bool,
        /// The leases that it ended.
        revoked: Vec<Id>,
    },
    /// A batch is about to be written to the store.
    Intent {
        /// Its number, never used again.
        batch: u64,
        /// What it changes.
        changes: Vec<ChangeNote>,
        /// The requests that it does, of those that have an id.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        requests: Vec<RequestNote>,
    },
    /// A key is about to be replaced: all that can fail before is done.
    KeyRotated {
        /// By whom.
        principal: String,
        /// Which.
        key: RotatedKey,
        /// The one that was in use.
        old: KeyId,
        /// The one that is to be.
        new: KeyId,
    },
    /// A decision to make a lease last longer.
    LeaseRenewal(RenewalLine),
    /// A step gave a lease back.
    LeaseRevoked {
        /// Whose.
        opening: Id,
        /// Which.
        lease: Id,
    },
    /// A step was opened.
    Opened(Box<Opening>),
    /// Requests over the rate, refused without a decision.
    RateRefused {
        /// Whose.
        opening: Id,
        /// How many since the last such line.
        requests: u64,
    },
    /// A decision on the step door.
    Resolve(Box<ResolveLine>),
    /// The daemon started.
    Started {
        /// Its version.
        version: String,
    },
    /// The daemon stopped in order.
    Stopped,
    /// An operator had the values of a resource looked at for faults.
    Tested(TestLine),
    /// The end of the file was damaged, as a crash does, and was cut.
    Torn {
        /// The file that keeps what was cut.
        kept_as: String,
        /// How many bytes.
        bytes: u64,
    },
}

impl Event {
    /// Whether such a line is always on disk before anybody is told of it. After such a line, damage is
    /// a crash's; before it, somebody's.
    pub fn is_always_synced(&self) -> bool {
        match self {
            Self::Abandoned { .. }
            | Self::Checkpoint(_)
            | Self::ClockSetBack
            | Self::Closed { .. }
            | Self::Head { .. }
            | Self::Intent { .. }
            | Self::KeyRotated { .. }
            | Self::LeaseRevoked { .. }
            | Self::Stopped
            | Self::Torn { .. } => true,
            Self::AdminRefused { .. }
            | Self::CertificateRenewed { .. }
            | Self::LeaseRenewal(_)
            | Self::Opened(_)
            | Self::RateRefused { .. }
            | Self::Resolve(_)
            | Self::Started { .. }
            | Self::Tested(_) => false,
        }
    }
}

/// What is live where a file begins.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The format of the lines.
    pub format: u32,
    /// The file's number.
    pub file: u64,
    /// The last batch in force.
    pub head: u64,
    /// The last batch announced.
    pub intent: u64,
    /// The last batch that never reached the store.
    pub abandoned: u64,
    /// Open steps.
    pub openings: Vec<Opening>,
    /// Live leases.
    pub leases: Vec<Lease>,
    /// Requests that are remembered.
    #[serde(default)]
    pub requests: Vec<RequestNote>,
}

/// Why a step was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// The clock was set back while the daemon was down.
    ClockSetBack,
    /// Its directory is gone, as after a reboot.
    DirectoryGone,
    /// Its executor closed it.
    Executor,
    /// Its executor was removed.
    ExecutorRemoved,
    /// Its time was over.
    Expired,
    /// Its executor was heard of no longer.
    HeartbeatLost,
    /// A newer attempt was opened.
    NewAttempt,
    /// Its directory could not be made.
    OpenFailed,
}

/// Which key was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotatedKey {
    /// The one that records are sealed under.
    Dek,
    /// The one that wraps the others.
    Kek,
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

/// A decision on the step door.
#[derive(Debug, Serialize, Deserialize)]
pub struct ResolveLine {
    /// Which opening asked.
    pub opening: Id,
    /// Whose workflow, run and step, for whoever reads the line.
    pub principal: String,
    /// On whose behalf.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub run_as: BTreeSet<RunAs>,
    /// What was asked.
    #[serde(flatten)]
    pub ask: Ask,
    /// Whether it is a delivery of a Watch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watch: bool,
    /// What was decided.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl ResolveLine {
    pub(super) fn new(opening: &Opening, ask: Ask) -> Self {
        let key = &opening.key;
        Self {
            opening: opening.id,
            principal: format!("workflow:{}/run:{}/step:{}", key.workflow, key.run, key.step),
            run_as: opening.run_as.clone(),
            ask,
            watch: false,
            outcome: Outcome::Refuse { reason: String::new(), by: String::new() },
        }
    }

    /// The lease that the line issues, if it issues a new one.
    pub(super) fn new_lease(&self) -> Option<Lease> {
        match &self.outcome {
            Outcome::Allow {
                uid,
                version,
                lease,
                issue_time,
                expire_time,
                limited_by,
                reused: false,
                ..
            } => Some(Lease {
                id: *lease,
                opening: self.opening,
                resource: *uid,
                version: *version,
                ask: self.ask.clone(),
                is_watch: self.watch,
                issue_time: *issue_time,
                expire_time: *expire_time,
                limited_by: *limited_by,
            }),
            _ => None,
        }
    }
}

/// A decision to make a lease last longer, or not to.
#[derive(Debug, Serialize, Deserialize)]
pub struct RenewalLine {
    /// Whose.
    pub opening: Id,
    /// Whose workflow, run and step, for whoever reads the line.
    pub principal: String,
    /// On whose behalf.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub run_as: BTreeSet<RunAs>,
    /// Which lease.
    pub lease: Id,
    /// What it is for.
    pub target: String,
    /// What was decided.
    #[serde(flatten)]
    pub outcome: RenewalOutcome,
}

/// What was decided of a renewal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum RenewalOutcome {
    /// It lasts longer.
    Allow {
        /// By which rule.
        by: String,
        /// Until when.
        expire_time: Timestamp,
        /// What limits it.
        limited_by: TtlLimit,
    },
    /// It stays as it is.
    Refuse {
        /// The API's reason.
        reason: String,
    },
}

/// A look at values that hands none out.
#[derive(Debug, Serialize, Deserialize)]
pub struct TestLine {
    /// Who.
    pub principal: String,
    /// On which resource.
    pub resource: String,
    /// Its uid.
    pub uid: Id,
    /// The version that is looked at.
    pub version: u64,
    /// By which rule.
    pub by: String,
}

/// What was decided.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Outcome {
    /// Handed out.
    Allow {
        /// By which rule.
        by: String,
        /// The resource's uid.
        uid: Id,
        /// Its full name, where the target is a group or a default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
        /// The version handed out.
        version: u64,
        /// The fields handed out.
        released: Vec<FieldName>,
        /// The lease.
        lease: Id,
        /// When the lease was issued.
        issue_time: Timestamp,
        /// When it ends.
        expire_time: Timestamp,
        /// What limited it.
        limited_by: TtlLimit,
        /// Whether it was live already.
        reused: bool,
        /// The lease of a Watch's delivery before, which ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended: Option<Id>,
    },
    /// Not handed out.
    Refuse {
        /// The API's reason.
        reason: String,
        /// What refused it, where that is not access.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
    },
}
