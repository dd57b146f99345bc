//! Operators and executors get an identity whose key nobody else has seen.

use std::path::Path;
use std::process::Command;

use crate::harness::{ServeProcess, keyhatch, keyhatch_in, succeeded, temp_dir, text};

#[track_caller]
fn answer(command: &mut Command) -> String {
    succeeded(&command.output().unwrap())
}

/// A command of a user who has a home directory and no other setting.
fn at_home(home: &Path, arguments: &[&str]) -> Command {
    let mut command = keyhatch(arguments);
    command.env_remove("XDG_CONFIG_HOME").env("HOME", home);
    command
}

#[test]
fn an_operator_is_added_by_two_commands() {
    let directory = temp_dir();
    let _serving = ServeProcess::start(directory.path());
    let home = directory.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let operators = ["operator", "request", "--name", "op2"];
    let request = answer(at_home(&home, &operators).args(["-o", "name"]));
    let own = home.join(".config/keyhatch");
    assert_eq!(request.trim_end(), own.join("tls.csr").to_str().unwrap());
    // The user learns that the request waits, and no second key is made.
    let early = at_home(&home, &["connection", "list"]).output().unwrap();
    assert!(text(&early.stderr).contains("waits for an administrator"), "{early:?}");
    let again = at_home(&home, &operators).output().unwrap();
    assert!(text(&again.stderr).contains("holds a key already"), "{again:?}");
    let add = ["operator", "add", "op2", "--role", "operator", "--csr", request.trim_end()];
    answer(&mut keyhatch_in(directory.path(), &add));
    answer(&mut at_home(&home, &["connection", "list"]));
    let me = answer(&mut at_home(&home, &["whoami"]));
    for told in ["op2", "create connections and groups", "certificate until"] {
        assert!(me.contains(told), "{me}");
    }
    let named = answer(&mut at_home(&home, &["operator", "renew", "--help"]));
    assert!(named.contains("Renew"));
    // An operator's identity is no executor's identity.
    let step = at_home(&home, &["step", "list"]).output().unwrap();
    assert!(!text(&step.stderr).contains("ROLE_REQUIRED"), "{step:?}");
}

#[test]
fn a_request_is_answered_beside_its_file_or_at_out() {
    let directory = temp_dir();
    let _serving = ServeProcess::start(directory.path());
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let run = |arguments: &[&str]| answer(&mut keyhatch_in(directory.path(), arguments));
    run(&["executor", "request", "--name", "ci", "--out", &path("ci")]);
    // For a copied request, the answer is printed or goes to --out.
    std::fs::copy(path("ci/tls.csr"), path("copy.csr")).unwrap();
    let add = ["executor", "add", "ci", "--workflow", "*", "--csr", &path("copy.csr")];
    run(&[&add[..], &["--out", &path("bundle")]].concat());
    for name in ["tls.crt", "ca.crt", "env"] {
        std::fs::rename(path("bundle/") + name, path("ci/") + name).unwrap();
    }
    let mut listed = keyhatch(&["step", "list"]);
    answer(listed.env("KEYHATCH_DIR", path("ci")));
    let printed = ["executor", "add", "ci2", "--workflow", "*", "--csr", &path("copy.csr")];
    assert!(run(&printed).starts_with("-----BEGIN CERTIFICATE-----"));
    // A refused registration leaves nothing behind.
    let refused = ["executor", "add", "ci", "--workflow", "*", "--out", &path("never")];
    assert!(!keyhatch_in(directory.path(), &refused).output().unwrap().status.success());
    assert!(!Path::new(&path("never")).exists());
}
