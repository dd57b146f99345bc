//! The formats of what is on disk.

use serde::{Deserialize, Serialize};

/// The formats of files that say theirs outside of everything that is sealed. The journal holds the highest that were
/// ever written, so that none is replaced by an older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Formats {
    /// Of the state directory, in `state.json`.
    pub state: u32,
    /// Of `keyring.json`.
    pub keyring: u32,
}

impl Formats {
    /// What this version writes.
    pub const CURRENT: Self = Self { state: 3, keyring: 3 };
}
