//! After a new DEK: what is sealed under an older one is sealed again, while the broker serves.
//!
//! It goes through the writer like any change, a batch at a time, with a pause after each; what is written
//! meanwhile is under the new DEK anyway. Versions and etags stay, so no lease ends and no Watch delivers. How
//! far it is, every record says itself: after a restart it goes on.
//!
//! A connection's values are sealed before its metadata, and again whenever that is done here: so where the
//! values are under the newest DEK, the metadata is, too.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::blocking;
use crate::broker::Broker;
use crate::broker::changes::draft::Draft;
use crate::broker::error::Error;
use crate::catalog::{Catalog, Connection, NewerRecord, Registered, Secret, Values};
use crate::journal::ChangeNote;
use crate::model::{ConnectionRef, GroupName, Id, IntegrationName, SecretRef};
use crate::seal::{KeyId, Keyring, ReadValues, RecordKey, Sealed};

/// The most connections, secrets and so on in one batch.
const MAX_ITEMS: usize = 64;
/// The most bytes of values in one batch.
const MAX_BYTES: usize = 1024 * 1024;
/// After each batch there is a pause as long as the batch took, within these.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long what failed is left alone.
const AGAIN: Duration = Duration::from_secs(60);
/// After how long nobody is in the middle of opening something under a DEK that was dropped: longer than
/// any request takes.
const GRACE: Duration = Duration::from_secs(120);

/// Something that is sealed as a whole.
enum Item {
    Connection(ConnectionRef),
    Group(GroupName),
    /// What a newer version has written, by its full name.
    Newer(String),
    Integration(IntegrationName),
    Registration(Registered),
    Secret(SecretRef),
}

/// A way through the catalogue.
struct Walk {
    newest: KeyId,
    /// Whether all are taken, also those that look as if they were under the newest DEK.
    everything: bool,
    /// All but connections.
    items: Vec<Item>,
    /// The last connection that was taken.
    after: Option<ConnectionRef>,
}

impl Broker {
    /// Seals again what is under an older DEK, now and whenever there is a new one, until it is stopped.
    pub async fn run_resealing(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let again = tokio::select! {
                () = stop.cancelled() => return,
                again = self.reseal() => again,
            };
            let pause = async {
                match again {
                    Ok(()) => std::future::pending().await,
                    Err(()) => tokio::time::sleep(AGAIN).await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.keys.wake.notified() => {}
                () = pause => {}
            }
        }
    }

    /// Brings everything under the newest DEK, and drops the others. Err if it is to be tried again soon.
    async fn reseal(&self) -> Result<(), ()> {
        // Once more for a DEK that came meanwhile, and once for whatever else.
        for pass in 0..3 {
            if self.keyring.deks().len() < 2 {
                return Ok(());
            }
            match self.reseal_once(pass > 1).await {
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
        // To try that again and again would write everything anew each time.
        tracing::error!(
            "records stay under an older DEK, which is kept: they may be damaged; write them again, and \
             restart the broker"
        );
        Ok(())
    }

    /// Goes once through everything, and says how much is left.
    async fn reseal_once(&self, everything: bool) -> Result<u64, Error> {
        let keys = Arc::clone(&self.keys);
        let files = blocking(move || keys.place.reseal_files(&keys.keyring)).await?;
        files.map_err(|error| Error::KeyringUnwritable(error.to_string()))?;
        let mut walk = Walk::begin(&self.snapshot().catalog, self.keyring.newest_dek(), everything);
        loop {
            let items = walk.next(&self.snapshot().catalog);
            if items.is_empty() {
                return self.keys.drop_unused().await;
            }
            let begun = Instant::now();
            self.writer.submit(move |draft| reseal_all(draft, &items)).await?;
            tokio::time::sleep(begun.elapsed().clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
        }
    }
}

impl Walk {
    fn begin(catalog: &Catalog, newest: KeyId, everything: bool) -> Self {
        let groups = catalog.groups_after(None).map(|one| Item::Group(one.metadata.name.clone()));
        let integrations = catalog.own_integrations();
        let integrations = integrations.map(|one| Item::Integration(one.integration.name.clone()));
        let registrations = catalog.registrations().map(|one| Item::Registration(one.who.clone()));
        let is_wanted = |one: &&Arc<Secret>| everything || one.values.sealed.dek() != newest;
        let secrets = catalog.secrets().filter(is_wanted);
        let secrets = secrets.map(|one| Item::Secret(one.metadata.name.clone()));
        let newer = catalog.all_newer().map(|one| Item::Newer(one.name.clone()));
        let items = groups.chain(integrations).chain(registrations).chain(secrets).chain(newer);
        let items = items.collect();
        Self { newest, everything, items, after: None }
    }

    /// What is next; nothing at the end.
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

/// Seals again what is still there.
fn reseal_all(draft: &mut Draft, items: &[Item]) -> Result<(), Error> {
    let keyring = Arc::clone(&draft.keyring);
    let mut records = 0;
    for item in items {
        records += match item {
            Item::Connection(name) => reseal_connection(draft, &keyring, name)?,
            Item::Secret(name) => reseal_secret(draft, &keyring, name)?,
            Item::Group(name) => {
                let group = draft.catalog.group(name).cloned();
                let sealed = group.map(|group| group.metadata.to_store(&keyring)).transpose()?;
                put(draft, sealed)
            }
            Item::Integration(name) => {
                let own = draft.catalog.own_integration(name).cloned();
                let sealed = own.map(|own| own.to_store(&keyring)).transpose()?;
                put(draft, sealed)
            }
            Item::Newer(name) => reseal_newer(draft, &keyring, name)?,
            Item::Registration(who) => {
                let found = draft.catalog.registration(who).cloned();
                let sealed = found.map(|found| found.to_store(&keyring)).transpose()?;
                put(draft, sealed)
            }
        };
    }
    if records > 0 {
        draft.note_unseen(ChangeNote {
            principal: "broker".to_owned(),
            action: "key.reseal".to_owned(),
            resource: format!("keys/{}", keyring.newest_dek()),
            uid: Id::from_bytes([0; Id::BYTES]),
            version: 0,
            fields: Vec::new(),
            settings: vec![format!("records={records}")],
            access: None,
        });
    }
    Ok(())
}

fn put(draft: &mut Draft, sealed: Option<(RecordKey, Sealed)>) -> usize {
    let records = usize::from(sealed.is_some());
    draft.put(sealed);
    records
}

fn reseal_connection(
    draft: &mut Draft,
    keyring: &Keyring,
    name: &ConnectionRef,
) -> Result<usize, Error> {
    let Some(old) = draft.catalog.connection(name).cloned() else { return Ok(0) };
    let Some(values) = reseal(keyring, &old.values)? else { return Ok(0) };
    let resealed = Connection { metadata: old.metadata.clone(), values };
    let records = resealed.to_store(keyring)?;
    draft.put(records);
    draft.catalog.put_connection(resealed);
    Ok(2)
}

fn reseal_secret(draft: &mut Draft, keyring: &Keyring, name: &SecretRef) -> Result<usize, Error> {
    let Some(old) = draft.catalog.secret(name).cloned() else { return Ok(0) };
    let Some(values) = reseal(keyring, &old.values)? else { return Ok(0) };
    let resealed = Secret { metadata: old.metadata.clone(), values };
    let records = resealed.to_store(keyring)?;
    draft.put(records);
    draft.catalog.put_secret(resealed);
    Ok(2)
}

/// Bytes that this version does not read can be sealed again as well.
fn reseal_newer(draft: &mut Draft, keyring: &Keyring, name: &str) -> Result<usize, Error> {
    let Some(old) = draft.catalog.newer(name).cloned() else { return Ok(0) };
    let mut records = Vec::new();
    for (key, sealed) in &old.records {
        let old = Values { key: *key, sealed: sealed.clone() };
        let Some(Values { key, sealed }) = reseal(keyring, &old)? else { return Ok(0) };
        records.push((key, sealed));
    }
    let resealed = records.len();
    draft.put(records.clone());
    draft.catalog.put_newer(NewerRecord { name: name.to_owned(), records });
    Ok(resealed)
}

/// Values under the newest DEK. None if they do not open: they stay as they are, and so does their DEK.
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
