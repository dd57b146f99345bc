//! Formats of files on disk.

use serde::{Deserialize, Serialize};

/// The formats of files whose format is not sealed. The journal notes the highest that were written, so that no file can be
/// replaced by an older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Formats {
    /// The format of the state directory, in `state.json`.
    pub state: u32,
    /// The format of `keyring.json`.
    pub keyring: u32,
}

impl Formats {
    /// The formats that this version writes.
    pub const CURRENT: Self = Self { state: 3, keyring: 3 };
}
