//! Without free file descriptors the admin door still answers, the daemon does not spin, and it recovers when
//! descriptors are back.

use std::path::{Path, PathBuf};

use keyhatch::grpc::client::channel;
use keyhatch::identity::{TlsClientStream, connect};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::harness::{
    ServeProcess, identity_in, init_in, keyhatch_in, reason, report, resolve_on, temp_dir, text,
    wait_until,
};

const TICKS_A_SECOND: f64 = 100.0;

/// A daemon as a process, and its executor.
struct World {
    directory: tempfile::TempDir,
    serving: ServeProcess,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn start(files: Option<u64>) -> Self {
        let directory = temp_dir();
        init_in(directory.path());
        let serve = keyhatch_in(directory.path(), &["serve"]);
        let serve = match files {
            None => serve,
            Some(files) => {
                let mut shell = std::process::Command::new("sh");
                shell.arg("-c").arg(format!("ulimit -n {files} && exec \"$0\" serve"));
                shell.arg(serve.get_program()).stdin(std::process::Stdio::null());
                shell.env_clear();
                for (name, value) in serve.get_envs() {
                    if let Some(value) = value {
                        shell.env(name, value);
                    }
                }
                shell
            }
        };
        let serving = ServeProcess::spawn(directory.path(), serve);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { directory, serving, runtime }
    }

    fn open(&self, step: &str) -> Result<PathBuf, tonic::Status> {
        let opened = self.runtime.block_on(self.serving.open("w", step));
        opened.map(|opened| opened.directory.into())
    }

    fn connect(&self, step: &Path) -> Option<TlsClientStream> {
        let (socket, identity) = (step.join("keyhatch.sock"), identity_in(step));
        self.runtime.block_on(connect(&socket, &identity)).ok()
    }

    /// True if a step is served. The refusal of its request takes a connection and a decision.
    fn is_served(&self, step: &Path) -> bool {
        let answered = self.runtime.block_on(async {
            let channel = channel(&step.join("keyhatch.sock"), identity_in(step)).await.ok()?;
            Some(resolve_on(channel, crate::harness::request("aws/prod")).await)
        });
        answered.is_some_and(|answer| reason(answer) == "RESOLVE_DENIED")
    }

    fn open_files(&self) -> u64 {
        let pid = self.serving.pid().as_raw_nonzero();
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count().try_into().unwrap()
    }

    fn set_limit(&self, current: u64) {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: Some(current), maximum };
        prlimit(Some(self.serving.pid()), Resource::Nofile, limit).unwrap();
    }
}

#[test]
fn steps_with_every_descriptor_leave_the_admin_door_its_own() {
    let world = World::start(Some(256));
    let steps: Vec<_> = (0..8).map(|number| world.open(&format!("s{number}")).unwrap()).collect();
    // Sixteen connections are more than a step may have: two of its own, and a quarter of the shared ones.
    let held: Vec<_> = steps
        .iter()
        .flat_map(|step| (0..16).map(|_| world.connect(step)).collect::<Vec<_>>())
        .collect();
    let connected = held.iter().flatten().count();
    assert!((16..32).contains(&connected), "{connected}");
    assert!(held.last().unwrap().is_none());
    let status = world.serving.run(&["status"]);
    assert!(status.status.success(), "{}", text(&status.stderr));
    // Steps are opened until no descriptors would be left for the next one.
    let mut opened = steps.len();
    let refused = loop {
        match world.open(&format!("more{opened}")) {
            Ok(_) => opened += 1,
            Err(status) => break status,
        }
        assert!(opened < 256);
    };
    assert_eq!(reason::<()>(Err(refused)), "TOO_MANY_STEPS");
    world.serving.must(&["status"]);
    assert!(!world.is_served(steps.last().unwrap()));
    drop(held);
    wait_until("steps are served again", || world.is_served(steps.last().unwrap()));
    report(
        "file descriptors taken by steps until none is given (ulimit -n 256)",
        format!("{connected} connections, {opened} steps"),
        "admin door answers; steps served again when given back",
        "-",
    );
}

#[expect(clippy::disallowed_methods, reason = "a share of a processor is by the real time")]
#[test]
fn without_descriptors_the_daemon_neither_spins_nor_floods_logs() {
    let world = World::start(None);
    let steps: Vec<_> = (0..30).map(|number| world.open(&format!("s{number}")).unwrap()).collect();
    // Open files stay open, and no more can be opened.
    world.set_limit(world.open_files());
    let sockets = steps.iter().map(|step| step.join("keyhatch.sock"));
    let sockets = sockets.chain([world.directory.path().join("run/admin.sock")]);
    let waiting: Vec<_> =
        sockets.map(|socket| std::os::unix::net::UnixStream::connect(socket).unwrap()).collect();
    let complaints = || world.serving.log().matches("cannot be accepted").count();
    wait_until("it complains", || complaints() > 0);
    let (ticks, began) = (world.serving.ticks(), std::time::Instant::now());
    wait_until("it has complained for a while", || complaints() >= 30);
    let elapsed = began.elapsed();
    let burnt = (world.serving.ticks() - ticks) as f64 / TICKS_A_SECOND / elapsed.as_secs_f64();
    // A spinning loop uses a whole processor, or two.
    assert!(burnt < 0.2, "{burnt}");
    let told = complaints();
    assert!(told as f64 <= 20.0 + 11.0 * elapsed.as_secs_f64(), "{told} in {elapsed:?}");
    drop(waiting);
    world.set_limit(getrlimit(Resource::Nofile).maximum.unwrap_or(1024));
    wait_until("steps are served again", || steps.iter().all(|step| world.is_served(step)));
    report(
        "processor time out of file descriptors, 31 sockets with a client waiting",
        format!("{:.1} s", elapsed.as_secs_f64()),
        format!("{:.1} % of a processor; recovers by itself", burnt * 100.0),
        "tonic's own loop: 99 %",
    );
}
