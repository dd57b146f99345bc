//! Refresh tokens that an upstream gave before a backup: since then it may have given others, and ends all of them if it sees
//! an older one.

use std::sync::Arc;

use crate::broker::changes::checks::change_note;
use crate::broker::changes::draft::Draft;
use crate::broker::error::Error;
use crate::catalog::{Connection, ConnectionMetadata, RefreshState, Resource, Unusable};
use crate::integration::Source;
use crate::model::{ResourceName, Timestamp};

/// Makes the tokens of a restored broker unusable, until another is written or they are trusted. Tokens that no upstream had
/// replaced at the backup are among them: it may have replaced them since.
///
/// # Errors
/// None at present: a batch takes a change that can fail.
pub(crate) fn distrust(draft: &mut Draft, backup_time: Timestamp) -> Result<(), Error> {
    let (unusable, update_time) = (Some(Unusable::Restored { backup_time }), draft.now);
    change_all(draft, ("offline", "refresh_token.distrust"), |metadata| {
        let written = metadata.written_refresh_token()?.fingerprint;
        let generation = metadata.refresh_state().map_or(0, |state| state.generation);
        let rotates = generation > 0 || metadata.source().is_some_and(Source::rotates);
        let unusable = unusable.clone();
        rotates.then_some(RefreshState { written, generation, update_time, unusable })
    })
}

/// Makes them usable again: an administrator says that they are the newest.
///
/// # Errors
/// As [`distrust`].
pub(crate) fn trust(draft: &mut Draft, by: &str) -> Result<(), Error> {
    change_all(draft, (by, "refresh_token.trust"), |metadata| {
        let state = metadata.refresh_state()?;
        let is_restored = matches!(state.unusable, Some(Unusable::Restored { .. }));
        is_restored.then(|| RefreshState { unusable: None, ..state.clone() })
    })
}

fn change_all(
    draft: &mut Draft,
    (by, action): (&str, &str),
    change: impl Fn(&ConnectionMetadata) -> Option<RefreshState>,
) -> Result<(), Error> {
    let connections = draft.catalog().connections_after(None);
    let changed = connections.filter_map(|connection| {
        let state = change(&connection.metadata)?;
        let mut changed = Connection::clone(connection);
        changed.metadata.refresh = Some(Box::new(state));
        Some(changed)
    });
    for connection in changed.collect::<Vec<_>>() {
        let metadata = &connection.metadata;
        let name = ResourceName::Connection(metadata.reference());
        draft.note_for_none(change_note(by, action, name, metadata.uid, metadata.version));
        draft.put(Resource::Connection(Arc::new(connection)));
    }
    Ok(())
}
