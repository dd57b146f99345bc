//! Signals of `serve` and `dev`.

use std::ops::ControlFlow;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGHUP, caught from when this is made: one that comes while the daemon loads is not lost, and ends
/// nothing. The others end a daemon that loads.
pub struct Hangup {
    runtime: Runtime,
    hangup: Signal,
}

/// SIGHUP, SIGTERM and SIGINT, caught from when this is made.
pub struct Signals {
    runtime: Runtime,
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Hangup {
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

    /// Catches the others, too: to be called before anybody is served, who could then ask for an end.
    ///
    /// # Errors
    /// If signals cannot be had.
    pub fn and_the_end(self) -> std::io::Result<Signals> {
        let Self { runtime, hangup } = self;
        let entered = runtime.enter();
        let (terminate, interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        drop(entered);
        Ok(Signals { runtime, hangup, terminate, interrupt })
    }
}

impl Signals {
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
