//! What the lines so far amount to: open steps, leases, requests, uses, budgets.

pub(super) mod budget;
pub(super) mod executor_budget;
pub(super) mod index;
pub(super) mod live;
pub(super) mod remembered;
pub(super) mod requests;
pub(super) mod usage;
pub(super) mod use_counts;
