//! Identities that were good before.

use std::path::{Path, PathBuf};

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::operator_service_client::OperatorServiceClient;

use super::Trial;
use super::client::{Offer, Outcome, ask, handshake, over};
use super::world::{Door, World};

#[test]
fn an_ended_identity_is_refused_also_on_open_connections() {
    let mut trial = Trial::start();
    let world = &trial.world;
    let closed = world.open("closed");
    let other = world.open("other");
    let directory = PathBuf::from(&closed.directory);
    let kept = world.scratch().join("kept");
    std::fs::create_dir(&kept).unwrap();
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        std::fs::copy(directory.join(name), kept.join(name)).unwrap();
    }
    let _inside = world.runtime.enter();
    let socket = directory.join("keyhatch.sock");
    let shaken = handshake(&socket, world.root(), Offer::in_directory(&kept));
    let before = over(world.runtime.block_on(shaken).unwrap());
    let operator = enrolled(world, "leaver");
    let admin = world.socket(Door::Admin);
    let shaken = handshake(&admin, world.root(), Offer::in_directory(&operator));
    let operators = over(world.runtime.block_on(shaken).unwrap());
    let served = world.runtime.block_on(ask(Door::Admin, operators.clone()));
    assert!(matches!(served, Outcome::Served), "the control: {served:?}");
    world.close(&closed);
    removed(world, "leaver");

    let outcome = world.runtime.block_on(ask(Door::Step, before));
    trial.note("a closed step, connected before", Door::Step, true, &outcome);
    for (what, door, identity) in [
        ("another step's certificate", Door::Step, Path::new(&other.directory)),
        ("a closed step's certificate", Door::Step, &kept),
        ("a removed operator", Door::Admin, &operator),
    ] {
        trial.attempt(what, door, Offer::in_directory(identity));
    }
    let outcome = trial.world.runtime.block_on(ask(Door::Admin, operators));
    trial.note("a removed operator, connected before", Door::Admin, true, &outcome);
    trial.end("hostile handshakes: identities that have ended");
}

/// Registers an operator. Returns the directory of its identity.
fn enrolled(world: &World, name: &str) -> PathBuf {
    let (key, csr) = keyhatch::identity::new_request().unwrap();
    let operator = pb::Operator {
        name: format!("operators/{name}"),
        role: pb::Role::Administrator.into(),
        ..Default::default()
    };
    let (operator, csr) = (Some(operator), csr.into_bytes());
    let request = pb::CreateOperatorRequest { operator, csr, ..Default::default() };
    let mut client = OperatorServiceClient::new(world.admin("operators/admin"));
    let made = world.runtime.block_on(client.create_operator(request)).unwrap().into_inner();
    let directory = world.scratch().join(name);
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("tls.crt"), made.certificate_chain).unwrap();
    std::fs::write(directory.join("tls.key"), key.as_bytes()).unwrap();
    directory
}

fn removed(world: &World, name: &str) {
    let request =
        pb::DeleteOperatorRequest { name: format!("operators/{name}"), ..Default::default() };
    let mut client = OperatorServiceClient::new(world.admin("operators/admin"));
    world.runtime.block_on(client.delete_operator(request)).unwrap();
}
