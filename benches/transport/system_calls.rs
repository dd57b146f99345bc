//! Counts of system calls by strace. They do not depend on the speed of the machine.

use std::path::PathBuf;
use std::process::Command;

use crate::common::Process;

/// Calls that wait, or give memory back. Their number depends on how fast the other side is.
const WAITS: &str = "epoll_wait,epoll_pwait,futex,sched_yield,nanosleep,clock_nanosleep,madvise";

/// The directory for the log of a server under strace.
pub struct Tracer {
    directory: tempfile::TempDir,
}

impl Tracer {
    /// `None` if strace is not installed.
    pub fn new() -> Option<Self> {
        let found = Command::new("strace").arg("-V").output().is_ok();
        found.then(|| Self { directory: tempfile::tempdir().unwrap() })
    }

    /// The words that run a server under strace, of which the server is no child: it is killed as ever. Only a server that
    /// was started so can be traced, since the daemon refuses debuggers.
    pub fn instrument(&self) -> Vec<String> {
        let log = self.log().display().to_string();
        let (calls, signals) = (format!("trace=!{WAITS}"), "signal=none");
        let words = ["strace", "-D", "-f", "-qq", "-e", &calls, "-e", "raw=all", "-e", signals];
        let words = words.into_iter().chain(["-o", &log]);
        words.map(str::to_owned).collect()
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// The system calls of a server's threads of this name during this work, but for those that wait. Other threads do periodic work, more of it in
    /// a longer time.
    pub async fn count(
        &self,
        server: &Process,
        threads: &str,
        work: impl Future<Output = ()>,
    ) -> f64 {
        let before = self.of(server, threads);
        work.await;
        self.of(server, threads) - before
    }

    /// A line begins with the thread's id. A call that another thread interrupts has two lines, the second with "resumed";
    /// a stop of the process has a line without a call.
    fn of(&self, server: &Process, threads: &str) -> f64 {
        let ids = server.threads_named(threads);
        let log = std::fs::read(self.log()).unwrap();
        let log = String::from_utf8_lossy(&log);
        let is_call = |line: &&str| {
            let (id, call) = line.split_once(' ').unwrap_or_default();
            ids.iter().any(|own| own == id) && !call.contains("---") && !call.contains(" resumed>")
        };
        log.lines().filter(is_call).count() as f64
    }
}
