//! A `keyhatch serve` that may serve, refuse to start, or hang.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use keyhatch::grpc::client::channel;
use keyhatch::identity::ClientIdentity;
use rustix::event::{PollFd, PollFlags, poll};
use tonic::transport::Channel;

use crate::harness::{identity_in, keyhatch_in};

/// A start or a call that takes longer counts as hanging.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A serving daemon, killed when dropped.
pub struct Serving {
    child: Child,
    stderr: ChildStderr,
    said: Vec<u8>,
    directory: PathBuf,
}

/// The outcome of a start.
pub enum Start {
    Serving(Serving),
    /// The daemon exited, with this status and stderr.
    Refused(ExitStatus, String),
    /// The daemon neither served nor exited, with this stderr.
    Hung(String),
}

impl Start {
    /// The daemon, which must serve.
    pub fn serving(self) -> Serving {
        match self {
            Self::Serving(serving) => serving,
            Self::Refused(status, said) => panic!("refused to start, {status}: {said}"),
            Self::Hung(said) => panic!("hung: {said}"),
        }
    }
}

impl Serving {
    /// Serves the state below `directory`. Returns when the daemon serves or never will.
    pub fn start(directory: &Path, env: &[(&str, OsString)]) -> Start {
        let mut command = keyhatch_in(directory, &["serve"]);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        Self::start_by(directory, command)
    }

    /// Serves by this command.
    pub fn start_by(directory: &Path, command: Command) -> Start {
        let mut serving = Self::spawn(directory, command);
        if serving.is_heard_to("serving socket") {
            return Start::Serving(serving);
        }
        match serving.child.try_wait().unwrap() {
            Some(status) => Start::Refused(status, serving.text()),
            // The daemon has closed its stderr and is about to exit, or it hangs.
            None if serving.reads_on() => Start::Hung(serving.text()),
            None => Start::Refused(serving.child.wait().unwrap(), serving.text()),
        }
    }

    /// Starts a daemon without waiting.
    pub fn spawn(directory: &Path, mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        Self { child, stderr, said: Vec::new(), directory: directory.to_owned() }
    }

    /// True if stderr has these words before the daemon exits.
    #[expect(clippy::disallowed_methods, reason = "a deadline for what hangs")]
    fn is_heard_to(&mut self, words: &str) -> bool {
        let until = Instant::now() + DEADLINE;
        loop {
            if String::from_utf8_lossy(&self.said).contains(words) {
                return true;
            }
            if Instant::now() > until || !self.hears() {
                return false;
            }
        }
    }

    /// Reads more of stderr, for at most a second. False at its end.
    fn hears(&mut self) -> bool {
        let pause = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
        let mut wait = [PollFd::new(&self.stderr, PollFlags::IN)];
        if poll(&mut wait, Some(&pause)).unwrap() == 0 {
            return true;
        }
        let mut part = [0; 4096];
        let count = self.stderr.read(&mut part).unwrap();
        self.said.extend_from_slice(&part[..count]);
        count > 0
    }

    fn reads_on(&mut self) -> bool {
        let mut wait = [PollFd::new(&self.stderr, PollFlags::IN)];
        poll(&mut wait, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 0
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    pub fn operator(&self) -> ClientIdentity {
        identity_in(&self.directory.join("state/operators/admin"))
    }

    pub fn executor(&self) -> ClientIdentity {
        identity_in(&self.directory.join("state/executors/local"))
    }

    pub async fn connect(&self, identity: ClientIdentity) -> Result<Channel, String> {
        let socket = self.directory.join("run/admin.sock");
        let connected = tokio::time::timeout(DEADLINE, channel(&socket, identity)).await;
        let connected = connected.map_err(|_| "the handshake hangs".to_owned())?;
        connected.map_err(|error| error.to_string())
    }

    /// Ends the daemon by a signal. Returns its stderr.
    pub fn end(mut self, signal: rustix::process::Signal) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, signal);
        if !self.ends() {
            self.said.extend_from_slice(b"\nit did not end when it was asked to\n");
        }
        self.text()
    }

    /// Kills the daemon with SIGKILL. Returns its stderr.
    pub fn kill(self) -> String {
        self.end(rustix::process::Signal::KILL)
    }

    /// Ends the daemon with SIGTERM. Returns its stderr.
    pub fn terminate(self) -> String {
        self.end(rustix::process::Signal::TERM)
    }

    /// Ends the daemon while clients of this runtime are connected. The clients can still read its last messages.
    pub async fn end_of_clients(self, signal: rustix::process::Signal) -> String {
        tokio::task::spawn_blocking(move || self.end(signal)).await.unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "a deadline for what hangs")]
    fn ends(&mut self) -> bool {
        let until = Instant::now() + DEADLINE;
        while self.hears() {
            if Instant::now() > until {
                return false;
            }
        }
        let status = self.child.wait().unwrap();
        // Any other end is a crash.
        if !matches!(status.signal(), None | Some(9)) {
            self.said.extend_from_slice(format!("\npanicked at: {status}\n").as_bytes());
        }
        true
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
