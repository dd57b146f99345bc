//! Secrets: one value of one workflow. Written and overwritten, never read back.

pub(super) mod list;

use std::sync::Arc;

use super::Broker;
use super::changes::checks::change_note;
use super::changes::documents::{
    Action, Deletion, NOTHING_KEPT, SecretDocument, WriteOptions, WriteRequest, copied,
};
use super::changes::draft::Draft;
use super::connections::inspect;
use super::error::Error;
use super::registry::operators::{require_operator, require_role};
use crate::access::{Principal, Role};
use crate::catalog::{Catalog, Resource, Secret, SecretMetadata, Values};
use crate::integration::{Finding, Problem, value_problem, with_last_newline};
use crate::journal::ChangeNote;
use crate::model::{FieldName, Fields, ResourceName, SecretRef};
use crate::seal::{RecordKey, RecordKind, random_id};
use list::ListedSecret;

impl Broker {
    /// A secret without its value.
    ///
    /// # Errors
    /// If there is no such secret, or the caller is no operator.
    pub fn secret(&self, caller: &Principal, name: &SecretRef) -> Result<SecretMetadata, Error> {
        require_operator(caller)?;
        find(&self.snapshot().catalog, name)
    }

    /// Creates a secret or overwrites it. Returns it with the findings about its value.
    ///
    /// # Errors
    /// See `SecretService.PutSecret`.
    pub async fn put_secret(
        &self,
        caller: Principal,
        document: SecretDocument,
        options: WriteOptions,
    ) -> Result<(ListedSecret, Vec<Finding>), Error> {
        require_role(&caller, Role::Operator)?;
        let name = document.name.clone();
        let findings = document.value.as_ref().map(inspect::of_secret).unwrap_or_default();
        let request = WriteRequest::new(&caller, options);
        let change = move |draft: &mut Draft| put(draft, &caller, &document).map(drop);
        let put = self.writer.write(request, change, move |catalog| find(catalog, &name)).await?;
        Ok((self.listed_secret(put), findings))
    }

    /// Deletes a secret and revokes its leases.
    ///
    /// # Errors
    /// See `SecretService.DeleteSecret`.
    pub async fn delete_secret(
        &self,
        caller: Principal,
        name: SecretRef,
        deletion: Deletion,
        options: WriteOptions,
    ) -> Result<(), Error> {
        require_role(&caller, Role::Operator)?;
        let request = WriteRequest::new(&caller, options);
        let change = move |draft: &mut Draft| delete(draft, &caller, &name, &deletion);
        self.writer.write(request, change, |_| Ok(())).await
    }
}

/// Creates a secret, or overwrites it.
pub(super) fn put(
    draft: &mut Draft,
    caller: &Principal,
    document: &SecretDocument,
) -> Result<Action, Error> {
    let old = draft.catalog().secret(&document.name).map(|secret| secret.metadata.clone());
    let Some(value) = &document.value else {
        return match old {
            Some(_) => Ok(Action::Unchanged),
            None => Err(Error::FieldsInvalid(vec![Problem::new("value", NOTHING_KEPT)])),
        };
    };
    if let Some(problem) = value_problem("value", value) {
        return Err(Error::FieldsInvalid(vec![problem]));
    }
    let (value, _) = with_last_newline(copied(value));
    let uid = old.as_ref().map_or_else(random_id, |old| Ok(old.uid))?;
    let fingerprint = draft.keyring.fingerprint(uid, "value", value.expose());
    // A trial does not reveal whether a value equals the stored value: it could be repeated without end.
    if !draft.is_trial && old.as_ref().is_some_and(|old| old.fingerprint == fingerprint) {
        return Ok(Action::Unchanged);
    }
    let metadata = SecretMetadata {
        uid,
        name: document.name.clone(),
        version: old.as_ref().map_or(1, |old| old.version + 1),
        fingerprint,
        update_time: draft.now,
        updated_by: caller.to_string(),
    };
    let key = RecordKey { kind: RecordKind::SecretValue, uid };
    let fields = Fields::from([(FieldName::parse("value")?, value)]);
    let sealed = draft.keyring.seal_values(key, metadata.version, &fields)?;
    let action = if old.is_some() { "secret.update" } else { "secret.create" };
    draft.note(note(caller, action, &metadata));
    let secret = Secret { metadata, values: Values { key, sealed } };
    draft.put(Resource::Secret(Arc::new(secret)));
    Ok(if old.is_some() { Action::Changed } else { Action::Created })
}

/// Deletes a secret.
pub(super) fn delete(
    draft: &mut Draft,
    caller: &Principal,
    name: &SecretRef,
    deletion: &Deletion,
) -> Result<(), Error> {
    let resource = ResourceName::Secret(name.clone());
    let catalog = draft.catalog();
    let secret = match catalog.secret(name).cloned() {
        Some(found) => found,
        None if deletion.allow_missing && !catalog.is_newer(&resource) => return Ok(()),
        None => return Err(Error::NotFound(resource)),
    };
    draft.note(note(caller, "secret.delete", &secret.metadata));
    draft.remove(Resource::Secret(secret));
    Ok(())
}

fn find(catalog: &Catalog, name: &SecretRef) -> Result<SecretMetadata, Error> {
    let found = catalog.secret(name).map(|secret| secret.metadata.clone());
    found.ok_or_else(|| Error::NotFound(ResourceName::Secret(name.clone())))
}

fn note(caller: &Principal, action: &str, secret: &SecretMetadata) -> ChangeNote {
    let resource = ResourceName::Secret(secret.name.clone());
    change_note(caller, action, resource, secret.uid, secret.version)
}
