//! The records of the catalogue: metadata as sealed JSON, values as they are sealed.
//!
//! Every version reads the part of a record that names the resource. The form of that part never changes: the uid is in
//! the record's key, and the record has
//!
//! ```text
//! connection     integration, name
//! group          name
//! integration    integration.name
//! secret         workflow, name
//! registration   who: {executor|operator: name}
//! ```
//!
//! A record with an unknown key, or of another unknown form, was written by a newer keyhatch. It is denied whole: it
//! resolves nothing, admits nobody, and is no member and no default. Its name stays taken, and nothing overwrites or
//! removes it; `get`, `list`, `explain`, `status` and `doctor` report it. It never stops the daemon from starting. A
//! record without the part that every version reads is damage, and the start is refused.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::refresh::RefreshState;
use crate::access::{Bindings, Role, Scope};
use crate::integration::{self, CredentialKind, Integration, Source, find_field};
use crate::model::{
    CompactMap, ConnectionName, ConnectionRef, ExecutorName, FieldName, GroupName, Id, Identifiers,
    IntegrationName, KindName, Labels, OperatorName, PinnedCertificate, Release, SecretName,
    SecretRef, SendLimits, Tags, Timestamp, WorkflowName, base64_bytes, compact_map, hex_bytes,
};
use crate::seal::{RecordKey, Sealed};

/// The sealed values of a connection or secret, and which record they are.
#[derive(Clone)]
pub struct Values {
    /// The key of the record.
    pub key: RecordKey,
    /// The values, sealed.
    pub sealed: Sealed,
}

/// A sealed record of the broker's own, which no operator has written: what ends a credential, or a refresh token in place
/// of a connection's.
#[derive(Clone)]
pub struct Kept {
    /// The values, with the key of their record.
    pub values: Values,
}

/// A connection.
#[derive(Clone)]
pub struct Connection {
    /// The metadata.
    pub metadata: ConnectionMetadata,
    /// The sealed values.
    pub values: Values,
}

/// A connection without its values.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionMetadata {
    /// Random; leases, values and versions follow it, not the name.
    pub uid: Id,
    /// Its integration. Never changes.
    pub integration: IntegrationName,
    /// Its name within the integration.
    pub name: ConnectionName,
    /// Its credential kind. Never changes.
    pub kind: KindName,
    /// Up by one with every change of the values, from 1.
    pub version: u64,
    /// Up by one with every change, from 1.
    pub revision: u64,
    /// The fields that are set.
    #[serde(with = "compact_map")]
    pub fields: CompactMap<FieldName, FieldMetadata>,
    /// Identifier tags.
    #[serde(default)]
    pub tags: Tags,
    /// The groups that it is a member of. The uid of a deleted group has no effect.
    #[serde(default)]
    pub groups: BTreeSet<Id>,
    /// Its access bindings.
    pub access: Bindings,
    /// Labels, for operators' filters.
    #[serde(default)]
    pub labels: Labels,
    /// True if every Resolve is refused.
    #[serde(default)]
    pub disabled: bool,
    /// The longest lease, in seconds.
    #[serde(default)]
    pub max_ttl_seconds: Option<u64>,
    /// The methods and paths that the broker sends with it. Records before had no such key, and admit all.
    #[serde(default, skip_serializing_if = "SendLimits::is_open")]
    pub send: SendLimits,
    /// True if it answers to `default:INTEGRATION`.
    #[serde(default)]
    pub is_default: bool,
    /// What a step gets. Records before minting have no such key and are stored.
    #[serde(default, skip_serializing_if = "Release::is_stored")]
    pub release: Release,
    /// When the credential ends, as far as operators know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// What is known of its refresh token; see [`ConnectionMetadata::refresh_state`]. It is no part of a revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Box<RefreshState>>,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it was last changed.
    pub update_time: Timestamp,
    /// The principal of the last change.
    pub updated_by: String,
}

/// A field without its secret value.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldMetadata {
    /// True if the value is write-only. Fixed when the value was written.
    pub sensitive: bool,
    /// True if the value is a destination of the credential. Fixed when the value was written: see [`Self::is_destination`].
    pub destination: bool,
    /// The length of the value, in bytes.
    pub bytes: usize,
    /// The fingerprint; equal values have equal fingerprints: see [`crate::seal::Keyring::fingerprint`].
    #[serde(with = "hex_bytes")]
    pub fingerprint: [u8; 32],
    /// The value, if it is not sensitive; empty otherwise.
    #[serde(with = "base64_bytes", default, skip_serializing_if = "Vec::is_empty")]
    pub value: Vec<u8>,
    /// The end that the value itself states, as certificates and JSON Web Tokens do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_time: Option<Timestamp>,
    /// True if the newline at its end was added when it was written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_mended: bool,
    /// When the value was written.
    pub update_time: Timestamp,
    /// The principal that wrote it.
    pub updated_by: String,
}

impl FieldMetadata {
    /// True if the value counts as a destination: by the rule when it was written, or by its kind's rule now. A kind may have
    /// become stricter since.
    pub fn is_destination(&self, name: &FieldName, kind: Option<&CredentialKind>) -> bool {
        let rule = || kind.and_then(|kind| find_field(kind, name.as_str()));
        self.destination || rule().is_some_and(|rule| rule.destination)
    }
}

impl ConnectionMetadata {
    /// The end of the credential: the earliest that operators and values state.
    pub fn expire_time(&self) -> Option<Timestamp> {
        let of_values = self.fields.values().filter_map(|field| field.expire_time);
        of_values.chain(self.expires).min()
    }

    /// True if the broker can mint credentials from the fields that are set.
    pub fn is_mintable(&self) -> bool {
        let integration = integration::find(&self.integration);
        let kind = integration.and_then(|found| found.kind(self.kind.as_str()));
        kind.is_some_and(|kind| integration::can_mint(kind, |rule| self.has(&rule.name)))
    }

    /// How its credentials are made; `None` if the broker mints nothing of its kind.
    pub fn source(&self) -> Option<Source> {
        let kind = integration::find(&self.integration)?.kind(self.kind.as_str())?;
        integration::source_of(kind, |rule| self.has(&rule.name))
    }

    /// True if it has a field of this name of ours.
    pub fn has(&self, field: &str) -> bool {
        self.fields.keys().any(|name| name.as_str() == field)
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

/// A connection group, without its members: each member names its groups.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupMetadata {
    /// Random; members follow it, not the name.
    pub uid: Id,
    /// Its name. May change.
    pub name: GroupName,
    /// The integration of its members. Never changes.
    pub integration: IntegrationName,
    /// The tags that tell its members apart.
    pub identifiers: Identifiers,
    /// Viewers and editors.
    pub access: Bindings,
    /// Labels, for operators' filters.
    #[serde(default)]
    pub labels: Labels,
    /// Up by one with every change, from 1.
    pub revision: u64,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it was last changed.
    pub update_time: Timestamp,
    /// The principal of the last change.
    pub updated_by: String,
}

impl GroupMetadata {
    /// Changes with every write, and with deleting and creating again.
    pub fn etag(&self) -> String {
        format!("{}-{}", self.uid, self.revision)
    }
}

/// An integration that operators made.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnIntegration {
    /// Random.
    pub uid: Id,
    /// The integration.
    pub integration: Integration,
    /// Up by one with every change, from 1.
    pub revision: u64,
    /// When it was last changed.
    pub update_time: Timestamp,
    /// The principal of the last change.
    pub updated_by: String,
}

impl OwnIntegration {
    /// Changes with every write, and with deleting and creating again.
    pub fn etag(&self) -> String {
        format!("{}-{}", self.uid, self.revision)
    }
}

/// A secret of a workflow.
#[derive(Clone)]
pub struct Secret {
    /// The metadata.
    pub metadata: SecretMetadata,
    /// The sealed value.
    pub values: Values,
}

/// A secret without its value.
#[derive(Clone)]
pub struct SecretMetadata {
    /// Random.
    pub uid: Id,
    /// Workflow and name.
    pub name: SecretRef,
    /// Up by one with every change, from 1.
    pub version: u64,
    /// The fingerprint of its value.
    pub fingerprint: [u8; 32],
    /// When it was last written.
    pub update_time: Timestamp,
    /// The principal that wrote it last.
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

impl From<&SecretMetadata> for SecretRecord {
    fn from(metadata: &SecretMetadata) -> Self {
        Self {
            workflow: metadata.name.workflow.clone(),
            name: metadata.name.name.clone(),
            version: metadata.version,
            fingerprint: metadata.fingerprint,
            update_time: metadata.update_time,
            updated_by: metadata.updated_by.clone(),
        }
    }
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

/// An operator or executor, with its certificates.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Random.
    pub uid: Id,
    /// Its name.
    pub who: Registered,
    /// An operator's role; an executor has none.
    pub role: Option<Role>,
    /// The steps that an executor may open; an operator opens no steps.
    #[serde(default)]
    pub scope: Scope,
    /// True if it is accepted only from this host's root and the daemon's own user.
    pub local_only: bool,
    /// True if an operator may connect over TCP, too. Older versions do not know the setting, which is written only if it
    /// is on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remote: bool,
    /// The certificates in force.
    pub certificates: Vec<PinnedCertificate>,
    /// Up by one with every change, from 1.
    pub revision: u64,
}
