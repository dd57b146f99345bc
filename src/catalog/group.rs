//! A group and its members, found by the values of the group's identifiers.

use std::sync::Arc;

use rpds::HashTrieMapSync;

use super::record::{Connection, ConnectionMetadata, GroupMetadata};
use crate::model::{ConnectionRef, GroupName, Id, TagKey, TagValue, Tags};

/// A group with an index of its members. Finding a member costs the same at any size.
#[derive(Clone)]
pub struct Group {
    /// The group itself.
    pub metadata: Arc<GroupMetadata>,
    /// The same connections as in the catalogue, so that a member found here needs no lookup there.
    members: HashTrieMapSync<Vec<TagValue>, Arc<Connection>>,
    /// Members that do not fit yet, in the midst of a change: no request finds them.
    waiting: HashTrieMapSync<Id, Arc<Connection>>,
}

/// Why a connection does not fit into a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// It has no value for this identifier.
    Missing(TagKey),
    /// Another member has the same values.
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
    pub(super) fn new(metadata: Arc<GroupMetadata>) -> Self {
        let (members, waiting) = (HashTrieMapSync::new_sync(), HashTrieMapSync::new_sync());
        Self { metadata, members, waiting }
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.size() + self.waiting.size()
    }

    /// True if the group has no members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its members, in no order.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.members.values().chain(self.waiting.values())
    }

    /// The member with exactly these identifier values, one for each identifier.
    ///
    /// # Errors
    /// If a value is missing, unknown or matches no member. There is never a first match.
    pub fn select(&self, given: &Tags) -> Result<&Arc<Connection>, NotSelected> {
        let identifiers = &self.metadata.identifiers;
        let known = |key: &TagKey| identifiers.iter().any(|identifier| identifier == key);
        if let Some(unknown) = given.keys().find(|key| !known(key)) {
            return Err(NotSelected::Unknown(unknown.clone()));
        }
        let values = identifiers.select(given).map_err(NotSelected::Incomplete)?;
        self.members.get(&values).ok_or(NotSelected::NoMember)
    }

    /// The member that these values find, in the order of the identifiers.
    pub fn member_with(&self, values: &[TagValue]) -> Option<&Arc<Connection>> {
        self.members.get(values)
    }

    /// The values that find a member, if no other member has them.
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

    /// Adds a member. A member that does not fit at present waits until the group is settled.
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

    /// The same group with other metadata. Other identifiers give its members other places.
    pub(super) fn with(&self, metadata: Arc<GroupMetadata>) -> Self {
        if metadata.identifiers == self.metadata.identifiers {
            return Self { metadata, ..self.clone() };
        }
        let mut group = Self::new(metadata);
        self.members().for_each(|member| group.insert(member));
        group
    }

    /// True if every member fits.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The same group without waiting members, at the end of a change.
    ///
    /// # Errors
    /// The first member that does not fit.
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
