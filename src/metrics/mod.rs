//! Counters of the daemon, and their text in the format of OpenMetrics, which Prometheus reads. The only room that knows
//! prometheus_client.
//!
//! ```text
//! a request ends ─ a few relaxed additions, no lock, no heap block        `Method`
//! a scrape       ─ reads the counters, adds the gauges, encodes           `text`
//! ```
//!
//! No client can choose the value of a label, and the number of values is bounded: methods are those of the protos, reasons
//! are words of the program ([`LabelCounters`]). Connections, groups, workflows, runs and steps are in no label.

mod classic;
mod endpoint;
mod label_counters;
mod text;

use std::sync::Arc;

pub use classic::classic;
pub use endpoint::{EndpointMetrics, Method};
pub use label_counters::LabelCounters;
pub use text::{Gauge, Unit, text};

/// Everything that is counted.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The counters of the step door: all sockets of steps together.
    pub steps: Arc<EndpointMetrics>,
    /// The counters of the admin door.
    pub admin: Arc<EndpointMetrics>,
}

impl Metrics {
    /// For doors with these methods, each as "package.Service/Method".
    pub fn new(steps: Vec<String>, admin: Vec<String>) -> Self {
        let door = |name, methods| Arc::new(EndpointMetrics::new(name, methods));
        Self { steps: door("steps", steps), admin: door("admin", admin) }
    }

    fn doors(&self) -> [&EndpointMetrics; 2] {
        [&self.steps, &self.admin]
    }
}
