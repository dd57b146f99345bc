//! A group and its members, found by the values of the group's identifiers.

use std::sync::Arc;

use rpds::HashTrieMapSync;

use super::record::{Connection, ConnectionMetadata, GroupMetadata};
use crate::model::{ConnectionRef, Id, Identifiers, TagKey, TagValue, Tags};

/// A group with its index. Finding a member costs the same whatever the size.
#[derive(Clone)]
pub struct Group {
    /// The group itself.
    pub metadata: GroupMetadata,
    /// The same as the catalogue has by name, so that whoever has found one here need not look it up there.
    members: HashTrieMapSync<Vec<TagValue>, Arc<Connection>>,
}

/// Why a connection is no member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// It is of another integration.
    Integration,
    /// It has no value for this identifier.
    Missing(TagKey),
    /// That one has the same values.
    Taken(ConnectionRef),
}

/// Why values select no member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSelected {
    /// No value for this identifier.
    Incomplete(TagKey),
    /// No member has these values.
    NoMember,
    /// The group has no such identifier.
    Unknown(TagKey),
}

impl Group {
    pub(super) fn new(metadata: GroupMetadata) -> Self {
        Self { metadata, members: HashTrieMapSync::new_sync() }
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.members.size()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Its members, in no order.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.members.values()
    }

    /// The member with these values: one for each identifier, for no more and no fewer.
    ///
    /// # Errors
    /// Why there is none. Never the first that fits.
    pub fn select(&self, given: &Tags) -> Result<&Arc<Connection>, NotSelected> {
        let identifiers = &self.metadata.identifiers;
        let known = |key: &TagKey| identifiers.iter().any(|identifier| identifier == key);
        if let Some(unknown) = given.keys().find(|key| !known(key)) {
            return Err(NotSelected::Unknown(unknown.clone()));
        }
        let values = identifiers.select(given).map_err(NotSelected::Incomplete)?;
        self.members.get(&values).ok_or(NotSelected::NoMember)
    }

    /// Whether a connection with these tags may be a member, under these identifiers.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, candidate: &ConnectionMetadata) -> Result<(), NotAdmitted> {
        if candidate.integration != self.metadata.integration {
            return Err(NotAdmitted::Integration);
        }
        let values =
            self.metadata.identifiers.select(&candidate.tags).map_err(NotAdmitted::Missing)?;
        match self.members.get(&values) {
            Some(other) if other.metadata.uid != candidate.uid => {
                Err(NotAdmitted::Taken(other.metadata.reference()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn insert(&mut self, member: &Arc<Connection>) {
        // What was admitted has every identifier.
        if let Ok(values) = self.metadata.identifiers.select(&member.metadata.tags) {
            self.members.insert_mut(values, Arc::clone(member));
        }
    }

    pub(super) fn remove(&mut self, member: &ConnectionMetadata) {
        if let Ok(values) = self.metadata.identifiers.select(&member.tags)
            && self.members.get(&values).is_some_and(|found| found.metadata.uid == member.uid)
        {
            self.members.remove_mut(&values);
        }
    }

    /// The same group under other identifiers, if its members are told apart by them.
    pub(super) fn reindexed(
        &self,
        identifiers: &Identifiers,
    ) -> Result<Self, (ConnectionRef, NotAdmitted)> {
        let metadata = GroupMetadata { identifiers: identifiers.clone(), ..self.metadata.clone() };
        let mut group = Self::new(metadata);
        for member in self.members() {
            let metadata = &member.metadata;
            group.admits(metadata).map_err(|why| (metadata.reference(), why))?;
            group.insert(member);
        }
        Ok(group)
    }

    /// Its uid.
    pub fn uid(&self) -> Id {
        self.metadata.uid
    }
}
