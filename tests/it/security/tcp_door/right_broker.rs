//! Operators elsewhere come to the broker that they chose, and to no other.

use std::os::unix::fs::PermissionsExt as _;

use super::contexts::{World, json, word};
use crate::harness::{assert_says, keyhatch_in, succeeded, text};

#[test]
fn no_bundle_changes_whom_a_context_trusts() {
    let world = World::start();
    let bundle = world.bundle("bob");
    world.must(&["context", "add", word(&bundle)]);
    let context = world.own("contexts/localhost");
    let files =
        || ["env", "ca.crt", "tls.crt"].map(|name| std::fs::read(context.join(name)).unwrap());
    let before = files();
    // A broker of somebody else issues a certificate for bob's key, which was in the request.
    let other = World::start();
    std::fs::create_dir_all(other.own("")).unwrap();
    let key = std::fs::read_to_string(context.join("tls.key")).unwrap();
    std::fs::write(other.own("tls.csr"), keyhatch::identity::request_for(&key).unwrap()).unwrap();
    let told = world.refused(&["context", "add", word(&other.answer("bob"))]);
    assert_says(
        &told,
        &["CONTEXT_EXISTS", "another CA", "--name with --request", "context remove"],
    );
    // The same broker, under the name of another operator or of another broker.
    world.serving.must(&["operator", "remove", "bob", "--yes"]);
    std::fs::copy(other.own("tls.csr"), world.own("tls.csr")).unwrap();
    let told = world.refused(&["context", "add", word(&world.answer("eve"))]);
    assert_says(&told, &["CONTEXT_EXISTS", "another broker or operator"]);
    assert_eq!(files(), before);
    // Only the address may be another: the broker's name is checked there, too.
    let mut moved = json(&std::fs::read_to_string(&bundle).unwrap());
    let address = moved["address"].as_str().unwrap().replace("localhost", "127.0.0.1");
    moved["address"] = address.clone().into();
    std::fs::write(&bundle, moved.to_string()).unwrap();
    let added = world.must(&["context", "add", word(&bundle), "--name", "localhost"]);
    assert_says(&added, &[&format!("at {address}, before at localhost:"), "the current context"]);
}

#[test]
fn both_sides_see_what_they_have_to_compare() {
    let world = World::start();
    let requested = world.must(&["operator", "request", "--name", "bob", "-o", "json"]);
    let key = json(&requested)["key_sha256"].as_str().unwrap().to_owned();
    let status = world.serving.must(&["status", "-o", "json"]);
    let ca = json(&status)["ca_sha256"].as_str().unwrap().to_owned();
    let request = world.own("tls.csr");
    let add = ["operator", "add", "bob", "--role", "operator", "--csr", word(&request), "--remote"];
    let answered = world.serving.run(&add);
    assert_says(&text(&answered.stderr), &[&key, &ca]);
    let bundle = world.path("bundle");
    std::fs::write(&bundle, &answered.stdout).unwrap();
    let other = "0".repeat(64);
    let told = world.refused(&["context", "add", word(&bundle), "--ca-sha256", &other]);
    assert_says(&told, &["CA_MISMATCH", &ca, "ask the administrator"]);
    let added = world.must(&["context", "add", word(&bundle), "--ca-sha256", &ca]);
    assert_says(&added, &[&key, &ca]);
    // Requests for operators of the host are compared, too.
    let (_, csr) = keyhatch::identity::new_request().unwrap();
    std::fs::write(world.path("eve.csr"), csr).unwrap();
    let request = world.path("eve.csr");
    let add = ["operator", "add", "eve", "--role", "viewer", "--csr", word(&request)];
    assert_says(&text(&world.serving.run(&add).stderr), &["the key's SHA-256", &ca]);
}

#[test]
fn a_command_never_goes_to_another_broker_than_was_named() {
    let world = World::start();
    let with = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = keyhatch_in(world.directory.path(), arguments);
        command.env("HOME", world.path("home")).env_remove("XDG_CONFIG_HOME");
        command.envs(variables.iter().copied()).output().unwrap()
    };
    let refused = |arguments: &[&str], variables: &[(&str, &str)], told: &[&str]| {
        let output = with(arguments, variables);
        assert!(!output.status.success(), "{arguments:?}: {}", text(&output.stdout));
        assert_says(&text(&output.stderr), told);
    };
    // This host has identities of an operator and of an executor, and neither stands for a context.
    for command in [&["step", "list"][..], &["healthcheck"], &["run", "show", "1"], &["whoami"]] {
        let named = [&["--context", "typo"][..], command].concat();
        refused(&named, &[], &["CONTEXT_MISSING", "no context typo"]);
        refused(command, &[("KEYHATCH_CONTEXT", "typo")], &["CONTEXT_MISSING", "no context typo"]);
    }
    // Flags come before variables.
    let state = world.path("state");
    let at = ["step", "list", "--state", word(&state)];
    for variable in
        [("KEYHATCH_CONTEXT", "typo"), ("KEYHATCH_DIR", "/nowhere"), ("KEYHATCH_ADDR", "x:1")]
    {
        succeeded(&with(&at, &[variable]));
    }
    refused(&[&at[..], &["--context", "x"]].concat(), &[], &["USAGE", "--state and --context"]);
    // An address without its broker's name is no address, and no other broker stands for it.
    let address = ("KEYHATCH_ADDR", "localhost:7443");
    for command in [&["step", "list"][..], &["connection", "list"]] {
        refused(command, &[address], &["IDENTITY_INVALID", "KEYHATCH_BROKER"]);
        let broker = ("KEYHATCH_BROKER", "spiffe://keyhatch.local/broker/main");
        refused(command, &[address, broker], &["IDENTITY_INVALID", "KEYHATCH_CLIENT_KEY"]);
    }
    // Nor does the executor stand for a context that is damaged.
    world.must(&["context", "add", word(&world.bundle("bob"))]);
    std::fs::remove_file(world.own("contexts/localhost/env")).unwrap();
    let mut damaged = keyhatch_in(world.directory.path(), &["step", "list"]);
    damaged.env("HOME", world.path("home")).env_remove("XDG_CONFIG_HOME");
    let state = world.path("state");
    damaged.env_remove("KEYHATCH_STATE").env("XDG_STATE_HOME", &state);
    assert_says(&text(&damaged.output().unwrap().stderr), &["CONTEXT_INVALID"]);
}

#[test]
fn no_context_of_another_user_is_used_or_written() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = World::start();
    world.must(&["context", "add", word(&world.bundle("bob"))]);
    assert!(world.must(&["context", "list"]).contains("localhost"));
    let listed = |told: bool| {
        assert_eq!(world.must(&["context", "list"]).contains("localhost"), told);
    };
    // Another user's link to a directory of root: the owner at its end does not count.
    let (config, real) = (world.own(""), world.path("real"));
    std::fs::rename(&config, &real).unwrap();
    let link = world.path("home/.config/keyhatch");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    listed(true);
    std::os::unix::fs::lchown(&link, Some(4321), Some(4321)).unwrap();
    listed(false);
    let before = std::fs::read_dir(&real).unwrap().count();
    let told = world.refused(&["context", "add", word(&world.path("bob.bundle"))]);
    assert_says(&told, &["without sudo", "sudo -H"]);
    assert_says(&world.refused(&["whoami", "--context", "localhost"]), &["CONTEXT_MISSING"]);
    assert_eq!(std::fs::read_dir(&real).unwrap().count(), before);
    // A directory that others may write to is nobody's to trust.
    std::fs::remove_file(&link).unwrap();
    std::fs::rename(&real, &link).unwrap();
    std::fs::set_permissions(&link, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_says(&world.refused(&["connection", "list"]), &["mode 0777", "chmod go-w"]);
}

#[test]
fn a_context_is_removed_with_whatever_is_in_it() {
    let world = World::start();
    world.must(&["context", "add", word(&world.bundle("bob"))]);
    // A renewal that was killed leaves its file.
    std::fs::write(world.own("contexts/localhost/tls.crt.new"), "").unwrap();
    world.must(&["context", "remove", "localhost", "--yes"]);
    assert!(!world.own("context").exists());
    assert_eq!(std::fs::read_dir(world.own("contexts")).unwrap().count(), 0);
}
