//! The keys of a broker: unwrapped in memory, wrapped in a file, and changed.

pub(super) mod keyring;
pub(super) mod keyring_file;
pub(super) mod older_keyring;
pub(super) mod rotation;
pub(super) mod store;
pub(super) mod take_over;
