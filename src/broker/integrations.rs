//! Operators' own integrations, beside the built-in ones.
//!
//! A change of a schema never loosens stored values: each value keeps the `sensitive` and `destination` of the schema
//! that it was written under.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Broker;
use super::changes::checks::{change_note, check_etag};
use super::changes::documents::{Action, Deletion, WriteOptions, WriteRequest};
use super::changes::draft::Draft;
use super::error::Error;
use super::registry::operators::{require_operator, require_role};
use crate::access::{Principal, Role};
use crate::catalog::{Catalog, OwnIntegration, Resource};
use crate::integration::{self, FieldRule, Integration, check_own};
use crate::journal::ChangeNote;
use crate::model::{IntegrationName, KindName, ResourceName};
use crate::seal::random_id;

/// An integration as an operator sees it.
pub struct ListedIntegration {
    /// The integration.
    pub integration: Integration,
    /// The etag of an operators' own integration; `None` for a built-in one.
    pub etag: Option<String>,
}

impl Broker {
    /// An integration.
    ///
    /// # Errors
    /// See `IntegrationService.GetIntegration`.
    pub fn integration(
        &self,
        caller: &Principal,
        name: &IntegrationName,
    ) -> Result<ListedIntegration, Error> {
        require_operator(caller)?;
        find(&self.snapshot().catalog, name)
    }

    /// All integrations, by name.
    ///
    /// # Errors
    /// If the caller is no operator.
    pub fn integrations(&self, caller: &Principal) -> Result<Vec<ListedIntegration>, Error> {
        require_operator(caller)?;
        let snapshot = self.snapshot();
        let built_in = integration::built_in().values().cloned();
        let built_in = built_in.map(|integration| ListedIntegration { integration, etag: None });
        let own = snapshot.catalog.own_integrations().map(|own| listed(own));
        let mut all: Vec<_> = built_in.chain(own).collect();
        all.sort_unstable_by(|one, other| one.integration.name.cmp(&other.integration.name));
        Ok(all)
    }

    /// Creates an integration.
    ///
    /// # Errors
    /// See `IntegrationService.CreateIntegration`.
    pub async fn create_integration(
        &self,
        caller: Principal,
        integration: Integration,
        options: WriteOptions,
    ) -> Result<ListedIntegration, Error> {
        require_role(&caller, Role::Administrator)?;
        let name = integration.name.clone();
        let request = WriteRequest::new(&caller, options);
        let change = move |draft: &mut Draft| {
            if draft.catalog().integration(&integration.name).is_some() {
                let name = integration.name.clone();
                return Err(Error::AlreadyExists(ResourceName::Integration(name)));
            }
            put(draft, &caller, integration.clone()).map(drop)
        };
        self.writer.write(request, change, move |catalog| find(catalog, &name)).await
    }

    /// Replaces an integration, if `etag` is still its etag.
    ///
    /// # Errors
    /// See `IntegrationService.UpdateIntegration`.
    pub async fn update_integration(
        &self,
        caller: Principal,
        integration: Integration,
        etag: Option<String>,
        allow_missing: bool,
        options: WriteOptions,
    ) -> Result<ListedIntegration, Error> {
        require_role(&caller, Role::Administrator)?;
        let name = integration.name.clone();
        let request = WriteRequest::new(&caller, options);
        let change = move |draft: &mut Draft| {
            let resource = ResourceName::Integration(integration.name.clone());
            match draft.catalog().own_integration(&integration.name) {
                Some(own) => check_etag(etag.as_ref(), &own.etag(), &resource)?,
                None if integration::find(&integration.name).is_some() => {}
                None if allow_missing && etag.is_none() => {}
                None => return Err(Error::NotFound(resource)),
            }
            put(draft, &caller, integration.clone()).map(drop)
        };
        self.writer.write(request, change, move |catalog| find(catalog, &name)).await
    }

    /// Deletes an integration that no connection and no group uses.
    ///
    /// # Errors
    /// See `IntegrationService.DeleteIntegration`.
    pub async fn delete_integration(
        &self,
        caller: Principal,
        name: IntegrationName,
        deletion: Deletion,
        options: WriteOptions,
    ) -> Result<(), Error> {
        require_role(&caller, Role::Administrator)?;
        let request = WriteRequest::new(&caller, options);
        let change = move |draft: &mut Draft| delete(draft, &caller, &name, &deletion);
        self.writer.write(request, change, |_| Ok(())).await
    }
}

/// Creates an integration, or replaces the integration of its name.
pub(super) fn put(
    draft: &mut Draft,
    caller: &Principal,
    integration: Integration,
) -> Result<Action, Error> {
    require_role(caller, Role::Administrator)?;
    check_own(&integration).map_err(Error::IntegrationInvalid)?;
    let name = integration.name.clone();
    if integration::find(&name).is_some() {
        return Err(Error::IntegrationBuiltIn(name));
    }
    let old = draft.catalog().own_integration(&name).cloned();
    if old.as_ref().is_some_and(|old| old.integration == integration) {
        return Ok(Action::Unchanged);
    }
    let kinds: BTreeSet<&KindName> = integration.kinds.iter().map(|kind| &kind.name).collect();
    let user = connection_of(draft.catalog(), &name, |kind| !kinds.contains(kind));
    if let Some(users) = user {
        let resource = ResourceName::Integration(name);
        let hint = "keep the kind, or delete its connections first";
        return Err(Error::InUse { resource, users, hint });
    }
    if let Some(old) = &old {
        check_destinations_stay(draft.catalog(), &old.integration, &integration)?;
    }
    let own = OwnIntegration {
        uid: old.as_ref().map_or_else(random_id, |old| Ok(old.uid))?,
        integration,
        revision: old.as_ref().map_or(1, |old| old.revision + 1),
        update_time: draft.now,
        updated_by: caller.to_string(),
    };
    let action = if old.is_some() { "integration.update" } else { "integration.create" };
    draft.note(note(caller, action, &own));
    draft.put(Resource::Integration(Arc::new(own)));
    Ok(if old.is_some() { Action::Changed } else { Action::Created })
}

fn delete(
    draft: &mut Draft,
    caller: &Principal,
    name: &IntegrationName,
    deletion: &Deletion,
) -> Result<(), Error> {
    let resource = ResourceName::Integration(name.clone());
    if integration::find(name).is_some() {
        return Err(Error::IntegrationBuiltIn(name.clone()));
    }
    let own = match draft.catalog().own_integration(name).cloned() {
        Some(own) => own,
        None if deletion.allow_missing && !draft.catalog().is_newer(&resource) => return Ok(()),
        None => return Err(Error::NotFound(resource)),
    };
    check_etag(deletion.etag.as_ref(), &own.etag(), &resource)?;
    let connection = connection_of(draft.catalog(), name, |_| true);
    if let Some(users) = connection.or_else(|| group_of(draft.catalog(), name)) {
        let hint = "delete its connections and groups first";
        return Err(Error::InUse { resource, users, hint });
    }
    draft.note(note(caller, "integration.delete", &own));
    draft.remove(Resource::Integration(own));
    Ok(())
}

/// Refuses a schema that loosens a kind which connections have. Each field rule must stay, and keep its destination and
/// its name. Otherwise a stored value could come under another rule, or be sent elsewhere.
fn check_destinations_stay(
    catalog: &Catalog,
    old: &Integration,
    new: &Integration,
) -> Result<(), Error> {
    for kind in &old.kinds {
        let Some(users) = connection_of(catalog, &old.name, |name| *name == kind.name) else {
            continue;
        };
        let rules =
            new.kind(kind.name.as_str()).map(|kind| kind.fields.as_slice()).unwrap_or_default();
        let stays = |rule: &FieldRule| {
            let kept = rules
                .iter()
                .any(|new| new.name == rule.name && new.destination >= rule.destination);
            kept && !rules.iter().any(|new| new.aliases.contains(&rule.name))
        };
        if !kind.fields.iter().all(stays) {
            let resource = ResourceName::Integration(old.name.clone());
            let hint = "while it has connections, a field must stay, keep its name to itself, and stay a \
                        destination if it is one; delete the connections first, or add a kind";
            return Err(Error::InUse { resource, users, hint });
        }
    }
    Ok(())
}

/// A connection of this integration and a wanted kind, as text. `None` if no connection matches.
fn connection_of(
    catalog: &Catalog,
    name: &IntegrationName,
    is_wanted: impl Fn(&KindName) -> bool,
) -> Option<String> {
    let mut connections = catalog.connections_of(name);
    let found = connections.find(|one| is_wanted(&one.metadata.kind))?;
    Some(format!("{}, of kind {}", found.metadata.reference(), found.metadata.kind))
}

/// A group of this integration, as text. `None` if no group uses it.
fn group_of(catalog: &Catalog, name: &IntegrationName) -> Option<String> {
    let mut groups = catalog.groups_after(None);
    let found = groups.find(|group| group.metadata.integration == *name)?;
    Some(format!("group {}", found.metadata.name))
}

fn find(catalog: &Catalog, name: &IntegrationName) -> Result<ListedIntegration, Error> {
    if let Some(own) = catalog.own_integration(name) {
        return Ok(listed(own));
    }
    let built_in = integration::find(name).cloned();
    built_in
        .map(|integration| ListedIntegration { integration, etag: None })
        .ok_or_else(|| Error::NotFound(ResourceName::Integration(name.clone())).or_newer(catalog))
}

fn listed(own: &OwnIntegration) -> ListedIntegration {
    ListedIntegration { integration: own.integration.clone(), etag: Some(own.etag()) }
}

fn note(caller: &Principal, action: &str, own: &OwnIntegration) -> ChangeNote {
    let resource = ResourceName::Integration(own.integration.name.clone());
    change_note(caller, action, resource, own.uid, own.revision)
}
