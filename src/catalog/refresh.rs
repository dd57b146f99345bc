//! The state of a connection's refresh token, which its upstream may replace whenever it is used.
//!
//! The newest token is a record of its own, so that a written field always has the value that an operator wrote. The state
//! is about that value: another written value has no past, and an equal value changes nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Id, Timestamp, hex_bytes};

/// What is known of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshState {
    /// The fingerprint of the value that an operator wrote.
    #[serde(with = "hex_bytes")]
    pub written: [u8; 32],
    /// How often the upstream has replaced it. From 1 on, the newest token is a record of its own.
    pub generation: u64,
    /// When this changed last.
    pub update_time: Timestamp,
    /// Why nothing is made of it until another is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unusable: Option<Unusable>,
}

/// Why a refresh token is of no use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unusable {
    /// The upstream has refused it.
    Refused {
        /// The mint that was refused.
        mint: Id,
        /// What was wrong and the next step, for operators.
        detail: String,
    },
    /// The broker was restored from a backup of this time. Since then the upstream may have replaced the token, and using it
    /// could end its successors.
    Restored {
        /// When the backup was made.
        backup_time: Timestamp,
    },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { detail, .. } => f.write_str(detail),
            Self::Restored { backup_time } => write!(
                f,
                "the newest refresh token comes from a backup of {backup_time}, and may have been replaced since; sign in at the upstream again, and write the new refresh_token"
            ),
        }
    }
}

impl Unusable {
    /// The mint that was refused; `None` if the upstream was not asked.
    pub fn mint(&self) -> Option<Id> {
        match self {
            Self::Refused { mint, .. } => Some(*mint),
            Self::Restored { .. } => None,
        }
    }
}
