//! The words of changes: documents, and how a caller wants a change to be made.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::access::{Bindings, Pattern, Principal, Relation};
use crate::broker::error::Error;
use crate::integration::{Finding, Integration};
use crate::model::{
    ConnectionRef, GroupName, Identifiers, IntegrationName, KindName, Labels, NamedRequest,
    Release, ResourceName, SecretRef, SendLimits, Tags, Timestamp, Value,
};

/// The effect of a document on a part of a resource.
#[derive(Clone, Debug)]
pub enum Patch<T> {
    /// The given entries are set, and the other entries stay.
    Merge(T),
    /// The given entries replace all entries.
    Replace(T),
}

impl<T: Default> Default for Patch<T> {
    fn default() -> Self {
        Self::Merge(T::default())
    }
}

impl<T> Patch<T> {
    /// The entries that the document gives.
    pub(crate) fn given(&self) -> &T {
        let (Self::Merge(given) | Self::Replace(given)) = self;
        given
    }
}

impl Patch<Access> {
    /// The bindings afterwards.
    pub(crate) fn bindings(&self, old: &Bindings) -> Result<Bindings, Error> {
        let mut bindings = match self {
            Self::Merge(_) => old.clone(),
            Self::Replace(_) => Bindings::default(),
        };
        bindings.replace_all(self.given().clone()).map_err(Error::PrincipalInvalid)?;
        Ok(bindings)
    }
}

impl Patch<Labels> {
    /// The labels afterwards.
    pub(crate) fn labels(&self, old: &Labels) -> Result<Labels, Error> {
        match self {
            Self::Merge(given) => old.with(given).map_err(Error::LabelInvalid),
            Self::Replace(given) => Ok(given.clone()),
        }
    }
}

/// Relations, and the principals that get them.
pub type Access = BTreeMap<Relation, BTreeSet<Pattern>>;

/// A connection as an operator wants it. Parts that the document does not name stay as they are.
pub struct ConnectionDocument {
    /// Integration and name.
    pub name: ConnectionRef,
    /// The kind. If absent, the fields decide.
    pub kind: Option<KindName>,
    /// The fields to set, by names or aliases.
    pub fields: Patch<BTreeMap<String, Value>>,
    /// The fields to remove, by names or aliases.
    pub removed: BTreeSet<String>,
    /// The fields that must exist and stay as they are, by names or aliases.
    pub kept: BTreeSet<String>,
    /// The identifier tags.
    pub tags: Patch<Tags>,
    /// The labels.
    pub labels: Patch<Labels>,
    /// Relation by relation.
    pub access: Patch<Access>,
    /// True if every Resolve is refused.
    pub disabled: Option<bool>,
    /// The longest lease; `Some(None)` removes the connection's own limit.
    pub max_ttl: Option<Option<Duration>>,
    /// True if the connection answers to `default:INTEGRATION`.
    pub is_default: Option<bool>,
    /// When the credential ends; `Some(None)` if that is unknown.
    pub expires: Option<Option<Timestamp>>,
    /// What a step gets.
    pub release: Option<Release>,
    /// The methods and paths that the broker sends with it.
    pub send: Option<SendLimits>,
}

impl ConnectionDocument {
    /// A document that names only the connection.
    pub fn new(name: ConnectionRef) -> Self {
        Self {
            name,
            kind: None,
            fields: Patch::default(),
            removed: BTreeSet::new(),
            kept: BTreeSet::new(),
            tags: Patch::default(),
            labels: Patch::default(),
            access: Patch::default(),
            disabled: None,
            max_ttl: None,
            is_default: None,
            expires: None,
            release: None,
            send: None,
        }
    }

    /// True if the document gives any field a value.
    pub(crate) fn has_fields(&self) -> bool {
        !self.fields.given().is_empty()
    }

    /// A copy of the given values, which a check consumes. The document keeps its own for another decision.
    pub(crate) fn copied_fields(&self) -> BTreeMap<String, Value> {
        let given = self.fields.given().iter();
        given.map(|(name, value)| (name.clone(), copied(value))).collect()
    }
}

/// A copy of a value; both are wiped when they are dropped. Values have no `Clone`, so that every copy is seen.
pub(crate) fn copied(value: &Value) -> Value {
    Value::new(value.expose().to_vec())
}

/// The problem of a value that a document keeps although none is stored.
pub(crate) const NOTHING_KEPT: &str = "the document keeps this value, and none is stored; give a value, \
                                       {fromEnv: NAME} or {fromFile: PATH}";

/// A new group.
#[derive(Clone)]
pub struct NewGroup {
    /// Its name.
    pub name: GroupName,
    /// The integration of its members.
    pub integration: IntegrationName,
    /// The tag keys that tell its members apart.
    pub identifiers: Identifiers,
    /// Its members.
    pub members: Vec<ConnectionRef>,
    /// Viewers and editors.
    pub access: Access,
    /// Its labels.
    pub labels: Labels,
}

/// The changes of a group.
#[derive(Clone, Default)]
pub struct GroupChange {
    /// Its new name.
    pub new_name: Option<GroupName>,
    /// Its new identifiers.
    pub identifiers: Option<Identifiers>,
    /// Its viewers and editors.
    pub access: Patch<Access>,
    /// Its labels.
    pub labels: Patch<Labels>,
    /// Members to remove.
    pub removed: Vec<ConnectionRef>,
    /// Members to add, after the removal.
    pub added: Vec<ConnectionRef>,
}

/// A group as an operator wants it. Parts that the document does not name stay as they are.
#[derive(Clone)]
pub struct GroupDocument {
    /// Its name.
    pub name: GroupName,
    /// The integration of its members.
    pub integration: IntegrationName,
    /// The tag keys that tell its members apart; a new group needs them.
    pub identifiers: Option<Identifiers>,
    /// All of its members.
    pub members: Option<BTreeSet<ConnectionRef>>,
    /// The relations to replace.
    pub access: Access,
    /// The labels to set.
    pub labels: Labels,
}

/// Members to add to a group, or to remove from it.
pub struct MemberChange {
    /// True to add them, false to remove them.
    pub add: bool,
    /// The members.
    pub members: Vec<ConnectionRef>,
}

/// A secret as an operator wants it.
pub struct SecretDocument {
    /// Workflow and name.
    pub name: SecretRef,
    /// Its value; `None` keeps the stored value.
    pub value: Option<Value>,
}

/// One document of an Apply.
pub enum Document {
    /// A connection.
    Connection(ConnectionDocument),
    /// A group.
    Group(GroupDocument),
    /// An operators' own integration.
    Integration(Integration),
    /// A secret.
    Secret(SecretDocument),
}

impl Document {
    /// The resource that the document describes.
    pub fn name(&self) -> ResourceName {
        match self {
            Self::Connection(document) => ResourceName::Connection(document.name.clone()),
            Self::Group(document) => ResourceName::Group(document.name.clone()),
            Self::Integration(integration) => ResourceName::Integration(integration.name.clone()),
            Self::Secret(document) => ResourceName::Secret(document.name.clone()),
        }
    }

    /// The order in which documents are applied: a resource comes after those that it needs.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Integration(_) => 0,
            Self::Connection(_) | Self::Secret(_) => 1,
            Self::Group(_) => 2,
        }
    }
}

/// The result of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The resource was changed.
    Changed,
    /// The resource was created.
    Created,
    /// The resource was like the document already; nothing was written.
    Unchanged,
}

/// One document's result.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The resource.
    pub name: ResourceName,
    /// The action.
    pub action: Action,
    /// Findings about the given values; empty if nothing was written.
    pub findings: Vec<Finding>,
}

/// How a resource is deleted.
#[derive(Clone, Debug, Default)]
pub struct Deletion {
    /// If present, the resource must still have this etag.
    pub etag: Option<String>,
    /// True to delete it although others use it.
    pub force: bool,
    /// True if a missing resource is no error.
    pub allow_missing: bool,
}

/// How a change is made.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// The request's id, if the client gave one: the change is made once under it.
    pub request: Option<NamedRequest>,
    /// True to check everything and change nothing.
    pub validate_only: bool,
}

/// The caller of a change, and its options.
pub(crate) struct WriteRequest {
    pub(super) caller: Principal,
    pub(super) options: WriteOptions,
}

impl WriteRequest {
    pub(crate) fn new(caller: &Principal, options: WriteOptions) -> Self {
        Self { caller: caller.clone(), options }
    }
}
