//! The identity that a command uses, and its connection to the broker.

pub(super) mod contexts;
pub(super) mod endpoint;
pub(super) mod identity_files;
pub(super) mod own_directory;
pub(super) mod renewal;
pub(super) mod retry;
pub(super) mod session;
pub(super) mod unreachable;
pub(super) mod whoami;
