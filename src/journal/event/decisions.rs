//! The lines of decisions about steps, and of operators' tests.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Event;
use super::mints::Upstream;
use crate::access::Purpose;
use crate::lease::{Ask, Lease, LeaseTarget, TtlLimit};
use crate::model::{Action, FieldName, Id, RunAs, Timestamp, WorkflowPath};

/// A decision on a Resolve, or on an action of the broker.
#[derive(Debug, Serialize, Deserialize)]
pub struct ResolveLine {
    /// The opening that asked.
    pub opening: Id,
    /// The step, with its workflow and run.
    #[serde(with = "super::step_path")]
    pub principal: Arc<WorkflowPath>,
    /// The principals on whose behalf it runs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub run_as: BTreeSet<RunAs>,
    /// The target, fields and TTL that it asked for.
    #[serde(flatten)]
    pub ask: Arc<Ask>,
    /// Whether it is a delivery of a Watch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watch: bool,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome<Leased>,
}

impl ResolveLine {
    /// What the step wanted the credential for.
    pub fn purpose(&self) -> Purpose {
        Purpose::of(self.ask.action.as_ref())
    }

    /// The lease of the delivery before, which this delivery of a Watch ends.
    pub(in crate::journal) fn ended_lease(&self) -> Option<Id> {
        self.outcome.allowed()?.ended
    }

    /// The line under the name of what was asked for.
    pub(in crate::journal) fn into_event(self) -> Event {
        match &self.ask.action {
            None => Event::Resolve(Box::new(self)),
            Some(Action::Send(_)) => Event::Send(Box::new(self)),
        }
    }

    /// Whether the line issues a lease.
    pub(in crate::journal) fn begins_lease(&self) -> bool {
        self.outcome.allowed().is_some_and(|leased| !leased.reused)
    }

    /// The lease that the line issues; `None` if it reuses a lease or is a refusal.
    pub(in crate::journal) fn new_lease(&self) -> Option<Lease> {
        let leased = self.outcome.allowed().filter(|leased| !leased.reused)?;
        Some(Lease {
            id: leased.lease,
            opening: self.opening,
            resource: leased.uid,
            version: leased.version,
            ask: Arc::clone(&self.ask),
            is_watch: self.watch,
            issue_time: leased.issue_time,
            expire_time: leased.expire_time,
            limited_by: leased.limited_by,
            mint: leased.upstream.as_ref().map(Upstream::state),
            is_done: false,
        })
    }
}

/// A decision on the renewal of a lease.
#[derive(Debug, Serialize, Deserialize)]
pub struct RenewalLine {
    /// The opening that asked.
    pub opening: Id,
    /// The step, with its workflow and run.
    #[serde(with = "super::step_path")]
    pub principal: Arc<WorkflowPath>,
    /// The principals on whose behalf it runs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub run_as: BTreeSet<RunAs>,
    /// The lease.
    pub lease: Id,
    /// The target of the lease.
    pub target: LeaseTarget,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome<RenewedLease>,
}

/// What a renewal that is allowed gives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenewedLease {
    /// The rule that allows it.
    pub by: String,
    /// When the lease expires now.
    pub expire_time: Timestamp,
    /// The bound that limits it.
    pub limited_by: TtlLimit,
}

/// An operator's test of a record. No value is handed out.
#[derive(Debug, Serialize, Deserialize)]
pub struct TestLine {
    /// The operator.
    pub principal: String,
    /// The full name of the resource.
    pub resource: String,
    /// The resource's uid.
    pub uid: Id,
    /// The version that was tested.
    pub version: u64,
    /// The rule that allows it.
    pub by: String,
    /// True if an upstream is asked for a credential, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mints: bool,
    /// True if a refresh token is used for that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refreshes: bool,
}

/// The outcome of a decision. `A` is what an allowed decision gives.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Outcome<A> {
    /// It is done.
    Allow(A),
    /// Nothing is done.
    Refuse(Refused),
}

impl<A> Outcome<A> {
    /// What it gives; `None` if it is a refusal.
    pub fn allowed(&self) -> Option<&A> {
        match self {
            Self::Allow(allowed) => Some(allowed),
            Self::Refuse(_) => None,
        }
    }

    /// What it gives; `None` if it is a refusal.
    pub fn into_allowed(self) -> Option<A> {
        match self {
            Self::Allow(allowed) => Some(allowed),
            Self::Refuse(_) => None,
        }
    }
}

/// What a refusal tells.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Refused {
    /// The API's reason.
    pub reason: String,
    /// The rule that refused it, if that is not access, or the bindings of a relation that is too low.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// The connection to which the step has a relation that is too low.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Id>,
    /// The mint that has failed, if the upstream is not asked again yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mint: Option<Id>,
}

impl Refused {
    /// A refusal of which there is no more to tell than its reason.
    pub fn because(reason: &str) -> Self {
        Self { reason: reason.to_owned(), ..Self::default() }
    }
}

/// What a Resolve, or an action of the broker, that is allowed gives: a credential under a lease.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Leased {
    /// The rule that allows it.
    pub by: String,
    /// The resource's uid.
    pub uid: Id,
    /// The resource's full name, if the target is a group or a default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The version.
    pub version: u64,
    /// The names of the fields.
    pub released: Vec<FieldName>,
    /// The lease on it.
    pub lease: Id,
    /// When the lease was issued.
    pub issue_time: Timestamp,
    /// When the lease expires.
    pub expire_time: Timestamp,
    /// The bound that limits the lease.
    pub limited_by: TtlLimit,
    /// Whether the lease was live already.
    pub reused: bool,
    /// The lease of the delivery before, which this delivery of a Watch ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Id>,
    /// How the credential is made, if an upstream makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
}
