//! A batch of changes while it is put together: the catalogue they lead to, and what is to be written for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::access::Principal;
use crate::broker::error::Error;
use crate::broker::registry::budgets::Budgets;
use crate::broker::resolve::authorize::is_still_allowed;
use crate::catalog::{Catalog, Connection, ConnectionMetadata};
use crate::journal::{ChangeNote, Live, RequestNote, RequestTable};
use crate::lease::Lease;
use crate::model::{Id, NamedRequest, Timestamp};
use crate::seal::{Keyring, RecordKey, Sealed};
use crate::store::Operation;

/// A catalogue with changes on it that are not in force yet.
pub(crate) struct Draft {
    /// The catalogue with the changes.
    pub(crate) catalog: Catalog,
    /// When the batch was begun.
    pub(crate) now: Timestamp,
    /// For sealing.
    pub(crate) keyring: Arc<Keyring>,
    operations: Vec<Operation>,
    notes: Vec<ChangeNote>,
    touched: Touched,
    /// Nothing of what is done now is kept: answers tell nothing about stored values then.
    pub(crate) is_trial: bool,
    /// The requests that were done, those of this draft included.
    known: RequestTable,
    requests: Vec<RequestNote>,
}

/// What a batch comes to, once no change is added.
pub(crate) struct Finished {
    pub(crate) changes: Changes,
    /// What its intent says.
    pub(crate) notes: Vec<ChangeNote>,
    /// The requests that it does.
    pub(crate) requests: Vec<RequestNote>,
    /// All requests that were done when it is.
    pub(crate) known: RequestTable,
}

/// What is to be brought to disk and put in force.
pub(crate) struct Changes {
    pub(crate) catalog: Catalog,
    pub(crate) operations: Vec<Operation>,
    pub(crate) touched: Touched,
}

/// Whose leases are to be decided again.
#[derive(Default)]
pub(crate) struct Touched {
    resources: Vec<Id>,
    /// A group may stand behind any lease.
    everything: bool,
}

impl Draft {
    /// Nothing is changed yet.
    pub(crate) fn new(
        catalog: Catalog,
        known: RequestTable,
        now: Timestamp,
        keyring: Arc<Keyring>,
    ) -> Self {
        Self {
            catalog,
            now,
            keyring,
            operations: Vec::new(),
            notes: Vec::new(),
            touched: Touched::default(),
            is_trial: false,
            known,
            requests: Vec::new(),
        }
    }

    /// What is to be written; none if that is nothing.
    pub(crate) fn finish(self) -> Option<Finished> {
        // A request that was done is remembered though it wrote nothing: done again, it might.
        if self.operations.is_empty() && self.requests.is_empty() {
            return None;
        }
        let Self { catalog, operations, notes, touched, known, requests, .. } = self;
        let changes = Changes { catalog, operations, touched };
        Some(Finished { changes, notes, requests, known })
    }

    /// Records to put into the store.
    pub(crate) fn put(&mut self, records: impl IntoIterator<Item = (RecordKey, Sealed)>) {
        self.operations
            .extend(records.into_iter().map(|(key, sealed)| Operation::Put(key, sealed)));
    }

    /// Puts a connection into the catalogue, and what is new of it into the store.
    pub(crate) fn put_connection(
        &mut self,
        mut connection: Connection,
        written: Written,
    ) -> Result<(), Error> {
        self.check_newer_groups(&connection.metadata)?;
        let catalog = &self.catalog;
        // Groups that were deleted meanwhile are forgotten.
        let is_there =
            |uid: &Id| catalog.group_by_uid(*uid).is_some() || catalog.newer_group(*uid).is_some();
        connection.metadata.groups.retain(is_there);
        let [metadata, values] = connection.to_store(&self.keyring)?;
        match written {
            Written::All => self.put([metadata, values]),
            Written::Metadata => self.put([metadata]),
            Written::New => {
                let added = [metadata, values].map(|(key, sealed)| Operation::Add(key, sealed));
                self.operations.extend(added);
            }
        }
        self.catalog.put_connection(connection);
        Ok(())
    }

    /// Records to remove from the store.
    pub(crate) fn remove(&mut self, keys: impl IntoIterator<Item = RecordKey>) {
        self.operations.extend(keys.into_iter().map(Operation::Remove));
    }

    /// What the journal says of the change. Leases on the resource are decided again when it is
    /// published.
    pub(crate) fn note(&mut self, note: ChangeNote) {
        self.touched.resources.push(note.uid);
        self.notes.push(note);
    }

    /// What the journal says of a change of a group. All leases are decided again.
    pub(crate) fn note_group(&mut self, note: ChangeNote) {
        self.touched.everything = true;
        self.notes.push(note);
    }

    /// What the journal says of a change that nobody can see: no lease is decided again.
    pub(crate) fn note_unseen(&mut self, note: ChangeNote) {
        self.notes.push(note);
    }

    /// Runs one change; if it is refused, the draft is as it was before.
    pub(crate) fn attempt<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.attempt_and_keep(true, change)
    }

    /// Runs one change; the draft is as it was before if it is refused, or not to be kept.
    fn attempt_and_keep<T>(
        &mut self,
        keep: bool,
        change: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let before = self.catalog.clone();
        let lengths = (self.operations.len(), self.notes.len(), self.touched.resources.len());
        let everything = self.touched.everything;
        self.is_trial = !keep;
        let outcome = change(self).map_err(|error| error.or_newer(&self.catalog));
        let outcome = outcome.and_then(|done| self.check_newer(lengths.1).map(|()| done));
        self.is_trial = false;
        let outcome = outcome.and_then(|answer| {
            self.catalog.settle()?;
            Ok(answer)
        });
        if outcome.is_err() || !keep {
            self.catalog = before;
            self.operations.truncate(lengths.0);
            self.notes.truncate(lengths.1);
            self.touched.resources.truncate(lengths.2);
            self.touched.everything = everything;
        }
        outcome
    }

    /// Whether what was changed, of which the notes from this one on tell, is not a newer version's.
    fn check_newer(&self, from: usize) -> Result<(), Error> {
        let mut changed = self.notes.iter().skip(from).map(|note| note.resource.as_str());
        match changed.find(|name| self.catalog.newer(name).is_some()) {
            Some(name) => Err(Error::Newer(name.to_owned())),
            None => Ok(()),
        }
    }

    /// Whether the groups of a newer version, which tell their members apart by tags, can stay as they are.
    fn check_newer_groups(&self, connection: &ConnectionMetadata) -> Result<(), Error> {
        let mut newer = connection.groups.iter().filter_map(|uid| self.catalog.newer_group(*uid));
        let old = self.catalog.connection(&connection.reference());
        let is_same = old.is_some_and(|old| old.metadata.tags == connection.tags);
        match newer.next().filter(|_| !is_same) {
            Some(group) => Err(Error::Newer(group.name.clone())),
            None => Ok(()),
        }
    }

    /// Runs one change as it was asked for: once under its id, and only on trial if that was asked. A change that
    /// changes nothing costs a line for its id.
    pub(crate) fn run<T>(
        &mut self,
        asked: &WriteRequest,
        budgets: &Budgets,
        change: impl FnOnce(&mut Self) -> Result<T, Error>,
        again: impl FnOnce(&Catalog) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let registration = self.check_caller(&asked.caller)?;
        let request = asked.options.request.as_ref().filter(|_| !asked.options.validate_only);
        if let Some(NamedRequest { id, mac }) = request
            && let Some(done) = self.known.find(registration, id)
        {
            return match done.mac == *mac {
                true => again(&self.catalog),
                false => Err(Error::RequestIdReused(id.clone())),
            };
        }
        let before = self.operations.len();
        let outcome = self.attempt_and_keep(!asked.options.validate_only, change)?;
        if let Some(request) = request {
            if self.operations.len() == before {
                budgets.take(&asked.caller, "unchanged", self.now)?;
            }
            let note = RequestNote { registration, request: request.clone(), opening: None };
            self.known.insert(note.clone());
            self.requests.push(note);
        }
        Ok(outcome)
    }

    /// The registration of whoever asked, if it is still there: changes wait, and others may have removed it
    /// meanwhile.
    pub(super) fn check_caller(&self, caller: &Principal) -> Result<Id, Error> {
        match caller {
            Principal::Operator(name, role, uid) => match self.catalog.operator(name) {
                Some(found) if found.uid == *uid && found.role == Some(*role) => Ok(*uid),
                _ => Err(Error::Unregistered),
            },
            Principal::Executor(..) | Principal::Step { .. } => Err(Error::OperatorRequired),
        }
    }
}

/// What of a connection the store has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Metadata and values.
    All,
    /// Metadata; the values are as they were.
    Metadata,
    /// All of it: there was none before.
    New,
}

/// How a change is to be made.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// The request, if the client gave it an id, so that it is done once.
    pub request: Option<NamedRequest>,
    /// Check everything and change nothing.
    pub validate_only: bool,
}

/// Who asks for a change, and how.
pub(crate) struct WriteRequest {
    caller: Principal,
    options: WriteOptions,
}

impl WriteRequest {
    pub(crate) fn new(caller: &Principal, options: WriteOptions) -> Self {
        Self { caller: caller.clone(), options }
    }
}

/// The leases, of all there are, that the catalogue does not allow.
pub(crate) fn revoked_by_all(catalog: &Catalog, live: &Live) -> Vec<Id> {
    ended(catalog, live, live.leases().iter())
}

impl Touched {
    /// The leases that the new catalogue no longer allows.
    pub(crate) fn revoked(&self, catalog: &Catalog, live: &Live) -> Vec<Id> {
        if self.everything {
            return revoked_by_all(catalog, live);
        }
        let resources: BTreeSet<Id> = self.resources.iter().copied().collect();
        ended(catalog, live, resources.iter().flat_map(|uid| live.leases().of_resource(*uid)))
    }
}

fn ended<'a>(catalog: &Catalog, live: &Live, leases: impl Iterator<Item = &'a Lease>) -> Vec<Id> {
    let ended = leases.filter(|lease| !is_still_allowed(catalog, live, lease));
    let mut ids: Vec<Id> = ended.map(|lease| lease.id).collect();
    ids.sort_unstable();
    ids
}
