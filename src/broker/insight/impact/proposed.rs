//! A change that nobody has made yet.

use std::sync::Arc;

use crate::access::Principal;
use crate::broker::changes::checks::require_editor;
use crate::broker::changes::documents::{Access, ConnectionDocument, Deletion, GroupChange, Patch};
use crate::broker::changes::draft::Draft;
use crate::broker::connections::write as connection_write;
use crate::broker::error::Error;
use crate::broker::groups::write as group_write;
use crate::broker::secrets;
use crate::catalog::{Catalog, Connection, Group};
use crate::lease::Lease;
use crate::model::{
    ConnectionRef, GroupName, Id, IntegrationName, Invalid, Release, ResourceName, Tags,
};

/// A change that nobody has made yet.
pub enum ProposedChange {
    /// A connection, group or secret is deleted.
    Delete(ResourceName),
    /// All bindings of a connection or group are replaced.
    Access(ResourceName, Access),
    /// Members are removed from a group, then others are added.
    Members {
        /// The group.
        group: GroupName,
        /// Members to remove.
        removed: Vec<ConnectionRef>,
        /// Members to add.
        added: Vec<ConnectionRef>,
    },
    /// All tags of a connection are replaced.
    Tags(ConnectionRef, Tags),
    /// A step gets something else of a connection; `None` for what it gets now.
    Release(ConnectionRef, Option<Release>),
}

impl ProposedChange {
    /// The connection that it changes; `None` if it changes no connection.
    pub(super) fn connection<'c>(&self, catalog: &'c Catalog) -> Option<&'c Arc<Connection>> {
        match self {
            Self::Delete(ResourceName::Connection(name))
            | Self::Access(ResourceName::Connection(name), _)
            | Self::Tags(name, _)
            | Self::Release(name, _) => catalog.connection(name),
            Self::Delete(_) | Self::Access(..) | Self::Members { .. } => None,
        }
    }

    /// The group that it changes; `None` if it changes no group.
    pub(super) fn group<'c>(&self, catalog: &'c Catalog) -> Option<&'c Arc<Group>> {
        match self {
            Self::Delete(ResourceName::Group(name))
            | Self::Access(ResourceName::Group(name), _)
            | Self::Members { group: name, .. } => catalog.group(name),
            Self::Delete(_) | Self::Access(..) | Self::Tags(..) | Self::Release(..) => None,
        }
    }

    /// The uid of the secret that it deletes.
    pub(super) fn secret(&self, catalog: &Catalog) -> Option<Id> {
        match self {
            Self::Delete(ResourceName::Secret(name)) => {
                catalog.secret(name).map(|secret| secret.metadata.uid)
            }
            _ => None,
        }
    }

    /// Whether the credential of a lease is ended upstream although the lease goes on: another release is another credential.
    pub(super) fn ends_credentials(&self, old: &Catalog, new: &Catalog) -> impl Fn(&Lease) -> bool {
        let version = |catalog| self.connection(catalog).map(|found| found.metadata.version);
        let is_other = version(new).is_some() && version(old) != version(new);
        move |lease| is_other && lease.credential().is_some_and(|made| made.owed)
    }

    /// The integration whose default is deleted.
    pub(super) fn lost_default(&self, old: &Catalog) -> Option<IntegrationName> {
        let connection = self.connection(old).filter(|_| matches!(self, Self::Delete(_)))?;
        connection.metadata.is_default.then(|| connection.metadata.integration.clone())
    }
}

/// Makes the change on a draft, as its method would.
pub(super) fn make(
    draft: &mut Draft,
    caller: &Principal,
    change: &ProposedChange,
) -> Result<(), Error> {
    let forced = Deletion { force: true, ..Deletion::default() };
    match change {
        ProposedChange::Delete(ResourceName::Connection(name)) => {
            connection_write::delete(draft, caller, name, &forced, &[])
        }
        ProposedChange::Delete(ResourceName::Group(name)) => {
            group_write::delete(draft, caller, name, &forced, &[])
        }
        ProposedChange::Delete(ResourceName::Secret(name)) => {
            secrets::delete(draft, caller, name, &forced)
        }
        ProposedChange::Access(ResourceName::Connection(name), access) => {
            let access = Patch::Replace(access.clone());
            let document = ConnectionDocument { access, ..ConnectionDocument::new(name.clone()) };
            update_connection(draft, caller, &document)
        }
        ProposedChange::Access(ResourceName::Group(name), access) => {
            let access = Patch::Replace(access.clone());
            update_group(draft, caller, name, GroupChange { access, ..GroupChange::default() })
        }
        ProposedChange::Delete(name) | ProposedChange::Access(name, _) => {
            let rule = "its impact cannot be previewed: name a connection, a group or, to delete, a secret";
            Err(Invalid::new("resource", &name.to_text(), rule).into())
        }
        ProposedChange::Members { group, removed, added } => {
            let (removed, added) = (removed.clone(), added.clone());
            let change = GroupChange { removed, added, ..GroupChange::default() };
            update_group(draft, caller, group, change)
        }
        ProposedChange::Tags(name, tags) => {
            let tags = Patch::Replace(tags.clone());
            let document = ConnectionDocument { tags, ..ConnectionDocument::new(name.clone()) };
            update_connection(draft, caller, &document)
        }
        ProposedChange::Release(name, release) => {
            let document =
                ConnectionDocument { release: *release, ..ConnectionDocument::new(name.clone()) };
            match update_connection(draft, caller, &document) {
                // The change itself will come with the fields.
                Err(Error::SecretsRequired { .. }) => release_anyway(draft, name, *release),
                outcome => outcome,
            }
        }
    }
}

fn update_connection(
    draft: &mut Draft,
    caller: &Principal,
    document: &ConnectionDocument,
) -> Result<(), Error> {
    let found = draft.catalog().connection(&document.name).cloned();
    let resource = ResourceName::Connection(document.name.clone());
    let old = found.ok_or_else(|| Error::NotFound(resource.clone()))?;
    require_editor(caller, &old.metadata.access, &resource)?;
    connection_write::update(draft, caller, &old, document).map(drop)
}

fn update_group(
    draft: &mut Draft,
    caller: &Principal,
    name: &GroupName,
    change: GroupChange,
) -> Result<(), Error> {
    let group = group_write::editable(draft, caller, name)?;
    group_write::update(draft, caller, &group, change).map(drop)
}

/// Gives a connection another release without its values, which nothing of a preview reads.
fn release_anyway(
    draft: &mut Draft,
    name: &ConnectionRef,
    release: Option<Release>,
) -> Result<(), Error> {
    let Some(old) = draft.catalog().connection(name).cloned() else { return Ok(()) };
    let mut connection = Connection::clone(&old);
    connection.metadata.release = release.unwrap_or(connection.metadata.release);
    connection.metadata.version += 1;
    draft.put_connection(connection)
}
