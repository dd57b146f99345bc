//! What a step gets of a connection.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a step gets: the stored fields, or a credential made from them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// A short-lived credential that the upstream makes. The roots are never released.
    Minted,
    /// The fields as they are stored.
    #[default]
    Stored,
}

impl Release {
    /// True for the fields as they are stored.
    pub fn is_stored(&self) -> bool {
        *self == Self::Stored
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minted => "minted",
            Self::Stored => "stored",
        })
    }
}
