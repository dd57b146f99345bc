//! One open step, as the journal knows it.

pub(in crate::journal) mod ended_steps;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::model::{Id, IdSet, Opening, PinnedCertificate, Timestamp, WorkflowPath};

/// Why a request is not accepted for an opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// The certificate has expired.
    #[error("the certificate has expired")]
    CertificateExpired,
    /// The certificate was not issued for this opening.
    #[error("the certificate is not one of this opening's")]
    CertificateUnknown,
    /// The step is closed or has expired.
    #[error("the step is not open")]
    NotOpen,
}

/// An operator has revoked the lease of a Watch, which ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an operator has revoked the lease of this Watch; ask again for what is still needed")]
pub struct WatchEnded;

/// One open step. Its connections hold it, and see at once when it is closed.
#[derive(Debug)]
pub struct LiveOpening {
    record: Opening,
    /// The step, as lines name it.
    principal: Arc<WorkflowPath>,
    certificates: RwLock<Vec<PinnedCertificate>>,
    closed: AtomicBool,
    /// Whether the newest certificate may be missing in the step's directory: its line is written first.
    is_unwritten: AtomicBool,
    /// Cancelled when the opening is closed.
    ended: CancellationToken,
    /// The leases of Watches that an operator has ended: their Watches end, too.
    ended_watches: RwLock<IdSet>,
}

impl LiveOpening {
    pub(super) fn new(record: Opening) -> Self {
        let certificates = RwLock::new(record.certificates.clone());
        let key = &record.key;
        let principal = WorkflowPath::of_step(&key.workflow, &key.run, &key.step);
        Self {
            principal: Arc::new(principal),
            ended: CancellationToken::new(),
            record,
            certificates,
            closed: AtomicBool::new(false),
            is_unwritten: AtomicBool::new(false),
            ended_watches: RwLock::default(),
        }
    }

    /// The opening as it was recorded.
    pub fn record(&self) -> &Opening {
        &self.record
    }

    /// The step, as lines name it.
    pub fn principal(&self) -> Arc<WorkflowPath> {
        Arc::clone(&self.principal)
    }

    /// The opening, with the certificates that it has now.
    pub(super) fn present(&self) -> Opening {
        Opening { certificates: self.certificates.read().clone(), ..self.record.clone() }
    }

    /// Whether the opening is closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Checks that a request under this certificate is accepted now. Called for every request, because connections
    /// outlive certificates and openings.
    ///
    /// # Errors
    /// Why the request is not accepted.
    pub fn accepts(&self, certificate: &[u8; 32], now: Timestamp) -> Result<(), NotAccepted> {
        if self.is_closed() || now >= self.record.expire_time {
            return Err(NotAccepted::NotOpen);
        }
        let certificates = self.certificates.read();
        let pinned = certificates.iter().find(|pinned| pinned.sha256 == *certificate);
        match pinned {
            Some(pinned) if now < pinned.not_after => Ok(()),
            Some(_) => Err(NotAccepted::CertificateExpired),
            None => Err(NotAccepted::CertificateUnknown),
        }
    }

    /// Checks that no operator has revoked the lease of a Watch's last delivery; `None` before the first.
    ///
    /// # Errors
    /// [`WatchEnded`] if an operator has.
    pub fn check_watch(&self, last: Option<Id>) -> Result<(), WatchEnded> {
        match last.is_some_and(|lease| self.ended_watches.read().contains(&lease)) {
            true => Err(WatchEnded),
            false => Ok(()),
        }
    }

    /// Ends the Watches whose last deliveries are under these leases.
    pub(super) fn end_watches(&self, leases: &[Id]) {
        self.ended_watches.write().extend(leases);
    }

    /// Waits until the opening is closed.
    pub fn ended(&self) -> WaitForCancellationFutureOwned {
        self.ended.clone().cancelled_owned()
    }

    /// Whether the newest certificate may be missing in the step's directory.
    pub fn is_certificate_unwritten(&self) -> bool {
        self.is_unwritten.load(Ordering::Acquire)
    }

    /// Notes that the newest certificate is in the step's directory.
    pub fn certificate_written(&self) {
        self.is_unwritten.store(false, Ordering::Release);
    }

    /// The certificate that was issued last.
    pub fn newest_certificate(&self) -> Option<PinnedCertificate> {
        self.certificates.read().last().cloned()
    }

    /// Takes in a renewed certificate, which is not in the step's directory yet.
    pub(super) fn take_certificate(&self, certificate: PinnedCertificate) {
        self.certificates.write().push(certificate);
        self.mark_unwritten();
    }

    pub(super) fn mark_unwritten(&self) {
        self.is_unwritten.store(true, Ordering::Release);
    }

    /// Closes the opening for all who hold it.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.ended.cancel();
    }
}
