//! What is known, in memory: every read of the broker comes from here.
//!
//! A [`Catalog`] is a set of persistent maps: a changed copy shares all that did not change, so the
//! writer stages changes on a copy at no cost, and readers keep the snapshot they have. Metadata is
//! opened when it is loaded; values stay sealed until a permit opens them.

mod record;
mod snapshot;

use std::ops::Bound;
use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

pub use record::{
    Connection, ConnectionMetadata, FieldMetadata, Registered, Registration, Secret,
    SecretMetadata, Values, load,
};
pub use snapshot::{Snapshot, Snapshots};

use crate::access::Bindings;
use crate::model::{ConnectionRef, ExecutorName, OperatorName, SecretRef};
use crate::seal::RecordKind;

/// A record that cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It fails authentication, or holds what this version does not know.
    #[error("a {kind:?} record cannot be opened; restore the state directory from a backup")]
    Corrupt {
        /// What kind of record.
        kind: RecordKind,
    },
}

/// Everything that operators have put in.
#[derive(Clone, Default)]
pub struct Catalog {
    connections: RedBlackTreeMapSync<ConnectionRef, Arc<Connection>>,
    secrets: HashTrieMapSync<SecretRef, Arc<Secret>>,
    registrations: HashTrieMapSync<Registered, Arc<Registration>>,
}

impl Catalog {
    /// The bindings of a connection; empty if there is none of that name, so that a decision takes the
    /// same path for a missing connection as for a forbidden one.
    pub fn bindings(&self, name: &ConnectionRef) -> &Bindings {
        static NONE: std::sync::LazyLock<Bindings> = std::sync::LazyLock::new(Bindings::default);
        self.connections.get(name).map_or(&*NONE, |connection| &connection.metadata.access)
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

    /// Puts a connection in place of the one of its name.
    pub fn put_connection(&mut self, connection: Connection) {
        self.connections.insert_mut(connection.metadata.reference(), Arc::new(connection));
    }

    /// Removes a connection.
    pub fn remove_connection(&mut self, name: &ConnectionRef) {
        self.connections.remove_mut(name);
    }

    /// The secret of this name.
    pub fn secret(&self, name: &SecretRef) -> Option<&Arc<Secret>> {
        self.secrets.get(name)
    }

    /// How many secrets there are.
    pub fn secret_count(&self) -> usize {
        self.secrets.size()
    }

    /// Puts a secret in place of the one of its name.
    pub fn put_secret(&mut self, secret: Secret) {
        self.secrets.insert_mut(secret.metadata.name.clone(), Arc::new(secret));
    }

    /// The operator of this name.
    pub fn operator(&self, name: &OperatorName) -> Option<&Arc<Registration>> {
        self.registrations.get(&Registered::Operator(name.clone()))
    }

    /// The executor of this name.
    pub fn executor(&self, name: &ExecutorName) -> Option<&Arc<Registration>> {
        self.registrations.get(&Registered::Executor(name.clone()))
    }

    /// Puts an operator or executor in.
    pub fn put_registration(&mut self, registration: Registration) {
        self.registrations.insert_mut(registration.who.clone(), Arc::new(registration));
    }
}
