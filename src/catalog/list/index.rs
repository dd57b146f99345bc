//! The connections side by side. A scan that follows the tree waits for memory at every step.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::catalog::{Catalog, Connection, ConnectionMetadata};
use crate::model::ConnectionRef;

/// Every connection by integration and name: 8 bytes each. It is made by the first list that scans, and follows the
/// catalogue from list to list.
#[derive(Default)]
pub struct ConnectionIndex {
    /// The number of changes that it has taken in; `None` before it is made.
    changes: Option<u64>,
    all: Vec<Arc<Connection>>,
}

impl ConnectionIndex {
    /// Whether it has everything that this catalogue has.
    pub fn has(&self, catalog: &Catalog) -> bool {
        self.changes.is_some_and(|changes| changes >= catalog.recent.count())
    }

    /// Takes in what has changed up to this catalogue.
    pub fn follow(&mut self, catalog: &Catalog) {
        if self.has(catalog) {
            return;
        }
        match self.changes.and_then(|changes| catalog.recent.since(changes)) {
            None => self.all = catalog.connections_after(None).cloned().collect(),
            Some(names) => {
                let mut merged = Vec::with_capacity(self.all.len() + names.len());
                let mut old = std::mem::take(&mut self.all).into_iter();
                for name in names {
                    let before = old.as_slice().partition_point(|one| is_before(one, name));
                    merged.extend(old.by_ref().take(before));
                    let is_it = |one: &Arc<Connection>| order(&one.metadata, name).is_eq();
                    if old.as_slice().first().is_some_and(is_it) {
                        old.next();
                    }
                    merged.extend(catalog.connection(name).cloned());
                }
                merged.extend(old);
                self.all = merged;
            }
        }
        self.changes = Some(catalog.recent.count());
    }

    /// All connections, by integration and name.
    pub fn all(&self) -> &[Arc<Connection>] {
        &self.all
    }

    /// How many connections come before this name, and how many up to it.
    pub fn place_of(&self, name: &ConnectionRef) -> (usize, usize) {
        let before = self.all.partition_point(|one| is_before(one, name));
        let is_it = self.all.get(before).is_some_and(|one| order(&one.metadata, name).is_eq());
        (before, before + usize::from(is_it))
    }
}

fn is_before(one: &Arc<Connection>, name: &ConnectionRef) -> bool {
    order(&one.metadata, name).is_lt()
}

fn order(one: &ConnectionMetadata, name: &ConnectionRef) -> Ordering {
    one.integration.cmp(&name.integration).then_with(|| one.name.cmp(&name.name))
}
