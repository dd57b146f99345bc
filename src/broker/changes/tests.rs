//! The promises of a batch: it folds to the catalogue of its draft, and its changes can be decided again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::apply::apply_all;
use super::checks::check_etag;
use super::documents::{
    Applied, ConnectionDocument, Document, GroupDocument, Patch, SecretDocument,
};
use super::draft::Draft;
use super::writer::{Job, PendingChange};
use crate::access::{Principal, Role};
use crate::broker::error::Error;
use crate::catalog::{Catalog, Connection, Kept, Resource, Values, load};
use crate::journal::RequestTable;
use crate::model::{
    ConnectionRef, Id, Identifiers, ResourceName, SecretRef, Tags, Timestamp, Value,
};
use crate::seal::{KeyStore, Keyring, NewKek, RecordKey, RecordKind, Sealed};
use crate::store::Operation;
use crate::sys::{Directory, Trust};

/// A catalogue in force, and the records of its store.
struct World {
    keyring: Arc<Keyring>,
    catalog: Catalog,
    records: BTreeMap<RecordKey, Sealed>,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = Directory::open(directory.path(), &Trust::of_process(&[])).unwrap();
        let keys = KeyStore::new(Arc::new(home), None, Vec::new());
        let now = Timestamp::from_millis(1_795_298_123_456);
        let keyring = keys.create(&NewKek::File("kek".into()), now).unwrap().0;
        let (catalog, records) = (Catalog::default(), BTreeMap::new());
        Self { keyring: Arc::new(keyring), catalog, records, now }
    }

    /// A draft one second after the draft before.
    fn draft(&mut self) -> Draft {
        self.now = self.now.after(Duration::from_secs(1));
        let keyring = Arc::clone(&self.keyring);
        Draft::new(self.catalog.clone(), RequestTable::default(), self.now, keyring)
    }

    /// Commits a draft, after checks that its batch leads to the same catalogue by folding and by a start.
    fn commit(&mut self, draft: Draft) {
        let (batch, catalog, _) = draft.finish();
        let mut folded = self.catalog.clone();
        batch.changes.iter().for_each(|change| folded.fold(change));
        folded.settle().unwrap();
        assert_eq!(described(&folded), described(&catalog));
        for operation in batch.seal(&self.catalog, &self.keyring).unwrap() {
            match operation {
                Operation::Add(key, sealed) | Operation::Put(key, sealed) => {
                    self.records.insert(key, sealed);
                }
                Operation::Remove(key) => drop(self.records.remove(&key).unwrap()),
            }
        }
        let is_value = |key: &RecordKey| {
            matches!(key.kind, RecordKind::ConnectionValues | RecordKind::SecretValue)
        };
        let mut records: Vec<_> = self.records.clone().into_iter().collect();
        records.sort_by_key(|(key, _)| !is_value(key));
        let loaded = load(records, &self.keyring).unwrap();
        assert_eq!(described(&loaded), described(&catalog));
        self.catalog = catalog;
    }

    fn apply(&mut self, documents: &[Document]) {
        let mut draft = self.draft();
        draft.attempt(true, |draft| apply_all(draft, &admin(), documents)).unwrap();
        self.commit(draft);
    }
}

fn admin() -> Principal {
    let uid = Id::from_bytes([7; Id::BYTES]);
    Principal::Operator("admin".parse().unwrap(), Role::Administrator, uid)
}

/// Everything that a catalogue knows.
fn described(catalog: &Catalog) -> Vec<String> {
    let connections = catalog.connections_after(None).map(|one| {
        let metadata = serde_json::to_string(&one.metadata).unwrap();
        format!("{metadata} {}", hex::encode(one.values.sealed.as_bytes()))
    });
    let groups = catalog.groups_after(None).map(|group| {
        let metadata = serde_json::to_string(group.metadata.as_ref()).unwrap();
        let members = group.members().map(|member| {
            let found = group.metadata.identifiers.select(&member.metadata.tags).unwrap();
            format!("{found:?} is {}", member.metadata.reference())
        });
        format!("{metadata} {:?}", members.collect::<BTreeSet<_>>())
    });
    let secrets = catalog.secrets().map(|one| {
        let value = hex::encode(one.values.sealed.as_bytes());
        let name = ResourceName::Secret(one.metadata.name.clone());
        format!("{name} {} {value}", one.metadata.version)
    });
    let kept = catalog.all_kept().map(|one| {
        let Values { key, sealed } = &one.values;
        format!("{key:?} {}", hex::encode(sealed.as_bytes()))
    });
    connections.chain(groups).chain(secrets).chain(kept).collect()
}

fn connection(name: &str, token: &str, tags: &[&str]) -> Document {
    let tags = Tags::parse(tags.iter().copied()).unwrap();
    let fields = BTreeMap::from([("api_token".to_owned(), Value::new(token.into()))]);
    Document::Connection(ConnectionDocument {
        fields: Patch::Merge(fields),
        tags: Patch::Merge(tags),
        ..ConnectionDocument::new(name.parse().unwrap())
    })
}

fn group(name: &str, identifier: &str, members: &[&str]) -> Document {
    Document::Group(GroupDocument {
        name: name.parse().unwrap(),
        integration: "slack".parse().unwrap(),
        identifiers: Some(Identifiers::parse([identifier]).unwrap()),
        members: Some(members.iter().map(|member| member.parse().unwrap()).collect()),
        access: BTreeMap::new(),
        labels: crate::model::Labels::default(),
    })
}

fn secret(value: &str) -> Document {
    let value = Some(Value::new(value.into()));
    let (workflow, name) = ("deploy".parse().unwrap(), "password".parse().unwrap());
    Document::Secret(SecretDocument { name: SecretRef { workflow, name }, value })
}

#[test]
fn a_batch_folds_to_the_catalogue_of_its_draft() {
    let mut world = World::new();
    world.apply(&[
        connection("slack/a", "one", &["env:prod"]),
        connection("slack/b", "two", &["env:test", "zone:east"]),
        group("chat", "env", &["slack/a", "slack/b"]),
        secret("first"),
    ]);
    // Two members change places, and the group gets another identifier.
    world.apply(&[
        connection("slack/a", "one", &["env:test", "zone:west"]),
        connection("slack/b", "three", &["env:prod"]),
        group("chat", "zone", &["slack/a", "slack/b"]),
        secret("second"),
    ]);
    let mut draft = world.draft();
    let refused = draft.attempt(true, |draft| {
        let change = [connection("slack/c", "four", &[]), group("chat", "none", &["slack/c"])];
        apply_all(draft, &admin(), &change)
    });
    assert!(refused.is_err());
    let name: ConnectionRef = "slack/a".parse().unwrap();
    let removed = draft.catalog().connection(&name).cloned().unwrap();
    draft.remove(Resource::Connection(removed));
    draft
        .attempt(true, |draft| {
            apply_all(draft, &admin(), &[connection("slack/a", "new", &["zone:north"])])
        })
        .unwrap();
    world.commit(draft);
    assert_eq!(world.catalog.connection_count(), 2);
}

#[test]
fn what_the_broker_keeps_for_itself_is_folded_and_loaded_too() {
    let mut world = World::new();
    let key = RecordKey { kind: RecordKind::Ending, uid: Id::from_bytes([9; Id::BYTES]) };
    let sealed = world.keyring.seal(key, 3, b"").unwrap();
    let kept = Arc::new(Kept { values: Values { key, sealed } });
    let mut draft = world.draft();
    draft.put(Resource::Kept(Arc::clone(&kept)));
    world.commit(draft);
    assert!(world.catalog.kept(key).is_some());
    let mut draft = world.draft();
    draft.remove(Resource::Kept(kept));
    world.commit(draft);
    assert_eq!(world.catalog.all_kept().count() + world.records.len(), 0);
}

#[test]
fn a_field_that_became_a_destination_needs_the_secrets() {
    let mut world = World::new();
    let name: ConnectionRef = "oauth2/a".parse().unwrap();
    let document = |fields: &[(&str, &str)], removed: &[&str]| {
        let value =
            |(name, value): &(&str, &str)| ((*name).to_owned(), Value::new((*value).into()));
        Document::Connection(ConnectionDocument {
            fields: Patch::Merge(fields.iter().map(value).collect()),
            removed: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..ConnectionDocument::new(name.clone())
        })
    };
    let url = ("token_url", "https://auth.example.com/token");
    let client = [url, ("client_id", "deploy"), ("client_secret", "canary"), ("scopes", "read")];
    world.apply(&[document(&client, &[])]);
    // A record of a version in which scopes were no destination.
    let mut draft = world.draft();
    let mut old = Connection::clone(draft.catalog().connection(&name).unwrap());
    let scopes = old.metadata.fields.iter_mut().find(|(name, _)| name.as_str() == "scopes");
    scopes.unwrap().1.destination = false;
    draft.put(Resource::Connection(Arc::new(old)));
    world.commit(draft);
    for moved in [document(&[], &["scopes"]), document(&[("scopes", "write")], &[])] {
        let mut draft = world.draft();
        let refused = draft.attempt(true, |draft| apply_all(draft, &admin(), &[moved]));
        assert!(matches!(refused.err().unwrap(), Error::SecretsRequired { .. }));
    }
    world.apply(&[document(&[("client_secret", "canary")], &["scopes"])]);
}

#[test]
fn a_change_decided_again_takes_all_from_the_newer_draft() {
    let mut world = World::new();
    world.apply(&[connection("slack/a", "one", &["env:prod"])]);
    let documents = vec![connection("slack/a", "two", &[]), connection("slack/b", "x", &[])];
    let (caller, mut answer) = oneshot::channel::<Result<Vec<Applied>, Error>>();
    let change = move |draft: &mut Draft| apply_all(draft, &admin(), &documents);
    let mut change = PendingChange::new(change, caller);
    assert!(change.decide(&mut world.draft()));
    // Another change comes before it.
    world.apply(&[connection("slack/a", "other", &[])]);
    let mut draft = world.draft();
    assert!(change.decide(&mut draft));
    let now = draft.now;
    world.commit(draft);
    Box::new(change).acknowledge(Ok(()));
    assert_eq!(answer.try_recv().unwrap().unwrap().len(), 2);
    let written = world.catalog.connection(&"slack/a".parse().unwrap()).unwrap();
    assert_eq!((written.metadata.version, written.metadata.update_time), (3, now));
    let created = world.catalog.connection(&"slack/b".parse().unwrap()).unwrap();
    assert_eq!((created.metadata.version, created.metadata.create_time), (1, now));
}

#[test]
fn a_change_decided_again_is_refused_by_a_newer_etag() {
    let mut world = World::new();
    world.apply(&[connection("slack/a", "one", &[])]);
    let name: ConnectionRef = "slack/a".parse().unwrap();
    let etag = world.catalog.connection(&name).unwrap().metadata.etag();
    let (caller, mut answer) = oneshot::channel::<Result<(), Error>>();
    let change = move |draft: &mut Draft| {
        let current = draft.catalog().connection(&name).unwrap().metadata.etag();
        check_etag(Some(&etag), &current, &ResourceName::Connection(name.clone()))
    };
    let mut change = PendingChange::new(change, caller);
    assert!(change.decide(&mut world.draft()));
    world.apply(&[connection("slack/a", "two", &[])]);
    assert!(!change.decide(&mut world.draft()));
    Box::new(change).acknowledge(Ok(()));
    assert!(matches!(answer.try_recv().unwrap(), Err(Error::EtagMismatch(_))));
}
