//! Connections: created, changed, read without their values, deleted.

pub(super) mod field_changes;
pub(super) mod inspect;
pub(super) mod list;
pub(super) mod lost;
pub(super) mod trial;
mod trial_ending;
pub(super) mod write;

use super::Broker;
use super::changes::checks::{check_etag, require_editor};
use super::changes::documents::{ConnectionDocument, Deletion, WriteOptions, WriteRequest};
use super::changes::draft::Draft;
use super::error::Error;
use super::registry::operators::{require_operator, require_role};
use crate::access::{Principal, Role};
use crate::catalog::{Catalog, ConnectionMetadata};
use crate::integration::Finding;
use crate::journal::{Usage, Use};
use crate::lease::Lease;
use crate::model::limits::RECENTLY_USED;
use crate::model::{ConnectionRef, Id, ResourceName, StepKey, Timestamp, WorkflowName};
use write::{create, delete, update};

/// A connection as an operator sees it.
pub struct ListedConnection {
    /// Without its values.
    pub metadata: ConnectionMetadata,
    /// The groups that it is a member of.
    pub groups: Vec<ResourceName>,
    /// How many leases on it are live.
    pub live_leases: usize,
    /// How many of them are on an older version.
    pub stale_leases: usize,
    /// How often it was used, and when last; `None` if never.
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
    /// Findings about the given values, if the connection was just written.
    pub findings: Vec<Finding>,
}

/// A step that holds a credential.
pub struct Holder {
    /// The step.
    pub step: StepKey,
    /// The version that it holds.
    pub version: u64,
    /// When the lease ends.
    pub expire_time: Timestamp,
}

/// The most holders that are listed of one connection.
const MAX_HOLDERS: usize = 1000;

/// A filter by time, beside [`Filter`](crate::catalog::Filter).
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeFilter {
    /// Admits connections that are older than this and were not used since.
    pub unused_since: Option<Timestamp>,
    /// Admits connections whose credentials end before this.
    pub expires_before: Option<Timestamp>,
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
        let request = WriteRequest::new(&caller, options);
        let mut findings = inspect::of_connection(&self.snapshot().catalog, &document, self.now());
        let change = move |draft: &mut Draft| match draft.catalog().connection(&document.name) {
            Some(_) => Err(Error::AlreadyExists(ResourceName::Connection(document.name.clone()))),
            None => create(draft, &caller, &document),
        };
        let made = self.writer.write(request, change, move |catalog| find(catalog, &name)).await?;
        findings.extend(self.issuer_doubt(&made));
        Ok(ConnectionInUse { findings, ..self.in_use(made) })
    }

    /// Changes the parts that the document names, if `etag` is still the connection's.
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
        // A refusal may depend on stored values, and a trial can be repeated without end.
        let is_trial = options.validate_only && document.has_fields();
        if is_trial && self.snapshot().catalog.connection(&name).is_some() {
            let compared = vec![ResourceName::Connection(name.clone()).to_string()];
            self.count_comparison(&caller)?;
            self.note_comparison(&caller, compared).await?;
        }
        let request = WriteRequest::new(&caller, options);
        let mut findings = inspect::of_connection(&self.snapshot().catalog, &document, self.now());
        let change = move |draft: &mut Draft| {
            let resource = ResourceName::Connection(document.name.clone());
            match draft.catalog().connection(&document.name).cloned() {
                None if allow_missing && etag.is_none() => create(draft, &caller, &document),
                None => Err(Error::NotFound(resource)),
                Some(old) => {
                    require_editor(&caller, &old.metadata.access, &resource)?;
                    check_etag(etag.as_ref(), &old.metadata.etag(), &resource)?;
                    update(draft, &caller, &old, &document).map(drop)
                }
            }
        };
        let made = self.writer.write(request, change, move |catalog| find(catalog, &name)).await?;
        findings.extend(self.issuer_doubt(&made));
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

    /// Deletes a connection and revokes its leases. Returns the mints whose credentials are ended.
    ///
    /// # Errors
    /// See `ConnectionService.DeleteConnection`.
    pub async fn delete_connection(
        &self,
        caller: Principal,
        name: ConnectionRef,
        deletion: Deletion,
        options: WriteOptions,
    ) -> Result<Vec<Id>, Error> {
        require_role(&caller, Role::Operator)?;
        let request = WriteRequest::new(&caller, options);
        let uid = self.snapshot().catalog.connection(&name).map(|found| found.metadata.uid);
        let runs = self.recent_users(|usage, since| {
            uid.map(|uid| usage.users_of(uid, since)).unwrap_or_default()
        })?;
        let change = move |draft: &mut Draft| delete(draft, &caller, &name, &deletion, &runs);
        self.writer.write(request, change, |_| Ok(())).await?;
        Ok(uid.map(|uid| self.endings_of(uid)).unwrap_or_default())
    }

    /// The workflows that used a resource recently, as text for people.
    pub(super) fn recent_users(
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

fn find(catalog: &Catalog, name: &ConnectionRef) -> Result<ConnectionMetadata, Error> {
    let found = catalog.connection(name).map(|connection| connection.metadata.clone());
    let absent = || Error::NotFound(ResourceName::Connection(name.clone())).or_newer(catalog);
    found.ok_or_else(absent)
}
