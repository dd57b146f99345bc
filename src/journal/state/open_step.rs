//! One open step, as the journal knows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::model::{Opening, PinnedCertificate, Timestamp, WorkflowPath};

/// Why a request is not taken for this opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// Its certificate is over.
    #[error("the certificate has expired")]
    CertificateExpired,
    /// Its certificate was not issued for this opening.
    #[error("the certificate is not one of this opening's")]
    CertificateUnknown,
    /// The step is closed, or its time is over.
    #[error("the step is not open")]
    NotOpen,
}

/// One open step. Connections hold it; closing it is seen by all of them at once.
#[derive(Debug)]
pub struct LiveOpening {
    record: Opening,
    /// The step, as lines name it.
    principal: Arc<WorkflowPath>,
    certificates: RwLock<Vec<PinnedCertificate>>,
    closed: AtomicBool,
    /// The newest certificate is journaled, but perhaps not in the step's directory.
    is_unwritten: AtomicBool,
    /// Cancelled when it is closed, for whoever waits.
    ended: CancellationToken,
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
        }
    }

    /// What was recorded when it was opened.
    pub fn record(&self) -> &Opening {
        &self.record
    }

    /// Whose workflow, run and step, as lines of the journal name it.
    pub fn principal(&self) -> Arc<WorkflowPath> {
        Arc::clone(&self.principal)
    }

    /// What was recorded, with the certificates that it has now.
    pub(super) fn present(&self) -> Opening {
        Opening { certificates: self.certificates.read().clone(), ..self.record.clone() }
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether a request under this certificate is to be taken now. It is asked at every request:
    /// connections outlive certificates and openings.
    ///
    /// # Errors
    /// Why not.
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

    /// Waits until it is closed.
    pub fn ended(&self) -> WaitForCancellationFutureOwned {
        self.ended.clone().cancelled_owned()
    }

    /// Whether the newest certificate may not be in the step's directory.
    pub fn is_certificate_unwritten(&self) -> bool {
        self.is_unwritten.load(Ordering::Acquire)
    }

    /// Says that the newest certificate is in the step's directory.
    pub fn certificate_written(&self) {
        self.is_unwritten.store(false, Ordering::Release);
    }

    /// The certificate that was issued last.
    pub fn newest_certificate(&self) -> Option<PinnedCertificate> {
        self.certificates.read().last().cloned()
    }

    /// Takes a renewed certificate in, which is not in the step's directory yet.
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
