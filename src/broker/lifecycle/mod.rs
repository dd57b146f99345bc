//! How a broker comes up, is copied, and comes back from a copy.

pub(super) mod backup;
pub(super) mod quarantine;
mod reopen;
pub(super) mod restored_tokens;
pub(super) mod start;
