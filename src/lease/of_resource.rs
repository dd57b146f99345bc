//! The live leases on one resource, counted by version.

use super::Lease;
use crate::model::IdSet;

/// The live leases on one resource.
#[derive(Debug, Default)]
pub(super) struct OfResource {
    /// Their ids.
    pub(super) all: IdSet,
    /// How many of them are on each version. Nearly always there is one version.
    versions: Vec<(u64, usize)>,
}

impl OfResource {
    pub(super) fn insert(&mut self, lease: &Lease) {
        if !self.all.insert(lease.id) {
            return;
        }
        match self.versions.iter_mut().find(|(version, _)| *version == lease.version) {
            Some((_, count)) => *count += 1,
            None => self.versions.push((lease.version, 1)),
        }
    }

    pub(super) fn remove(&mut self, lease: &Lease) {
        if !self.all.remove(&lease.id) {
            return;
        }
        for (version, count) in &mut self.versions {
            *count -= usize::from(*version == lease.version);
        }
        self.versions.retain(|(_, count)| *count > 0);
    }

    /// How many are on a version before this.
    pub(super) fn count_before(&self, version: u64) -> usize {
        let older = self.versions.iter().filter(|(older, _)| *older < version);
        older.map(|(_, count)| count).sum()
    }
}
