//! The records of the catalogue: metadata as sealed JSON, values as they are sealed.
//!
//! Every version reads the part of a record that names the resource, which never changes: the uid is in the record's
//! key, and beside it stand
//!
//! ```text
//! connection     integration, name
//! group          name
//! integration    integration.name
//! secret         workflow, name
//! registration   who: {executor|operator: name}
//! ```
//!
//! A record with a key that its type here does not have, or otherwise of no form that is known, is of a newer keyhatch,
//! and is denied whole: it is read no further, resolves nothing, admits nobody, is in no group and the default of
//! nothing. Its name is not given to another, and nothing overwrites or removes it; `get`, `list`, `explain`, `status`
//! and `doctor` say whose it is. It never keeps the daemon from starting. A record without the part that every version
//! reads was written by none: that is damage, and refuses the start.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::access::{Bindings, Role, Scope};
use crate::integration::Integration;
use crate::model::{
    CompactMap, ConnectionName, ConnectionRef, ExecutorName, FieldName, GroupName, Id, Identifiers,
    IntegrationName, KindName, Labels, OperatorName, PinnedCertificate, SecretName, SecretRef,
    Tags, Timestamp, WorkflowName, base64_bytes, compact_map, hex_bytes,
};
use crate::seal::{Keyring, NoRandomness, RecordKey, RecordKind, Sealed};

/// The sealed values of a connection or secret, and which record they are.
#[derive(Clone)]
pub struct Values {
    /// Which record.
    pub key: RecordKey,
    /// The values, sealed.
    pub sealed: Sealed,
}

/// A connection.
#[derive(Clone)]
pub struct Connection {
    /// What may be seen.
    pub metadata: ConnectionMetadata,
    /// What may not.
    pub values: Values,
}

/// All of a connection but its values.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionMetadata {
    /// Random; leases, values and versions follow it, not the name.
    pub uid: Id,
    /// Its type. Never changes.
    pub integration: IntegrationName,
    /// Its name within the type.
    pub name: ConnectionName,
    /// Its credential kind. Never changes.
    pub kind: KindName,
    /// Up by one with every change of the values, from 1.
    pub version: u64,
    /// Up by one with every change at all, from 1.
    pub revision: u64,
    /// The fields that are set.
    #[serde(with = "compact_map")]
    pub fields: CompactMap<FieldName, FieldMetadata>,
    /// Identifier tags.
    #[serde(default)]
    pub tags: Tags,
    /// The groups it is a member of. One that was deleted meanwhile is nobody's, and means nothing.
    #[serde(default)]
    pub groups: BTreeSet<Id>,
    /// Who may do what.
    pub access: Bindings,
    /// What operators find it by.
    #[serde(default)]
    pub labels: Labels,
    /// Refuses every Resolve.
    #[serde(default)]
    pub disabled: bool,
    /// The longest that a lease on it lasts, in seconds.
    #[serde(default)]
    pub max_ttl_seconds: Option<u64>,
    /// Answers to `default:INTEGRATION`.
    #[serde(default)]
    pub is_default: bool,
    /// When the credential ends, as far as operators know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it was last changed.
    pub update_time: Timestamp,
    /// Who changed it last.
    pub updated_by: String,
}

/// What is known of one field without its value.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldMetadata {
    /// Whether the value is write-only. Fixed with the value that it was written for.
    pub sensitive: bool,
    /// Whether it says where the credential is sent. Fixed likewise.
    pub destination: bool,
    /// How many bytes the value has.
    pub bytes: usize,
    /// Equal values have equal ones: see [`Keyring::fingerprint`].
    #[serde(with = "hex_bytes")]
    pub fingerprint: [u8; 32],
    /// The value, if it is not sensitive; empty otherwise.
    #[serde(with = "base64_bytes", default, skip_serializing_if = "Vec::is_empty")]
    pub value: Vec<u8>,
    /// When the value itself says that it ends, as certificates and JSON Web Tokens do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_time: Option<Timestamp>,
    /// Whether the newline at its end was added when it was written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_mended: bool,
    /// When the value was written.
    pub update_time: Timestamp,
    /// Who wrote it.
    pub updated_by: String,
}

impl ConnectionMetadata {
    /// When the credential ends: the earliest of what operators and values say.
    pub fn expire_time(&self) -> Option<Timestamp> {
        let of_values = self.fields.values().filter_map(|field| field.expire_time);
        of_values.chain(self.expires).min()
    }

    /// Integration and name.
    pub fn reference(&self) -> ConnectionRef {
        ConnectionRef { integration: self.integration.clone(), name: self.name.clone() }
    }

    /// Changes with every write, and with deleting and creating again.
    pub fn etag(&self) -> String {
        format!("{}-{}", self.uid, self.revision)
    }
}

/// A connection group, without its members: those say themselves what they are members of.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupMetadata {
    /// Random; members follow it, not the name.
    pub uid: Id,
    /// Its name. May change.
    pub name: GroupName,
    /// The type of its members. Never changes.
    pub integration: IntegrationName,
    /// The tags that tell its members apart.
    pub identifiers: Identifiers,
    /// Viewers and editors.
    pub access: Bindings,
    /// What operators find it by.
    #[serde(default)]
    pub labels: Labels,
    /// Up by one with every change, from 1.
    pub revision: u64,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it was last changed.
    pub update_time: Timestamp,
    /// Who changed it last.
    pub updated_by: String,
}

impl GroupMetadata {
    /// Changes with every write, and with deleting and creating again.
    pub fn etag(&self) -> String {
        format!("{}-{}", self.uid, self.revision)
    }

    /// The sealed record to put into the store.
    ///
    /// # Errors
    /// If there are no random numbers to seal it with.
    pub fn to_store(&self, keyring: &Keyring) -> Result<(RecordKey, Sealed), NoRandomness> {
        let key = RecordKey { kind: RecordKind::Group, uid: self.uid };
        Ok((key, keyring.seal(key, self.revision, &to_json(self)?)?))
    }
}

/// An integration that operators made.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnIntegration {
    /// Random.
    pub uid: Id,
    /// What it is.
    pub integration: Integration,
    /// Up by one with every change, from 1.
    pub revision: u64,
    /// When it was last changed.
    pub update_time: Timestamp,
    /// Who changed it last.
    pub updated_by: String,
}

impl OwnIntegration {
    /// Changes with every write, and with deleting and creating again.
    pub fn etag(&self) -> String {
        format!("{}-{}", self.uid, self.revision)
    }

    /// The sealed record to put into the store.
    ///
    /// # Errors
    /// If there are no random numbers to seal it with.
    pub fn to_store(&self, keyring: &Keyring) -> Result<(RecordKey, Sealed), NoRandomness> {
        let key = RecordKey { kind: RecordKind::Integration, uid: self.uid };
        Ok((key, keyring.seal(key, self.revision, &to_json(self)?)?))
    }
}

/// A secret of a workflow.
#[derive(Clone)]
pub struct Secret {
    /// What may be seen.
    pub metadata: SecretMetadata,
    /// Its value.
    pub values: Values,
}

/// All of a secret but its value.
#[derive(Clone)]
pub struct SecretMetadata {
    /// Random.
    pub uid: Id,
    /// Workflow and name.
    pub name: SecretRef,
    /// Up by one with every change, from 1.
    pub version: u64,
    /// Of its value.
    pub fingerprint: [u8; 32],
    /// When it was last written.
    pub update_time: Timestamp,
    /// By whom.
    pub updated_by: String,
}

/// A secret's metadata as it is sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretRecord {
    workflow: WorkflowName,
    name: SecretName,
    version: u64,
    #[serde(with = "hex_bytes")]
    fingerprint: [u8; 32],
    update_time: Timestamp,
    updated_by: String,
}

impl SecretRecord {
    pub(super) fn into_metadata(self, uid: Id) -> SecretMetadata {
        SecretMetadata {
            uid,
            name: SecretRef { workflow: self.workflow, name: self.name },
            version: self.version,
            fingerprint: self.fingerprint,
            update_time: self.update_time,
            updated_by: self.updated_by,
        }
    }
}

/// An operator or executor by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registered {
    /// An executor.
    Executor(ExecutorName),
    /// An operator.
    Operator(OperatorName),
}

/// An operator or executor, and the certificates by which it is known.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Random.
    pub uid: Id,
    /// Who.
    pub who: Registered,
    /// An operator's role; an executor has none.
    pub role: Option<Role>,
    /// What an executor may open; an operator opens nothing.
    #[serde(default)]
    pub scope: Scope,
    /// Taken only from this host's root and the daemon's own user.
    pub local_only: bool,
    /// The certificates in force.
    pub certificates: Vec<PinnedCertificate>,
    /// Up by one with every change, from 1.
    pub revision: u64,
}

impl Connection {
    /// The sealed records to put into the store.
    ///
    /// # Errors
    /// If there are no random numbers to seal it with.
    pub fn to_store(&self, keyring: &Keyring) -> Result<[(RecordKey, Sealed); 2], NoRandomness> {
        let metadata = &self.metadata;
        let key = RecordKey { kind: RecordKind::Connection, uid: metadata.uid };
        let sealed = keyring.seal(key, metadata.revision, &to_json(metadata)?)?;
        Ok([(key, sealed), (self.values.key, self.values.sealed.clone())])
    }
}

impl Secret {
    /// The sealed records to put into the store.
    ///
    /// # Errors
    /// If there are no random numbers to seal it with.
    pub fn to_store(&self, keyring: &Keyring) -> Result<[(RecordKey, Sealed); 2], NoRandomness> {
        let metadata = &self.metadata;
        let key = RecordKey { kind: RecordKind::Secret, uid: metadata.uid };
        let record = SecretRecord {
            workflow: metadata.name.workflow.clone(),
            name: metadata.name.name.clone(),
            version: metadata.version,
            fingerprint: metadata.fingerprint,
            update_time: metadata.update_time,
            updated_by: metadata.updated_by.clone(),
        };
        let sealed = keyring.seal(key, metadata.version, &to_json(&record)?)?;
        Ok([(key, sealed), (self.values.key, self.values.sealed.clone())])
    }
}

impl Registration {
    /// The sealed record to put into the store.
    ///
    /// # Errors
    /// If there are no random numbers to seal it with.
    pub fn to_store(&self, keyring: &Keyring) -> Result<(RecordKey, Sealed), NoRandomness> {
        let key = RecordKey { kind: RecordKind::Registration, uid: self.uid };
        Ok((key, keyring.seal(key, self.revision, &to_json(self)?)?))
    }
}

// Serialising our own records to memory cannot fail: they hold no maps with keys that are not text.
fn to_json(record: &impl Serialize) -> Result<Vec<u8>, NoRandomness> {
    serde_json::to_vec(record).map_err(|_| NoRandomness)
}
