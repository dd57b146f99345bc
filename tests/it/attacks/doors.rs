//! Nobody holds a door who is not known, and nobody holds all of it.

use std::time::Duration;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::operator_service_client::OperatorServiceClient;
use keyhatch::identity::ClientIdentity;
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;

use crate::harness::raw::{Raw, framed, post};
use crate::harness::{TestBroker, identity_in, open_request, wait_until};

const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// What clients are ready to take of a reply if they say nothing else.
const WINDOW: u32 = 65_535;
/// After this nothing will end a connection.
const PATIENCE: Duration = Duration::from_secs(20);

fn ask(path: &str) -> (Request<()>, Bytes) {
    (post(path).body(()).unwrap(), framed(&()))
}

fn connect_admin(broker: &TestBroker, identity: &ClientIdentity) -> Raw {
    let socket = broker.config.runtime.join("admin.sock");
    broker.block_on(Raw::connect(&socket, identity, WINDOW))
}

fn remove_operator(broker: &TestBroker, name: &str) {
    let name = format!("operators/{name}");
    let request = pb::DeleteOperatorRequest { name, ..Default::default() };
    let mut client = OperatorServiceClient::new(broker.operator());
    broker.block_on(client.delete_operator(request)).unwrap();
}

/// With a stream open on it that the server ends of itself only with the connection.
fn watching(broker: &TestBroker, raw: &Raw, path: &str) {
    let (request, message) = ask(path);
    let head = broker.block_on(async { raw.send(request, Some(message)).await?.await });
    assert_eq!(head.unwrap().status(), 200);
}

/// The other side ends it, and does not leave it to the end of an idle connection.
fn assert_ends(broker: &TestBroker, raw: Raw) {
    let ended = broker.block_on(async { tokio::time::timeout(PATIENCE, raw.end()).await });
    assert!(ended.is_ok(), "the connection goes on");
}

#[test]
fn a_removed_operators_open_connections_end() {
    let broker = TestBroker::start();
    let gone = broker.enroll_identity("gone", pb::Role::Viewer);
    let held: Vec<_> = (0..3).map(|_| connect_admin(&broker, &gone)).collect();
    for (raw, path) in held.iter().zip([HEALTH_WATCH, HEALTH_WATCH, REFLECTION]) {
        watching(&broker, raw, path);
    }
    remove_operator(&broker, "gone");
    held.into_iter().for_each(|raw| assert_ends(&broker, raw));
    let refused = broker.connect(&broker.config.runtime.join("admin.sock"), gone).unwrap_err();
    assert!(refused.contains("removed"), "{refused}");
}

#[test]
fn a_connection_ends_with_its_certificate_at_both_doors() {
    let broker = TestBroker::start();
    let ttl = Some(prost_types::Duration { seconds: 100, nanos: 0 });
    let opened = broker.try_open(pb::OpenStepRequest { ttl, ..open_request("w", "s") }).unwrap();
    let directory = std::path::PathBuf::from(&opened.directory);
    let (socket, identity) = (directory.join("keyhatch.sock"), identity_in(&directory));
    let step = broker.block_on(Raw::connect(&socket, &identity, WINDOW));
    let operator = identity_in(&broker.config.state.join("operators/admin"));
    let admin = connect_admin(&broker, &operator);
    for raw in [&step, &admin] {
        watching(&broker, raw, HEALTH_WATCH);
    }
    broker.advance(100);
    assert_ends(&broker, step);
    broker.advance(90 * 24 * 3600);
    assert_ends(&broker, admin);
}

#[test]
fn a_closed_steps_connections_end_whatever_is_open() {
    let broker = TestBroker::start();
    let step = broker.open("w", "s");
    let directory = std::path::PathBuf::from(&step.opened.directory);
    let (socket, identity) = (directory.join("keyhatch.sock"), identity_in(&directory));
    let raw = broker.block_on(Raw::connect(&socket, &identity, WINDOW));
    watching(&broker, &raw, HEALTH_WATCH);
    broker.close(&step);
    assert_ends(&broker, raw);
}

#[test]
fn who_is_refused_in_the_handshake_is_told_why_by_the_cli() {
    let broker = TestBroker::start();
    let gone = broker.enroll_identity("gone", pb::Role::Viewer);
    let directory = broker.scratch().join("gone");
    std::fs::create_dir(&directory).unwrap();
    let env = format!("KEYHATCH_ADDR=unix://{}/admin.sock\n", broker.config.runtime.display());
    for (name, text) in [
        ("ca.crt", gone.ca_pem.as_str()),
        ("tls.crt", &gone.chain_pem),
        ("tls.key", &gone.key_pem),
        ("env", &env),
    ] {
        std::fs::write(directory.join(name), text).unwrap();
    }
    let status = || {
        let mut command = crate::harness::keyhatch(&["status"]);
        command.env("KEYHATCH_DIR", &directory).output().unwrap()
    };
    wait_until("the control: it is let in", || status().status.success());
    remove_operator(&broker, "gone");
    let refused = status();
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("SVID_INVALID") && text.contains("was removed"), "{text}");
    assert!(!text.contains("--uid"), "{text}");
    assert_eq!(refused.status.code(), Some(1));
}
