//! The daemon's runtimes.

use std::thread::available_parallelism;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::identity::Handshakes;

/// How long to wait for the threads of a runtime after the drain.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// A runtime for each kind of work that must not delay the others.
pub(super) struct Threads {
    /// Serve steps, a thread each. A connection stays on its thread: a request, its reply and the next read of the
    /// connection never wake another thread. Each has a [spare thread](Self::keep_spares), too.
    pub(super) steps: Vec<Runtime>,
    /// Makes the handshakes of steps that come in crowds.
    handshakes: Runtime,
    /// Waits for the upstreams that make credentials.
    pub(super) mints: Runtime,
    /// Passes on what upstreams answer to the requests of steps, as fast as they do. Half of the cores are left to others.
    pub(super) sends: Runtime,
    /// Serves the admin door and health, so that a hanging disk can still be reported.
    pub(super) admin: Runtime,
    /// Accepts operators over TCP, and makes their handshakes; `None` if nothing listens there.
    pub(super) tcp: Option<Runtime>,
}

impl Threads {
    pub(super) fn start(serves_tcp: bool) -> std::io::Result<Self> {
        let start = |name: &str, count: usize| {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(count).thread_name(name).enable_all().build()
        };
        let cores = available_parallelism().map_or(1, usize::from);
        Ok(Self {
            steps: (0..cores).map(|_| start("step-door", 2)).collect::<Result<_, _>>()?,
            handshakes: start("handshakes", cores.div_ceil(2))?,
            mints: start("mints", 2)?,
            sends: start("sends", cores.div_ceil(2))?,
            admin: start("admin-door", 2)?,
            tcp: serves_tcp.then(|| start("tcp-door", 1)).transpose()?,
        })
    }

    /// The threads that make handshakes of steps: half as many as serve steps.
    pub(super) fn handshakes(&self) -> Handshakes {
        let few = self.handshakes.metrics().num_workers();
        Handshakes::new(few, self.handshakes.handle().clone())
    }

    /// Keeps the spare thread of each thread that serves steps out of its work, as long as no write to the journal hangs.
    ///
    /// A write that hangs holds up its thread. The spare thread then serves the steps of that thread, which get an error.
    /// While both threads work, the runtime would share each connection's work between them.
    pub(super) fn keep_spares(&self, hangs: &watch::Receiver<bool>, stop: &CancellationToken) {
        let keep = |runtime: &Runtime| {
            let (call, called) = std::sync::mpsc::channel();
            let mut hangs = hangs.clone();
            runtime.spawn(async move {
                // This blocks a thread on purpose.
                while called.recv().is_ok() {
                    let _ = hangs.wait_for(|hangs| !hangs).await;
                }
            });
            call
        };
        let spares: Vec<_> = self.steps.iter().map(keep).collect();
        let mut hangs = hangs.clone();
        self.admin.spawn(stop.clone().run_until_cancelled_owned(async move {
            while hangs.wait_for(|hangs| *hangs).await.is_ok() {
                for spare in &spares {
                    let _ = spare.send(());
                }
                let _ = hangs.wait_for(|hangs| !hangs).await;
            }
        }));
    }

    /// All runtimes.
    pub(super) fn all(&self) -> impl Iterator<Item = &Runtime> {
        let others = [&self.handshakes, &self.mints, &self.sends, &self.admin];
        self.steps.iter().chain(others).chain(&self.tcp)
    }

    /// Ends all threads, after at most a second each.
    pub(super) fn shut_down(self) {
        let others = [self.handshakes, self.mints, self.sends, self.admin];
        for runtime in self.steps.into_iter().chain(others).chain(self.tcp) {
            runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        }
    }
}
