//! How lines reach the disk, in order, and files follow files.

pub(super) mod ballast;
pub(super) mod chain;
pub mod line;
pub(super) mod rotation;
pub(super) mod signature;
pub(super) mod standing;
pub(super) mod sync;
pub(super) mod upkeep;
pub(super) mod watchdog;
