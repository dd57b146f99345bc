//! The records that the broker keeps for itself: what ends a credential, and refresh tokens in place of a connection's.

use std::sync::Arc;

use crate::broker::changes::checks::change_note;
use crate::broker::changes::draft::Draft;
use crate::broker::changes::writer::Writer;
use crate::broker::error::Error;
use crate::catalog::{Connection, Kept, RefreshState, Resource, Values, rotated_token};
use crate::model::{ConnectionRef, Fields, Id, ResourceName, Timestamp};
use crate::seal::{RecordKey, Sealed};

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

    /// Keeps what is known of a connection's refresh token, and its successor if there is one, and waits until both are on
    /// disk. Returns false, and keeps nothing, if the connection is gone, or a token was written after `write_time`: even one
    /// of the same value, because others may have stood there meanwhile.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) async fn take_refresh(
        &self,
        action: &'static str,
        connection: (ConnectionRef, Id),
        (state, write_time): (RefreshState, Timestamp),
        successor: Option<Sealed>,
    ) -> Result<bool, Error> {
        let submitted = self.0.submit(move |draft| {
            let Some(mut connection) = find(draft, &connection) else { return Ok(false) };
            let written = connection.metadata.written_refresh_token();
            let stands = (state.written, write_time);
            if written.is_none_or(|written| (written.fingerprint, written.update_time) != stands) {
                return Ok(false);
            }
            if let Some(sealed) = &successor {
                let key = rotated_token(connection.metadata.uid);
                // No record comes under a DEK that was replaced while it waited for the writer.
                let sealed = draft.keyring.reseal(key, sealed).map_err(|_| Error::Corrupt)?;
                draft.put(Resource::Kept(Arc::new(Kept { values: Values { key, sealed } })));
            }
            connection.metadata.refresh = Some(Box::new(state.clone()));
            put(draft, action, connection);
            Ok(true)
        });
        submitted.await
    }

    /// Notes the end of a test of a connection, if the connection still exists.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) async fn end_test(
        &self,
        action: &'static str,
        connection: (ConnectionRef, Id),
    ) -> Result<(), Error> {
        let submitted = self.0.submit(move |draft| {
            if let Some(connection) = find(draft, &connection) {
                put(draft, action, connection);
            }
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

fn find(draft: &Draft, (name, uid): &(ConnectionRef, Id)) -> Option<Connection> {
    let found = draft.catalog().connection(name).filter(|found| found.metadata.uid == *uid);
    found.map(|found| Connection::clone(found))
}

/// Puts a connection that no operator has changed: its version and its etag stay, and no lease is decided again.
fn put(draft: &mut Draft, action: &'static str, connection: Connection) {
    let metadata = &connection.metadata;
    let name = ResourceName::Connection(metadata.reference());
    draft.note_for_none(change_note(BY, action, name, metadata.uid, metadata.version));
    draft.put(Resource::Connection(Arc::new(connection)));
}

/// The name of a mint in lines of changes.
fn mint_name(mint: Id) -> String {
    format!("mints/{mint}")
}
