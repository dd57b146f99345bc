//! The catalogue: all resources, in memory. Every read of the broker comes from here.
//!
//! A [`Catalog`] is a set of persistent maps: a changed copy shares the unchanged parts. So the writer folds
//! [changes](Change) into a copy at low cost, and readers keep the snapshot that they have. Metadata is opened when it
//! is loaded; values stay sealed until a permit opens them.

mod change;
mod group;
mod list;
mod load;
mod newer;
mod newest_token;
mod record;
mod refresh;
mod snapshot;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

pub use change::{Change, Resource};
pub use group::{Group, Misfit, NotAdmitted, NotSelected};
pub use list::filter::{BoundFilter, Field as FilterField, Filter, Filtered};
pub use list::index::ConnectionIndex;
pub use load::load;
pub use newer::NewerRecord;
pub use newest_token::{REFRESH_TOKEN, rotated_token};
pub use record::{
    Connection, ConnectionMetadata, FieldMetadata, GroupMetadata, Kept, OwnIntegration, Registered,
    Registration, Secret, SecretMetadata, Values,
};
pub use refresh::{RefreshState, Unusable};
pub use snapshot::{InForce, Snapshot, Snapshots};

use crate::integration::{self, Integration};
use crate::model::{
    ConnectionName, ConnectionRef, ExecutorName, GroupName, Id, IntegrationName, OperatorName,
    ResourceName, SecretRef,
};
use crate::seal::{RecordKey, RecordKind};

/// A record that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The record fails authentication, or no version can have written it.
    #[error("a {kind:?} record cannot be opened; restore the state directory from a backup")]
    Corrupt {
        /// The kind of the record.
        kind: RecordKind,
    },
}

/// All resources that operators have written.
#[derive(Clone, Default)]
pub struct Catalog {
    connections: RedBlackTreeMapSync<ConnectionRef, Arc<Connection>>,
    recent: list::recent::RecentChanges,
    defaults: HashTrieMapSync<IntegrationName, ConnectionName>,
    groups: HashTrieMapSync<Id, Arc<Group>>,
    group_names: RedBlackTreeMapSync<GroupName, Id>,
    /// The groups with members that do not fit at present; empty outside of a change.
    unsettled: BTreeSet<Id>,
    integrations: RedBlackTreeMapSync<IntegrationName, Arc<OwnIntegration>>,
    /// Records of the broker's own.
    kept: RedBlackTreeMapSync<RecordKey, Arc<Kept>>,
    secrets: HashTrieMapSync<SecretRef, Arc<Secret>>,
    registrations: RedBlackTreeMapSync<Registered, Arc<Registration>>,
    /// The resources that a newer keyhatch wrote, by full name.
    newer: RedBlackTreeMapSync<String, Arc<NewerRecord>>,
}

impl Catalog {
    /// Folds one step of a batch into the catalogue. After the last step, [`Catalog::settle`] checks the groups.
    pub fn fold(&mut self, change: &Change) {
        match change {
            Change::Put(resource) => self.put(resource.clone()),
            Change::Remove(resource) => self.remove(resource),
        }
    }

    fn put(&mut self, resource: Resource) {
        match resource {
            Resource::Connection(connection) => self.put_connection(connection),
            Resource::Group(metadata) => self.put_group(metadata),
            Resource::Integration(own) => {
                self.integrations.insert_mut(own.integration.name.clone(), own);
            }
            Resource::Kept(kept) => self.kept.insert_mut(kept.values.key, kept),
            Resource::Newer(newer) => self.newer.insert_mut(newer.name.clone(), newer),
            Resource::Registration(found) => {
                self.registrations.insert_mut(found.who.clone(), found);
            }
            Resource::Secret(secret) => {
                self.secrets.insert_mut(secret.metadata.name.clone(), secret);
            }
        }
    }

    fn remove(&mut self, resource: &Resource) {
        match resource {
            Resource::Connection(connection) => {
                let name = connection.metadata.reference();
                self.leave(&name);
                self.connections.remove_mut(&name);
                self.recent.note(name);
            }
            // Its members stay.
            Resource::Group(group) => {
                self.group_names.remove_mut(&group.name);
                self.groups.remove_mut(&group.uid);
            }
            Resource::Integration(own) => {
                self.integrations.remove_mut(&own.integration.name);
            }
            Resource::Kept(kept) => {
                self.kept.remove_mut(&kept.values.key);
            }
            Resource::Newer(newer) => {
                self.newer.remove_mut(&newer.name);
            }
            Resource::Registration(found) => {
                self.registrations.remove_mut(&found.who);
            }
            Resource::Secret(secret) => {
                self.secrets.remove_mut(&secret.metadata.name);
            }
        }
    }

    /// The default connection of an integration.
    pub fn default_of(&self, integration: &IntegrationName) -> Option<ConnectionRef> {
        let name = self.defaults.get(integration)?.clone();
        Some(ConnectionRef { integration: integration.clone(), name })
    }

    /// The connection of this name.
    pub fn connection(&self, name: &ConnectionRef) -> Option<&Arc<Connection>> {
        self.connections.get(name)
    }

    /// Connections after `after`, by integration and name.
    pub fn connections_after(
        &self,
        after: Option<&ConnectionRef>,
    ) -> impl Iterator<Item = &Arc<Connection>> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        self.connections.range((start, Bound::Unbounded)).map(|(_, connection)| connection)
    }

    /// How many connections there are.
    pub fn connection_count(&self) -> usize {
        self.connections.size()
    }

    /// Puts a connection in place of the one with its name, and into the groups that it names.
    fn put_connection(&mut self, connection: Arc<Connection>) {
        let name = connection.metadata.reference();
        self.leave(&name);
        for uid in &connection.metadata.groups {
            self.change_group(*uid, |group| group.insert(&connection));
        }
        self.recent.note(name.clone());
        self.put_by_name(name, connection);
    }

    /// Puts a connection under its name, and into no group.
    fn put_by_name(&mut self, name: ConnectionRef, connection: Arc<Connection>) {
        if connection.metadata.is_default {
            self.defaults.insert_mut(name.integration.clone(), name.name.clone());
        }
        self.connections.insert_mut(name, connection);
    }

    /// Removes a connection from its groups, and from the defaults.
    fn leave(&mut self, name: &ConnectionRef) {
        let Some(old) = self.connections.get(name).cloned() else { return };
        if self.defaults.get(&name.integration) == Some(&name.name) {
            self.defaults.remove_mut(&name.integration);
        }
        for uid in &old.metadata.groups {
            self.change_group(*uid, |group| group.remove(&old.metadata));
        }
    }

    fn change_group(&mut self, uid: Id, change: impl FnOnce(&mut Group)) {
        if let Some(group) = self.groups.get(&uid) {
            let mut changed = Group::clone(group);
            change(&mut changed);
            self.replace_group(changed);
        }
    }

    fn replace_group(&mut self, group: Group) {
        if !group.is_settled() {
            self.unsettled.insert(group.uid());
        }
        self.groups.insert_mut(group.uid(), Arc::new(group));
    }

    /// The record of the broker's own with this key.
    pub fn kept(&self, key: RecordKey) -> Option<&Arc<Kept>> {
        self.kept.get(&key)
    }

    /// All records of the broker's own, by key.
    pub fn all_kept(&self) -> impl Iterator<Item = &Arc<Kept>> {
        self.kept.values()
    }

    /// The group of this name.
    pub fn group(&self, name: &GroupName) -> Option<&Arc<Group>> {
        self.groups.get(self.group_names.get(name)?)
    }

    /// The group of this uid.
    pub fn group_by_uid(&self, uid: Id) -> Option<&Arc<Group>> {
        self.groups.get(&uid)
    }

    /// Groups after `after`, by name.
    pub fn groups_after(&self, after: Option<&GroupName>) -> impl Iterator<Item = &Arc<Group>> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let names = self.group_names.range((start, Bound::Unbounded));
        names.filter_map(|(_, uid)| self.groups.get(uid))
    }

    /// The groups that a connection is a member of.
    pub fn groups_of(&self, metadata: &ConnectionMetadata) -> impl Iterator<Item = &Arc<Group>> {
        metadata.groups.iter().filter_map(|uid| self.groups.get(uid))
    }

    /// How many groups there are.
    pub fn group_count(&self) -> usize {
        self.groups.size()
    }

    /// Puts a new group in, or gives the group of the same uid another name, access or identifiers. Its members stay.
    fn put_group(&mut self, metadata: Arc<GroupMetadata>) {
        let group = match self.groups.get(&metadata.uid) {
            Some(old) => {
                self.group_names.remove_mut(&old.metadata.name);
                old.with(metadata)
            }
            None => Group::new(metadata),
        };
        self.group_names.insert_mut(group.metadata.name.clone(), group.uid());
        self.replace_group(group);
    }

    /// Puts a group in, with its members, in place of the one of its uid.
    fn put_whole_group(&mut self, group: Group) {
        self.group_names.insert_mut(group.metadata.name.clone(), group.uid());
        self.groups.insert_mut(group.uid(), Arc::new(group));
    }

    /// Ends a change: in every group, each member must have every identifier, and no two members the same values.
    /// Before that, one change may fold members, their tags and identifiers in any order.
    ///
    /// # Errors
    /// The first member that does not fit.
    pub fn settle(&mut self) -> Result<(), Misfit> {
        while let Some(uid) = self.unsettled.pop_first() {
            // The change may have removed it.
            let Some(group) = self.groups.get(&uid) else { continue };
            let settled = group.settled().map_err(|(connection, why)| Misfit {
                group: group.metadata.name.clone(),
                connection,
                why,
            })?;
            self.groups.insert_mut(uid, Arc::new(settled));
        }
        Ok(())
    }

    /// The integration of this name, built-in or operators' own.
    pub fn integration(&self, name: &IntegrationName) -> Option<&Integration> {
        integration::find(name).or_else(|| self.own_integration(name).map(|own| &own.integration))
    }

    /// The operators' own integration of this name.
    pub fn own_integration(&self, name: &IntegrationName) -> Option<&Arc<OwnIntegration>> {
        self.integrations.get(name)
    }

    /// Operators' own integrations, by name.
    pub fn own_integrations(&self) -> impl Iterator<Item = &Arc<OwnIntegration>> {
        self.integrations.values()
    }

    /// The connections of one integration, by name.
    pub fn connections_of(
        &self,
        integration: &IntegrationName,
    ) -> impl Iterator<Item = &Arc<Connection>> {
        // No name sorts before "0".
        let first = ConnectionName::parse("0").ok();
        let first = first.map(|name| ConnectionRef { integration: integration.clone(), name });
        let start = first.map_or(Bound::Unbounded, Bound::Included);
        let all = self.connections.range((start, Bound::Unbounded));
        all.map(|(_, connection)| connection)
            .take_while(move |one| one.metadata.integration == *integration)
    }

    /// The secret of this name.
    pub fn secret(&self, name: &SecretRef) -> Option<&Arc<Secret>> {
        self.secrets.get(name)
    }

    /// How many secrets there are.
    pub fn secret_count(&self) -> usize {
        self.secrets.size()
    }

    /// All secrets, in no order.
    pub fn secrets(&self) -> impl Iterator<Item = &Arc<Secret>> {
        self.secrets.values()
    }

    /// The operator of this name.
    pub fn operator(&self, name: &OperatorName) -> Option<&Arc<Registration>> {
        self.registrations.get(&Registered::Operator(name.clone()))
    }

    /// The executor of this name.
    pub fn executor(&self, name: &ExecutorName) -> Option<&Arc<Registration>> {
        self.registrations.get(&Registered::Executor(name.clone()))
    }

    /// The operator or executor of this name.
    pub fn registration(&self, who: &Registered) -> Option<&Arc<Registration>> {
        self.registrations.get(who)
    }

    /// True if another executor is registered. The cost does not depend on their number: executors sort before
    /// operators.
    pub fn has_other_executor(&self, uid: Id) -> bool {
        let executors = self.registrations.values().take(2);
        let mut others = executors.filter(|one| matches!(one.who, Registered::Executor(_)));
        others.any(|one| one.uid != uid)
    }

    /// Executors and operators, each by name.
    pub fn registrations(&self) -> impl Iterator<Item = &Arc<Registration>> {
        self.registrations.values()
    }

    /// True if a newer keyhatch wrote the resource of this name.
    pub fn is_newer(&self, name: &ResourceName) -> bool {
        !self.newer.is_empty() && self.newer.contains_key(&name.to_text())
    }

    /// The resource of this full name, if a newer keyhatch wrote it.
    pub fn newer(&self, name: &str) -> Option<&Arc<NewerRecord>> {
        self.newer.get(name)
    }

    /// The resources that a newer keyhatch wrote, by full name.
    pub fn all_newer(&self) -> impl Iterator<Item = &Arc<NewerRecord>> {
        self.newer.values()
    }

    /// The group of this uid, if a newer keyhatch wrote it.
    pub fn newer_group(&self, uid: Id) -> Option<&Arc<NewerRecord>> {
        let key = RecordKey { kind: RecordKind::Group, uid };
        self.newer.values().find(|one| one.records.iter().any(|(other, _)| *other == key))
    }
}
