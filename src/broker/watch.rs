//! A step watches a credential: the current version at once, and every new one.
//!
//! A Watch is the step's own loop over snapshots. The writer only says that there is another snapshot; it
//! waits for nobody, and whoever reads slowly finds the newest version when he comes back.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::Broker;
use super::error::Error;
use super::resolve::{Judged, ResolveRequest, Resolved, check_form};
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
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    alarm: Pin<Box<Sleep>>,
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
            ended: Box::pin(opening.ended()),
            alarm: Box::pin(tokio::time::sleep(LONGEST_SLEEP)),
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
            let now = self.broker.now();
            if let Some(judged) = self.look(now)? {
                return self.deliver(judged, now);
            }
            self.set_alarm(now);
            // A daemon that drains says so as it tells of a new snapshot.
            tokio::select! {
                _ = self.heads.changed() => {}
                () = &mut self.ended => {}
                () = &mut self.alarm => {}
            }
        }
    }

    /// What is to be delivered, if there is something. A look decides nothing: whatever is not as it was is
    /// decided, and journaled, as a delivery.
    fn look(&self, now: Timestamp) -> Result<Option<Judged>, Error> {
        self.broker.check_serving()?;
        if now >= self.certificate_end {
            return Err(Error::NotAccepted(NotAccepted::CertificateExpired));
        }
        if self.opening.is_closed() || now >= self.opening.record().expire_time {
            return Err(Error::NotAccepted(NotAccepted::NotOpen));
        }
        let judged = self.broker.judge_now(&self.opening, &self.request)?;
        let is_as_it_was = match (&self.last, &judged.outcome) {
            (Some(last), Ok(found)) => {
                let is_same = found.values.key.uid == last.record && found.version == last.version;
                is_same && now < last.due
            }
            _ => false,
        };
        Ok(if is_as_it_was { None } else { Some(judged) })
    }

    fn deliver(&mut self, judged: Judged, now: Timestamp) -> Result<Delivery, Error> {
        let before = self.last.as_ref().map(|last| last.lease);
        let resolved = self.broker.deliver(&self.opening, &self.request, before, judged, now);
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

    /// Sets the alarm for the next moment at which something is due by itself. One that rings too early does
    /// no harm, so it is set again only where it would be late.
    fn set_alarm(&mut self, now: Timestamp) {
        let ends = [self.certificate_end, self.opening.record().expire_time];
        let due = self.last.as_ref().map(|last| last.due);
        let next = ends.into_iter().chain(due).min().map_or(LONGEST_SLEEP, |next| next.since(now));
        let wanted = Instant::now() + next.clamp(Duration::from_millis(1), LONGEST_SLEEP);
        if self.alarm.is_elapsed() || wanted < self.alarm.deadline() {
            self.alarm.as_mut().reset(wanted);
        }
    }
}
