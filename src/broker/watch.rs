//! A step watches a credential: the current version at once, and every new one.
//!
//! A Watch is the step's own loop over snapshots. The writer only says that there is another snapshot; it
//! waits for nobody, and whoever reads slowly finds the newest version when he comes back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Broker;
use super::error::Error;
use super::judge::is_executors;
use super::resolve::{ResolveRequest, Resolved, check_form, judge_allowed};
use crate::journal::{LiveOpening, NotAccepted};
use crate::model::limits::MAX_WATCHES;
use crate::model::{Id, Reference, ResourceName, Timestamp};

/// The longest that a Watch sleeps without a look at the clock.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// One Watch of one step.
pub struct Watch {
    broker: Arc<Broker>,
    opening: Arc<LiveOpening>,
    /// Until when the certificate of its connection lasts.
    certificate_end: Timestamp,
    request: ResolveRequest,
    heads: watch::Receiver<u64>,
    last: Option<Last>,
    _permit: OwnedSemaphorePermit,
}

/// The delivery before.
struct Last {
    name: ResourceName,
    record: Id,
    version: u64,
    lease: Id,
    /// When to deliver again.
    due: Timestamp,
}

/// One delivery.
pub struct Delivery {
    /// The credential.
    pub resolved: Resolved,
    /// Versions since the last delivery that were not seen.
    pub skipped: u64,
}

impl Broker {
    /// Begins a Watch.
    ///
    /// # Errors
    /// If the request is malformed, or the opening has too many.
    pub fn watch(
        self: &Arc<Self>,
        opening: &Arc<LiveOpening>,
        certificate_end: Timestamp,
        request: ResolveRequest,
    ) -> Result<Watch, Error> {
        check_form(&request)?;
        let permit = opening.begin_watch().ok_or(Error::TooManyWatches(MAX_WATCHES))?;
        Ok(Watch {
            broker: Arc::clone(self),
            opening: Arc::clone(opening),
            certificate_end,
            request,
            heads: self.snapshots.subscribe(),
            last: None,
            _permit: permit,
        })
    }
}

impl Watch {
    /// The next delivery: the first at once, later ones when there is something new.
    ///
    /// # Errors
    /// Why the Watch ends. Nothing comes after an error.
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        loop {
            self.heads.borrow_and_update();
            if self.is_due()? {
                return self.deliver();
            }
            let (opening, draining) = (Arc::clone(&self.opening), self.broker.draining.clone());
            let sleep = self.sleep();
            tokio::select! {
                () = opening.ended() => {}
                () = draining.cancelled() => {}
                _ = self.heads.changed() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Whether there is something to deliver.
    fn is_due(&self) -> Result<bool, Error> {
        let now = self.broker.now();
        self.broker.check_serving()?;
        if now >= self.certificate_end {
            return Err(Error::NotAccepted(NotAccepted::CertificateExpired));
        }
        let record = self.opening.record();
        if self.opening.is_closed() || now >= record.expire_time {
            return Err(Error::NotAccepted(NotAccepted::NotOpen));
        }
        let Some(last) = &self.last else { return Ok(true) };
        let snapshot = self.broker.snapshot();
        if !is_executors(&snapshot.catalog, record) {
            return Err(Error::NotAccepted(NotAccepted::NotOpen));
        }
        // A look that decides nothing: whatever is not as it was is decided, and journaled, as a delivery.
        Ok(match judge_allowed(&snapshot.catalog, record, &self.request) {
            Ok(found) => {
                let same = found.values.key.uid == last.record && found.version == last.version;
                !same || now >= last.due
            }
            Err(_) => true,
        })
    }

    fn deliver(&mut self) -> Result<Delivery, Error> {
        let before = self.last.as_ref().map(|last| last.lease);
        let resolved = self.broker.deliver(&self.opening, &self.request, before);
        let resolved = resolved.map_err(|error| self.told(error))?;
        let lease = &resolved.lease;
        let last = Last {
            name: resolved.name.clone(),
            record: lease.resource,
            version: resolved.version,
            lease: lease.id,
            due: lease.issue_time.two_thirds_to(lease.expire_time),
        };
        let skipped = match &self.last {
            Some(before) if before.record == last.record => {
                last.version.saturating_sub(before.version + 1)
            }
            _ => 0,
        };
        self.last = Some(last);
        Ok(Delivery { resolved, skipped })
    }

    /// Whoever has watched it may know that it was removed.
    fn told(&self, error: Error) -> Error {
        let (Error::Denied { .. }, Some(last)) = (&error, &self.last) else { return error };
        let snapshot = self.broker.snapshot();
        let is_gone = match &self.request.target {
            Reference::Connection(name) => snapshot.catalog.connection(name).is_none(),
            _ => false,
        };
        if is_gone { Error::NotFound(last.name.clone()) } else { error }
    }

    /// How long to sleep if nothing happens.
    fn sleep(&self) -> Duration {
        let now = self.broker.now();
        let ends = [self.certificate_end, self.opening.record().expire_time];
        let due = self.last.as_ref().map(|last| last.due);
        let next = ends.into_iter().chain(due).min().map_or(LONGEST_SLEEP, |next| next.since(now));
        next.clamp(Duration::from_millis(1), LONGEST_SLEEP)
    }
}
