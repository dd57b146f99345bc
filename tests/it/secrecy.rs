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
assert_not_impl_any!(pb::PutSecretRequest: std::fmt::Debug);
assert_not_impl_any!(pb::BatchResolveResponse: std::fmt::Debug);
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

/// A daemon that logs all it can, and everything that it or the CLI has ever said.
struct Overheard {
    directory: tempfile::TempDir,
    serving: ServeProcess,
    answers: Vec<u8>,
}

/// What must be nowhere. Values come from the environment, so they are in no file but the store.
const CANARY: &str = "canary-7f3a9c51";

impl Overheard {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
        assert!(keyhatch_in(directory.path(), &["init"]).output().unwrap().status.success());
        let command = keyhatch_in(directory.path(), &["serve", "--log", "trace"]);
        let serving = ServeProcess::spawn(directory.path(), command);
        Self { directory, serving, answers: Vec::new() }
    }

    fn run(&mut self, arguments: &[&str], env: &[(&str, &str)]) -> std::process::Output {
        let mut command = keyhatch_in(self.directory.path(), arguments);
        let output = command.envs(env.iter().copied()).output().unwrap();
        self.answers.extend_from_slice(&output.stdout);
        self.answers.extend_from_slice(&output.stderr);
        output
    }

    fn create(&mut self, reference: &str, field: &str, value: &str) -> bool {
        let arguments =
            ["connection", "create", reference, "--field", field, "--resolver", "workflow:w"];
        self.run(&arguments, &[("V", value)]).status.success()
    }

    fn open_step(&mut self) -> String {
        let names = ["--workflow", "w", "--run", "1", "--step", "s", "-o", "json"];
        let opened = self.run(&[&["step", "open"][..], &names].concat(), &[]);
        let opened: serde_json::Value = serde_json::from_slice(&opened.stdout).unwrap();
        opened["directory"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_value_is_in_no_log_no_file_no_error_and_no_answer_to_an_operator() {
    let mut world = Overheard::start();
    assert!(world.create("slack/a", "api_token=env:V", "canary-7f3a9c51-one"));
    // Refused: it exists, an unknown field, an unknown integration, on the command line, too long.
    for (reference, field, value) in [
        ("slack/a", "api_token=env:V", "canary-7f3a9c51-two"),
        ("slack/b", "nonsense=env:V", "canary-7f3a9c51-two"),
        ("nonsense/b", "token=env:V", "canary-7f3a9c51-two"),
        ("slack/b", "api_token=canary-7f3a9c51-three", ""),
        ("slack/b", "api_token=env:V", &CANARY.repeat(5000)),
    ] {
        assert!(!world.create(reference, field, value), "{reference} {field}");
    }
    let seed = world.directory.path().join("seed.yaml");
    let text = "connections: {slack/c: {apiToken: {fromEnv: V}, other: {fromEnv: V}}}";
    std::fs::write(&seed, text).unwrap();
    let apply = ["apply", "-f", seed.to_str().unwrap()];
    assert!(!world.run(&apply, &[("V", "canary-7f3a9c51-two")]).status.success());
    for arguments in [
        &["connection", "get", "slack/a", "-o", "json"][..],
        &["connection", "list", "-o", "yaml"],
        &["status"],
        &["step", "list"],
    ] {
        assert!(world.run(arguments, &[]).status.success());
    }
    let step = world.open_step();
    world.run(&["get", "slack/nothere"], &[("KEYHATCH_DIR", &step)]);
    // The control: the step itself does get it.
    let mut get = keyhatch_in(world.directory.path(), &["get", "slack/a", "--field", "api_token"]);
    let got = get.env("KEYHATCH_DIR", &step).output().unwrap();
    assert_eq!(got.stdout, b"canary-7f3a9c51-one");
    world.run(&["step", "close", "--workflow", "w", "--run", "1", "--step", "s"], &[]);

    let Overheard { directory, serving, answers } = world;
    assert!(serving.terminate());
    assert!(!holds(&answers, CANARY), "in an answer or an error");
    let mut files = Vec::new();
    everything_below(directory.path(), &mut files);
    assert!(files.len() > 100_000, "the log at trace level is there");
    assert!(!holds(&files, CANARY), "in a log, the journal or the store");
    // The store shows no name either; the journal does.
    let mut store = Vec::new();
    everything_below(&directory.path().join("state/store"), &mut store);
    assert!(!holds(&store, "slack") && !holds(&store, "api_token"));
}
