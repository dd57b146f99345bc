//! Signals of `serve` and `dev`.

use std::ops::ControlFlow;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGHUP, caught from when this is made: one that comes while the daemon starts is not lost, and ends
/// nothing. The others end a daemon that starts.
pub struct Signals {
    runtime: Runtime,
    hangup: Signal,
}

impl Signals {
    /// Catches SIGHUP.
    ///
    /// # Errors
    /// If signals cannot be had.
    pub fn catch() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let hangup = signal(SignalKind::hangup())?;
        drop(entered);
        Ok(Self { runtime, hangup })
    }

    /// Waits for SIGTERM or SIGINT, or a SIGHUP that `on_hangup` breaks at.
    ///
    /// # Errors
    /// If signals cannot be had.
    pub fn wait(mut self, on_hangup: impl Fn() -> ControlFlow<()>) -> std::io::Result<()> {
        self.runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            loop {
                tokio::select! {
                    _ = terminate.recv() => return Ok(()),
                    _ = interrupt.recv() => return Ok(()),
                    _ = self.hangup.recv() => if on_hangup().is_break() { return Ok(()) },
                }
            }
        })
    }
}
