//! The program as a process of its own.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use tonic::Status;
use tonic::transport::Channel;

use super::{identity_in, open_request};

/// A new directory, with a path that is short enough for sockets.
pub fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("kh").tempdir().unwrap()
}

/// The output of a program as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The program under test, without a broker in its environment.
pub fn keyhatch(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyhatch"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KEYHATCH_") {
            command.env_remove(name);
        }
    }
    command
}

/// The program with a state directory and a runtime directory below `directory`.
pub fn keyhatch_in(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = keyhatch(arguments);
    command.env("KEYHATCH_STATE", directory.join("state"));
    command.env("KEYHATCH_RUNTIME", directory.join("run"));
    command
}

/// The stdout of a program that must have succeeded.
#[track_caller]
pub fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Restores a backup below `directory`, with the KEK of the broker that made it. Returns the arguments that name the KEK.
pub fn restored(directory: &Path, archive: &Path, kek: &Path) -> [String; 2] {
    let kek = ["--kek-file".to_owned(), kek.display().to_string()];
    let restore = ["restore", archive.to_str().unwrap(), &kek[0], &kek[1]];
    succeeded(&keyhatch_in(directory, &restore).output().unwrap());
    kek
}

/// A channel to a step's socket with the identity in the step's directory.
pub async fn step_channel(directory: &Path) -> Channel {
    channel(&directory.join("keyhatch.sock"), identity_in(directory)).await.unwrap()
}

/// Asserts that a message has all these parts.
#[track_caller]
pub fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part}: {message}");
    }
}

/// Makes a state directory below `directory`.
pub fn init_in(directory: &Path) {
    succeeded(&keyhatch_in(directory, &["init"]).output().unwrap());
}

/// A new directory with a state directory in it.
pub fn init_dir() -> tempfile::TempDir {
    let directory = temp_dir();
    init_in(directory.path());
    directory
}

/// Runs the command by a line of a shell, which has it as "$0" "$@". Only a shell can set some limits and masks.
pub fn by_shell(line: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.stdin(Stdio::null());
    shell
}

/// A PATH that has the program.
pub fn path_with_binary() -> std::ffi::OsString {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_keyhatch"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = binary.parent().map(Path::to_owned);
    std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path))).unwrap()
}

/// Copies the program to this path, where other users may run it. Another process writes the copy: a file that is open
/// for writing cannot be executed, and children of other tests would inherit an open file.
pub fn copy_binary(to: &Path) {
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_keyhatch")).arg(to).status().unwrap();
    assert!(copied.success());
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Waits until the condition is true, for at most 20 seconds.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    // The tries are counted, not timed. The pause leaves the processor to the awaited work.
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("still waiting: {what}");
}

/// A `keyhatch serve` process, killed when dropped.
pub struct ServeProcess {
    child: Child,
    directory: PathBuf,
}

impl ServeProcess {
    /// Makes the broker if `directory` has no state, and serves it. The daemon is ready when this returns.
    pub fn start(directory: &Path) -> Self {
        if !directory.join("state").exists() {
            init_in(directory);
        }
        Self::spawn(directory, keyhatch_in(directory, &["serve"]))
    }

    /// Serves by this command.
    pub fn spawn(directory: &Path, mut command: Command) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.join("log"));
        let child = command.stderr(log.unwrap()).spawn().unwrap();
        let serving = Self { child, directory: directory.to_owned() };
        wait_until("the daemon is ready", || serving.run(&["status"]).status.success());
        serving
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        keyhatch_in(&self.directory, arguments).output().unwrap()
    }

    /// The stdout of a command that must succeed.
    #[track_caller]
    pub fn must(&self, arguments: &[&str]) -> String {
        succeeded(&self.run(arguments))
    }

    /// A channel to the admin socket with an identity of the state directory: `operators/admin` or
    /// `executors/local`.
    pub async fn admin(&self, identity: &str) -> Channel {
        let identity = identity_in(&self.directory.join("state").join(identity));
        channel(&self.directory.join("run/admin.sock"), identity).await.unwrap()
    }

    /// Opens a step as the local executor.
    pub async fn open(&self, workflow: &str, step: &str) -> Result<pb::OpenedStep, Status> {
        let mut executor = ExecutorServiceClient::new(self.admin("executors/local").await);
        let opened = executor.open_step(open_request(workflow, step)).await;
        opened.map(tonic::Response::into_inner)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap()
    }

    /// The address of its metrics listener, from the log.
    pub fn metrics_address(&self) -> SocketAddr {
        // The doors open a moment earlier than the listener.
        wait_until("the address is taken", || self.log().contains("metrics are served at"));
        let log = self.log();
        let line = log.lines().rfind(|line| line.contains("metrics are served at")).unwrap();
        line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// A field of proc_pid_status(5), such as `VmHWM:`, in KiB.
    pub fn memory(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The processor time that the daemon has used, in clock ticks of 10 ms: USER_HZ, which Linux never changes
    /// (proc(5)).
    pub fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Kills the daemon with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends the daemon with SIGABRT. Returns its exit status.
    pub fn abort(mut self) -> ExitStatus {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::ABORT).unwrap();
        self.child.wait().unwrap()
    }

    /// Ends the daemon with SIGTERM. True if it exits with success.
    pub fn terminate(mut self) -> bool {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for ServeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
