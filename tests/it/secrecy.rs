//! Values go to the step that may have them, and nowhere else.

use std::path::Path;

use keyhatch::access::Principal;
use keyhatch::grpc::pb;
use keyhatch::identity::{ClientIdentity, KeyAndCertificate};
use keyhatch::model::Value;
use keyhatch::seal::{Kek, Keyring};
use static_assertions::assert_not_impl_any;

use crate::harness::{ServeProcess, keyhatch_in};

// What holds plaintext cannot be printed: this file would not compile.
assert_not_impl_any!(Value: std::fmt::Debug, std::fmt::Display, serde::Serialize, PartialEq<Value>, Clone);
assert_not_impl_any!(Kek: std::fmt::Debug, std::fmt::Display, serde::Serialize, Clone);
assert_not_impl_any!(Keyring: std::fmt::Debug, serde::Serialize, Clone);
assert_not_impl_any!(KeyAndCertificate: std::fmt::Debug);
assert_not_impl_any!(ClientIdentity: std::fmt::Debug);
assert_not_impl_any!(pb::ResolveResponse: std::fmt::Debug);
assert_not_impl_any!(pb::Connection: std::fmt::Debug);
assert_not_impl_any!(pb::CreateConnectionRequest: std::fmt::Debug);
assert_not_impl_any!(pb::ListConnectionsResponse: std::fmt::Debug);
assert_not_impl_any!(pb::ConnectionDocument: std::fmt::Debug);
assert_not_impl_any!(pb::SecretDocument: std::fmt::Debug);
assert_not_impl_any!(pb::ApplyRequest: std::fmt::Debug);
// The control: what holds none can be.
static_assertions::assert_impl_all!(pb::WhoAmIResponse: std::fmt::Debug);
static_assertions::assert_impl_all!(Principal: std::fmt::Debug);

/// Everything below a directory, as bytes.
fn everything_below(directory: &Path, found: &mut Vec<u8>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            everything_below(&path, found);
        } else if let Ok(bytes) = std::fs::read(&path) {
            found.extend(bytes);
        }
    }
}

fn holds(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

#[test]
fn a_value_is_in_no_log_no_file_no_error_and_no_answer_to_an_operator() {
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    assert!(keyhatch_in(directory.path(), &["init"]).status().unwrap().success());
    let mut command = keyhatch_in(directory.path(), &["serve", "--log", "trace"]);
    command.stdout(std::process::Stdio::null());
    let serving = ServeProcess::spawn(directory.path(), command);
    let mut answers = Vec::new();
    let mut run = |arguments: &[&str], env: &[(&str, &str)]| {
        let mut command = keyhatch_in(directory.path(), arguments);
        let output = command.envs(env.iter().copied()).output().unwrap();
        answers.extend_from_slice(&output.stdout);
        answers.extend_from_slice(&output.stderr);
        output
    };
    // Values come from the environment: they are in no file but the store.
    let canary = "canary-7f3a9c51";
    let values = [
        ("V1", "canary-7f3a9c51-one"),
        ("V2", "canary-7f3a9c51-two"),
        ("MASK", "canary-7f3a9c51****"),
    ];
    let create = |reference: &'static str, field: &'static str| {
        ["connection", "create", reference, "--field", field, "--resolver", "workflow:w"]
    };
    assert!(run(&create("slack/a", "api_token=env:V1"), &values).status.success());
    // Refused: it exists, an unknown field, an unknown integration, a value on the command line.
    assert!(!run(&create("slack/a", "api_token=env:V2"), &values).status.success());
    assert!(!run(&create("slack/b", "nonsense=env:V2"), &values).status.success());
    assert!(!run(&create("nonsense/b", "token=env:V2"), &values).status.success());
    assert!(!run(&create("slack/b", "api_token=canary-7f3a9c51-three"), &values).status.success());
    let too_long = "canary-7f3a9c51".repeat(5000);
    assert!(!run(&create("slack/b", "api_token=env:V3"), &[("V3", &too_long)]).status.success());
    let seed = "connections: {slack/c: {apiToken: {fromEnv: V1}, other: {fromEnv: V2}}}";
    std::fs::write(directory.path().join("seed.yaml"), seed).unwrap();
    let seed = directory.path().join("seed.yaml");
    assert!(!run(&["apply", "-f", seed.to_str().unwrap()], &values).status.success());
    for arguments in [
        &["connection", "get", "slack/a", "-o", "json"][..],
        &["connection", "list", "-o", "yaml"],
        &["status"],
        &["step", "open", "--workflow", "w", "--run", "1", "--step", "s", "-o", "json"],
    ] {
        assert!(run(arguments, &[]).status.success());
    }
    let listed = run(&["step", "list", "-o", "json"], &[]);
    let steps: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let step = steps[0]["directory"].as_str().unwrap().to_owned();
    run(&["get", "slack/nothere"], &[("KEYHATCH_DIR", &step)]);
    // The control: the step itself does get it.
    let got = keyhatch_in(directory.path(), &["get", "slack/a", "--field", "api_token"])
        .env("KEYHATCH_DIR", &step)
        .output()
        .unwrap();
    assert_eq!(got.stdout, b"canary-7f3a9c51-one");
    run(&["step", "close", "--workflow", "w", "--run", "1", "--step", "s"], &[]);
    assert!(serving.terminate());

    assert!(!holds(&answers, canary), "in an answer or an error");
    let mut files = Vec::new();
    everything_below(directory.path(), &mut files);
    assert!(files.len() > 100_000, "the log at trace level is there");
    assert!(!holds(&files, canary), "in a log, the journal or the store");
    // The store shows no name either; the journal does.
    let mut store = Vec::new();
    everything_below(&directory.path().join("state/store"), &mut store);
    assert!(!holds(&store, "slack") && !holds(&store, "api_token"));
}
