//! A batch as data: the resources that it puts and removes.
//!
//! [`Catalog::fold`](super::Catalog::fold) is the only way to change a catalogue. So a draft's catalogue is always the
//! fold of its batch. A start [loads](mod@super::load) the records of the store as the same resources.

use std::sync::Arc;

use serde::Serialize;

use super::newer::NewerRecord;
use super::record::{
    Connection, GroupMetadata, Kept, OwnIntegration, Registration, Secret, SecretRecord,
};
use crate::model::Id;
use crate::seal::{Keyring, NoRandomness, RecordKey, RecordKind, Sealed};

/// One step of a batch.
#[derive(Clone)]
pub enum Change {
    /// Puts a resource in place of the one with its name, or a group in place of the one with its uid.
    Put(Resource),
    /// Removes a resource.
    Remove(Resource),
}

/// A resource with all that the store keeps of it. Values stay sealed.
#[derive(Clone)]
pub enum Resource {
    /// A connection.
    Connection(Arc<Connection>),
    /// A group, without its members: each member names its groups.
    Group(Arc<GroupMetadata>),
    /// An operators' own integration.
    Integration(Arc<OwnIntegration>),
    /// A record of the broker's own.
    Kept(Arc<Kept>),
    /// A resource that a newer keyhatch has written.
    Newer(Arc<NewerRecord>),
    /// An operator or executor.
    Registration(Arc<Registration>),
    /// A secret.
    Secret(Arc<Secret>),
}

impl Resource {
    /// The sealed records of the resource: its metadata, then its values if it has any.
    ///
    /// # Errors
    /// If there are no random numbers to seal the metadata with.
    pub fn seal(&self, keyring: &Keyring) -> Result<Vec<(RecordKey, Sealed)>, NoRandomness> {
        let seal = |kind, uid: Id, version, json: Vec<u8>| {
            let key = RecordKey { kind, uid };
            keyring.seal(key, version, &json).map(|sealed| (key, sealed))
        };
        let (metadata, values) = match self {
            Self::Connection(connection) => {
                let metadata = &connection.metadata;
                let json = to_json(metadata)?;
                let sealed = seal(RecordKind::Connection, metadata.uid, metadata.revision, json)?;
                (sealed, Some(&connection.values))
            }
            Self::Group(group) => {
                let json = to_json(group.as_ref())?;
                (seal(RecordKind::Group, group.uid, group.revision, json)?, None)
            }
            Self::Integration(own) => {
                let json = to_json(own.as_ref())?;
                (seal(RecordKind::Integration, own.uid, own.revision, json)?, None)
            }
            Self::Kept(kept) => {
                return Ok(vec![(kept.values.key, kept.values.sealed.clone())]);
            }
            Self::Newer(newer) => return Ok(newer.records.clone()),
            Self::Registration(found) => {
                let json = to_json(found.as_ref())?;
                (seal(RecordKind::Registration, found.uid, found.revision, json)?, None)
            }
            Self::Secret(secret) => {
                let metadata = &secret.metadata;
                let json = to_json(&SecretRecord::from(metadata))?;
                let sealed = seal(RecordKind::Secret, metadata.uid, metadata.version, json)?;
                (sealed, Some(&secret.values))
            }
        };
        let values = values.map(|values| (values.key, values.sealed.clone()));
        Ok([Some(metadata), values].into_iter().flatten().collect())
    }

    /// The keys of the resource's records.
    pub fn keys(&self) -> Vec<RecordKey> {
        let (uid, kinds): (Id, &[RecordKind]) = match self {
            Self::Connection(connection) => {
                (connection.metadata.uid, &[RecordKind::Connection, RecordKind::ConnectionValues])
            }
            Self::Group(group) => (group.uid, &[RecordKind::Group]),
            Self::Integration(own) => (own.uid, &[RecordKind::Integration]),
            Self::Kept(kept) => return vec![kept.values.key],
            Self::Newer(newer) => return newer.records.iter().map(|(key, _)| *key).collect(),
            Self::Registration(found) => (found.uid, &[RecordKind::Registration]),
            Self::Secret(secret) => {
                (secret.metadata.uid, &[RecordKind::Secret, RecordKind::SecretValue])
            }
        };
        kinds.iter().map(|kind| RecordKey { kind: *kind, uid }).collect()
    }
}

// Serialising our own records to memory cannot fail: they hold no maps with keys that are not text.
fn to_json(record: &impl Serialize) -> Result<Vec<u8>, NoRandomness> {
    serde_json::to_vec(record).map_err(|_| NoRandomness)
}
