//! The records that the broker keeps for itself: what ends a credential, and refresh tokens in place of a connection's.

use std::sync::Arc;

use crate::broker::changes::checks::change_note;
use crate::broker::changes::writer::Writer;
use crate::broker::error::Error;
use crate::catalog::{Kept, Resource, Values};
use crate::model::{Fields, Id};
use crate::seal::RecordKey;

/// The principal of these changes in the journal.
const BY: &str = "broker";

/// Writes and removes the broker's own records. They go through the one writer, as all changes do.
#[derive(Clone)]
pub(crate) struct Keeper(Writer);

impl Keeper {
    pub(crate) fn new(writer: Writer) -> Self {
        Self(writer)
    }

    /// Keeps fields of a connection, sealed, and waits until they are on disk, with all lines of the journal before.
    /// `action` is the journal's name for it, `resource` the connection's full name.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) async fn keep(
        &self,
        action: &'static str,
        resource: String,
        (key, version): (RecordKey, u64),
        fields: Arc<Fields>,
    ) -> Result<(), Error> {
        let submitted = self.0.submit(move |draft| {
            // Sealed here: no record comes under a DEK that was replaced while it waited for the writer.
            let sealed = draft.keyring.seal_values(key, version, &fields)?;
            draft.note_for_none(change_note(BY, action, &resource, key.uid, version));
            draft.put(Resource::Kept(Arc::new(Kept { values: Values { key, sealed } })));
            Ok(())
        });
        submitted.await
    }

    /// Removes records, as far as they exist.
    ///
    /// # Errors
    /// If the store cannot be written. They stay then.
    pub(crate) async fn forget(
        &self,
        action: &'static str,
        keys: Vec<RecordKey>,
    ) -> Result<(), Error> {
        let submitted = self.0.submit(move |draft| {
            let kept = keys.iter().filter_map(|key| draft.catalog().kept(*key).cloned());
            let kept: Vec<Arc<Kept>> = kept.collect();
            for kept in kept {
                let Values { key, sealed } = &kept.values;
                let note = change_note(BY, action, mint_name(key.uid), key.uid, sealed.version());
                draft.note_for_none(note);
                draft.remove(Resource::Kept(kept));
            }
            Ok(())
        });
        submitted.await
    }
}

/// The name of a mint in lines of changes.
fn mint_name(mint: Id) -> String {
    format!("mints/{mint}")
}
