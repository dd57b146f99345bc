//! What a step asks for, and what it gets.

use std::time::Duration;

use crate::access::Purpose;
use crate::journal::DecisionId;
use crate::lease::Lease;
use crate::model::{Action, IntegrationName, KindName, Reference, ResourceName, Timestamp, Value};

/// A request of a step for one credential.
#[derive(Clone, Debug)]
pub struct ResolveRequest {
    /// The credential.
    pub target: Reference,
    /// The fields, by names or aliases; all if empty.
    pub fields: Vec<String>,
    /// The TTL of the lease; the default if unset.
    pub ttl: Option<Duration>,
    /// What the broker is to do with the credential; `None` if the step is to get it.
    pub action: Option<Action>,
}

impl ResolveRequest {
    /// What the step wants the credential for.
    pub(crate) fn purpose(&self) -> Purpose {
        Purpose::of(self.action.as_ref())
    }
}

/// Room for opened values. It is taken before a decision is committed, so that no value is opened without room.
pub trait Room: Send {
    /// Takes `bytes` more; `false` if there is not that much room.
    fn take(&mut self, bytes: usize) -> bool;
}

/// A credential with its lease.
pub struct Resolved {
    /// The full name of the resource.
    pub name: ResourceName,
    /// A connection's integration and kind.
    pub kind: Option<(IntegrationName, KindName)>,
    /// The version of the credential.
    pub version: u64,
    /// The values, by the names asked for; the names are unique.
    pub fields: Vec<(String, Value)>,
    /// The lease on it.
    pub lease: Lease,
    /// Whether the lease could be renewed to expire later.
    pub is_renewable: bool,
    /// The line of the decision.
    pub(super) decision: DecisionId,
    /// When the upstream is asked for the next credential; `None` if it is stored.
    pub(super) refresh: Option<Timestamp>,
}
