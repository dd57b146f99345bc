//! Credentials that an upstream lists, and that the journal has lost: they were made after the backup from which the broker
//! was restored. Each is taken up by a mint of its own, which is owed an ending from the start.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::Instant;

use super::trial::{Failed, TrialOrder, not_mintable};
use super::trial_ending::not_begun;
use crate::access::Principal;
use crate::broker::Broker;
use crate::catalog::{Catalog, ConnectionMetadata};
use crate::integration::source_of;
use crate::mint::{self, Listed, Minted};
use crate::model::{ConnectionRef, Fields, ResourceName};

/// The workflow of their lines. The operator's name stands for the step.
const WORKFLOW: &str = "restored-broker";
/// For how long upstreams are begun to be asked: the last must answer before the caller's patience ends.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many are asked at a time.
const AT_ONCE: usize = 16;

/// The lost credentials of a connection.
pub struct LostCredentials {
    /// The connection.
    pub connection: ConnectionRef,
    /// Their names in the upstream's audit log. Their endings have begun.
    pub handles: Vec<String>,
    /// Why there may be more, for operators; `None` if there are no more.
    pub problem: Option<String>,
}

impl Broker {
    /// Asks the upstreams that list credentials, and begins the endings of those that are lost. Connections without such are
    /// left out, if their upstream has answered.
    pub(in crate::broker) async fn end_lost(&self, caller: &Principal) -> Vec<LostCredentials> {
        let snapshot = self.snapshot();
        let all = snapshot.catalog.connections_after(None).map(|found| &found.metadata);
        let listed = all.filter(|found| !found.disabled && is_listed(&snapshot.catalog, found));
        let names: Vec<_> = listed.map(ConnectionMetadata::reference).collect();
        let until = Instant::now() + PATIENCE;
        let asked = stream::iter(names).map(|connection| async move {
            let mut handles = Vec::new();
            let ended = match Instant::now() < until {
                true => self.end_lost_of(caller, &connection, &mut handles).await,
                false => Err("it was not asked, because the others took too long".to_owned()),
            };
            LostCredentials { connection, handles, problem: ended.err() }
        });
        let found = asked.buffered(AT_ONCE).collect::<Vec<_>>().await;
        found.into_iter().filter(|one| one.problem.is_some() || !one.handles.is_empty()).collect()
    }

    async fn end_lost_of(
        &self,
        caller: &Principal,
        name: &ConnectionRef,
        handles: &mut Vec<String>,
    ) -> Result<(), String> {
        let order = self.open_for_test(caller, name)?;
        let listed = mint::list(self.mints.egress(), order.source, &order.roots).await;
        for one in listed.map_err(|failure| failure.detail)? {
            let is_lost = self.journal.is_lost(one.mint, &one.handle);
            if is_lost.map_err(|error| error.to_string())? {
                let handle = one.handle.clone();
                let begun = self.begin_lost(&order, name, one).await;
                begun.map_err(|Failed { detail, .. }| detail)?;
                handles.push(handle);
            }
        }
        Ok(())
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

/// True if the upstream of a connection lists what was made there.
fn is_listed(catalog: &Catalog, metadata: &ConnectionMetadata) -> bool {
    let integration = catalog.integration(&metadata.integration);
    let kind = integration.and_then(|found| found.kind(metadata.kind.as_str()));
    let source = kind.and_then(|kind| source_of(kind, |rule| metadata.has(&rule.name)));
    source.is_some_and(mint::lists)
}
