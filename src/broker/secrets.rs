//! Secrets: one value of one workflow. Written and overwritten, never read back.

use super::apply::Action;
use super::error::Error;
use super::writer::Draft;
use crate::access::Principal;
use crate::catalog::{Secret, SecretMetadata, Values};
use crate::integration::Problem;
use crate::journal::ChangeNote;
use crate::model::limits::MAX_VALUE_BYTES;
use crate::model::{FieldName, Fields, ResourceName, SecretRef, Value};
use crate::seal::{RecordKey, RecordKind, random_id};

/// A secret as it should be.
pub struct SecretDocument {
    /// Workflow and name.
    pub name: SecretRef,
    /// Its value.
    pub value: Value,
}

/// Creates a secret, or overwrites it.
pub(super) fn put(
    draft: &mut Draft,
    caller: &Principal,
    document: SecretDocument,
) -> Result<Action, Error> {
    check(&document.value)?;
    let old = draft.catalog.secret(&document.name).map(|secret| secret.metadata.clone());
    let uid = old.as_ref().map_or_else(random_id, |old| Ok(old.uid))?;
    let fingerprint = draft.keyring.fingerprint(uid, "value", document.value.expose());
    if old.as_ref().is_some_and(|old| old.fingerprint == fingerprint) {
        return Ok(Action::Unchanged);
    }
    let metadata = SecretMetadata {
        uid,
        name: document.name,
        version: old.as_ref().map_or(1, |old| old.version + 1),
        fingerprint,
        update_time: draft.now,
        updated_by: caller.to_string(),
    };
    let key = RecordKey { kind: RecordKind::SecretValue, uid };
    let fields = Fields::from([(FieldName::parse("value")?, document.value)]);
    let sealed = draft.keyring.seal_values(key, metadata.version, &fields)?;
    let action = if old.is_some() { "secret.update" } else { "secret.create" };
    draft.note(ChangeNote {
        principal: caller.to_string(),
        action: action.to_owned(),
        resource: ResourceName::Secret(metadata.name.clone()).to_string(),
        uid,
        version: metadata.version,
        fields: Vec::new(),
        access: None,
    });
    let secret = Secret { metadata, values: Values { key, sealed } };
    draft.put(secret.to_store(&draft.keyring.clone())?);
    draft.catalog.put_secret(secret);
    Ok(if old.is_some() { Action::Changed } else { Action::Created })
}

fn check(value: &Value) -> Result<(), Error> {
    let problem = if value.len() > MAX_VALUE_BYTES {
        format!("the value has {} bytes; at most {MAX_VALUE_BYTES} are allowed", value.len())
    } else if value.looks_masked() {
        "the value looks like a mask that some tool printed; give the real one".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::FieldsInvalid(vec![Problem::new("value", problem)]))
}
