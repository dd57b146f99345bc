//! Credentials that an upstream lists, and that the journal has lost: they were made after the backup from which the broker
//! was restored. Each is taken up by a mint of its own, which is owed an ending from the start.
//!
//! The search goes on without its caller: a server may be slow, and many credentials may be lost. Only one search runs at a time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::trial::{Failed, TrialOrder, not_mintable};
use super::trial_ending::not_begun;
use crate::access::Principal;
use crate::broker::Broker;
use crate::catalog::ConnectionMetadata;
use crate::integration::Source;
use crate::mint::{self, Listed, Minted};
use crate::model::{ConnectionRef, Fields, IdSet, ResourceName};

/// The workflow of their lines. The operator's name stands for the step.
const WORKFLOW: &str = "restored-broker";
/// How long a caller waits for the search, at most.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many upstreams are asked at a time.
const CONNECTIONS_AT_ONCE: usize = 4;
/// How many endings of one upstream begin at a time: each waits for the store's disk.
const ENDINGS_AT_ONCE: usize = 16;

/// The lost credentials of a connection.
#[derive(Clone)]
pub struct LostCredentials {
    /// The connection.
    pub connection: ConnectionRef,
    /// Their names in the upstream's audit log. Their endings have begun.
    pub handles: Vec<String>,
    /// Why there may be more, for operators; `None` if there are no more.
    pub problem: Option<String>,
}

/// A search for lost credentials: the last one, or the one that is running.
#[derive(Clone, Default)]
pub struct LostSearch {
    /// True while upstreams are asked.
    pub is_running: bool,
    /// The connections whose upstream has not been asked to the end. If the search no longer runs, the broker has stopped it.
    pub left: usize,
    /// The connections whose upstream has listed lost credentials, or could not be asked, by name.
    pub found: Vec<LostCredentials>,
}

/// The search of a broker.
pub(in crate::broker) type Search = watch::Sender<Option<LostSearch>>;

/// Says that the search no longer runs, however it has ended.
struct Running(Arc<Broker>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lost_search.send_modify(|search| {
            search.iter_mut().for_each(|search| search.is_running = false);
        });
    }
}

impl Broker {
    /// The last search for lost credentials since the daemon started, or the one that is running; `None` if there was no search.
    pub fn lost_search(&self) -> Option<LostSearch> {
        self.lost_search.borrow().clone()
    }

    /// Starts the search for lost credentials, if none is running: asks the upstreams that list credentials, and begins the
    /// endings of those that are lost. Waits for it at most 5 s, and returns how far it is.
    pub(in crate::broker) async fn end_lost(self: &Arc<Self>, caller: &Principal) -> LostSearch {
        let snapshot = self.snapshot();
        let all = snapshot.catalog.connections_after(None).map(|found| &found.metadata);
        let is_listed = |found: &&ConnectionMetadata| {
            !found.disabled && found.source().is_some_and(Source::ends_by_name)
        };
        let names: Vec<_> = all.filter(is_listed).map(ConnectionMetadata::reference).collect();
        let mut search = self.lost_search.subscribe();
        let is_new = self.lost_search.send_if_modified(|search| {
            let is_new = search.as_ref().is_none_or(|search| !search.is_running);
            if is_new {
                *search =
                    Some(LostSearch { is_running: true, left: names.len(), found: Vec::new() });
            }
            is_new
        });
        if is_new {
            let (running, caller) = (Running(Arc::clone(self)), caller.clone());
            tokio::spawn(async move {
                let broker = &running.0;
                let searching = broker.search(&caller, names);
                let _ = broker.endings.until_draining(searching).await;
            });
        }
        let is_over =
            |search: &Option<LostSearch>| search.as_ref().is_none_or(|search| !search.is_running);
        let _ = tokio::time::timeout(PATIENCE, search.wait_for(is_over)).await;
        self.lost_search().unwrap_or_default()
    }

    async fn search(&self, caller: &Principal, names: Vec<ConnectionRef>) {
        // Several connections may be to one server.
        let taken = &Mutex::new(IdSet::default());
        let asked =
            stream::iter(names).for_each_concurrent(CONNECTIONS_AT_ONCE, |name| async move {
                let handles = Mutex::default();
                let ended = self.end_lost_of(caller, &name, taken, &handles).await;
                let (handles, problem) = (handles.into_inner(), ended.err());
                self.lost_search.send_modify(|search| {
                    search
                        .iter_mut()
                        .for_each(|search| search.take(&name, &handles, problem.as_ref()));
                });
            });
        asked.await;
    }

    async fn end_lost_of(
        &self,
        caller: &Principal,
        name: &ConnectionRef,
        taken: &Mutex<IdSet>,
        handles: &Mutex<Vec<String>>,
    ) -> Result<(), String> {
        let order = &self.open_for_test(caller, name)?;
        let listed = mint::list(self.mints.egress(), order.source, &order.roots).await;
        let listed = listed.map_err(|failure| failure.detail)?;
        let lost = self.journal.lost(listed, |one| (one.mint, one.handle.as_str()));
        let lost = lost.map_err(|error| error.to_string())?;
        let new = lost.into_iter().filter(|one| taken.lock().insert(one.mint));
        let begun =
            stream::iter(new.map(Ok)).try_for_each_concurrent(ENDINGS_AT_ONCE, |one| async move {
                let handle = one.handle.clone();
                self.begin_lost(order, name, one).await?;
                handles.lock().push(handle);
                Ok(())
            });
        begun.await.map_err(|Failed { detail, .. }| detail)
    }

    /// Begins the ending of a lost credential.
    async fn begin_lost(
        &self,
        order: &TrialOrder,
        name: &ConnectionRef,
        one: Listed,
    ) -> Result<(), Failed> {
        let now = self.now();
        let line = order.line(one.mint, WORKFLOW).ok_or_else(not_mintable)?;
        let (resource, version) = (ResourceName::Connection(name.clone()).to_text(), line.version);
        let begun = self.journal.begin_lost(now, line).map_err(not_begun)?;
        let owed = self.keep_trial(begun, (resource, version), one.ending).await?;
        let made = Minted {
            fields: Fields::new(),
            end: one.end,
            handle: Some(one.handle),
            upstream_request: None,
            ending: None,
        };
        owed.made(&made, now).map_err(|error| super::trial::not_kept(&error.to_string()))
    }
}

impl LostSearch {
    /// Takes in that the upstream of a connection was asked.
    fn take(&mut self, connection: &ConnectionRef, handles: &[String], problem: Option<&String>) {
        self.left = self.left.saturating_sub(1);
        if handles.is_empty() && problem.is_none() {
            return;
        }
        let at = self.found.partition_point(|one| one.connection < *connection);
        let (connection, problem) = (connection.clone(), problem.cloned());
        self.found.insert(at, LostCredentials { connection, handles: handles.to_vec(), problem });
    }
}
