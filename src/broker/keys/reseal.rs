//! After a new DEK, the records under older DEKs are sealed again while the broker serves.
//!
//! The records go through the writer like any change, a batch at a time, with a pause after each batch. Changes that
//! come meanwhile are sealed under the new DEK anyway. Versions and etags stay, so no lease ends and no Watch delivers.
//! Every record names its DEK, so the work continues after a restart.
//!
//! A connection's metadata is always sealed after its values. So if the values are under the newest DEK, the metadata
//! is, too.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::blocking;
use crate::broker::Broker;
use crate::broker::changes::checks::change_note;
use crate::broker::changes::draft::Draft;
use crate::broker::error::Error;
use crate::catalog::{
    Catalog, Connection, Kept, NewerRecord, Registered, Resource, Secret, Values,
};
use crate::journal::ChangeNote;
use crate::model::{ConnectionRef, GroupName, Id, IntegrationName, SecretRef};
use crate::seal::{KeyId, Keyring, ReadValues, RecordKey};

/// The most connections, secrets and so on in one batch.
const MAX_ITEMS: usize = 64;
/// The most bytes of values in one batch.
const MAX_BYTES: usize = 1024 * 1024;
/// After each batch comes a pause as long as the batch took, within these limits.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(60);
/// How long a dropped DEK stays in memory: longer than any request that may still open a record under it.
const GRACE: Duration = Duration::from_secs(120);

/// A resource that is sealed as a whole.
enum Item {
    Connection(ConnectionRef),
    Group(GroupName),
    /// A record of the broker's own.
    Kept(RecordKey),
    /// A resource that a newer version wrote, by its full name.
    Newer(String),
    Integration(IntegrationName),
    Registration(Registered),
    Secret(SecretRef),
}

/// One pass through the catalogue.
struct ResealPass {
    newest: KeyId,
    /// True to seal all connections and secrets again, also those whose values are under the newest DEK.
    everything: bool,
    /// The items that are left, except connections.
    items: Vec<Item>,
    /// The last connection of the pass so far.
    after: Option<ConnectionRef>,
}

impl Broker {
    /// Seals records under older DEKs again, at the start and after each new DEK, until `stop` is cancelled.
    pub async fn run_resealing(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let resealed = tokio::select! {
                () = stop.cancelled() => return,
                resealed = self.reseal() => resealed,
            };
            let pause = async {
                match resealed {
                    Ok(()) => std::future::pending().await,
                    Err(()) => tokio::time::sleep(RETRY).await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.keys.wake.notified() => {}
                () = pause => {}
            }
        }
    }

    /// Seals everything under the newest DEK, and drops the other DEKs. `Err` if that should be retried soon.
    async fn reseal(&self) -> Result<(), ()> {
        // Files of refresh tokens are no records yet: first, so that their DEK is still there.
        self.mints.take_spares().await;
        // A second pass for a DEK that came meanwhile, and a third over everything.
        for pass in 0..3 {
            if self.keyring.deks().len() < 2 {
                return Ok(());
            }
            match self.reseal_pass(pass > 1).await {
                Ok(0) => {
                    let keyring = Arc::clone(&self.keyring);
                    tokio::spawn(async move {
                        tokio::time::sleep(GRACE).await;
                        keyring.forget_retired();
                    });
                    return Ok(());
                }
                Ok(left) => tracing::debug!(left, "records are still under an older DEK"),
                Err(error) => {
                    tracing::error!(%error, "records cannot be sealed again now");
                    return Err(());
                }
            }
        }
        // More retries would write everything again each time.
        tracing::error!(
            "records stay under an older DEK, which is kept: they may be damaged; write them again, and \
             restart the broker"
        );
        Ok(())
    }

    /// Makes one pass, over `everything` or only what is under an older DEK. Returns the number of records that are
    /// left under older DEKs.
    async fn reseal_pass(&self, everything: bool) -> Result<u64, Error> {
        let keys = Arc::clone(&self.keys);
        let turn = self.keys.turn.lock().await;
        let files = blocking(move || keys.key_store.reseal_files(&keys.keyring)).await?;
        drop(turn);
        files.map_err(|error| Error::KeyringUnwritable(error.to_string()))?;
        let mut pass =
            ResealPass::begin(&self.snapshot().catalog, self.keyring.newest_dek(), everything);
        loop {
            let items = pass.next(&self.snapshot().catalog);
            if items.is_empty() {
                return self.keys.drop_unused().await;
            }
            let begun = Instant::now();
            self.writer.submit(move |draft| reseal_all(draft, &items)).await?;
            tokio::time::sleep(begun.elapsed().clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
        }
    }
}

impl ResealPass {
    fn begin(catalog: &Catalog, newest: KeyId, everything: bool) -> Self {
        let groups = catalog.groups_after(None).map(|one| Item::Group(one.metadata.name.clone()));
        let integrations = catalog.own_integrations();
        let integrations = integrations.map(|one| Item::Integration(one.integration.name.clone()));
        let registrations = catalog.registrations().map(|one| Item::Registration(one.who.clone()));
        let is_wanted = |one: &&Arc<Secret>| everything || one.values.sealed.dek() != newest;
        let secrets = catalog.secrets().filter(is_wanted);
        let secrets = secrets.map(|one| Item::Secret(one.metadata.name.clone()));
        let newer = catalog.all_newer().map(|one| Item::Newer(one.name.clone()));
        let kept = catalog.all_kept().map(|one| Item::Kept(one.values.key));
        let items = groups.chain(integrations).chain(registrations).chain(secrets).chain(newer);
        let items = items.chain(kept).collect();
        Self { newest, everything, items, after: None }
    }

    /// The next items; empty at the end.
    fn next(&mut self, catalog: &Catalog) -> Vec<Item> {
        if !self.items.is_empty() {
            return self.items.split_off(self.items.len().saturating_sub(MAX_ITEMS));
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        for connection in catalog.connections_after(self.after.as_ref()) {
            let sealed = &connection.values.sealed;
            if !self.everything && sealed.dek() == self.newest {
                continue;
            }
            taken.push(connection.metadata.reference());
            bytes += sealed.as_bytes().len();
            if taken.len() >= MAX_ITEMS || bytes >= MAX_BYTES {
                break;
            }
        }
        self.after = taken.last().cloned().or(self.after.take());
        taken.into_iter().map(Item::Connection).collect()
    }
}

/// Seals the items again that still exist.
fn reseal_all(draft: &mut Draft, items: &[Item]) -> Result<(), Error> {
    let keyring = Arc::clone(&draft.keyring);
    let mut records = 0;
    for item in items {
        if let Some(resource) = resealed(draft.catalog(), &keyring, item)? {
            records += resource.keys().len();
            draft.put(resource);
        }
    }
    if records > 0 {
        let (by, resource) = ("broker", format!("keys/{}", keyring.newest_dek()));
        let note = change_note(by, "key.reseal", resource, Id::from_bytes([0; Id::BYTES]), 0);
        draft.note_for_none(ChangeNote { settings: vec![format!("records={records}")], ..note });
    }
    Ok(())
}

/// The resource with its values under the newest DEK; its metadata is sealed with the batch. `None` if the resource is
/// gone, or its values do not open.
fn resealed(catalog: &Catalog, keyring: &Keyring, item: &Item) -> Result<Option<Resource>, Error> {
    Ok(match item {
        Item::Connection(name) => {
            let Some(old) = catalog.connection(name) else { return Ok(None) };
            let metadata = old.metadata.clone();
            let values = reseal(keyring, &old.values)?;
            values.map(|values| Resource::Connection(Arc::new(Connection { metadata, values })))
        }
        Item::Secret(name) => {
            let Some(old) = catalog.secret(name) else { return Ok(None) };
            let metadata = old.metadata.clone();
            let values = reseal(keyring, &old.values)?;
            values.map(|values| Resource::Secret(Arc::new(Secret { metadata, values })))
        }
        Item::Group(name) => {
            catalog.group(name).map(|group| Resource::Group(Arc::clone(&group.metadata)))
        }
        Item::Integration(name) => {
            catalog.own_integration(name).cloned().map(Resource::Integration)
        }
        Item::Kept(key) => {
            let Some(old) = catalog.kept(*key) else { return Ok(None) };
            let values = reseal(keyring, &old.values)?;
            values.map(|values| Resource::Kept(Arc::new(Kept { values })))
        }
        Item::Newer(name) => reseal_newer(catalog, keyring, name)?,
        Item::Registration(who) => catalog.registration(who).cloned().map(Resource::Registration),
    })
}

/// Records that this version cannot read are sealed again as bytes.
fn reseal_newer(
    catalog: &Catalog,
    keyring: &Keyring,
    name: &str,
) -> Result<Option<Resource>, Error> {
    let Some(old) = catalog.newer(name) else { return Ok(None) };
    let mut records = Vec::new();
    for (key, sealed) in &old.records {
        let old = Values { key: *key, sealed: sealed.clone() };
        let Some(Values { key, sealed }) = reseal(keyring, &old)? else { return Ok(None) };
        records.push((key, sealed));
    }
    Ok(Some(Resource::Newer(Arc::new(NewerRecord { name: name.to_owned(), records }))))
}

/// The values under the newest DEK. `None` if they do not open: they stay as they are, and so does their DEK.
fn reseal(keyring: &Keyring, old: &Values) -> Result<Option<Values>, Error> {
    match keyring.reseal(old.key, &old.sealed) {
        Ok(sealed) => Ok(Some(Values { key: old.key, sealed })),
        Err(ReadValues::Open(error)) => {
            tracing::error!(record = %old.key.uid, %error, "a record cannot be sealed again");
            Ok(None)
        }
        Err(ReadValues::NoRandomness(error)) => Err(error.into()),
    }
}
