//! What is known of a connection's refresh token, which its upstream may replace whenever it is used.
//!
//! The newest token is a record of its own, so that a written field always has the value that an operator wrote. What is known
//! is about that value: another written value has no past, and an equal value changes nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Catalog;
use super::record::{ConnectionMetadata, FieldMetadata, Values};
use crate::integration::{self, Integration, Source};
use crate::model::{Id, Timestamp, hex_bytes};
use crate::seal::{RecordKey, RecordKind};

/// The name of the field.
pub const REFRESH_TOKEN: &str = "refresh_token";

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

impl ConnectionMetadata {
    /// The refresh token that an operator wrote.
    pub fn written_refresh_token(&self) -> Option<&FieldMetadata> {
        let mut fields = self.fields.iter();
        fields.find(|(name, _)| name.as_str() == REFRESH_TOKEN).map(|(_, field)| field)
    }

    /// What is known of the written refresh token.
    pub fn refresh_state(&self) -> Option<&RefreshState> {
        let written = self.written_refresh_token()?.fingerprint;
        self.refresh.as_deref().filter(|state| state.written == written)
    }

    /// True if the upstream has replaced the written refresh token.
    pub fn is_rotated(&self) -> bool {
        self.refresh_state().is_some_and(|state| state.generation > 0)
    }

    /// Why nothing is made of its refresh token.
    pub fn unusable(&self) -> Option<&Unusable> {
        self.refresh_state()?.unusable.as_ref()
    }

    /// Takes in that values were written: a refusal may have been due to any of them.
    pub fn forget_refusal(&mut self) {
        if let Some(state) = &mut self.refresh
            && let Some(Unusable::Refused { .. }) = state.unusable
        {
            state.unusable = None;
        }
    }
}

impl Catalog {
    /// The newest refresh token of a connection, sealed; `None` if that is the written one.
    pub fn newest_refresh_token(&self, metadata: &ConnectionMetadata) -> Option<&Values> {
        let kept = self.kept(rotated_token(metadata.uid)).filter(|_| metadata.is_rotated())?;
        Some(&kept.values)
    }

    /// How many refresh tokens are of no use. Only built-in integrations have sources, so only their connections are looked at.
    pub fn unusable_count(&self) -> usize {
        let has_source = |integration: &&Integration| {
            integration.kinds.iter().any(|kind| kind.source.is_some_and(Source::rotates))
        };
        let names = integration::built_in().values().filter(has_source).map(|found| &found.name);
        let connections = names.flat_map(|name| self.connections_of(name));
        connections.filter(|found| found.metadata.unusable().is_some()).count()
    }
}

/// The record of the refresh token that replaces a connection's.
pub fn rotated_token(connection: Id) -> RecordKey {
    RecordKey { kind: RecordKind::RotatedToken, uid: connection }
}
