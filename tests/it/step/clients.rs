//! Stock gRPC clients resolve over the step's socket.
//!
//! `tests/run` installs them and names their directory in `KEYHATCH_TEST_CLIENTS`. Without it these tests report that
//! they are skipped. With `CI=true` they fail.

use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{Steps, connection, installed, source, text};

fn world() -> Steps {
    let fields = [("access_key_id", "AKIA"), ("secret_access_key", "not-a-real-one")];
    Steps::seeded(&connection("aws", "test", &fields))
}

/// Runs a client as a step.
fn run(steps: &Steps, client: &Command) -> Output {
    let arguments: Vec<_> = client.get_args().map(|word| word.to_str().unwrap()).collect();
    let mut command = steps.command(client.get_program().to_str().unwrap(), &arguments);
    for (name, value) in client.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.output().unwrap()
}

fn python(client: &Path, arguments: &[&str]) -> Command {
    let script = source("tests/clients/python/resolve.py");
    let mut command = Command::new(client.join("venv/bin/python"));
    command.arg(script).args(arguments).env("PYTHONPATH", client.join("generated"));
    command
}

fn node(client: &Path, arguments: &[&str]) -> Command {
    let script = source("tests/clients/node/resolve.js");
    let mut command = Command::new("node");
    command.arg(script).args(arguments).env("NODE_PATH", client.join("node_modules"));
    command
}

type Make = fn(&Path, &[&str]) -> Command;

fn resolves_and_is_refused(name: &str, make: Make) {
    let Some(client) = installed(name) else { return };
    let world = world();
    let got = run(&world, &make(&client, &["aws/test"]));
    let json: serde_json::Value =
        serde_json::from_slice(&got.stdout).unwrap_or_else(|_| panic!("{}", text(&got.stderr)));
    let expected =
        serde_json::json!({ "access_key_id": "AKIA", "secret_access_key": "not-a-real-one" });
    assert_eq!(json, expected);
    let refused = run(&world, &make(&client, &["aws/nothere"]));
    assert_eq!(refused.status.code(), Some(1));
    let stderr = text(&refused.stderr);
    assert!(stderr.contains("error: RESOLVE_DENIED: "), "{stderr}");
}

#[test]
fn stock_python_grpcio_resolves_over_the_steps_socket() {
    resolves_and_is_refused("python", python);
}

#[test]
fn stock_node_grpc_js_resolves_over_the_steps_socket() {
    resolves_and_is_refused("node", node);
}

/// grpcio derives the server name from the socket's path. No server can accept that name, so the log names the option
/// to set.
#[test]
fn python_without_its_authority_option_is_refused_with_a_hint() {
    let Some(client) = installed("python") else { return };
    let world = world();
    let refused = run(&world, &python(&client, &["aws/test", "--default-authority-unset"]));
    assert!(!refused.status.success());
    assert!(world.serving.log().contains("grpc.default_authority"), "{}", world.serving.log());
}
