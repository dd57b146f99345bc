//! Which minted credentials are still of use.

use std::collections::HashSet;

use super::key::MintKey;
use crate::model::{Id, IdMap, IdSet, WorkflowName};

/// The keys of a book, by what they need: open steps, and a connection that has not changed.
#[derive(Default)]
pub(super) struct InUse {
    /// The openings that are not known to be open.
    openings: IdSet,
    /// The workflows that are not known to have an open step.
    workflows: HashSet<WorkflowName>,
    /// The newest version of each connection; `None` if it is not known to exist.
    versions: IdMap<Option<u64>>,
}

impl InUse {
    /// Nothing is known of these keys yet.
    pub(super) fn of<'a>(keys: impl Iterator<Item = &'a MintKey>) -> Self {
        let mut found = Self::default();
        for key in keys {
            found.versions.insert(key.connection, None);
            match key.opening {
                Some(id) => drop(found.openings.insert(id)),
                None => drop(found.workflows.insert(key.workflow.clone())),
            }
        }
        found
    }

    /// True if there are no keys.
    pub(super) fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// True if there is a key of this connection.
    pub(super) fn is_of(&self, connection: Id) -> bool {
        self.versions.contains_key(&connection)
    }

    /// Takes in open steps, as long as the steps of a key are unknown.
    pub(super) fn take_open<'a>(&mut self, open: impl Iterator<Item = (Id, &'a WorkflowName)>) {
        for (opening, workflow) in open {
            if self.openings.is_empty() && self.workflows.is_empty() {
                return;
            }
            self.openings.remove(&opening);
            self.workflows.remove(workflow);
        }
    }

    /// Takes in connections with their newest versions.
    pub(super) fn take_versions(&mut self, connections: impl Iterator<Item = (Id, u64)>) {
        for (uid, version) in connections {
            if let Some(newest) = self.versions.get_mut(&uid) {
                *newest = Some(version);
            }
        }
    }

    /// True if a step may still get what the key has.
    pub(super) fn has(&self, key: &MintKey) -> bool {
        let is_closed = match key.opening {
            Some(id) => self.openings.contains(&id),
            None => self.workflows.contains(&key.workflow),
        };
        // The key may be newer than what was taken in: it is judged next time.
        let newest = self.versions.get(&key.connection);
        !is_closed && newest.is_none_or(|newest| *newest == Some(key.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(connection: u8, version: u64, workflow: &str) -> MintKey {
        let workflow = WorkflowName::parse(workflow).unwrap();
        let connection = Id::from_bytes([connection; 16]);
        MintKey { connection, version, workflow, opening: None }
    }

    #[test]
    fn what_no_step_can_get_any_more_is_of_no_use() {
        let (open, opening) = ("open", Id::from_bytes([5; 16]));
        let own = |id| MintKey { opening: Some(id), ..key(1, 2, open) };
        let keys = [
            (key(1, 2, open), true),
            (own(opening), true),
            (own(Id::from_bytes([9; 16])), false),
            (key(1, 2, "closed"), false),
            // The connection has changed since, or was deleted.
            (key(1, 1, open), false),
            (MintKey { version: 1, ..own(opening) }, false),
            (key(3, 2, open), false),
        ];
        let mut used = InUse::of(keys.iter().map(|(key, _)| key));
        let workflow = WorkflowName::parse(open).unwrap();
        used.take_open([(opening, &workflow)].into_iter());
        used.take_versions(
            [(Id::from_bytes([1; 16]), 2), (Id::from_bytes([8; 16]), 1)].into_iter(),
        );
        for (key, expected) in &keys {
            assert_eq!(used.has(key), *expected, "{key:?}");
        }
        assert!(used.has(&key(7, 1, open)), "it came meanwhile");
    }
}
