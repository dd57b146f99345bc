//! Writing the journal: lines in order, syncs, and one file after the other.

pub(super) mod chain;
pub(super) mod disk_reserve;
pub mod line;
pub(super) mod maintenance;
pub(super) mod rotation;
pub(super) mod signature;
pub(super) mod status;
pub(super) mod sync;
pub(super) mod watchdog;
