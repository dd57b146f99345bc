//! Connections: created, changed, read without their values, deleted.

pub(super) mod field_changes;
pub(super) mod inspect;
pub(super) mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Broker;
use super::changes::draft::{Draft, WriteOptions, WriteRequest};
use super::error::Error;
use super::groups::groups_of;
use super::registry::operators::{require_operator, require_role};
use crate::access::{Bindings, Decision, Pattern, Principal, Relation, Role, decide_edit};
use crate::catalog::{Catalog, ConnectionFilter, ConnectionMetadata};
use crate::integration::Finding;
use crate::journal::{ChangeNote, Usage, Use};
use crate::lease::Lease;
use crate::model::limits::RECENTLY_USED;
use crate::model::{
    ConnectionRef, KindName, Labels, ResourceName, StepKey, Tags, Timestamp, Value, WorkflowName,
};
use crate::seal::{RecordKey, RecordKind};
use write::{create, update};

/// What is done with a part of a resource.
#[derive(Clone, Debug)]
pub enum Patch<T> {
    /// What is given is set, and the rest stays.
    Merge(T),
    /// It is what is given.
    Replace(T),
}

impl<T: Default> Default for Patch<T> {
    fn default() -> Self {
        Self::Merge(T::default())
    }
}

/// What is wrong with a value that is to be kept and is not there.
pub(super) const NOTHING_KEPT: &str = "it is to be kept, and nothing is stored there; give a value, \
                                       {fromEnv: NAME} or {fromFile: PATH}";

/// Relations, and the principals that are to have them.
pub type Access = BTreeMap<Relation, BTreeSet<Pattern>>;

/// A connection as it should be. What it does not name stays as it is.
pub struct ConnectionDocument {
    /// Integration and name.
    pub name: ConnectionRef,
    /// The kind, unless it is clear from the fields.
    pub kind: Option<KindName>,
    /// The fields to set, by names or aliases.
    pub fields: Patch<BTreeMap<String, Value>>,
    /// The fields to remove, by names or aliases.
    pub removed: BTreeSet<String>,
    /// The fields that must be there and stay as they are, by names or aliases.
    pub kept: BTreeSet<String>,
    /// The identifier tags.
    pub tags: Patch<Tags>,
    /// The labels.
    pub labels: Patch<Labels>,
    /// Relation by relation.
    pub access: Patch<Access>,
    /// Whether every Resolve is refused.
    pub disabled: Option<bool>,
    /// The longest lease; no limit of its own inside.
    pub max_ttl: Option<Option<Duration>>,
    /// Whether it answers to `default:INTEGRATION`.
    pub is_default: Option<bool>,
    /// When the credential ends; unknown inside.
    pub expires: Option<Option<Timestamp>>,
}

impl ConnectionDocument {
    /// A document that names nothing but the connection.
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
        }
    }
}

impl ConnectionDocument {
    /// Whether it gives any field a value.
    pub(super) fn has_fields(&self) -> bool {
        let (Patch::Merge(fields) | Patch::Replace(fields)) = &self.fields;
        !fields.is_empty()
    }
}

/// A connection as an operator sees it.
pub struct ListedConnection {
    /// Without its values.
    pub metadata: ConnectionMetadata,
    /// The groups that it is a member of.
    pub groups: Vec<ResourceName>,
    /// How many leases on it are live.
    pub live_leases: usize,
    /// How often it was used, and when last; none if never.
    pub used: Option<Use>,
}

/// A connection as an operator sees it, with who uses it.
pub struct ConnectionInUse {
    /// The connection.
    pub listed: ListedConnection,
    /// The workflows that have used it, how often, and when last.
    pub users: Vec<(WorkflowName, Use)>,
    /// The steps that hold live leases on it; no more than [`MAX_HOLDERS`].
    pub holders: Vec<Holder>,
    /// What is odd about the values that were given, if it was just written.
    pub findings: Vec<Finding>,
}

/// A step that holds a credential.
pub struct Holder {
    /// Which.
    pub step: StepKey,
    /// The version that it holds.
    pub version: u64,
    /// When the lease ends.
    pub expire_time: Timestamp,
}

/// The most holders that are told of one connection.
const MAX_HOLDERS: usize = 1000;

/// Which connections are asked for, beside a filter on what they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeFilter {
    /// Those that nobody has used since, and that are older.
    pub unused_since: Option<Timestamp>,
    /// Those whose credentials end before.
    pub expires_before: Option<Timestamp>,
}

/// One page of connections.
pub struct ListedConnections {
    /// Without their values.
    pub connections: Vec<ListedConnection>,
    /// Where the next page starts, if there is one.
    pub next: Option<ConnectionRef>,
}

impl Broker {
    /// Creates a connection; the caller becomes an editor.
    ///
    /// # Errors
    /// See `ConnectionService.CreateConnection`.
    pub async fn create_connection(
        &self,
        caller: Principal,
        document: ConnectionDocument,
        options: WriteOptions,
    ) -> Result<ConnectionInUse, Error> {
        require_role(&caller, Role::Operator)?;
        let name = document.name.clone();
        let asked = WriteRequest::new(&caller, options);
        let findings = inspect::of_connection(&self.snapshot().catalog, &document, self.now());
        let change = move |draft: &mut Draft| match draft.catalog.connection(&document.name) {
            Some(_) => Err(Error::AlreadyExists(ResourceName::Connection(document.name))),
            None => create(draft, &caller, document),
        };
        let again = move |catalog: &Catalog| find(catalog, &name);
        let made = self.writer.run(asked, change, again).await?;
        Ok(ConnectionInUse { findings, ..self.in_use(made) })
    }

    /// Changes what the document names, if `etag` is still the connection's.
    ///
    /// # Errors
    /// See `ConnectionService.UpdateConnection`.
    pub async fn update_connection(
        &self,
        caller: Principal,
        document: ConnectionDocument,
        etag: Option<String>,
        allow_missing: bool,
        options: WriteOptions,
    ) -> Result<ConnectionInUse, Error> {
        require_role(&caller, Role::Operator)?;
        let name = document.name.clone();
        // What is refused may depend on what is stored, and a trial can be asked again and again.
        let is_trial = options.validate_only && document.has_fields();
        if is_trial && self.snapshot().catalog.connection(&name).is_some() {
            let compared = vec![ResourceName::Connection(name.clone()).to_string()];
            self.count_comparison(&caller)?;
            self.note_comparison(&caller, compared).await?;
        }
        let asked = WriteRequest::new(&caller, options);
        let findings = inspect::of_connection(&self.snapshot().catalog, &document, self.now());
        let change = move |draft: &mut Draft| {
            let name = document.name.clone();
            match draft.catalog.connection(&name).cloned() {
                None if allow_missing && etag.is_none() => create(draft, &caller, document),
                None => Err(Error::NotFound(ResourceName::Connection(name))),
                Some(old) => {
                    require_editor(
                        &caller,
                        &old.metadata.access,
                        &ResourceName::Connection(name.clone()),
                    )?;
                    check_etag(etag, &old.metadata.etag(), || {
                        ResourceName::Connection(name.clone())
                    })?;
                    update(draft, &caller, &old, document)?;
                    find(&draft.catalog, &name)
                }
            }
        };
        let again = move |catalog: &Catalog| find(catalog, &name);
        let made = self.writer.run(asked, change, again).await?;
        Ok(ConnectionInUse { findings, ..self.in_use(made) })
    }

    /// A connection without its values, and who uses it.
    ///
    /// # Errors
    /// See `ConnectionService.GetConnection`.
    pub fn connection(
        &self,
        caller: &Principal,
        name: &ConnectionRef,
    ) -> Result<ConnectionInUse, Error> {
        require_operator(caller)?;
        find(&self.snapshot().catalog, name).map(|found| self.in_use(found))
    }

    /// Connections after `after` that the filter admits, by integration and name.
    ///
    /// # Errors
    /// If the caller is no operator.
    pub fn connections(
        &self,
        caller: &Principal,
        filter: &ConnectionFilter,
        wanted: TimeFilter,
        after: Option<&ConnectionRef>,
        size: usize,
    ) -> Result<ListedConnections, Error> {
        require_operator(caller)?;
        let snapshot = self.snapshot();
        let expires_then = |one: &ConnectionMetadata| {
            let end = one.expire_time();
            wanted.expires_before.is_none_or(|limit| end.is_some_and(|end| end < limit))
        };
        let mut found = snapshot
            .catalog
            .connections_after(after)
            .map(|connection| &connection.metadata)
            .filter(|one| filter.admits(one) && expires_then(one))
            .filter(|one| wanted.unused_since.is_none_or(|since| self.is_unused(one, since)));
        let connections: Vec<_> = found.by_ref().take(size).cloned().collect();
        let more = found.next().is_some();
        let next = connections.last().filter(|_| more).map(ConnectionMetadata::reference);
        let connections = connections.into_iter().map(|one| self.listed(one)).collect();
        Ok(ListedConnections { connections, next })
    }

    /// Whether nobody has used a connection since then, though it was there.
    fn is_unused(&self, metadata: &ConnectionMetadata, since: Timestamp) -> bool {
        let used = self.journal.with_live(|live| live.usage().use_of(metadata.uid));
        // What cannot be known is not said to be unused.
        let is_unused = used.is_ok_and(|used| used.is_none_or(|used| used.last < since));
        metadata.create_time < since && is_unused
    }

    /// Deletes a connection and revokes its leases.
    ///
    /// # Errors
    /// See `ConnectionService.DeleteConnection`.
    pub async fn delete_connection(
        &self,
        caller: Principal,
        name: ConnectionRef,
        deletion: Deletion,
        options: WriteOptions,
    ) -> Result<(), Error> {
        require_role(&caller, Role::Operator)?;
        let asked = WriteRequest::new(&caller, options);
        let uid = self.snapshot().catalog.connection(&name).map(|found| found.metadata.uid);
        let runs = self
            .recent(|usage, since| uid.map(|uid| usage.users_of(uid, since)).unwrap_or_default())?;
        let change = move |draft: &mut Draft| delete(draft, &caller, &name, deletion, runs);
        self.writer.run(asked, change, |_| Ok(())).await
    }

    /// The workflows that have used something of late, as people read it.
    pub(super) fn recent(
        &self,
        users: impl FnOnce(&Usage, Timestamp) -> Vec<(WorkflowName, Use)>,
    ) -> Result<Vec<String>, Error> {
        let since = self.now().before(RECENTLY_USED);
        let users = self.journal.with_live(|live| users(live.usage(), since))?;
        let text = |(workflow, used): (WorkflowName, Use)| {
            format!("workflow {workflow} (last {})", used.last)
        };
        Ok(users.into_iter().map(text).collect())
    }

    fn listed(&self, metadata: ConnectionMetadata) -> ListedConnection {
        let snapshot = self.snapshot();
        let groups = metadata.groups.iter().filter_map(|uid| snapshot.catalog.group_by_uid(*uid));
        let groups = groups.map(|group| ResourceName::Group(group.metadata.name.clone())).collect();
        // Shown for information: a journal that hangs is told elsewhere.
        let looked = self.journal.with_live(|live| {
            let leases = live.leases().of_resource(metadata.uid).count();
            (leases, live.usage().use_of(metadata.uid))
        });
        let (live_leases, used) = looked.unwrap_or_default();
        ListedConnection { metadata, groups, live_leases, used }
    }

    fn in_use(&self, metadata: ConnectionMetadata) -> ConnectionInUse {
        let uid = metadata.uid;
        let always = Timestamp::from_millis(i64::MIN);
        let looked = self.journal.with_live(|live| {
            let holder = |lease: &Lease| {
                let opening = live.opening(lease.opening)?;
                let step = opening.record().key.clone();
                Some(Holder { step, version: lease.version, expire_time: lease.expire_time })
            };
            let holders = live.leases().of_resource(uid).filter_map(holder).take(MAX_HOLDERS);
            (live.usage().users_of(uid, always), holders.collect::<Vec<_>>())
        });
        let (users, mut holders) = looked.unwrap_or_default();
        holders.sort_by(|one, other| (one.version, &one.step).cmp(&(other.version, &other.step)));
        ConnectionInUse { listed: self.listed(metadata), users, holders, findings: Vec::new() }
    }
}

/// How something is to be deleted.
#[derive(Clone, Debug, Default)]
pub struct Deletion {
    /// Only if this is still its etag.
    pub etag: Option<String>,
    /// Although others use it.
    pub force: bool,
    /// It is no error if there is none.
    pub allow_missing: bool,
}

fn delete(
    draft: &mut Draft,
    caller: &Principal,
    name: &ConnectionRef,
    deletion: Deletion,
    runs: Vec<String>,
) -> Result<(), Error> {
    let resource = ResourceName::Connection(name.clone());
    let metadata = match draft.catalog.connection(name) {
        Some(found) => found.metadata.clone(),
        None if deletion.allow_missing && !draft.catalog.is_newer(&resource) => return Ok(()),
        None => return Err(Error::NotFound(resource)),
    };
    require_editor(caller, &metadata.access, &resource)?;
    check_etag(deletion.etag, &metadata.etag(), || resource.clone())?;
    let groups = groups_of(draft, &metadata);
    let mut users: Vec<_> = groups.iter().map(|group| format!("group {group}")).collect();
    users.extend(runs);
    if !users.is_empty() && !deletion.force {
        let hint = "with force (--force) it is deleted all the same, and taken out of its groups";
        return Err(Error::InUse { resource, users: users.join(", "), hint });
    }
    draft.catalog.remove_connection(name);
    let kinds = [RecordKind::Connection, RecordKind::ConnectionValues];
    draft.remove(kinds.map(|kind| RecordKey { kind, uid: metadata.uid }));
    draft.note(note(caller, "connection.delete", &metadata));
    Ok(())
}

fn find(catalog: &Catalog, name: &ConnectionRef) -> Result<ConnectionMetadata, Error> {
    let found = catalog.connection(name).map(|connection| connection.metadata.clone());
    let absent = || Error::NotFound(ResourceName::Connection(name.clone())).or_newer(catalog);
    found.ok_or_else(absent)
}

/// Who writes, and when.
pub(super) struct Stamp {
    pub(super) by: String,
    pub(super) now: Timestamp,
}

impl Stamp {
    pub(super) fn new(caller: &Principal, now: Timestamp) -> Self {
        Self { by: caller.to_string(), now }
    }
}

pub(super) fn require_editor(
    caller: &Principal,
    access: &Bindings,
    resource: &ResourceName,
) -> Result<(), Error> {
    match decide_edit(caller, access) {
        Decision::Allow(_) => Ok(()),
        Decision::Deny => Err(Error::EditDenied(resource.clone())),
    }
}

/// Refuses a write over somebody else's.
pub(super) fn check_etag(
    given: Option<String>,
    current: &str,
    resource: impl FnOnce() -> ResourceName,
) -> Result<(), Error> {
    match given {
        Some(etag) if etag != current => Err(Error::EtagMismatch(resource())),
        _ => Ok(()),
    }
}

/// What the journal says of a change of a connection, without what changed.
pub(super) fn note(caller: &Principal, action: &str, metadata: &ConnectionMetadata) -> ChangeNote {
    ChangeNote {
        principal: caller.to_string(),
        action: action.to_owned(),
        resource: ResourceName::Connection(metadata.reference()).to_string(),
        uid: metadata.uid,
        version: metadata.version,
        fields: Vec::new(),
        settings: Vec::new(),
        access: None,
    }
}
