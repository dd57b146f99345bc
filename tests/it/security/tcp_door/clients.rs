//! Stock clients over TCP, with the files of an identity. `step/clients.rs` says when they are skipped.

use std::path::Path;
use std::process::{Command, Output};

use keyhatch::grpc::pb;
use keyhatch::identity::{ClientIdentity, RemoteBroker};
use keyhatch::model::{HostName, HostPort, Limits};

use crate::harness::{TestBroker, assert_says, installed, source, succeeded, text};

/// Writes an identity into a directory.
fn write(identity: &ClientIdentity, directory: &Path) {
    std::fs::create_dir(directory).unwrap();
    for (name, content) in [
        ("ca.crt", identity.ca_pem.as_str()),
        ("tls.crt", &identity.chain_pem),
        ("tls.key", &identity.key_pem),
    ] {
        std::fs::write(directory.join(name), content).unwrap();
    }
}

/// The broker, and two identities: of an operator who is remote, and of another who is not.
fn world() -> TestBroker {
    let broker = TestBroker::start_with_tcp(Limits::default());
    write(&broker.enroll_remote("far", pb::Role::Operator), &broker.scratch().join("far"));
    write(&broker.enroll_identity("near", pb::Role::Operator), &broker.scratch().join("near"));
    broker
}

#[test]
fn stock_grpcurl_lists_and_calls_services_over_tcp() {
    let Some(client) = installed("grpcurl") else { return };
    let broker = world();
    let run = |who: &str, words: &[&str]| {
        let file = |name: &str| broker.scratch().join(who).join(name);
        let mut command = Command::new(client.join("bin/grpcurl"));
        command.arg("-cacert").arg(file("ca.crt")).arg("-cert").arg(file("tls.crt"));
        command.arg("-key").arg(file("tls.key")).arg(broker.tcp().address.to_string());
        command.args(words).output().unwrap()
    };
    let listed = succeeded(&run("far", &["list"]));
    assert!(listed.contains("keyhatch.v1.ConnectionService"), "{listed}");
    let me = succeeded(&run("far", &["keyhatch.v1.OperatorService/WhoAmI"]));
    assert!(me.contains("operators/far") && me.contains("ROLE_OPERATOR"), "{me}");
    let health = succeeded(&run("far", &["grpc.health.v1.Health/Check"]));
    assert!(health.contains("SERVING"), "{health}");
    let refused = run("near", &["keyhatch.v1.OperatorService/WhoAmI"]);
    assert!(!refused.status.success(), "{}", text(&refused.stdout));
}

/// Asks by grpc-js who an operator is, at an address where the broker of this id is expected.
fn grpc_js(client: &Path, broker: &TestBroker, who: &str, at: (&HostPort, &str)) -> Output {
    let file = |name: &str| broker.scratch().join(who).join(name);
    let mut command = Command::new("node");
    command.arg(source("tests/clients/node/whoami.js"));
    command.env("NODE_PATH", client.join("node_modules"));
    command.env("KEYHATCH_ADDR", at.0.to_string()).env("KEYHATCH_BROKER", at.1);
    command.env("KEYHATCH_CACERT", file("ca.crt"));
    command.env("KEYHATCH_CLIENT_CERT", file("tls.crt"));
    command.env("KEYHATCH_CLIENT_KEY", file("tls.key")).output().unwrap()
}

#[test]
fn stock_grpc_js_calls_an_operators_service_over_tcp() {
    let Some(client) = installed("node") else { return };
    let mut broker = world();
    let RemoteBroker { address, id } = broker.tcp();
    let id = id.to_string();
    let run = |who: &str, id: &str| grpc_js(&client, &broker, who, (&address, id));
    let me: serde_json::Value = serde_json::from_str(&succeeded(&run("far", &id))).unwrap();
    assert_eq!(me, serde_json::json!({ "operator": "operators/far", "role": "ROLE_OPERATOR" }));
    for (who, id) in [("near", id.as_str()), ("far", "spiffe://keyhatch.local/broker/other")] {
        let refused = run(who, id);
        assert_eq!(refused.status.code(), Some(1), "{who}: {}", text(&refused.stdout));
    }
    // The right broker, at an address that its certificate does not name.
    let listen = broker.config.admin_listen.as_mut().unwrap();
    listen.hosts = [HostName::parse("elsewhere.example").unwrap()].into();
    broker.restart();
    let port = broker.tcp().address.port;
    let unnamed = HostPort { host: HostName::parse("127.0.0.1").unwrap(), port };
    let refused = grpc_js(&client, &broker, "far", (&unnamed, &id));
    assert_says(&text(&refused.stderr), &["does not match certificate's altnames"]);
}
