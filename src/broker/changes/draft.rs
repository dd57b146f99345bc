//! A batch of changes while it is put together: the batch, and the catalogue that it leads to.

use std::sync::Arc;

use super::batch::{Batch, BatchMark};
use super::documents::WriteRequest;
use crate::access::Principal;
use crate::broker::error::Error;
use crate::catalog::{Catalog, Change, Connection, ConnectionMetadata, Resource, rotated_token};
use crate::journal::{ChangeNote, RequestNote, RequestTable};
use crate::model::{Id, NamedRequest, Timestamp};
use crate::seal::Keyring;

/// A batch and its catalogue, which is the fold of the batch onto the catalogue before. Nothing of it is in force yet.
pub(crate) struct Draft {
    catalog: Catalog,
    batch: Batch,
    /// The completed requests, those of this draft included.
    completed: RequestTable,
    /// When the batch was begun.
    pub(crate) now: Timestamp,
    /// The keys of values and fingerprints.
    pub(crate) keyring: Arc<Keyring>,
    /// True while nothing of the change is kept. Answers then reveal nothing about stored values.
    pub(crate) is_trial: bool,
}

impl Draft {
    /// A draft with no change yet.
    pub(crate) fn new(
        catalog: Catalog,
        completed: RequestTable,
        now: Timestamp,
        keyring: Arc<Keyring>,
    ) -> Self {
        Self { catalog, batch: Batch::default(), completed, now, keyring, is_trial: false }
    }

    /// The catalogue with the changes so far.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The batch, the catalogue after it, and the requests that are completed then.
    pub(super) fn finish(self) -> (Batch, Catalog, RequestTable) {
        (self.batch, self.catalog, self.completed)
    }

    /// Puts a resource in place of the one with its name.
    pub(crate) fn put(&mut self, resource: Resource) {
        self.change(Change::Put(resource));
    }

    /// Removes a resource.
    pub(crate) fn remove(&mut self, resource: Resource) {
        self.change(Change::Remove(resource));
    }

    fn change(&mut self, change: Change) {
        self.catalog.fold(&change);
        self.batch.changes.push(change);
    }

    /// Puts a connection in place of the one with its name, and checks the groups that it names.
    ///
    /// # Errors
    /// [`Error::Newer`] if its tags change and a newer version wrote one of its groups.
    pub(crate) fn put_connection(&mut self, mut connection: Connection) -> Result<(), Error> {
        self.check_newer_groups(&connection.metadata)?;
        let catalog = &self.catalog;
        // A connection forgets the groups that were deleted meanwhile.
        let exists =
            |uid: &Id| catalog.group_by_uid(*uid).is_some() || catalog.newer_group(*uid).is_some();
        connection.metadata.groups.retain(exists);
        if connection.metadata.refresh_state().is_none()
            && connection.metadata.refresh.take().is_some()
        {
            self.forget_rotated_token(connection.metadata.uid);
        }
        self.put(Resource::Connection(Arc::new(connection)));
        Ok(())
    }

    /// Removes the refresh token that replaces a connection's, if there is one.
    pub(crate) fn forget_rotated_token(&mut self, connection: Id) {
        if let Some(kept) = self.catalog.kept(rotated_token(connection)).cloned() {
            self.remove(Resource::Kept(kept));
        }
    }

    /// Notes a change for the journal. Leases on the resource are decided again when the change is published.
    pub(crate) fn note(&mut self, note: ChangeNote) {
        self.batch.affected.resources.push(note.uid);
        self.batch.notes.push(note);
    }

    /// Notes a change that may concern any lease: all leases are decided again.
    pub(crate) fn note_for_all(&mut self, note: ChangeNote) {
        self.batch.affected.all = true;
        self.batch.notes.push(note);
    }

    /// Notes a change that concerns no lease.
    pub(crate) fn note_for_none(&mut self, note: ChangeNote) {
        self.batch.notes.push(note);
    }

    /// Makes one change. The draft stays as it was if the change is refused, or not to be kept.
    pub(crate) fn attempt<T>(
        &mut self,
        keep: bool,
        change: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (catalog, before) = (self.catalog.clone(), self.batch.mark());
        self.is_trial = !keep;
        let outcome = change(self).map_err(|error| error.or_newer(&self.catalog));
        self.is_trial = false;
        let outcome = outcome.and_then(|answer| {
            self.check_newer(&before)?;
            self.catalog.settle()?;
            Ok(answer)
        });
        if outcome.is_err() || !keep {
            self.catalog = catalog;
            self.batch.truncate(&before);
        }
        outcome
    }

    /// Refuses what the batch has since `before` if it concerns a resource that a newer version wrote.
    fn check_newer(&self, before: &BatchMark) -> Result<(), Error> {
        let mut changed = self.batch.notes_since(before).map(|note| note.resource.as_str());
        match changed.find(|name| self.catalog.newer(name).is_some()) {
            Some(name) => Err(Error::Newer(name.to_owned())),
            None => Ok(()),
        }
    }

    /// Refuses other tags for a member of a group that a newer version wrote: the group tells its members apart by
    /// tags.
    fn check_newer_groups(&self, connection: &ConnectionMetadata) -> Result<(), Error> {
        let mut newer = connection.groups.iter().filter_map(|uid| self.catalog.newer_group(*uid));
        let old = self.catalog.connection(&connection.reference());
        let is_same = old.is_some_and(|old| old.metadata.tags == connection.tags);
        match newer.next().filter(|_| !is_same) {
            Some(group) => Err(Error::Newer(group.name.clone())),
            None => Ok(()),
        }
    }

    /// Makes a change as it was requested, and returns what `answer` finds afterwards. A request with an id is made
    /// once; made again, it only gets the answer. `charge` is called for an id whose change changes nothing.
    pub(super) fn complete<T>(
        &mut self,
        request: &WriteRequest,
        charge: impl FnOnce(Timestamp) -> Result<(), Error>,
        change: impl FnOnce(&mut Self) -> Result<(), Error>,
        answer: impl Fn(&Catalog) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let WriteRequest { caller, options } = request;
        let registration = self.check_caller(caller)?;
        let named = options.request.as_ref().filter(|_| !options.validate_only);
        if let Some(NamedRequest { id, mac }) = named
            && let Some(completed) = self.completed.find(registration, id)
        {
            return match completed.mac == *mac {
                true => answer(&self.catalog),
                false => Err(Error::RequestIdReused(id.clone())),
            };
        }
        let before = self.batch.changes.len();
        let outcome = self.attempt(!options.validate_only, |draft| {
            change(draft)?;
            answer(&draft.catalog)
        })?;
        if let Some(request) = named {
            if self.batch.changes.len() == before {
                charge(self.now)?;
            }
            let note = RequestNote { registration, request: request.clone(), opening: None };
            self.completed.insert(note.clone());
            self.batch.requests.push(note);
        }
        Ok(outcome)
    }

    /// The registration of the caller. Changes wait in a queue, so the registration may be gone by now.
    ///
    /// # Errors
    /// [`Error::Unregistered`] if it is gone or has another role; [`Error::OperatorRequired`] if it is no operator's.
    pub(crate) fn check_caller(&self, caller: &Principal) -> Result<Id, Error> {
        match caller {
            Principal::Operator(name, role, uid) => match self.catalog.operator(name) {
                Some(found) if found.uid == *uid && found.role == Some(*role) => Ok(*uid),
                _ => Err(Error::Unregistered),
            },
            Principal::Executor(..) | Principal::Step { .. } => Err(Error::OperatorRequired),
        }
    }
}
