//! The store's records become a catalogue, while they are read.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use serde::Deserialize;

use super::newer::{self, NewerRecord};
use super::record::{Connection, ConnectionMetadata, Secret, SecretRecord, Values};
use super::{Catalog, Group, LoadError};
use crate::model::{CompactMap, ConnectionRef, FieldName, Id, IntegrationName, KindName};
use crate::seal::{Keyring, RecordKey, RecordKind, Sealed};

/// Makes a catalogue of the store's records. Values stay sealed, and come before the metadata that they belong to.
///
/// # Errors
/// If a record fails authentication, its values are missing, or no version can have written it.
pub fn load(
    records: impl IntoIterator<Item = (RecordKey, Sealed)>,
    keyring: &Keyring,
) -> Result<Catalog, LoadError> {
    let catalog = Catalog::default();
    let (groups, values) = (HashMap::new(), HashMap::new());
    let (connections, known) = (Vec::new(), Known::default());
    let mut loader = Loader { keyring, catalog, connections, groups, values, known };
    records.into_iter().try_for_each(|(key, sealed)| loader.take(key, sealed))?;
    Ok(loader.finish())
}

struct Loader<'a> {
    keyring: &'a Keyring,
    catalog: Catalog,
    connections: Vec<(ConnectionRef, Arc<Connection>)>,
    groups: HashMap<Id, Group>,
    /// Those whose metadata is still to come.
    values: HashMap<RecordKey, Sealed>,
    known: Known,
}

/// Names that many connections have in common, each kept once: they are a tenth of what a connection takes.
#[derive(Default)]
struct Known {
    integrations: HashSet<IntegrationName>,
    kinds: HashSet<KindName>,
    fields: HashSet<FieldName>,
}

impl Known {
    fn share(&mut self, mut metadata: ConnectionMetadata) -> ConnectionMetadata {
        shared(&mut self.integrations, &mut metadata.integration);
        shared(&mut self.kinds, &mut metadata.kind);
        let mut fields = metadata.fields.into_tuple_vec();
        fields.iter_mut().for_each(|(name, _)| shared(&mut self.fields, name));
        metadata.fields = CompactMap::from_sorted_store_unchecked(fields);
        metadata
    }
}

/// Puts the one that is known in place of an equal one.
fn shared<T: Clone + Eq + Hash>(known: &mut HashSet<T>, one: &mut T) {
    match known.get(one) {
        Some(same) => one.clone_from(same),
        None => drop(known.insert(one.clone())),
    }
}

impl Loader<'_> {
    fn take(&mut self, key: RecordKey, sealed: Sealed) -> Result<(), LoadError> {
        match key.kind {
            RecordKind::Connection => {
                let Some(metadata) = self.open(key, &sealed)? else { return Ok(()) };
                let values = self.values_of(key, RecordKind::ConnectionValues)?;
                let metadata = self.known.share(metadata);
                let name = metadata.reference();
                self.connections.push((name, Arc::new(Connection { metadata, values })));
            }
            RecordKind::Group => {
                let Some(metadata) = self.open(key, &sealed)? else { return Ok(()) };
                self.groups.insert(key.uid, Group::new(metadata));
            }
            RecordKind::Integration => {
                let Some(integration) = self.open(key, &sealed)? else { return Ok(()) };
                self.catalog.put_integration(integration);
            }
            RecordKind::Secret => {
                let Some(record) = self.open::<SecretRecord>(key, &sealed)? else { return Ok(()) };
                let values = self.values_of(key, RecordKind::SecretValue)?;
                let metadata = record.into_metadata(key.uid);
                self.catalog.put_secret(Secret { metadata, values });
            }
            RecordKind::Registration => {
                let Some(registration) = self.open(key, &sealed)? else { return Ok(()) };
                self.catalog.put_registration(registration);
            }
            RecordKind::ConnectionValues | RecordKind::SecretValue => {
                self.values.insert(key, sealed);
            }
            RecordKind::AuthorityKeys | RecordKind::Commit => {}
        }
        Ok(())
    }

    fn finish(self) -> Catalog {
        let Self { mut catalog, mut connections, mut groups, .. } = self;
        // They come in the order of their uids; where the next one goes into the tree is where the last one went.
        connections.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (name, connection) in connections {
            // In place: a group of a published catalogue is copied for each member that comes.
            for uid in &connection.metadata.groups {
                if let Some(group) = groups.get_mut(uid) {
                    group.insert(&connection);
                }
            }
            catalog.put_by_name(name, connection);
        }
        for group in groups.into_values() {
            catalog.put_whole_group(group);
        }
        catalog
    }

    fn values_of(&mut self, key: RecordKey, kind: RecordKind) -> Result<Values, LoadError> {
        let values = RecordKey { kind, uid: key.uid };
        let sealed = self.values.remove(&values);
        let sealed = sealed.ok_or(LoadError::Corrupt { kind: key.kind })?;
        Ok(Values { key: values, sealed })
    }

    /// What a record says. None if a newer keyhatch has written it: the catalogue knows it as such then.
    fn open<T: for<'de> Deserialize<'de>>(
        &mut self,
        key: RecordKey,
        sealed: &Sealed,
    ) -> Result<Option<T>, LoadError> {
        let corrupt = || LoadError::Corrupt { kind: key.kind };
        let json = self.keyring.open_metadata(key, sealed).map_err(|_| corrupt())?;
        // Checked as a whole, which is faster than text by text.
        let json = std::str::from_utf8(&json).map_err(|_| corrupt())?;
        if let Ok(read) = serde_json::from_str(json) {
            return Ok(Some(read));
        }
        let name = newer::name(key.kind, json).ok_or_else(corrupt)?;
        tracing::warn!(resource = %name, "a newer keyhatch has written it: nothing of it is used");
        let mut records = vec![(key, sealed.clone())];
        for kind in [RecordKind::ConnectionValues, RecordKind::SecretValue] {
            let values = RecordKey { kind, uid: key.uid };
            records.extend(self.values.remove(&values).map(|sealed| (values, sealed)));
        }
        self.catalog.put_newer(NewerRecord { name, records });
        Ok(None)
    }
}
