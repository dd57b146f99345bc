//! The daemon runs as its own user, as under systemd. Root, executors and steps are other users.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::{ServeProcess, keyhatch_in, skipped, succeeded, temp_dir, text};

/// The daemon's user.
const DAEMON: u32 = 54_311;
/// An executor's user.
const EXECUTOR: u32 = 54_312;
/// A step's user.
const STEP: u32 = 65_534;

/// A broker whose daemon is not root.
struct World {
    directory: tempfile::TempDir,
    binary: PathBuf,
    _serving: ServeProcess,
}

fn give(path: &Path, uid: u32, mode: u32) {
    chown(path, Some(uid), Some(uid)).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The command with a program that every user can run.
fn lent(binary: &Path, command: &Command) -> Command {
    let mut lent = Command::new(binary);
    lent.args(command.get_args()).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    lent.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    lent.current_dir("/");
    lent
}

impl World {
    /// `None` without root, because only root can be several users.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skipped("a daemon of another user", "needs root");
            return None;
        }
        let directory = temp_dir();
        let binary = directory.path().join("keyhatch");
        // Another process writes the copy, because a child of this process would hold the file open for writing.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_keyhatch")).arg(&binary).status();
        assert!(copied.unwrap().success());
        give(&binary, 0, 0o755);
        give(directory.path(), DAEMON, 0o755);
        let by_daemon = |arguments: &[&str]| {
            let mut command = lent(&binary, &keyhatch_in(directory.path(), arguments));
            command.uid(DAEMON).gid(DAEMON);
            command
        };
        succeeded(&by_daemon(&["init"]).output().unwrap());
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

    /// The stdout of a command that must succeed.
    #[track_caller]
    fn answer(&self, mut command: Command) -> String {
        let ran: Output = command.output().unwrap();
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        text(&ran.stdout)
    }

    /// Registers an executor of another user. Returns the directory of its identity.
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
fn a_step_belongs_to_the_user_that_runs_it() {
    let Some(world) = World::new() else { return };
    let whoami = [&RUN[..], &["--", "keyhatch", "whoami", "-o", "name"]].concat();
    assert_eq!(world.answer(world.by(0, &whoami)), NAME);
    let mut own = world.by(DAEMON, &whoami);
    own.env_remove("KEYHATCH_DIR");
    assert_eq!(world.answer(own), NAME);
    let mut executors = world.by(EXECUTOR, &whoami);
    executors.env("KEYHATCH_DIR", world.executor());
    assert_eq!(world.answer(executors), NAME);
    // A step that is opened by hand and used in place behaves the same.
    let open =
        ["step", "open", "--workflow", "w", "--run", "2", "--step", "s", "--mount-path", "host"];
    let opened = world.answer(world.by(0, &[&open[..], &["-o", "json"]].concat()));
    let opened: serde_json::Value = serde_json::from_str(&opened).unwrap();
    let mut whoami = world.by(0, &["whoami"]);
    whoami.env("KEYHATCH_DIR", opened["directory"].as_str().unwrap());
    assert!(world.answer(whoami).contains("run/2"));
}

#[test]
fn step_run_becomes_the_given_user() {
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
    // A user without an account gets no group of root.
    let unknown = ["--uid", "54399", "--switch", "--", "sh", "-c", "id -u; id -G"];
    assert_eq!(world.answer(world.by(0, &[&RUN[..], &unknown].concat())), "54399\n54399\n");
    // A step that could not run is not opened.
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

#[test]
fn a_step_of_another_user_has_nothing_of_roots_environment() {
    let Some(world) = World::new() else { return };
    let kept = ["KEPT", "LANG", "LC_TIME", "TERM", "TZ"];
    let environment = |options: &[&str]| {
        let words = [&["--uid", "54399", "--switch"], options, &["--", "env", "-0"]].concat();
        let mut command = world.by(0, &[&RUN[..], &words].concat());
        command.envs(kept.map(|name| (name, "kept")));
        for (name, value) in [
            ("HOME", "/root"),
            ("USER", "root"),
            ("AWS_SECRET_ACCESS_KEY", "hush"),
            ("SSH_AUTH_SOCK", "/run/root"),
            ("XDG_RUNTIME_DIR", "/run/user/0"),
        ] {
            command.env(name, value);
        }
        let told = world.answer(command);
        let mut told: Vec<_> = told.split_terminator('\0').map(str::to_owned).collect();
        told.retain(|line| !line.starts_with("PATH="));
        told.sort();
        let (steps, others): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|line| line.starts_with("KEYHATCH_"));
        assert!(steps.iter().any(|line| line.starts_with("KEYHATCH_DIR=")), "{steps:?}");
        assert!(!steps.iter().any(|line| line.starts_with("KEYHATCH_STATE=")), "{steps:?}");
        others
    };
    let own = ["HOME=/", "LOGNAME=54399", "SHELL=/bin/sh", "USER=54399"];
    let with = |names: &[&str]| {
        let kept = names.iter().map(|name| format!("{name}=kept"));
        let mut all: Vec<_> = kept.chain(own.map(str::to_owned)).collect();
        all.sort();
        all
    };
    assert_eq!(environment(&[]), with(&kept[1..]));
    let preserved = ["--preserve-env", "KEPT", "--preserve-env", "KEYHATCH_STATE"];
    assert_eq!(environment(&preserved), with(&kept));
}

#[test]
fn root_gives_files_in_a_users_directory_to_that_user() {
    let Some(world) = World::new() else { return };
    // Only root can replace a home directory.
    let homes = temp_dir();
    give(homes.path(), 0, 0o755);
    let home = homes.path().join("home");
    std::fs::create_dir(&home).unwrap();
    give(&home, EXECUTOR, 0o700);
    let mut request = world.by(EXECUTOR, &["operator", "request", "--name", "op2", "-o", "name"]);
    let csr = world.answer(std::mem::replace(request.env("HOME", &home), Command::new("true")));
    let add = ["operator", "add", "op2", "--role", "operator", "--csr", csr.trim_end()];
    world.answer(world.by(0, &add));
    let made = home.join("made");
    let add = ["executor", "add", "ci", "--workflow", "*", "--out", made.to_str().unwrap()];
    world.answer(world.by(0, &add));
    let mut list = world.by(EXECUTOR, &["connection", "list"]);
    list.env("HOME", &home).env_remove("KEYHATCH_STATE");
    world.answer(list);
    let others = ["-c", "find \"$0\" ! -uid \"$1\""];
    let mut others = by_sh(&others);
    others.arg(&home).arg(EXECUTOR.to_string());
    assert_eq!(text(&others.output().unwrap().stdout), "");
}

fn by_sh(arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(arguments);
    command
}

#[test]
fn a_backup_is_restored_for_the_owner_of_the_directory() {
    let Some(world) = World::new() else { return };
    let archive = world.path("archive");
    world.answer(world.by(0, &["backup", archive.to_str().unwrap()]));
    let restored = world.path("restored");
    std::fs::create_dir(&restored).unwrap();
    give(&restored, DAEMON, 0o700);
    let kek = world.path("state/kek");
    let mut restore = world.by(0, &["restore", archive.to_str().unwrap()]);
    restore.arg("--kek-file").arg(&kek).env("KEYHATCH_STATE", &restored);
    world.answer(restore);
    let mut others = by_sh(&["-c", "find \"$0\" ! -uid \"$1\""]);
    others.arg(&restored).arg(DAEMON.to_string());
    assert_eq!(text(&others.output().unwrap().stdout), "");
    // The message for a KEK without a directory names the next step.
    let missing = world.path("missing/kek");
    let rotate = |file: &Path| {
        let mut rotate = world.by(0, &["key", "rotate", "--offline"]);
        rotate.arg("--kek-file").arg(file).arg("--old-kek-file").arg(&kek);
        rotate.env("KEYHATCH_STATE", &restored).output().unwrap()
    };
    let told = text(&rotate(&missing).stderr);
    let way = format!("install -d -m 0700 -o {DAEMON} {}", world.path("missing").display());
    assert!(told.contains("No such file") && told.contains(&way), "{told}");
    std::fs::create_dir(world.path("missing")).unwrap();
    let told = text(&rotate(&missing).stderr);
    assert!(told.contains("Permission denied") && told.contains(&way), "{told}");
    assert!(by_sh(&["-c", &way]).status().unwrap().success());
    succeeded(&rotate(&missing));
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&missing).unwrap()), DAEMON);
}

#[test]
fn init_warns_a_user_without_a_runtime_directory() {
    let Some(world) = World::new() else { return };
    let state = world.path("other");
    let init = |runtime: Option<&Path>| {
        let mut init = world.by(DAEMON, &["init"]);
        init.env("KEYHATCH_STATE", &state).env_remove("KEYHATCH_RUNTIME");
        runtime.map(|path| init.env("XDG_RUNTIME_DIR", path));
        let made = init.output().unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        std::fs::remove_dir_all(&state).unwrap();
        text(&made.stderr)
    };
    let told = init(None);
    assert!(told.contains("XDG_RUNTIME_DIR") && told.contains(" --runtime DIR"), "{told}");
    let told = init(Some(world.directory.path()));
    assert!(!told.contains("--runtime"), "{told}");
}
