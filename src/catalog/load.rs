//! The records of the store are loaded into a catalogue.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use serde::Deserialize;

use super::newer::{self, NewerRecord};
use super::record::{Connection, ConnectionMetadata, Kept, Secret, SecretRecord, Values};
use super::{Catalog, Group, LoadError, Resource};
use crate::model::{CompactMap, ConnectionRef, FieldName, Id, IntegrationName, KindName};
use crate::seal::{Keyring, RecordKey, RecordKind, Sealed};

/// Makes a catalogue of the store's records. Values stay sealed. They must come before the metadata that they belong
/// to.
///
/// # Errors
/// If a record fails authentication, its values are missing, or no version can have written it.
pub fn load(
    records: impl IntoIterator<Item = (RecordKey, Sealed)>,
    keyring: &Keyring,
) -> Result<Catalog, LoadError> {
    let catalog = Catalog::default();
    let (groups, values) = (HashMap::new(), HashMap::new());
    let (connections, names) = (Vec::new(), SharedNames::default());
    let mut loader = Loader { keyring, catalog, connections, groups, values, names };
    records.into_iter().try_for_each(|(key, sealed)| loader.take(key, sealed))?;
    Ok(loader.finish())
}

struct Loader<'a> {
    keyring: &'a Keyring,
    catalog: Catalog,
    connections: Vec<(ConnectionRef, Arc<Connection>)>,
    groups: HashMap<Id, Group>,
    /// The values whose metadata has not come yet.
    values: HashMap<RecordKey, Sealed>,
    names: SharedNames,
}

/// Names that many connections have in common, each kept once: they are a tenth of a connection's memory.
#[derive(Default)]
struct SharedNames {
    integrations: HashSet<IntegrationName>,
    kinds: HashSet<KindName>,
    fields: HashSet<FieldName>,
}

impl SharedNames {
    fn share(&mut self, mut metadata: ConnectionMetadata) -> ConnectionMetadata {
        shared(&mut self.integrations, &mut metadata.integration);
        shared(&mut self.kinds, &mut metadata.kind);
        let mut fields = metadata.fields.into_tuple_vec();
        fields.iter_mut().for_each(|(name, _)| shared(&mut self.fields, name));
        metadata.fields = CompactMap::from_sorted_store_unchecked(fields);
        metadata
    }
}

/// Replaces a name by the equal name that is known.
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
                let metadata = self.names.share(metadata);
                let name = metadata.reference();
                self.connections.push((name, Arc::new(Connection { metadata, values })));
            }
            RecordKind::Group => {
                let Some(metadata) = self.open(key, &sealed)? else { return Ok(()) };
                self.groups.insert(key.uid, Group::new(Arc::new(metadata)));
            }
            RecordKind::Integration => {
                let Some(integration) = self.open(key, &sealed)? else { return Ok(()) };
                self.catalog.put(Resource::Integration(Arc::new(integration)));
            }
            RecordKind::Secret => {
                let Some(record) = self.open::<SecretRecord>(key, &sealed)? else { return Ok(()) };
                let values = self.values_of(key, RecordKind::SecretValue)?;
                let secret = Secret { metadata: record.into_metadata(key.uid), values };
                self.catalog.put(Resource::Secret(Arc::new(secret)));
            }
            RecordKind::Registration => {
                let Some(registration) = self.open(key, &sealed)? else { return Ok(()) };
                self.catalog.put(Resource::Registration(Arc::new(registration)));
            }
            RecordKind::Ending | RecordKind::RotatedToken => {
                let kept = Kept { values: Values { key, sealed } };
                self.catalog.put(Resource::Kept(Arc::new(kept)));
            }
            RecordKind::ConnectionValues | RecordKind::SecretValue => {
                self.values.insert(key, sealed);
            }
            RecordKind::AuthorityKeys
            | RecordKind::Commit
            | RecordKind::IssuerKeys
            | RecordKind::MintedValues => {}
        }
        Ok(())
    }

    fn finish(self) -> Catalog {
        let Self { mut catalog, mut connections, mut groups, .. } = self;
        // Connections come in the order of their uids. In the order of names, each goes into the tree beside the last.
        connections.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (name, connection) in connections {
            // In place: `Catalog::put` would copy the group for each member.
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

    /// The contents of a record. `None` if a newer keyhatch wrote it: the catalogue then has it as such.
    fn open<T: for<'de> Deserialize<'de>>(
        &mut self,
        key: RecordKey,
        sealed: &Sealed,
    ) -> Result<Option<T>, LoadError> {
        let corrupt = || LoadError::Corrupt { kind: key.kind };
        let json = self.keyring.open_metadata(key, sealed).map_err(|_| corrupt())?;
        // UTF-8 is checked as a whole, which is faster than text by text.
        let json = std::str::from_utf8(&json).map_err(|_| corrupt())?;
        if let Ok(read) = serde_json::from_str(json) {
            return Ok(Some(read));
        }
        let name = newer::name(key.kind, json).ok_or_else(corrupt)?;
        tracing::warn!(resource = %name, "a newer keyhatch wrote this resource: nothing of it is used");
        let mut records = vec![(key, sealed.clone())];
        for kind in [RecordKind::ConnectionValues, RecordKind::SecretValue] {
            let values = RecordKey { kind, uid: key.uid };
            records.extend(self.values.remove(&values).map(|sealed| (values, sealed)));
        }
        self.catalog.put(Resource::Newer(Arc::new(NewerRecord { name, records })));
        Ok(None)
    }
}
