//! The keys of a broker: unwrapped in memory, wrapped in a file, and how they change.

pub(super) mod change;
pub(super) mod error;
pub(super) mod id;
pub(super) mod keyring;
pub(super) mod keyring_file;
pub(super) mod older_keyring;
pub(super) mod store;
pub(super) mod stored_keyring;
pub(super) mod take_over;
