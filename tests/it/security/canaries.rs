//! Values that arrive in a wrong way, or at a daemon that dies, reach nobody. The tests in secrecy.rs look for values
//! that arrive in the right way.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;

use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::integration_service_client::IntegrationServiceClient;
use keyhatch::grpc::pb::secret_service_client::SecretServiceClient;
use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use static_assertions::assert_not_impl_any;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::harness::{
    identity_in, open_request, report, request, resolve_on, resolver, scale, step_channel,
    succeeded,
};
use crate::security::secrecy::{Answers, CANARY, Overheard, everything_below, holds};

/// Asserts that these messages, which carry values, have no text form.
macro_rules! carriers {
    ($($name:ident),* $(,)?) => {
        $(assert_not_impl_any!(pb::$name: std::fmt::Debug, std::fmt::Display);)*
        const CARRIERS: &[&str] = &[$(stringify!($name)),*];
    };
}

carriers!(
    ApplyRequest,
    BatchResolveResponse,
    BatchResolveResult,
    Connection,
    ConnectionDocument,
    CreateConnectionRequest,
    HttpHeader,
    ListConnectionsResponse,
    PlanRequest,
    PutSecretRequest,
    ResolveResponse,
    SecretDocument,
    SendAnswer,
    SendEnd,
    SendHead,
    SendRequest,
    SendResponse,
    UpdateConnectionRequest,
    WatchResponse,
);

/// Fields of bytes that are no secret: public keys, other data, and values that are shown anyway.
const HARMLESS: [(&str, &str); 10] = [
    // Sealed.
    ("BackupResponse", "data"),
    ("CreateExecutorRequest", "csr"),
    ("CreateOperatorRequest", "csr"),
    ("FieldState", "value"),
    ("RenewCertificateRequest", "csr"),
    // What a step has signed, and what it may show.
    ("SignRequest", "data"),
    ("SignResponse", "signature"),
    ("SigningKey", "known_hosts"),
    ("SigningKey", "public_key"),
    ("*", "padding"),
];

#[test]
fn every_message_that_holds_bytes_has_no_text_form() {
    let files = prost_types::FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap().file;
    let own = files.iter().filter(|file| file.package() == "keyhatch.v1");
    let messages: Vec<_> = own.flat_map(|file| &file.message_type).collect();
    let is_harmless = |message: &str, field: &str| {
        HARMLESS.iter().any(|(of, name)| (*of == "*" || *of == message) && *name == field)
    };
    let mut carriers = BTreeSet::new();
    // A message around a carrier is a carrier. The loop ends when nothing is added.
    for _ in 0..messages.len() {
        for message in &messages {
            // The entries of maps are messages within the message.
            let fields =
                message.field.iter().chain(message.nested_type.iter().flat_map(|n| &n.field));
            for field in fields {
                let holds = field.type_name().strip_prefix(".keyhatch.v1.");
                let holds_carrier = holds.is_some_and(|name| carriers.contains(name));
                let is_bytes = field.r#type() == Type::Bytes;
                if holds_carrier || (is_bytes && !is_harmless(message.name(), field.name())) {
                    carriers.insert(message.name().to_owned());
                }
            }
        }
    }
    assert_eq!(carriers, CARRIERS.iter().map(|name| (*name).to_owned()).collect());
}

/// A source of different values. No value may be found anywhere.
struct Values(usize);

impl Values {
    fn next(&mut self) -> String {
        self.0 += 1;
        format!("{CANARY}-{:06}", self.0)
    }

    /// Values in malformed encodings.
    fn misshapen(&mut self) -> Vec<Vec<u8>> {
        let value = self.next();
        vec![
            value.clone().into_bytes(),
            format!("{{\"private_key\": \"{value}\"").into_bytes(),
            format!("{{\"type\": 7, \"private_key\": \"{value}\", \"{value}\": 1}}").into_bytes(),
            format!("-----BEGIN PRIVATE KEY-----\n{value}\n-----END PRIVATE KEY-----\n")
                .into_bytes(),
            format!("-----BEGIN CERTIFICATE-----\n{value}").into_bytes(),
            format!("https://user:{value}@[::").into_bytes(),
            [value.as_bytes(), &[0xff, 0xfe, 0]].concat(),
            format!("{value}\n{value}\0").into_bytes(),
        ]
    }
}

/// Fills every field of every kind of every integration with a wrong value, then reads the connections.
async fn fill_everything(admin: Channel, values: &mut Values, answers: &mut Answers) {
    let mut integrations = IntegrationServiceClient::new(admin.clone());
    let all = pb::ListIntegrationsRequest { page_size: 1000, ..Default::default() };
    let all = integrations.list_integrations(all).await.unwrap().into_inner().integrations;
    assert!(all.len() > 10, "{}", all.len());
    let mut connections = ConnectionServiceClient::new(admin);
    for integration in all {
        let name = integration.name.trim_start_matches("integrations/").to_owned();
        for kind in integration.kinds {
            for (n, value) in values.misshapen().into_iter().enumerate() {
                let rules = kind.fields.iter().filter(|rule| !rule.generated);
                let fields = rules.map(|rule| match rule.sensitive {
                    true => (rule.name.replace('*', "any"), value.clone()),
                    false => (rule.name.replace('*', "any"), rule.example.clone().into_bytes()),
                });
                let name = format!("connections/{name}/{}-{n}", kind.name);
                let connection = pb::Connection {
                    name: name.clone(),
                    kind: kind.name.clone(),
                    fields: fields.collect(),
                    ..Default::default()
                };
                let connection = Some(connection);
                let create = pb::CreateConnectionRequest { connection, ..Default::default() };
                answers.take(connections.create_connection(create).await);
                let test = pb::TestConnectionRequest { name, mint: false };
                answers.take(connections.test_connection(test).await);
            }
        }
    }
}

/// Sends values in requests that fail: without the right, with an old etag, and too long.
async fn write_for_nothing(
    admin: &Channel,
    viewer: &Channel,
    values: &mut Values,
    answers: &mut Answers,
) {
    let mut write = async |channel: &Channel, name: &str, value: Vec<u8>, etag: &str| {
        let mut connections = ConnectionServiceClient::new(channel.clone());
        let connection = Some(pb::Connection {
            name: format!("connections/slack/{name}"),
            fields: [("api_token".to_owned(), value.clone())].into(),
            etag: etag.to_owned(),
            access: resolver(&["workflow:w"]),
            ..Default::default()
        });
        let create =
            pb::CreateConnectionRequest { connection: connection.clone(), ..Default::default() };
        answers.take(connections.create_connection(create).await);
        let update = pb::UpdateConnectionRequest { connection, ..Default::default() };
        answers.take(connections.update_connection(update).await);
        let put = pb::PutSecretRequest {
            name: format!("workflows/w/secrets/{name}"),
            value,
            ..Default::default()
        };
        answers.take(SecretServiceClient::new(channel.clone()).put_secret(put).await);
    };
    write(admin, "there", values.next().into_bytes(), "").await;
    for _ in 0..scale(20, 200) {
        write(viewer, "there", values.next().into_bytes(), "").await;
        write(viewer, "elsewhere", values.next().into_bytes(), "").await;
        write(admin, "there", values.next().into_bytes(), "W/\"stale\"").await;
        write(admin, "no/name", values.next().into_bytes(), "").await;
        write(admin, "long", values.next().repeat(5000).into_bytes(), "").await;
        write(admin, "longer", values.next().repeat(50_000).into_bytes(), "").await;
        write(admin, "masked", b"****".to_vec(), "").await;
    }
}

/// Bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(into, &bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        let left = prost::bytes::Buf::remaining(from);
        prost::bytes::Buf::advance(from, left);
        Ok(Some(()))
    }
}

/// Sends truncated and mistyped messages to every method that takes a value.
async fn send_broken(admin: &Channel, values: &mut Values, answers: &mut Answers) {
    const METHODS: [&str; 7] = [
        "ApplyService/Apply",
        "ApplyService/Plan",
        "ConnectionService/CreateConnection",
        "ConnectionService/UpdateConnection",
        "IntegrationService/CreateIntegration",
        "IntegrationService/UpdateIntegration",
        "SecretService/PutSecret",
    ];
    for method in METHODS {
        for number in 0..scale(40, 400) {
            let value = values.next();
            let connection = Some(pb::Connection {
                name: "connections/slack/broken".to_owned(),
                fields: [("api_token".to_owned(), value.clone().into_bytes())].into(),
                ..Default::default()
            });
            let whole = pb::CreateConnectionRequest { connection, ..Default::default() };
            let whole = whole.encode_to_vec();
            let value = value.as_bytes();
            let length = u8::try_from(value.len()).unwrap();
            let bytes = match number % 5 {
                // A text field that is not UTF-8.
                0 => [&[0x0a, length + 1], value, &[0xff]].concat(),
                // A field name that is not UTF-8, two messages deep.
                1 => {
                    let lengths = [0x0a, length + 5, 0x2a, length + 3, 0x0a, length + 1];
                    [&lengths, value, &[0xff]].concat()
                }
                // The bare value.
                2 => value.to_vec(),
                // A length that exceeds the message.
                3 => [&[0x12, 0x7f], value].concat(),
                _ => whole[..whole.len() - 1 - number % 20].to_vec(),
            };
            let path = PathAndQuery::try_from(format!("/keyhatch.v1.{method}")).unwrap();
            let mut client = tonic::client::Grpc::new(admin.clone());
            client.ready().await.unwrap();
            answers.take(client.unary(Request::new(bytes), path, Raw).await);
        }
    }
}

/// Asks as steps of another workflow, and as a permitted step with wrong requests.
async fn ask_in_vain(executor: Channel, answers: &mut Answers) {
    let mut executor = pb::executor_service_client::ExecutorServiceClient::new(executor);
    for workflow in ["w", "other"] {
        let opened = executor.open_step(open_request(workflow, "s")).await.unwrap().into_inner();
        let directory = std::path::PathBuf::from(opened.directory);
        let step = step_channel(&directory).await;
        let is_let_in = resolve_on(step.clone(), request("slack/there")).await.is_ok();
        assert_eq!(is_let_in, workflow == "w", "the control: it is given to whom it is for");
        for reference in [
            "slack/there#nonsense",
            "slack/elsewhere",
            "aws/there",
            "secret:elsewhere",
            "default:slack",
        ] {
            let mut client = pb::step_service_client::StepServiceClient::new(step.clone());
            answers.take(client.resolve(request(reference)).await);
            let batch = pb::BatchResolveRequest { requests: vec![request(reference); 3] };
            answers.take(client.batch_resolve(batch).await);
            let watch = pb::WatchRequest { request: Some(request(reference)) };
            let watched = client.watch(watch).await;
            answers.take(watched.map(|_| tonic::Response::new(())));
        }
    }
}

/// The text around a found value.
fn around(bytes: &[u8]) -> String {
    let found = bytes.windows(CANARY.len()).position(|window| window == CANARY.as_bytes());
    let start = found.unwrap_or_default().saturating_sub(300);
    String::from_utf8_lossy(&bytes[start..(start + 600).min(bytes.len())]).into_owned()
}

#[test]
fn a_value_given_in_a_wrong_way_reaches_nobody() {
    let mut world = Overheard::start();
    let viewer = world.directory.path().join("viewer");
    let add = ["operator", "add", "looker", "--role", "viewer", "--out", viewer.to_str().unwrap()];
    succeeded(&world.run(&add, &[]));
    let Overheard { directory, serving, answers: said } = world;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (mut values, mut answers) = (Values(0), Answers::default());
    answers.bytes.extend(said);
    runtime.block_on(async {
        let socket = directory.path().join("run/admin.sock");
        let state = directory.path().join("state");
        let admin = channel(&socket, identity_in(&state.join("operators/admin"))).await.unwrap();
        let viewer = channel(&socket, identity_in(&viewer)).await.unwrap();
        fill_everything(admin.clone(), &mut values, &mut answers).await;
        write_for_nothing(&admin, &viewer, &mut values, &mut answers).await;
        send_broken(&admin, &mut values, &mut answers).await;
        // The executor connects only now, because a busy client answers no pings.
        let executor = channel(&socket, identity_in(&state.join("executors/local"))).await.unwrap();
        ask_in_vain(executor, &mut answers).await;
    });
    let process = format!("/proc/{}", serving.pid().as_raw_nonzero());
    for file in ["environ", "cmdline"] {
        // These files belong to root, because the daemon cannot be read by other processes of its user.
        answers.bytes.extend(std::fs::read(format!("{process}/{file}")).unwrap_or_default());
    }
    // The control: most requests were refused, for many reasons.
    assert!(answers.refused > 500, "{} {}", answers.accepted, answers.refused);
    assert!(!holds(&answers.bytes, CANARY), "{}", around(&answers.bytes));
    assert!(serving.terminate());
    let mut files = Vec::new();
    everything_below(directory.path(), &mut files);
    assert!(files.len() > 1_000_000, "the log at trace level is there");
    assert!(!holds(&files, CANARY), "in a log, the journal or the store");
    let outcome =
        format!("0 found; {} calls refused, {} accepted", answers.refused, answers.accepted);
    report("canaries by wrong ways", values.0, outcome, "the step that may have one got it");
}

#[test]
fn a_daemon_that_is_aborted_leaves_no_core_and_says_no_value() {
    let mut world = Overheard::start_by("ulimit -c unlimited; exec \"$0\" \"$@\"");
    let value = format!("{CANARY}-abort");
    assert!(world.create("slack/a", "api_token=env:V", &value));
    let step = world.open_step();
    let mut get = crate::harness::keyhatch_in(world.directory.path(), &["get", "slack/a"]);
    let got = get.env("KEYHATCH_DIR", &step).output().unwrap();
    assert!(holds(&got.stdout, CANARY), "the control: it is in the daemon's memory");
    let Overheard { directory, serving, .. } = world;
    let status = serving.abort();
    assert!(status.signal().is_some(), "{status}");
    assert!(!status.core_dumped(), "{status}");
    let mut files = Vec::new();
    everything_below(directory.path(), &mut files);
    assert!(!holds(&files, CANARY), "in a core, a log, the journal or the store");
    let left = std::fs::read_dir(directory.path()).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with("core")), "{names:?}");
}
