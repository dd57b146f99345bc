//! Signals of `serve` and `dev`.

use std::ops::ControlFlow;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Catches SIGHUP while the daemon loads, so that none is lost. SIGTERM and SIGINT still end the process.
pub struct Hangup {
    runtime: Runtime,
    hangup: Signal,
}

/// Catches SIGHUP, SIGTERM and SIGINT while the daemon serves.
pub struct Signals {
    runtime: Runtime,
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Hangup {
    /// Catches SIGHUP from now on.
    ///
    /// # Errors
    /// If the runtime or the signal handler cannot be made.
    pub fn catch() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let hangup = signal(SignalKind::hangup())?;
        drop(entered);
        Ok(Self { runtime, hangup })
    }

    /// Catches SIGTERM and SIGINT, too. Call this before the daemon serves.
    ///
    /// # Errors
    /// If a signal handler cannot be made.
    pub fn catch_termination(self) -> std::io::Result<Signals> {
        let Self { runtime, hangup } = self;
        let entered = runtime.enter();
        let (terminate, interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        drop(entered);
        Ok(Signals { runtime, hangup, terminate, interrupt })
    }
}

impl Signals {
    /// Waits for SIGTERM or SIGINT, or until `on_hangup` breaks.
    pub fn wait(mut self, on_hangup: impl Fn() -> ControlFlow<()>) {
        self.runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = self.terminate.recv() => return,
                    _ = self.interrupt.recv() => return,
                    _ = self.hangup.recv() => if on_hangup().is_break() { return },
                }
            }
        });
    }
}
