//! The lines of decisions.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::lease::{Ask, Lease, LeaseTarget, TtlLimit};
use crate::model::{FieldName, Id, RunAs, Timestamp, WorkflowPath};

/// A decision on the step door.
#[derive(Debug, Serialize, Deserialize)]
pub struct ResolveLine {
    /// Which opening asked.
    pub opening: Id,
    /// The step, with its workflow and run.
    #[serde(with = "step_path")]
    pub principal: Arc<WorkflowPath>,
    /// On whose behalf.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub run_as: BTreeSet<RunAs>,
    /// What was asked.
    #[serde(flatten)]
    pub ask: Arc<Ask>,
    /// Whether it is a delivery of a Watch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watch: bool,
    /// What was decided.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl ResolveLine {
    /// The lease of a Watch's delivery before that the line ends, if it does.
    pub(in crate::journal) fn ended_lease(&self) -> Option<Id> {
        match &self.outcome {
            Outcome::Allow { ended, .. } => *ended,
            Outcome::Refuse { .. } => None,
        }
    }

    /// The lease that the line issues, if it issues a new one.
    pub(in crate::journal) fn new_lease(&self) -> Option<Lease> {
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
                ask: Arc::clone(&self.ask),
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
    /// The step, with its workflow and run.
    #[serde(with = "step_path")]
    pub principal: Arc<WorkflowPath>,
    /// On whose behalf.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub run_as: BTreeSet<RunAs>,
    /// Which lease.
    pub lease: Id,
    /// The target of the lease.
    pub target: LeaseTarget,
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

/// A step's path as text.
mod step_path {
    use std::sync::Arc;

    use serde::{Deserializer, Serializer};

    use crate::model::{WorkflowPath, parsed};

    pub(super) fn serialize<S: Serializer>(
        path: &Arc<WorkflowPath>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(path)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Arc<WorkflowPath>, D::Error> {
        parsed(from, |text| text.parse().map(Arc::new))
    }
}
