//! How the clients of a door share it: openings by executor and workflow, operators and executors by name.

use std::sync::Arc;

use super::files::Shares;
use crate::identity::{Allotment, PIECE_BYTES, PeerQuota, QuotaLimits, QuotaPool, Svid, WeakMap};
use crate::model::limits::{MAX_PAGE_BYTES, MAX_STEP_REQUEST_BYTES};
use crate::model::{ExecutorName, Limits, RateLimit, SpiffeId, StepKey, WorkflowName};

/// The divisors of shares: an executor has half of the step door, a workflow a quarter.
const OF_EXECUTOR: u64 = 2;
const OF_WORKFLOW: u64 = 4;

/// The quotas of openings.
pub(super) struct StepQuotas {
    door: Arc<QuotaPool>,
    executors: WeakMap<ExecutorName, QuotaPool>,
    workflows: WeakMap<(ExecutorName, WorkflowName), QuotaPool>,
}

impl StepQuotas {
    pub(super) fn new(limits: &Limits, shares: Shares) -> Self {
        let requests = Allotment {
            own: limits.own_requests_in_flight.into(),
            most: limits.step_requests_in_flight.into(),
            pool: limits.all_steps_requests_in_flight.into(),
        };
        let connections = Allotment {
            own: limits.own_connections.into(),
            most: limits.step_connections.into(),
            pool: shares.step_connections.into(),
        };
        let bytes = bytes(MAX_STEP_REQUEST_BYTES, limits.all_steps_message_kib);
        let reading = pieces(limits.step_read_kib_per_second);
        let door = QuotaPool::new(QuotaLimits { requests, connections, bytes, reading });
        Self { door, executors: WeakMap::default(), workflows: WeakMap::default() }
    }

    /// The quota of an opening of this step.
    pub(super) fn peer_quota(&self, step: &StepKey) -> Arc<PeerQuota> {
        let executor = || self.executors.of(step.executor.clone(), || self.door.part(OF_EXECUTOR));
        let workflow = (step.executor.clone(), step.workflow.clone());
        self.workflows.of(workflow, || executor().part(OF_WORKFLOW)).peer_quota()
    }
}

/// The quotas of operators and executors.
pub(super) struct AdminQuotas {
    door: Arc<QuotaPool>,
    registered: WeakMap<SpiffeId, PeerQuota>,
}

impl AdminQuotas {
    pub(super) fn new(limits: &Limits, shares: Shares) -> Self {
        let amount = |own: u32, pool: u32| Allotment {
            own: own.into(),
            most: u64::from(own) + u64::from(pool),
            pool: pool.into(),
        };
        // The other half is for the own connections of each.
        let connections = amount(limits.own_connections, shares.admin_connections / 2);
        let requests = amount(limits.own_requests_in_flight, limits.admin_requests_in_flight);
        // A page is longer than the largest request.
        let bytes = bytes(MAX_PAGE_BYTES, limits.admin_message_kib);
        let reading = pieces(limits.admin_read_kib_per_second);
        let door = QuotaPool::new(QuotaLimits { requests, connections, bytes, reading });
        Self { door, registered: WeakMap::default() }
    }

    /// The quota of this certificate's name, which all its certificates share.
    pub(super) fn peer_quota(&self, svid: &Svid) -> Arc<PeerQuota> {
        self.registered.of(svid.id.clone(), || self.door.peer_quota())
    }
}

fn bytes(own: usize, kib: u32) -> Allotment {
    Allotment {
        own: u64::try_from(own).unwrap_or(u64::MAX),
        most: u64::MAX,
        pool: u64::from(kib) * 1024,
    }
}

/// A rate in KiB a second as a rate of the pieces that are read.
fn pieces(kib_per_second: u32) -> RateLimit {
    let piece = u32::try_from(PIECE_BYTES / 1024).unwrap_or(1);
    let pieces = kib_per_second.div_ceil(piece);
    RateLimit { per_second: pieces, burst: pieces }
}
