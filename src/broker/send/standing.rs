//! Why an exchange ends before its end: the step, the connection, or time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::plan::Limited;
use crate::access::Purpose;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::resolve::authorize::{Refusal, authorize_step, is_executors};
use crate::journal::{LiveOpening, NotAccepted, SentLine};
use crate::lease::Lease;
use crate::model::{ResourceName, Timestamp};

/// How often an exchange looks at the clock.
const TICK: Duration = Duration::from_millis(500);
/// How long nothing may move.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// What has moved: the bytes of both bodies.
#[derive(Default)]
pub(super) struct Moved {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

impl Moved {
    pub(super) fn add(counter: &AtomicU64, bytes: usize) {
        counter.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn all(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}

/// An exchange, as far as its end depends on it.
pub(super) struct Standing {
    pub(super) broker: Arc<Broker>,
    pub(super) opening: Arc<LiveOpening>,
    pub(super) certificate_end: Timestamp,
    pub(super) lease: Lease,
    /// The hidden line of the decision.
    pub(super) decision_id: String,
    /// The full name of the connection.
    pub(super) name: ResourceName,
    /// The request, as far as the connection's limits are about it.
    pub(super) limited: Limited,
    pub(super) moved: Arc<Moved>,
    /// Whether its end is journaled.
    pub(super) is_over: AtomicBool,
}

/// An exchange that nobody waits for any more, or whose task has failed, ends as well.
impl Drop for Standing {
    fn drop(&mut self) {
        if !*self.is_over.get_mut() {
            self.sent(None, Some("CANCELLED"));
        }
    }
}

impl Standing {
    /// Waits until the exchange must end, and says why.
    pub(super) async fn ends(&self) -> Error {
        let mut changes = self.broker.changes();
        let (mut before, mut since) = (self.moved.all(), Instant::now());
        let mut closed = std::pin::pin!(self.opening.ended());
        loop {
            if let Err(error) = self.check() {
                return error;
            }
            tokio::select! {
                () = &mut closed => {}
                _ = changes.changed() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            let now = self.moved.all();
            if now != before {
                (before, since) = (now, Instant::now());
            } else if since.elapsed() >= IDLE {
                return Error::SendTooSlow("nothing has moved for 60 s");
            }
        }
    }

    /// Journals and counts the end of the exchange.
    pub(super) fn sent(&self, status: Option<u16>, fault: Option<&'static str>) {
        self.is_over.store(true, Ordering::Relaxed);
        let (sent_bytes, received_bytes) = self.moved.all();
        self.broker.sends.metrics.end(fault, sent_bytes, received_bytes);
        let line = SentLine {
            opening: self.opening.record().id,
            lease: self.lease.id,
            resource: self.name.to_text(),
            status,
            sent_bytes,
            received_bytes,
            fault: fault.map(str::to_owned),
        };
        // Without the line the lease expires by itself.
        let _ = self.broker.journal.sent(self.broker.now(), line);
    }

    fn check(&self) -> Result<(), Error> {
        let (broker, record, now) = (&self.broker, self.opening.record(), self.broker.now());
        broker.check_serving()?;
        if now >= self.certificate_end {
            return Err(Error::NotAccepted(NotAccepted::CertificateExpired));
        }
        let snapshot = broker.snapshot();
        if self.opening.is_closed() || !is_executors(&snapshot.catalog, record) {
            return Err(Error::NotAccepted(NotAccepted::NotOpen));
        }
        if now >= self.lease.expire_time {
            return Err(Error::SendTooSlow("the lease of the request has ended"));
        }
        let target = self.lease.ask.target.reference();
        let purpose = Purpose::of(self.lease.ask.action.as_ref());
        match authorize_step(snapshot.in_force(), record, &target, purpose, None) {
            Err(Refusal::Disabled(name)) => Err(Error::Disabled(name)),
            Err(_) => Err(self.denied()),
            Ok(grant) if grant.values.key.uid != self.lease.resource => Err(self.denied()),
            Ok(grant) if grant.version != self.lease.version => Err(Error::VersionSuperseded),
            Ok(_) if !self.limited.is_admitted(&snapshot.catalog, &self.name) => {
                Err(Error::SendNotAllowed)
            }
            Ok(_) => self.check_lease(),
        }
    }

    fn denied(&self) -> Error {
        Error::Denied { decision_id: self.decision_id.clone() }
    }

    /// Checks that the lease is live. A journal that hangs ends no exchange: nothing is acknowledged while it hangs.
    fn check_lease(&self) -> Result<(), Error> {
        let found =
            self.broker.journal.with_live(|live| live.leases().find(self.lease.id).is_some());
        match found {
            Ok(false) => Err(self.denied()),
            _ => Ok(()),
        }
    }
}

/// The reason of the API for the end of an exchange, as the journal and metrics name it.
pub(super) fn reason(error: &Error) -> &'static str {
    match error {
        Error::Corrupt => "RECORD_CORRUPT",
        Error::Denied { .. } => "RESOLVE_DENIED",
        Error::Disabled(_) => "CONNECTION_DISABLED",
        Error::Draining => "DRAINING",
        Error::NotAccepted(NotAccepted::NotOpen) => "STEP_NOT_OPEN",
        Error::NotAccepted(_) => "SVID_INVALID",
        Error::SendFailed { reason, .. } => reason.as_str(),
        Error::SendInvalid(_) => "SEND_INVALID",
        Error::SendNotAllowed => "SEND_NOT_ALLOWED",
        Error::SendTooSlow(_) => "REQUEST_TOO_SLOW",
        Error::SendUnsupported(_) => "SEND_UNSUPPORTED",
        Error::VersionSuperseded => "VERSION_SUPERSEDED",
        _ => "INTERNAL",
    }
}
