//! What is counted while the daemon serves, and how it is told: the text format of OpenMetrics, which Prometheus
//! reads. The only room that knows prometheus_client.
//!
//! ```text
//! a request ends ─ a few relaxed additions, no lock, no heap block        `Method`
//! a scrape       ─ reads the counters, adds what is so just now, encodes  `text`
//! ```
//!
//! No label is a stranger's word, and none can take on more and more values: methods are those of the protos,
//! reasons are words of the program ([`Tally`]). Connections, groups, workflows, runs and steps are in no label.

mod classic;
mod door;
mod tally;
mod text;

use std::sync::Arc;

pub use classic::classic;
pub use door::{DoorMetrics, Method};
pub use tally::Tally;
pub use text::{Gauge, Unit, text};

/// Everything that is counted.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The step door: all sockets of steps together.
    pub steps: Arc<DoorMetrics>,
    /// The admin door.
    pub admin: Arc<DoorMetrics>,
}

impl Metrics {
    /// For doors with these methods, each as "package.Service/Method".
    pub fn new(steps: Vec<String>, admin: Vec<String>) -> Self {
        let door = |name, methods| Arc::new(DoorMetrics::new(name, methods));
        Self { steps: door("steps", steps), admin: door("admin", admin) }
    }

    fn doors(&self) -> [&DoorMetrics; 2] {
        [&self.steps, &self.admin]
    }
}
