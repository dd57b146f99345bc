//! The records that the broker keeps for itself: what ends a credential, and refresh tokens in place of a connection's.

use std::sync::Arc;

use crate::broker::changes::checks::change_note;
use crate::broker::changes::writer::Writer;
use crate::broker::error::Error;
use crate::catalog::{Kept, Resource, Values};
use crate::model::Id;
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

    /// Keeps sealed values of a connection, and waits until they are on disk. `action` is the journal's name for it.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) async fn keep(
        &self,
        action: &'static str,
        resource: String,
        values: Values,
    ) -> Result<(), Error> {
        let submitted = self.0.submit(move |draft| {
            let Values { key, sealed } = &values;
            draft.note_for_none(change_note(
                BY,
                action,
                resource.clone(),
                key.uid,
                sealed.version(),
            ));
            draft.put(Resource::Kept(Arc::new(Kept { values: values.clone() })));
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
pub(crate) fn mint_name(mint: Id) -> String {
    format!("mints/{mint}")
}
