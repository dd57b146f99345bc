//! Values reach the steps that may have them, and nobody else.

use std::path::Path;

use keyhatch::access::Principal;
use keyhatch::grpc::pb;
use keyhatch::identity::{ClientIdentity, KeyAndCertificate};
use keyhatch::model::Value;
use keyhatch::seal::{Kek, Keyring, Passphrase, Unlocked};
use static_assertions::assert_not_impl_any;

use keyhatch::grpc::client::channel;
use tonic::{Response, Status};

use crate::harness::{
    ServeProcess, by_shell, bytes, identity_in, init_in, keyhatch_in, secret_document, temp_dir,
};

// Types with plaintext cannot be printed. This file would not compile otherwise.
assert_not_impl_any!(Value: std::fmt::Debug, std::fmt::Display, serde::Serialize, PartialEq<Value>, Clone);
assert_not_impl_any!(Kek: std::fmt::Debug, std::fmt::Display, serde::Serialize, Clone);
assert_not_impl_any!(Keyring: std::fmt::Debug, serde::Serialize, Clone);
assert_not_impl_any!(Passphrase: std::fmt::Debug, std::fmt::Display, serde::Serialize, PartialEq, Clone);
assert_not_impl_any!(Unlocked: std::fmt::Debug, serde::Serialize, Clone);
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
// The control: a type without plaintext can be printed.
static_assertions::assert_impl_all!(pb::WhoAmIResponse: std::fmt::Debug);
static_assertions::assert_impl_all!(Principal: std::fmt::Debug);

/// Appends all file contents below a directory.
pub fn everything_below(directory: &Path, found: &mut Vec<u8>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            everything_below(&path, found);
        } else if let Ok(bytes) = std::fs::read(&path) {
            found.extend(bytes);
        }
    }
}

pub fn holds(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

/// A daemon with the most verbose log, and all output of the daemon and the CLI.
pub struct Overheard {
    pub directory: tempfile::TempDir,
    pub serving: ServeProcess,
    pub answers: Vec<u8>,
}

/// A part of each value. Values come from the environment, so only the store may have them.
pub const CANARY: &str = "canary-7f3a9c51";

impl Overheard {
    pub fn start() -> Self {
        Self::start_by("exec \"$0\" \"$@\"")
    }

    /// Starts the daemon by a line of a shell, which has it as "$0" "$@".
    pub fn start_by(line: &str) -> Self {
        let directory = temp_dir();
        init_in(directory.path());
        let command = keyhatch_in(directory.path(), &["serve", "--log", "trace"]);
        let mut command = by_shell(line, &command);
        command.current_dir(directory.path());
        let serving = ServeProcess::spawn(directory.path(), command);
        Self { directory, serving, answers: Vec::new() }
    }

    pub fn run(&mut self, arguments: &[&str], env: &[(&str, &str)]) -> std::process::Output {
        let mut command = keyhatch_in(self.directory.path(), arguments);
        let output = command.envs(env.iter().copied()).output().unwrap();
        self.answers.extend_from_slice(&output.stdout);
        self.answers.extend_from_slice(&output.stderr);
        output
    }

    pub fn create(&mut self, reference: &str, field: &str, value: &str) -> bool {
        let arguments =
            ["connection", "create", reference, "--field", field, "--resolver", "workflow:w"];
        self.run(&arguments, &[("V", value)]).status.success()
    }

    pub fn open_step(&mut self) -> String {
        let names = ["--workflow", "w", "--run", "1", "--step", "s", "-o", "json"];
        let opened = self.run(&[&["step", "open"][..], &names].concat(), &[]);
        let opened: serde_json::Value = serde_json::from_slice(&opened.stdout).unwrap();
        opened["directory"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_value_is_in_no_log_file_error_or_operators_answer() {
    let mut world = Overheard::start();
    assert!(world.create("slack/a", "api_token=env:V", "canary-7f3a9c51-one"));
    // Refused values: an existing name, an unknown field, an unknown integration, a value on the command line, a long
    // value.
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
    let apply = ["apply", "-f", seed.to_str().unwrap(), "--allow-env", "V"];
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
    // The control: the step gets the value.
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
    // The store shows no names. The journal does.
    let mut store = Vec::new();
    everything_below(&directory.path().join("state/store"), &mut store);
    assert!(!holds(&store, "slack") && !holds(&store, "api_token"));
}

/// The number of written values, in all ways of writing.
const VALUES: usize = 1000;

/// All answers to operators, with errors and their details.
#[derive(Default)]
pub struct Answers {
    pub bytes: Vec<u8>,
    pub accepted: usize,
    pub refused: usize,
}

impl Answers {
    pub fn take<T: prost::Message>(&mut self, outcome: Result<Response<T>, Status>) {
        match outcome {
            Ok(reply) => {
                self.bytes.extend(reply.into_inner().encode_to_vec());
                self.accepted += 1;
            }
            Err(status) => {
                self.bytes.extend_from_slice(status.message().as_bytes());
                self.bytes.extend_from_slice(status.details());
                self.bytes.extend(format!("{status:?}").into_bytes());
                self.refused += 1;
            }
        }
    }
}

/// Writes one value. Its number selects the way.
async fn write(channel: tonic::transport::Channel, n: usize, answers: &mut Answers) {
    let value = format!("{CANARY}-{n:04}");
    match n % 10 {
        way @ 0..=3 => create(channel, n, way, &value, answers).await,
        way @ 4..=6 => update(channel, n, way, &value, answers).await,
        7 => {
            let (name, value) = (format!("workflows/w/secrets/s{n}"), value.into_bytes());
            let request = pb::PutSecretRequest { name, value, ..Default::default() };
            let mut secrets = pb::secret_service_client::SecretServiceClient::new(channel);
            answers.take(secrets.put_secret(request).await);
        }
        way => apply(channel, n, way, &value, answers).await,
    }
}

fn connection(name: &str, field: &str, kind: &str, value: &str) -> pb::Connection {
    pb::Connection {
        name: format!("connections/slack/{name}"),
        kind: kind.to_owned(),
        fields: bytes(&[(field, value)]),
        ..Default::default()
    }
}

/// Creates a connection: a good one, or with an unknown field, an unknown kind or a bad name.
async fn create(
    channel: tonic::transport::Channel,
    n: usize,
    way: usize,
    value: &str,
    answers: &mut Answers,
) {
    let own = format!("c{}", n / 10);
    let connection = match way {
        0 => connection(&own, "api_token", "", value),
        1 => connection(&own, "nonsense", "", value),
        2 => connection(&own, "api_token", "nonsense", value),
        _ => connection("a/b", "api_token", "", value),
    };
    let connection = Some(connection);
    let validate_only = n % 20 == 10;
    let request = pb::CreateConnectionRequest { connection, validate_only, ..Default::default() };
    let mut client = pb::connection_service_client::ConnectionServiceClient::new(channel);
    answers.take(client.create_connection(request).await);
}

/// Updates a connection: all fields, one field, or a missing field.
async fn update(
    channel: tonic::transport::Channel,
    n: usize,
    way: usize,
    value: &str,
    answers: &mut Answers,
) {
    let paths = match way {
        4 => vec!["fields"],
        5 => vec!["fields.api_token"],
        _ => vec!["fields.nonsense", "kind"],
    };
    let paths = paths.into_iter().map(ToOwned::to_owned).collect();
    let request = pb::UpdateConnectionRequest {
        connection: Some(connection(&format!("c{}", n / 10), "api_token", "", value)),
        update_mask: Some(prost_types::FieldMask { paths }),
        validate_only: n.is_multiple_of(2),
        allow_missing: true,
        ..Default::default()
    };
    let mut client = pb::connection_service_client::ConnectionServiceClient::new(channel);
    answers.take(client.update_connection(request).await);
}

/// Applies a good set of documents, or a set with a bad document.
async fn apply(
    channel: tonic::transport::Channel,
    n: usize,
    way: usize,
    value: &str,
    answers: &mut Answers,
) {
    let document = pb::ConnectionDocument {
        integration: "slack".to_owned(),
        name: format!("c{}", n / 10),
        fields: bytes(&[("api_token", value)]),
        ..Default::default()
    };
    let document = pb::apply_request::Document::Connection(document);
    let mut documents = vec![document, secret_document("w", "s", value)];
    if way == 9 {
        documents.push(secret_document("w", "t", "****"));
    }
    let requests = documents.into_iter();
    let requests = requests.map(|document| pb::ApplyRequest { document: Some(document) });
    let mut client = pb::apply_service_client::ApplyServiceClient::new(channel);
    answers.take(client.apply(tokio_stream::iter(requests.collect::<Vec<_>>())).await);
}

/// Calls every method that shows resources.
async fn look(channel: tonic::transport::Channel, answers: &mut Answers) {
    let mut client = pb::connection_service_client::ConnectionServiceClient::new(channel.clone());
    answers.take(client.list_connections(pb::ListConnectionsRequest::default()).await);
    for n in 0..VALUES / 10 {
        let name = format!("connections/slack/c{n}");
        answers.take(client.get_connection(pb::GetConnectionRequest { name: name.clone() }).await);
        answers.take(client.test_connection(pb::TestConnectionRequest { name, mint: false }).await);
    }
    let mut client = pb::secret_service_client::SecretServiceClient::new(channel.clone());
    let workflow = "w".to_owned();
    let request = pb::ListSecretsRequest { workflow, page_size: 1000, ..Default::default() };
    answers.take(client.list_secrets(request).await);
    let mut client = pb::system_service_client::SystemServiceClient::new(channel);
    let dry_run = pb::DryRun {
        workflow: "w".to_owned(),
        step: "s".to_owned(),
        target: "slack/c0".to_owned(),
        ..Default::default()
    };
    let question = Some(pb::explain_request::Question::DryRun(dry_run));
    answers.take(client.explain(pb::ExplainRequest { question }).await);
}

#[test]
fn a_thousand_values_are_in_no_answer_error_or_file() {
    let Overheard { directory, serving, .. } = Overheard::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let identity = identity_in(&directory.path().join("state/operators/admin"));
    let answers = runtime.block_on(async {
        let admin = channel(&directory.path().join("run/admin.sock"), identity).await.unwrap();
        let mut answers = Answers::default();
        for n in 0..VALUES {
            write(admin.clone(), n, &mut answers).await;
        }
        look(admin, &mut answers).await;
        answers
    });
    // The control: hundreds of requests succeeded, and hundreds were refused.
    assert!(
        answers.accepted > 400 && answers.refused > 300,
        "{} {}",
        answers.accepted,
        answers.refused
    );
    assert!(!holds(&answers.bytes, CANARY), "in an answer or an error");
    assert!(serving.terminate());
    let mut files = Vec::new();
    everything_below(directory.path(), &mut files);
    assert!(files.len() > 1_000_000, "the log at trace level is there");
    assert!(!holds(&files, CANARY), "in a log, the journal or the store");
}
