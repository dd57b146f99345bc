//! Regular maintenance: expired steps, lost heartbeats, certificates to renew.

use std::sync::Arc;
use std::time::Duration;

use super::runtime_dir::{CERTIFICATE, grantees};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::resolve::authorize::is_executors;
use crate::journal::{CloseReason, Event, LiveOpening};
use crate::model::limits::MAX_STEP_CERTIFICATE_LIFE;
use crate::model::{Id, LogLimit, Timestamp};
use crate::seal::random_id;

/// When to retry a renewal whose certificate may not have reached the step.
const RENEW_AGAIN: Duration = Duration::from_secs(60);

impl Broker {
    /// Closes steps that have expired or lost their executor, and renews certificates. Called about once a second.
    pub async fn run_maintenance(self: Arc<Self>) {
        static LIMIT: LogLimit = LogLimit::new(1);
        let now = self.now();
        self.journal.expire(now);
        self.mints.sweep(now);
        // If the journal hangs there is nothing to do: the watchdog logs it.
        let openings = self.journal.with_live(|live| live.openings().cloned().collect::<Vec<_>>());
        for opening in openings.unwrap_or_default() {
            let id = opening.record().id;
            let outcome = if now >= opening.record().expire_time {
                self.close_opening(id, CloseReason::Expired).await.map(drop)
            } else if !is_executors(&self.snapshot().catalog, opening.record()) {
                self.close_opening(id, CloseReason::ExecutorRemoved).await.map(drop)
            } else if self.is_heartbeat_lost(id, now) {
                self.close_opening(id, CloseReason::HeartbeatLost).await.map(drop)
            } else {
                self.renew_if_due(&opening, now)
            };
            if let Err(error) = outcome
                && let Some(suppressed) = LIMIT.allow()
            {
                tracing::error!(opening.id = %id, %error, suppressed, "a step could not be closed or renewed");
            }
        }
    }

    /// Rotates and signs the journal where that is due. Waits for the disk.
    pub fn maintain_journal(&self) {
        let now = self.now();
        self.journal.run_maintenance(now);
    }

    fn is_heartbeat_lost(&self, id: Id, now: Timestamp) -> bool {
        self.sessions.find(id).is_some_and(|session| session.is_heartbeat_lost(now))
    }

    fn renew_if_due(&self, opening: &LiveOpening, now: Timestamp) -> Result<(), Error> {
        let record = opening.record();
        let Some(newest) = opening.newest_certificate() else { return Ok(()) };
        // The last certificate ends with the step, but certificates count in whole seconds.
        let is_last = newest.not_after.seconds() >= record.expire_time.seconds();
        let due = newest.not_before.two_thirds_to(newest.not_after);
        let again = newest.not_before.after(RENEW_AGAIN);
        // A certificate that may not have reached the directory is followed by another, but not every time.
        let is_due =
            if opening.is_certificate_unwritten() { now >= again } else { !is_last && now >= due };
        if !is_due {
            return Ok(());
        }
        let end = record.expire_time.min(now.after(MAX_STEP_CERTIFICATE_LIFE));
        let (id, key) = (record.key.spiffe_id(), &record.public_key);
        let issued = self.authority.issue_client(&id, key, random_id()?, now, end)?;
        let certificate = issued.pinned;
        self.journal.append(now, &Event::CertificateRenewed { opening: record.id, certificate })?;
        let file = (CERTIFICATE, issued.chain_pem.as_str());
        self.runtime
            .replace_file(record.id, grantees(record.owner), file)
            .map_err(|error| Error::Internal(format!("the step's directory: {error}")))?;
        opening.certificate_written();
        Ok(())
    }
}
