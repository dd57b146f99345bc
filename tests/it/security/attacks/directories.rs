//! Other users of the host act in the directories of steps and in those of the daemon.
//!
//! These tests need root, because only root can be two other users. CI runs them as root.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use keyhatch::grpc::pb;
use tempfile::TempDir;

use crate::harness::{
    ServeProcess, TestBroker, init_in, keyhatch, keyhatch_in, open_request, reason, skipped,
    succeeded, temp_dir, text, wait_until,
};

/// The step's user.
const STEP: u32 = 54_321;
/// Another user without any rights.
const THIEF: u32 = 54_322;

fn is_root(what: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skipped(what, "needs root");
    }
    is_root
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn make(path: &Path, owner: u32, mode: u32) {
    std::fs::create_dir(path).unwrap();
    chown(path, Some(owner), Some(owner)).unwrap();
    set_mode(path, mode);
}

/// A copy of the program that every user can run.
fn lend(directory: &Path) -> PathBuf {
    let binary = directory.join("keyhatch");
    // Another process writes the copy, because a child of this process would hold the file open for writing, and nobody
    // could execute it.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_keyhatch")).arg(&binary).status();
    assert!(copied.unwrap().success());
    set_mode(directory, 0o755);
    set_mode(&binary, 0o755);
    binary
}

/// The output of a line of a shell as a user, with a directory as `$D` and the program as `$K`.
fn by(uid: u32, line: &str, directory: &Path, binary: &Path) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("D", directory).env("K", binary).env("KEYHATCH_DIR", directory);
    shell.uid(uid).gid(uid).current_dir("/").output().unwrap()
}

/// The entries of a directory: names, owners, modes, contents.
fn contents(directory: &Path) -> Vec<(String, u32, u32, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let mut found: Vec<_> = entries
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            let content = std::fs::read(entry.path()).unwrap_or_default();
            let name = entry.file_name().into_string().unwrap();
            (name, metadata.uid(), metadata.mode(), content)
        })
        .collect();
    found.sort();
    found
}

const READS: [&str; 3] = ["ls \"$D\"", "cat \"$D/tls.key\"", "\"$K\" whoami"];
const CHANGES: [&str; 12] = [
    ": > \"$D/new\"",
    "mkdir \"$D/new\"",
    "ln -s / \"$D/new\"",
    "ln \"$D/env\" \"$D/new\"",
    "mv \"$D/env\" \"$D/new\"",
    "rm -f \"$D/keyhatch.sock\"",
    "chmod 0777 \"$D\"",
    "chmod 0666 \"$D/tls.key\"",
    "chmod 0666 \"$D/keyhatch.sock\"",
    "echo more >> \"$D/env\"",
    "echo > \"$D/tls.crt\"",
    "touch \"$D/tls.crt\"",
];

#[test]
fn a_steps_user_reads_and_connects_and_changes_nothing() {
    if !is_root("a step of another user") {
        return;
    }
    let mut broker = TestBroker::start();
    let binary = lend(broker.scratch());
    let request = pb::OpenStepRequest {
        uid: Some(STEP),
        ttl: Some(prost_types::Duration { seconds: 3 * 24 * 3600, nanos: 0 }),
        ..open_request("w", "s")
    };
    let opened = broker.try_open(request).unwrap();
    let directory = Path::new(&opened.directory);
    let reads = || {
        for line in READS {
            succeeded(&by(STEP, line, directory, &binary));
            let stolen = by(THIEF, line, directory, &binary);
            assert!(!stolen.status.success(), "{line}: {}", text(&stolen.stdout));
        }
    };
    reads();
    let before = contents(directory);
    assert!(before.iter().all(|(_, owner, ..)| *owner == 0), "{before:?}");
    for line in CHANGES {
        assert!(!by(STEP, line, directory, &binary).status.success(), "{line}");
    }
    assert_eq!(contents(directory), before);
    // The same holds after a renewal and after a restart.
    broker.restart();
    reads();
    broker.advance(16 * 3600);
    let is_renewed = || {
        let certificate = before.iter().find(|(name, ..)| name == "tls.crt").unwrap();
        std::fs::read(directory.join("tls.crt")).unwrap() != certificate.3
    };
    wait_until("the certificate is renewed", is_renewed);
    assert!(by(STEP, "cat \"$D/tls.crt\"", directory, &binary).status.success());
    assert!(!by(THIEF, "cat \"$D/tls.crt\"", directory, &binary).status.success());
}

#[test]
fn without_any_capability_another_users_step_is_let_in() {
    const DAEMON: u32 = 54_320;
    if !is_root("a daemon and a step of two users") {
        return;
    }
    let place = Place::new();
    let binary = lend(place.directory.path());
    for directory in [&place.state, &place.runtime] {
        make(directory, DAEMON, 0o700);
    }
    let command = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(arguments).current_dir("/").uid(DAEMON).gid(DAEMON);
        command.env("KEYHATCH_STATE", &place.state).env("KEYHATCH_RUNTIME", &place.runtime);
        command
    };
    assert!(command(INIT).output().unwrap().status.success());
    let serving = ServeProcess::spawn(place.directory.path(), command(SERVE));
    let capabilities = format!("/proc/{}/status", serving.pid().as_raw_nonzero());
    let capabilities = std::fs::read_to_string(capabilities).unwrap();
    assert!(capabilities.contains("CapEff:\t0000000000000000"), "{capabilities}");
    let names = ["step", "open", "--workflow", "w", "--run", "1", "--step", "s", "-o", "json"];
    let opened: serde_json::Value = serde_json::from_str(&succeeded(
        &command(&names).args(["--uid", &STEP.to_string()]).output().unwrap(),
    ))
    .unwrap();
    let directory = Path::new(opened["directory"].as_str().unwrap());
    let before = contents(directory);
    for line in READS {
        assert!(by(STEP, line, directory, &binary).status.success(), "{line}");
        assert!(!by(THIEF, line, directory, &binary).status.success(), "{line}");
    }
    for line in CHANGES {
        assert!(!by(STEP, line, directory, &binary).status.success(), "{line}");
    }
    assert_eq!(contents(directory), before);
    let close = ["step", "close", "--workflow", "w", "--run", "1", "--step", "s"];
    assert!(command(&close).output().unwrap().status.success());
    assert!(!directory.exists());
}

#[test]
fn a_steps_group_is_let_in_as_its_user_is() {
    if !is_root("a step of another group") {
        return;
    }
    let broker = TestBroker::start();
    let binary = lend(broker.scratch());
    let request = pb::OpenStepRequest { gid: Some(STEP), ..open_request("w", "s") };
    let opened = broker.try_open(request).unwrap();
    let directory = Path::new(&opened.directory);
    for line in READS {
        assert!(by(STEP, line, directory, &binary).status.success(), "{line}");
        assert!(!by(THIEF, line, directory, &binary).status.success(), "{line}");
    }
    for line in CHANGES {
        assert!(!by(STEP, line, directory, &binary).status.success(), "{line}");
    }
}

#[test]
fn no_kernel_table_shows_an_opening_or_the_runtime_directory() {
    let mut broker = TestBroker::start();
    let step = broker.open("w", "s");
    let runtime = broker.config.runtime.display().to_string();
    let id = step.opened.name.trim_start_matches("openings/").to_owned();
    for _ in 0..2 {
        // A connected socket has the path of the listening socket.
        broker.become_step(step.opened.clone());
        let table = std::fs::read_to_string("/proc/net/unix").unwrap();
        assert!(table.contains("/proc/self/fd/") && !table.contains(&id), "{table}");
        assert!(!table.contains(&runtime), "{table}");
        broker.restart();
    }
}

#[test]
fn a_directory_for_any_user_is_reached_only_by_a_mount() {
    if !is_root("other users") {
        return;
    }
    let mut broker = TestBroker::start();
    let binary = lend(broker.scratch());
    let request = pb::OpenStepRequest { any_uid: true, ..open_request("w", "s") };
    let host = broker.try_open(request.clone());
    assert_eq!(reason(host), "TARGET_INVALID");
    let request = pb::OpenStepRequest { mount_path: String::new(), ..request };
    let opened = broker.try_open(request).unwrap();
    let directory = Path::new(&opened.directory);
    let mount = broker.scratch().join("mount");
    make(&mount, 0, 0o755);
    let mounted = format!(
        "mount --bind \"$D\" {0} && exec setpriv --reuid {STEP} --regid {STEP} --clear-groups \
         env KEYHATCH_DIR={0} \"$K\" whoami",
        mount.display()
    );
    let mounted = format!("exec unshare --mount sh -c '{mounted}'");
    for _ in 0..2 {
        // Knowing the path does not help another user.
        for line in READS {
            assert!(!by(THIEF, line, directory, &binary).status.success(), "{line}");
        }
        if by(0, "unshare --mount true", directory, &binary).status.success() {
            succeeded(&by(0, &mounted, directory, &binary));
        } else {
            skipped("a bind mount of root's", "needs the right to mount");
        }
        broker.restart();
    }
    assert!(broker.journaled("opened")[0]["is_for_anybody"].as_bool().unwrap());
}

/// A rootless engine: its user opens the step, and mounts in its own user namespace.
#[test]
fn another_users_executor_mounts_in_its_own_namespace() {
    if !is_root("an executor of another user") {
        return;
    }
    let mut broker = TestBroker::start();
    let binary = lend(broker.scratch());
    let mount = broker.scratch().join("mount");
    make(&mount, 0, 0o755);
    if !by(STEP, "unshare --user --map-root-user --mount true", &mount, &binary).status.success() {
        skipped("a user namespace of another user's", "this system lets no user make namespaces");
        return;
    }
    broker.config.admin_group = Some(STEP);
    broker.restart();
    let identity = broker.scratch().join("identity");
    let mut add = keyhatch_in(broker.scratch(), &["executor", "add", "team", "--workflow", "*"]);
    succeeded(&add.arg("--out").arg(&identity).output().unwrap());
    let lent = format!("chown -R {STEP}:{STEP} \"$D\"");
    assert!(by(0, &lent, &identity, &binary).status.success());
    let open = |uid: &str| {
        let line =
            format!("\"$K\" step open --workflow w --run 1 --step s{uid} --uid {uid} -o json");
        let opened: serde_json::Value =
            serde_json::from_str(&succeeded(&by(STEP, &line, &identity, &binary))).unwrap();
        PathBuf::from(opened["directory"].as_str().unwrap())
    };
    let in_namespace = |line: &str| {
        let line = format!("mount --bind \"$D\" {0} && cd {0} && {line}", mount.display());
        format!("exec unshare --user --map-root-user --mount sh -c '{line}'")
    };
    let whoami = format!("KEYHATCH_DIR={} \"$K\" whoami", mount.display());
    for directory in [open("any"), open(&STEP.to_string())] {
        succeeded(&by(STEP, &in_namespace(&whoami), &directory, &binary));
        // Root of a user namespace has no rights on the daemon's files.
        for line in ["echo more >> env", "chmod 0666 tls.key", "touch new", "rm -f env"] {
            let line = in_namespace(line);
            assert!(!by(STEP, &line, &directory, &binary).status.success(), "{line}");
        }
        let stolen = by(THIEF, &in_namespace(&whoami), &directory, &binary);
        assert!(!stolen.status.success(), "{}", text(&stolen.stdout));
    }
}

#[test]
fn a_user_that_the_daemons_namespace_does_not_know_is_refused() {
    let probe = Command::new("unshare").args(["--user", "--map-root-user", "true"]).output();
    if !is_root("a daemon in a user namespace") || !probe.is_ok_and(|ran| ran.status.success()) {
        skipped("a daemon in a user namespace", "needs root and unshare(1)");
        return;
    }
    let directory = temp_dir();
    init_in(directory.path());
    let plain = keyhatch_in(directory.path(), &["serve"]);
    let mut serve = Command::new("unshare");
    serve.args(["--user", "--map-root-user"]).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        serve.env(name, value.unwrap_or_default());
    }
    let serving = ServeProcess::spawn(directory.path(), serve);
    let names = ["step", "open", "--workflow", "w", "--run", "1", "--step", "s", "--uid"];
    let open = |uid: &str| serving.run(&[&names[..], &[uid]].concat());
    assert!(open("0").status.success());
    let refused = text(&open(&STEP.to_string()).stderr);
    assert!(refused.contains("UID_NOT_PERMITTED") && refused.contains("namespace"), "{refused}");
}

#[test]
fn a_group_that_is_another_accounts_own_is_not_trusted() {
    let place = Place::new();
    let binary = lend(place.directory.path());
    let probe = "unshare --mount setpriv --reuid 0 true";
    if !is_root("accounts of one group")
        || !by(0, probe, place.directory.path(), &binary).status.success()
    {
        skipped("accounts of one group", "needs the right to mount");
        return;
    }
    make(&place.path("parent"), STEP, 0o775);
    std::fs::write(place.path("group"), format!("kd:x:{STEP}:\n")).unwrap();
    set_mode(&place.path("group"), 0o644);
    let init = |accounts: &str, name: &str| {
        std::fs::write(place.path("passwd"), accounts).unwrap();
        set_mode(&place.path("passwd"), 0o644);
        let line = format!(
            "exec unshare --mount sh -c 'cd \"$D\" && mount --bind passwd /etc/passwd && \
             mount --bind group /etc/group && exec setpriv --reuid {STEP} --regid {STEP} --clear-groups \
             env KEYHATCH_RUNTIME=\"$D/parent/run\" \"$K\" init --state \"$D/parent/{name}\"'"
        );
        by(0, &line, place.directory.path(), &binary)
    };
    let alone = format!("kd:x:{STEP}:{STEP}::/:/bin/sh\n");
    succeeded(&init(&alone, "made"));
    let refused = init(&format!("{alone}app:x:{THIEF}:{STEP}::/:/bin/sh\n"), "refused");
    let told = text(&refused.stderr);
    assert!(!refused.status.success() && told.contains("others may write to it"), "{told}");
}

#[test]
fn without_acls_a_steps_files_are_given_to_its_user() {
    let directory = temp_dir();
    let run = directory.path().join("run");
    make(&run, 0, 0o755);
    let mounted = Command::new("mount").args(["-t", "ramfs", "ramfs"]).arg(&run).output();
    if !is_root("a file system without lists") || !mounted.is_ok_and(|ran| ran.status.success()) {
        skipped("a file system without access control lists", "needs the right to mount");
        return;
    }
    let unmount = Unmount(run);
    init_in(directory.path());
    let serving = ServeProcess::start(directory.path());
    let names = ["step", "open", "--workflow", "w", "--run", "1", "--mount-path", "host"];
    let open = |more: &[&str]| serving.run(&[&names[..], more].concat());
    let opened: serde_json::Value = serde_json::from_str(&succeeded(&open(&[
        "--step",
        "s",
        "--uid",
        &STEP.to_string(),
        "-o",
        "json",
    ])))
    .unwrap();
    let step = Path::new(opened["directory"].as_str().unwrap());
    let found = std::fs::metadata(step).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o711));
    let key = std::fs::metadata(step.join("tls.key")).unwrap();
    assert_eq!((key.uid(), key.mode() & 0o7777), (STEP, 0o400));
    let told = text(&serving.run(&["doctor"]).stdout);
    assert!(told.contains("a step outside a container can fill it"), "{told}");
    serving.kill();
    drop(unmount);
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// In older versions a step's user owned its directory, and a directory for any user was open to all who knew its name.
#[test]
fn a_directory_as_older_versions_left_it_ends_at_a_restart() {
    if !is_root("a step of another user") {
        return;
    }
    let mut broker = TestBroker::start();
    let open = |step: &str, request: pb::OpenStepRequest| {
        let step = step.to_owned();
        let opened = broker.try_open(pb::OpenStepRequest { step, ..request }).unwrap();
        PathBuf::from(opened.directory)
    };
    let mounted = pb::OpenStepRequest { mount_path: String::new(), ..open_request("w", "s") };
    let named = open("named", pb::OpenStepRequest { uid: Some(STEP), ..mounted.clone() });
    let any = open("any", pb::OpenStepRequest { any_uid: true, ..mounted.clone() });
    let own = open("own", mounted);
    broker.stop();
    chown(&named, Some(STEP), Some(STEP)).unwrap();
    std::fs::write(named.join("planted"), "by the step").unwrap();
    let outer = any.parent().unwrap();
    std::fs::rename(&any, outer.with_extension("old")).unwrap();
    std::fs::remove_dir(outer).unwrap();
    std::fs::rename(outer.with_extension("old"), outer).unwrap();
    broker.serve();
    let closed = broker.journaled("closed");
    assert_eq!(closed.len(), 2, "{closed:?}");
    assert!(closed.iter().all(|line| line["reason"] == "directory_gone"), "{closed:?}");
    assert!(!named.exists() && !outer.exists() && own.exists());
}

/// A directory for a broker that everybody can enter.
struct Place {
    directory: TempDir,
    state: PathBuf,
    runtime: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = temp_dir();
        set_mode(directory.path(), 0o755);
        let (state, runtime) = (directory.path().join("state"), directory.path().join("run"));
        Self { directory, state, runtime }
    }

    /// Makes a directory with a broker.
    fn made() -> Self {
        let place = Self::new();
        succeeded(&place.run(&["init"]));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = keyhatch(arguments);
        command.env("KEYHATCH_STATE", &self.state).env("KEYHATCH_RUNTIME", &self.runtime);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The output of a command that must be refused.
    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> String {
        // A daemon that is not refused would run forever.
        let mut command = Command::new("timeout");
        let refused = self.command(arguments);
        command.arg("20").arg(refused.get_program()).args(refused.get_args());
        for (name, value) in refused.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let ran = command.output().unwrap();
        assert_eq!(ran.status.code(), Some(1), "{arguments:?}: {}", text(&ran.stderr));
        text(&ran.stderr)
    }
}

const INIT: &[&str] = &["init"];
const SERVE: &[&str] = &["serve"];
const ROTATE: &[&str] = &["key", "rotate", "--offline", "--data"];
const REISSUE: &[&str] = &["init", "--reissue-admin"];

#[test]
fn a_daemon_does_not_work_where_others_may_write() {
    for command in [SERVE, ROTATE, REISSUE] {
        let place = Place::made();
        set_mode(&place.state, 0o777);
        let told = place.refused(command);
        assert!(told.contains("/state has mode 0777"), "{told}");
        set_mode(&place.state, 0o700);
        set_mode(&place.state.join("journal"), 0o770);
        let told = place.refused(command);
        assert!(told.contains("/state/journal has mode 0770"), "{told}");
    }
    let place = Place::made();
    std::fs::create_dir(&place.runtime).unwrap();
    // A directory with the sticky bit still has other writers.
    for mode in [0o777, 0o1777, 0o775] {
        set_mode(&place.runtime, mode);
        let told = place.refused(SERVE);
        assert!(told.contains(&format!("/run has mode {mode:04o}")), "{told}");
        assert!(text(&place.run(&["doctor"]).stdout).contains(&format!("has mode {mode:04o}")));
    }
    let place = Place::new();
    std::fs::create_dir(&place.state).unwrap();
    set_mode(&place.state, 0o777);
    let told = place.refused(&["init"]);
    assert!(told.contains("/state has mode 0777"), "{told}");
}

#[test]
fn a_daemon_does_not_work_in_a_directory_of_another_users() {
    if !is_root("directories of another user") {
        return;
    }
    let place = Place::made();
    make(&place.runtime, THIEF, 0o755);
    let told = place.refused(SERVE);
    assert!(told.contains(&format!("/run is uid {THIEF}'s")), "{told}");
    assert_eq!(std::fs::read_dir(&place.runtime).unwrap().count(), 0);
    chown(&place.state, Some(THIEF), None).unwrap();
    let told = place.refused(SERVE);
    assert!(told.contains(&format!("/state is uid {THIEF}'s")), "{told}");
    let place = Place::made();
    chown(place.state.join("store"), Some(THIEF), None).unwrap();
    for command in [SERVE, ROTATE, REISSUE] {
        let told = place.refused(command);
        assert!(told.contains(&format!("/state/store is uid {THIEF}'s")), "{told}");
    }
    let place = Place::new();
    make(&place.state, THIEF, 0o700);
    let told = place.refused(&["init"]);
    assert!(told.contains(&format!("/state is uid {THIEF}'s")), "{told}");
    assert_eq!(std::fs::read_dir(&place.state).unwrap().count(), 0);
}

#[test]
fn a_link_is_followed_if_nobody_else_can_change_it() {
    if !is_root("links of another user") {
        return;
    }
    let mut place = Place::made();
    let real = place.state.clone();
    place.state = place.path("link");
    symlink(&real, &place.state).unwrap();
    assert!(place.run(REISSUE).status.success());
    for command in [SERVE, ROTATE, REISSUE] {
        std::os::unix::fs::lchown(&place.state, Some(THIEF), None).unwrap();
        let told = place.refused(command);
        assert!(told.contains(&format!("/link on the way is a symbolic link of uid {THIEF}")));
    }
    // Our directory below another user's directory.
    make(&place.path("theirs"), THIEF, 0o755);
    place.state = place.path("theirs/link");
    symlink(&real, &place.state).unwrap();
    let told = place.refused(SERVE);
    assert!(told.contains(&format!("/theirs above it is uid {THIEF}'s")), "{told}");
}

#[test]
fn a_parent_that_others_write_to_is_taken_when_it_is_said() {
    for (mode, owner) in [(0o777, 0), (0o2775, 0), (0o755, THIEF)] {
        if owner != 0 && !is_root("a parent of another user") {
            return;
        }
        let mut place = Place::new();
        let volume = place.path("volume");
        std::fs::create_dir(&volume).unwrap();
        if owner != 0 {
            chown(&volume, Some(owner), None).unwrap();
        }
        set_mode(&volume, mode);
        (place.state, place.runtime) = (volume.join("state"), volume.join("run"));
        let told = place.refused(INIT);
        let advice = format!("--shared-parent {}", volume.display());
        assert!(told.contains("/volume above it") && told.contains(&advice), "{told}");
        let shared = ["--shared-parent", volume.to_str().unwrap()];
        let said = |command: &'static [&'static str]| [command, &shared].concat();
        assert!(place.run(&said(INIT)).status.success());
        for command in [SERVE, ROTATE, REISSUE] {
            assert!(place.refused(command).contains(&advice));
        }
        assert!(place.run(&said(ROTATE)).status.success());
        let serving = ServeProcess::spawn(&volume, place.command(&said(SERVE)));
        assert!(serving.terminate());
    }
    // Under the sticky bit nobody else can replace the directory.
    let mut place = Place::new();
    let volume = place.path("volume");
    std::fs::create_dir(&volume).unwrap();
    set_mode(&volume, 0o1777);
    place.state = volume.join("state");
    assert!(place.run(&["init"]).status.success());
}

#[test]
fn roots_offline_work_belongs_to_the_owner_and_stays_inside() {
    if !is_root("a broker of another user") {
        return;
    }
    let place = Place::new();
    make(&place.state, STEP, 0o700);
    let binary = lend(place.directory.path());
    let mut init = Command::new(&binary);
    init.arg("init").env("KEYHATCH_STATE", &place.state).uid(STEP).gid(STEP).current_dir("/");
    succeeded(&init.output().unwrap());
    // A key that belongs to the caller.
    let kek = place.path("kek");
    std::fs::rename(place.state.join("kek"), &kek).unwrap();
    chown(&kek, Some(0), Some(0)).unwrap();
    let kek_file = ["--kek-file", kek.to_str().unwrap()];
    let reissue = [REISSUE, &kek_file].concat();
    for arguments in [&reissue[..], &[ROTATE, &["--old-kek-file", kek_file[1]]].concat()] {
        succeeded(&place.run(arguments));
    }
    let find = format!("find \"$D\" ! -uid {STEP}");
    let others = by(0, &find, &place.state, &binary);
    assert_eq!(text(&others.stdout), "");
    // The owner plants a link to root's file. The command writes as the owner, so it fails.
    let victim = place.path("victim");
    make(&victim, 0, 0o755);
    std::fs::write(victim.join("tls.key"), "root's").unwrap();
    let admin = place.state.join("operators/admin");
    std::fs::remove_dir_all(&admin).unwrap();
    symlink(&victim, &admin).unwrap();
    place.refused(&reissue);
    assert_eq!(std::fs::read(victim.join("tls.key")).unwrap(), b"root's");
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 1);
}

#[test]
fn no_umask_opens_or_spoils_a_directory_of_ours() {
    for umask in ["000", "002", "077"] {
        let place = Place::new();
        let masked = |arguments: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("umask {umask}; exec \"$K\" {arguments}")]);
            shell.env("K", env!("CARGO_BIN_EXE_keyhatch")).env("KEYHATCH_STATE", &place.state);
            shell.env("KEYHATCH_RUNTIME", &place.runtime).output().unwrap()
        };
        succeeded(&masked("dev -- true"));
        succeeded(&masked("init"));
        // The store's crate makes these files with its own modes, but nobody else can enter the store.
        let mut find = Command::new("find");
        find.arg(&place.state).args(["-path", "*/store/*", "-prune", "-o", "-perm", "/022"]);
        let find = find.arg("-print").output();
        assert_eq!(text(&find.unwrap().stdout), "", "{umask}");
        let serving = ServeProcess::spawn(place.directory.path(), place.command(&["serve"]));
        assert!(serving.terminate());
    }
}

#[test]
fn a_parent_that_its_owners_private_group_may_write_is_taken() {
    /// A user that every Linux system has, with a group of the same name and number.
    const DAEMON: u32 = 1;
    const BIN: u32 = 2;
    if !is_root("a user with a private group") {
        return;
    }
    let place = Place::new();
    let binary = lend(place.directory.path());
    let home = place.path("home");
    make(&home, DAEMON, 0o775);
    let init = |name: &str| {
        let line = format!("KEYHATCH_DIR= \"$K\" init --state \"$D/{name}\"");
        by(DAEMON, &line, &home, &binary)
    };
    succeeded(&init("state"));
    let is_refused = |name: &str| {
        let refused = text(&init(name).stderr);
        assert!(refused.contains("/home above it has mode 0775"), "{refused}");
    };
    // The group has another member.
    chown(&home, None, Some(BIN)).unwrap();
    is_refused("group");
    // An access control list admits another user too: the owner, another user, the group, the mask, others.
    chown(&home, None, Some(DAEMON)).unwrap();
    let entries = [
        (0x01, 7, u32::MAX),
        (0x02, 7, THIEF),
        (0x04, 5, u32::MAX),
        (0x10, 7, u32::MAX),
        (0x20, 5, u32::MAX),
    ];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(u16::to_le_bytes(tag));
        list.extend(u16::to_le_bytes(permissions));
        list.extend(u32::to_le_bytes(id));
    }
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&home, "system.posix_acl_access", &list, flags).unwrap();
    is_refused("list");
}
