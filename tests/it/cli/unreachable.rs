//! A client that cannot reach the broker learns the reason and the next step.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::harness::{
    ServeProcess, assert_says, copy_binary, init_in, keyhatch, keyhatch_in, path_with_binary,
    skipped, temp_dir, text,
};

const NOBODY: u32 = 65_534;

/// The last line of a command that fails.
fn refusal(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success());
    text(&output.stderr).lines().last().unwrap().to_owned()
}

#[test]
fn without_a_broker_the_message_says_how_to_start_it() {
    let directory = temp_dir();
    for command in [&["status"][..], &["step", "list"], &["run", "close", "1"]] {
        let told = refusal(keyhatch_in(directory.path(), command));
        assert_says(&told, &["IDENTITY_MISSING", "is no state directory", "keyhatch init"]);
    }
    // doctor does not wait for the daemon to come back.
    ServeProcess::start(directory.path()).kill();
    let told = keyhatch_in(directory.path(), &["doctor"]).output().unwrap().stdout;
    let told = String::from_utf8(told).unwrap();
    assert_says(&told, &["nobody listens at", "start it with: "]);
}

#[test]
fn a_step_is_not_asked_to_start_its_broker() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let names = ["step", "run", "--workflow", "w", "--run", "1", "--step", "s", "--"];
    let mut step = keyhatch_in(directory.path(), &names);
    // A killed daemon keeps its socket for a moment.
    let script = "kill -9 $DAEMON; for i in $(seq 100); do keyhatch doctor | grep 'nobody listens' && break; done";
    step.args(["sh", "-c", script]);
    step.env("PATH", path_with_binary());
    step.env("DAEMON", serving.pid().as_raw_nonzero().to_string());
    let told = String::from_utf8(step.output().unwrap().stdout).unwrap();
    assert_says(&told, &["nobody listens at", "this step has ended"]);
    assert!(!told.contains("start it"), "{told}");
}

#[test]
fn files_of_two_brokers_are_not_mixed() {
    let (directory, other) = (temp_dir(), temp_dir());
    let _serving = ServeProcess::start(directory.path());
    init_in(other.path());
    let mixed = directory.path().join("state/executors/local");
    std::fs::copy(other.path().join("state/ca.crt"), mixed.join("ca.crt")).unwrap();
    let mut listed = keyhatch(&["step", "list"]);
    listed.env("KEYHATCH_DIR", &mixed);
    let told = refusal(listed);
    assert_says(&told, &["do not go together", "UnknownIssuer"]);
    assert!(!told.contains("start it"), "{told}");
}

#[test]
fn a_user_that_may_not_connect_learns_who_may() {
    if !rustix::process::geteuid().is_root() {
        skipped("a child of another user", "needs root");
        return;
    }
    let directory = temp_dir();
    let _serving = ServeProcess::start(directory.path());
    let binary = directory.path().join("keyhatch");
    copy_binary(&binary);
    let let_in = |path: &Path| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    };
    let (admin, own) =
        (directory.path().join("state/operators/admin"), directory.path().join("own"));
    std::fs::create_dir(&own).unwrap();
    for name in ["ca.crt", "tls.crt", "tls.key", "env"] {
        std::fs::copy(admin.join(name), own.join(name)).unwrap();
        let_in(&own.join(name));
    }
    for path in [directory.path(), &binary, &own] {
        let_in(path);
    }
    let status = |identity: &Path| {
        let mut command = Command::new(&binary);
        command.arg("status").env_clear().env("KEYHATCH_DIR", identity).uid(NOBODY).gid(NOBODY);
        refusal(command)
    };
    assert_says(&status(&own), &["UNREACHABLE: uid 65534 may not connect", "--admin-group"]);
    assert_says(&status(&admin), &["IDENTITY_MISSING: uid 65534 may not read", "another user's"]);
}
