//! Who is let in over TCP, and for how long.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::operator_service_client::OperatorServiceClient;
use keyhatch::identity::{BrokerAddress, CertificateRefusal, ConnectError, connect};
use keyhatch::model::Limits;
use rustls::NamedGroup;
use tonic::codegen::http::Request;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::raw::{Raw, framed};
use crate::harness::{TestBroker, assert_says, identity_in, reason};

fn broker() -> TestBroker {
    TestBroker::start_with_tcp(Limits::default())
}

/// The refusal of a certificate.
fn refusal<T>(outcome: Result<T, ConnectError>) -> CertificateRefusal {
    match outcome {
        Err(ConnectError::Rejected(refusal)) => refusal,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[test]
fn a_remote_operator_is_served_over_tcp_and_on_the_socket() {
    let broker = broker();
    let identity = || broker.enroll_remote("far", pb::Role::Operator);
    let channel = broker.connect_tcp(identity()).unwrap();
    broker.list_connections(&channel).unwrap();
    let mut client = OperatorServiceClient::new(channel.clone());
    let me = broker.block_on(client.who_am_i(pb::OperatorServiceWhoAmIRequest {})).unwrap();
    assert!(me.into_inner().operator.unwrap().remote);
    let mut health = HealthClient::new(channel);
    let health = broker.block_on(health.check(HealthCheckRequest::default())).unwrap();
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);
    broker.remove_operator("far").unwrap();
    let socket = broker.config.runtime.join("admin.sock");
    let channel = broker.connect(&socket, identity()).unwrap();
    broker.list_connections(&channel).unwrap();
}

#[test]
fn an_operator_without_remote_is_refused_over_tcp() {
    let broker = broker();
    let near = broker.enroll_identity("near", pb::Role::Administrator);
    assert_eq!(refusal(broker.connect_tcp(near)), CertificateRefusal::WrongSocket);
    // So is the first operator, until an administrator decides otherwise.
    let admin = || identity_in(&broker.config.state.join("operators/admin"));
    assert_eq!(refusal(broker.connect_tcp(admin())), CertificateRefusal::WrongSocket);
    assert!(broker.set_remote("admin", true).unwrap().remote);
    broker.list_connections(&broker.connect_tcp(admin()).unwrap()).unwrap();
    let noted = broker.journaled("intent").pop().unwrap().to_string();
    assert_says(&noted, &["operator.update", "\"remote=true\"", "operator:admin"]);
}

#[test]
fn executors_and_steps_are_refused_over_tcp() {
    let broker = broker();
    let local = identity_in(&broker.config.state.join("executors/local"));
    assert_eq!(refusal(broker.connect_tcp(local)), CertificateRefusal::WrongSocket);
    let step = broker.open("deploy", "build").opened.directory;
    assert!(broker.connect_tcp(identity_in(step.as_ref())).is_err());
}

#[test]
fn an_open_connection_ends_with_the_right_to_it() {
    let broker = broker();
    for name in ["removed", "near-now"] {
        let identity = broker.enroll_remote(name, pb::Role::Viewer);
        let address = BrokerAddress::Remote(broker.tcp());
        let open = broker.block_on(Raw::at(address, &identity, 65_535));
        let socket = broker.config.runtime.join("admin.sock");
        let beside = broker.block_on(Raw::connect(&socket, &identity, 65_535));
        match name {
            "removed" => broker.remove_operator(name).unwrap(),
            _ => drop(broker.set_remote(name, false).unwrap()),
        }
        broker.block_on(open.end());
        match name {
            "removed" => broker.block_on(beside.end()),
            // The connection on the broker's own host stays.
            _ => assert_eq!(broker.block_on(ask(&beside, "localhost")), "answered"),
        }
        assert!(broker.connect_tcp(identity).is_err(), "{name}");
    }
}

/// Asks for the caller under an `:authority`. Returns the reason of the refusal.
async fn ask(raw: &Raw, authority: &str) -> String {
    let path = "/keyhatch.v1.OperatorService/WhoAmI";
    let request = Request::post(format!("https://{authority}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let message = framed(&pb::OperatorServiceWhoAmIRequest {});
    let answer = raw.ask(request, Some(message)).await.unwrap();
    match answer.status.as_ref().is_some_and(|status| status.code() == tonic::Code::Ok) {
        true => "answered".to_owned(),
        false => answer.reason(),
    }
}

#[test]
fn an_authority_is_one_of_the_names_of_the_listener() {
    let broker = broker();
    let identity = broker.enroll_remote("far", pb::Role::Viewer);
    let address = BrokerAddress::Remote(broker.tcp());
    let raw = broker.block_on(Raw::at(address, &identity, 65_535));
    let port = broker.tcp().address.port;
    for ours in ["localhost", "LOCALHOST:1", "127.0.0.1", &format!("127.0.0.1:{port}")] {
        assert_eq!(broker.block_on(ask(&raw, ours)), "answered", "{ours}");
    }
    for other in ["evil.example", "localhost.evil.example", "127.0.0.2", "[::1]"] {
        assert_eq!(broker.block_on(ask(&raw, other)), "HTTP_INVALID", "{other}");
    }
    // On the socket the names of the listener count for nothing.
    let socket = broker.config.runtime.join("admin.sock");
    let raw = broker.block_on(Raw::connect(&socket, &identity, 65_535));
    assert_eq!(broker.block_on(ask(&raw, "127.0.0.1")), "HTTP_INVALID");
}

#[test]
fn the_key_exchange_over_tcp_is_hybrid() {
    let broker = broker();
    let identity = broker.enroll_remote("far", pb::Role::Viewer);
    let group = |address: BrokerAddress| {
        let stream = broker.block_on(connect(address, &identity)).unwrap();
        stream.get_ref().1.negotiated_key_exchange_group().unwrap().name()
    };
    assert_eq!(group(BrokerAddress::Remote(broker.tcp())), NamedGroup::X25519MLKEM768);
    assert_eq!(group((&broker.config.runtime.join("admin.sock")).into()), NamedGroup::X25519);
}

#[test]
fn remote_is_for_daemons_that_listen_and_for_administrators() {
    let broker = TestBroker::start();
    assert_eq!(reason(broker.set_remote("admin", true)), "TCP_LISTENER_OFF");
    let (_, csr) = keyhatch::identity::new_request().unwrap();
    let name = "operators/far".to_owned();
    let role = pb::Role::Viewer.into();
    let operator = Some(pb::Operator { name, role, remote: true, ..Default::default() });
    let request = pb::CreateOperatorRequest { operator, csr: csr.into(), ..Default::default() };
    let mut client = OperatorServiceClient::new(broker.operator());
    assert_eq!(reason(broker.block_on(client.create_operator(request))), "TCP_LISTENER_OFF");
    assert!(!broker.set_remote("admin", false).unwrap().remote);
    assert_eq!(reason(broker.set_remote("nobody", false)), "OPERATOR_NOT_FOUND");
    for paths in [vec![], vec!["role".to_owned()]] {
        let operator =
            Some(pb::Operator { name: "operators/admin".to_owned(), ..Default::default() });
        let update_mask = Some(prost_types::FieldMask { paths });
        let request = pb::UpdateOperatorRequest { operator, update_mask, validate_only: false };
        assert_eq!(reason(broker.block_on(client.update_operator(request))), "UPDATE_MASK_INVALID");
    }
}
