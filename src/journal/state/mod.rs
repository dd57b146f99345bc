//! The state that the lines add up to: open steps, leases, requests, uses.

pub(super) mod begun_counts;
pub(super) mod due;
pub(super) mod heads;
pub(super) mod index;
pub(super) mod live;
pub(super) mod lost;
pub(super) mod mints;
pub(super) mod open_step;
pub(super) mod outliving;
pub(super) mod owed;
pub(super) mod remembered;
pub(super) mod requests;
pub(super) mod runs;
pub(super) mod usage;
pub(super) mod use_counts;
