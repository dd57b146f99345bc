//! Signals of `serve` and `dev`.

use std::ops::ControlFlow;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals, caught from when this is made: none that comes while the daemon starts is lost.
pub struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches SIGTERM, SIGINT and SIGHUP, which end the process no longer.
    ///
    /// # Errors
    /// If signals cannot be had.
    pub fn catch() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let (terminate, interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let hangup = signal(SignalKind::hangup())?;
        drop(entered);
        Ok(Self { runtime, terminate, interrupt, hangup })
    }

    /// Waits for SIGTERM or SIGINT, or a SIGHUP that `on_hangup` breaks at.
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
