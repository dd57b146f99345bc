//! A group and its members, found by the values of the group's identifiers.

use std::sync::Arc;

use rpds::HashTrieMapSync;

use super::record::{Connection, ConnectionMetadata, GroupMetadata};
use crate::model::{ConnectionRef, GroupName, Id, Identifiers, TagKey, TagValue, Tags};

/// A group with its index. Finding a member costs the same whatever the size.
#[derive(Clone)]
pub struct Group {
    /// The group itself.
    pub metadata: GroupMetadata,
    /// The same as the catalogue has by name, so that whoever has found one here need not look it up there.
    members: HashTrieMapSync<Vec<TagValue>, Arc<Connection>>,
    /// Members without a place of their own, in the midst of a change: no request finds them.
    waiting: HashTrieMapSync<Id, Arc<Connection>>,
}

/// Why a connection is no member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// It has no value for this identifier.
    Missing(TagKey),
    /// That one has the same values.
    Taken(ConnectionRef),
}

/// A member that does not fit into its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The group.
    pub group: GroupName,
    /// The member.
    pub connection: ConnectionRef,
    /// Why.
    pub why: NotAdmitted,
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
        let (members, waiting) = (HashTrieMapSync::new_sync(), HashTrieMapSync::new_sync());
        Self { metadata, members, waiting }
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.members.size() + self.waiting.size()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its members, in no order.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.members.values().chain(self.waiting.values())
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

    /// The values that a member would be found by, if no other is found by them.
    fn place_of(&self, member: &ConnectionMetadata) -> Result<Vec<TagValue>, NotAdmitted> {
        let values =
            self.metadata.identifiers.select(&member.tags).map_err(NotAdmitted::Missing)?;
        match self.members.get(&values) {
            Some(other) if other.metadata.uid != member.uid => {
                Err(NotAdmitted::Taken(other.metadata.reference()))
            }
            _ => Ok(values),
        }
    }

    /// Takes a member in. Where it does not fit as things are, it waits until the group is settled.
    pub(super) fn insert(&mut self, member: &Arc<Connection>) {
        match self.place_of(&member.metadata) {
            Ok(values) => self.members.insert_mut(values, Arc::clone(member)),
            Err(_) => self.waiting.insert_mut(member.metadata.uid, Arc::clone(member)),
        }
    }

    pub(super) fn remove(&mut self, member: &ConnectionMetadata) {
        self.waiting.remove_mut(&member.uid);
        if let Ok(values) = self.metadata.identifiers.select(&member.tags)
            && self.members.get(&values).is_some_and(|found| found.metadata.uid == member.uid)
        {
            self.members.remove_mut(&values);
        }
    }

    /// The same group under other identifiers.
    pub(super) fn reindexed(&self, identifiers: &Identifiers) -> Self {
        let metadata = GroupMetadata { identifiers: identifiers.clone(), ..self.metadata.clone() };
        let mut group = Self::new(metadata);
        self.members().for_each(|member| group.insert(member));
        group
    }

    /// Whether every member has its place.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The same group with a place for every member, after all of a change: only its end counts.
    pub(super) fn settled(&self) -> Result<Self, (ConnectionRef, NotAdmitted)> {
        let mut group = Self { waiting: HashTrieMapSync::new_sync(), ..self.clone() };
        for member in self.waiting.values() {
            let place = group.place_of(&member.metadata);
            let values = place.map_err(|why| (member.metadata.reference(), why))?;
            group.members.insert_mut(values, Arc::clone(member));
        }
        Ok(group)
    }

    /// Its uid.
    pub fn uid(&self) -> Id {
        self.metadata.uid
    }
}
