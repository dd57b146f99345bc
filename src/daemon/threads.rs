//! The daemon's threads.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::identity::Handshakes;

/// How long threads are waited for when everything is drained.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Runtimes of their own for what must not keep each other waiting.
pub(super) struct Threads {
    /// Where steps are served.
    pub(super) steps: Runtime,
    /// Where the handshakes of steps are made that are too many at a time for where they are served.
    handshakes: Runtime,
    /// The admin door, and health: a disk that hangs can still be reported.
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

    /// Where the handshakes of steps are made: at most half of the threads that serve steps make any.
    pub(super) fn handshakes(&self) -> Handshakes {
        let few = self.handshakes.metrics().num_workers();
        Handshakes::new(few, self.handshakes.handle().clone())
    }

    /// What is still there now has had its time.
    pub(super) fn shut_down(self) {
        for runtime in [self.handshakes, self.steps, self.admin] {
            runtime.shutdown_timeout(LAST_MOMENT);
        }
    }
}
