//! The daemon's runtimes.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::identity::Handshakes;

/// How long to wait for the threads of a runtime after the drain.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// A runtime for each kind of work that must not delay the others.
pub(super) struct Threads {
    /// Serves steps.
    pub(super) steps: Runtime,
    /// Makes the handshakes of steps that come in crowds.
    handshakes: Runtime,
    /// Serves the admin door and health, so that a hanging disk can still be reported.
    pub(super) admin: Runtime,
}

impl Threads {
    pub(super) fn start() -> std::io::Result<Self> {
        let start = |name: &str, count: Option<usize>| {
            let mut builder = Builder::new_multi_thread();
            if let Some(count) = count {
                builder.worker_threads(count);
            }
            builder.thread_name(name).enable_all().build()
        };
        let steps = start("step-door", None)?;
        let half = steps.metrics().num_workers().div_ceil(2);
        Ok(Self {
            handshakes: start("handshakes", Some(half))?,
            admin: start("admin-door", Some(2))?,
            steps,
        })
    }

    /// The threads that make handshakes of steps: half as many as serve steps.
    pub(super) fn handshakes(&self) -> Handshakes {
        let few = self.handshakes.metrics().num_workers();
        Handshakes::new(few, self.handshakes.handle().clone())
    }

    /// All runtimes.
    pub(super) fn all(&self) -> [&Runtime; 3] {
        [&self.handshakes, &self.steps, &self.admin]
    }

    /// Ends all threads, after at most a second each.
    pub(super) fn shut_down(self) {
        for runtime in [self.handshakes, self.steps, self.admin] {
            runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        }
    }
}
