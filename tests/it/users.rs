//! The daemon as a user of its own, as under systemd: root, executors and steps are others.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::{ServeProcess, keyhatch_in, skipped};

/// The daemon's user.
const DAEMON: u32 = 54_311;
/// An executor's user.
const EXECUTOR: u32 = 54_312;
/// Whom a step is for.
const STEP: u32 = 65_534;

/// A broker of another user's than root.
struct World {
    directory: tempfile::TempDir,
    binary: PathBuf,
    _serving: ServeProcess,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn give(path: &Path, uid: u32, mode: u32) {
    chown(path, Some(uid), Some(uid)).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The same program where every user finds it, with the same variables.
fn lent(binary: &Path, command: &Command) -> Command {
    let mut lent = Command::new(binary);
    lent.args(command.get_args()).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    lent.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    lent.current_dir("/");
    lent
}

impl World {
    /// Nothing if this is not root, who alone can be several users.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skipped("a daemon of another user", "needs root");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
        let binary = directory.path().join("keyhatch");
        // By another process: a child that this one forks meanwhile would hold the file open to write.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_keyhatch")).arg(&binary).status();
        assert!(copied.unwrap().success());
        give(&binary, 0, 0o755);
        give(directory.path(), DAEMON, 0o755);
        let by_daemon = |arguments: &[&str]| {
            let mut command = lent(&binary, &keyhatch_in(directory.path(), arguments));
            command.uid(DAEMON).gid(DAEMON);
            command
        };
        let made = by_daemon(&["init"]).output().unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        let mut serve = by_daemon(&["serve"]);
        serve.env("KEYHATCH_ADMIN_GROUP", DAEMON.to_string());
        let serving = ServeProcess::spawn(directory.path(), serve);
        Some(Self { binary, _serving: serving, directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn by(&self, uid: u32, arguments: &[&str]) -> Command {
        let mut command = lent(&self.binary, &keyhatch_in(self.directory.path(), arguments));
        if uid != 0 {
            command.uid(uid).gid(DAEMON);
        }
        command
    }

    /// The answer of a command that succeeds.
    #[track_caller]
    fn answer(&self, mut command: Command) -> String {
        let ran: Output = command.output().unwrap();
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        text(&ran.stdout)
    }

    /// An executor of another user's, as that user has its identity.
    fn executor(&self) -> PathBuf {
        let identity = self.path("identity");
        let mut add = self.by(0, &["executor", "add", "ci", "--workflow", "*"]);
        add.arg("--out").arg(&identity);
        self.answer(add);
        for entry in std::fs::read_dir(&identity).unwrap() {
            chown(entry.unwrap().path(), Some(EXECUTOR), Some(EXECUTOR)).unwrap();
        }
        give(&identity, EXECUTOR, 0o700);
        identity
    }
}

const RUN: [&str; 8] = ["step", "run", "--workflow", "w", "--run", "1", "--step", "s"];
const NAME: &str = "spiffe://keyhatch.local/workflow/w/run/1/step/s\n";

#[test]
fn a_step_is_for_the_user_who_runs_it() {
    let Some(world) = World::new() else { return };
    let whoami = [&RUN[..], &["--", "keyhatch", "whoami", "-o", "name"]].concat();
    assert_eq!(world.answer(world.by(0, &whoami)), NAME);
    let mut own = world.by(DAEMON, &whoami);
    own.env_remove("KEYHATCH_DIR");
    assert_eq!(world.answer(own), NAME);
    let mut executors = world.by(EXECUTOR, &whoami);
    executors.env("KEYHATCH_DIR", world.executor());
    assert_eq!(world.answer(executors), NAME);
    // Opened by hand and used where it is, it is the same.
    let open =
        ["step", "open", "--workflow", "w", "--run", "2", "--step", "s", "--mount-path", "host"];
    let opened = world.answer(world.by(0, &[&open[..], &["-o", "json"]].concat()));
    let opened: serde_json::Value = serde_json::from_str(&opened).unwrap();
    let mut whoami = world.by(0, &["whoami"]);
    whoami.env("KEYHATCH_DIR", opened["directory"].as_str().unwrap());
    assert!(world.answer(whoami).contains("run/2"));
}

#[test]
fn step_run_becomes_the_user_that_it_is_told() {
    let Some(world) = World::new() else { return };
    let script =
        "id -u; id -G; grep ^CapEff: /proc/self/status; echo $USER $HOME; keyhatch whoami -o name";
    let uid = STEP.to_string();
    let switched = ["--uid", &uid, "--switch", "--", "sh", "-c", script];
    let told = world.answer(world.by(0, &[&RUN[..], &switched].concat()));
    let by_system =
        |line: &str| text(&Command::new("sh").args(["-c", line]).output().unwrap().stdout);
    let groups = by_system(&format!("id -G {STEP}"));
    let account = by_system(&format!("getent passwd {STEP} | awk -F: '{{print $1, $6}}'"));
    let expected = format!("{STEP}\n{groups}CapEff:\t0000000000000000\n{account}{NAME}");
    assert_eq!(told, expected);
    // A user without an account has no group of root's.
    let unknown = ["--uid", "54399", "--switch", "--", "sh", "-c", "id -u; id -G"];
    assert_eq!(world.answer(world.by(0, &[&RUN[..], &unknown].concat())), "54399\n54399\n");
    // Nothing is opened that could not be run.
    let executor = world.executor();
    for (by, uid) in [(EXECUTOR, "54399"), (0, "any")] {
        let refused = ["--uid", uid, "--switch", "--", "true"];
        let mut refused = world.by(by, &[&RUN[..], &refused].concat());
        let refused = refused.env("KEYHATCH_DIR", &executor).output().unwrap();
        assert_eq!(refused.status.code(), Some(125));
        assert!(
            text(&refused.stderr).contains("error: USAGE: --switch "),
            "{}",
            text(&refused.stderr)
        );
    }
}
