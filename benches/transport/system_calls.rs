//! Counts of system calls by strace. They do not depend on the speed of the machine.

use std::path::PathBuf;
use std::process::Command;

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
        let words = ["strace", "-D", "-f", "-qq", "-e", "raw=all", "-e", "signal=none", "-o", &log];
        words.map(str::to_owned).into()
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// The system calls of a server during this work, those of its other threads included.
    pub async fn count(&self, work: impl Future<Output = ()>) -> f64 {
        let before = self.all();
        work.await;
        self.all() - before
    }

    /// A call that another thread interrupts has two lines, the second with "resumed".
    fn all(&self) -> f64 {
        let log = std::fs::read(self.log()).unwrap();
        let log = String::from_utf8_lossy(&log);
        log.lines().filter(|line| !line.contains(" resumed>")).count() as f64
    }
}
