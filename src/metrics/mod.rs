//! Counters of the daemon, and their text in the format of OpenMetrics, which Prometheus reads. The only room that knows
//! prometheus_client.
//!
//! ```text
//! a request ends ─ a few relaxed additions, no lock, no heap block        `Method`
//! a scrape       ─ reads the counters, adds the gauges, encodes           `text`
//! ```
//!
//! No client can choose the value of a label, and the number of values is bounded: methods are those of the protos, reasons
//! are words of the program ([`LabelCounters`]), and so are the sources of minted credentials. Connections, groups, workflows, runs and steps are in no label.

mod classic;
mod endpoint;
mod label_counters;
mod mints;
mod sends;
mod text;

use std::sync::Arc;

pub use classic::classic;
pub use endpoint::{EndpointMetrics, Method};
pub use label_counters::LabelCounters;
pub use mints::{EndingOutcome, MintLookup, MintMetrics};
pub use sends::SendMetrics;
pub use text::{Gauge, Unit, text};

/// Everything that is counted.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The counters of the step door: all sockets of steps together.
    pub steps: Arc<EndpointMetrics>,
    /// The counters of the admin door.
    pub admin: Arc<EndpointMetrics>,
    /// The counters of minted credentials.
    pub mints: Arc<MintMetrics>,
    /// The counters of requests that the broker has sent for steps.
    pub sends: Arc<SendMetrics>,
}

impl Metrics {
    /// For doors with these methods, each as "package.Service/Method", and for these sources of minted credentials.
    pub fn new(
        steps: Vec<String>,
        admin: Vec<String>,
        sources: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let door = |name, methods| Arc::new(EndpointMetrics::new(name, methods));
        let mints = Arc::new(MintMetrics::new(sources));
        Self {
            steps: door("steps", steps),
            admin: door("admin", admin),
            mints,
            sends: Arc::default(),
        }
    }

    fn doors(&self) -> [&EndpointMetrics; 2] {
        [&self.steps, &self.admin]
    }
}
