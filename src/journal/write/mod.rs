//! How lines reach the disk, in order, and files follow files.

pub(super) mod chain;
pub(super) mod disk_reserve;
pub mod line;
pub(super) mod maintenance;
pub(super) mod rotation;
pub(super) mod signature;
pub(super) mod status;
pub(super) mod sync;
pub(super) mod watchdog;
