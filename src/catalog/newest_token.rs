//! Which refresh token of a connection is the newest, and whether it is of use.

use super::Catalog;
use super::record::{ConnectionMetadata, FieldMetadata, Values};
use super::refresh::{RefreshState, Unusable};
use crate::integration::{self, Integration, Source};
use crate::model::Id;
use crate::seal::{RecordKey, RecordKind};

/// The name of the field.
pub const REFRESH_TOKEN: &str = "refresh_token";

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
