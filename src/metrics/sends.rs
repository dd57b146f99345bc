//! The counters of the requests that the broker has sent for steps.

use std::sync::atomic::{AtomicU64, Ordering};

use super::endpoint::OK;
use super::label_counters::LabelCounters;

/// The counters of all exchanges with upstreams for steps.
#[derive(Debug)]
pub struct SendMetrics {
    pub(super) outcomes: LabelCounters,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl Default for SendMetrics {
    fn default() -> Self {
        let outcomes = LabelCounters::default();
        outcomes.expect(&[OK, "UPSTREAM_UNAVAILABLE"]);
        Self { outcomes, sent_bytes: AtomicU64::new(0), received_bytes: AtomicU64::new(0) }
    }
}

impl SendMetrics {
    /// Counts an exchange that has ended: complete, or for a reason of the API; with the bytes of both bodies.
    pub fn end(&self, fault: Option<&'static str>, sent: u64, received: u64) {
        self.outcomes.count(fault.unwrap_or(OK));
        self.sent_bytes.fetch_add(sent, Ordering::Relaxed);
        self.received_bytes.fetch_add(received, Ordering::Relaxed);
    }

    /// The bytes of bodies by their direction.
    pub(super) fn bytes(&self) -> [(&'static str, u64); 2] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [("sent", read(&self.sent_bytes)), ("received", read(&self.received_bytes))]
    }
}
