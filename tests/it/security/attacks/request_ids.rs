//! A request id belongs to one request alone.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::operator_service_client::OperatorServiceClient;
use keyhatch::grpc::pb::secret_service_client::SecretServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{TestBroker, bytes, open_request, reason, resolver};

fn put_secret(broker: &TestBroker, caller: &Channel, value: &str, id: &str) -> Result<i64, Status> {
    let request = pb::PutSecretRequest {
        name: "workflows/deploy/secrets/token".to_owned(),
        value: value.into(),
        request_id: id.to_owned(),
        ..Default::default()
    };
    let mut client = SecretServiceClient::new(caller.clone());
    broker.block_on(client.put_secret(request)).map(|put| put.into_inner().version)
}

fn open(
    broker: &TestBroker,
    caller: &Channel,
    request: pb::OpenStepRequest,
) -> Result<String, Status> {
    let mut client = ExecutorServiceClient::new(caller.clone());
    broker.block_on(client.open_step(request)).map(|opened| opened.into_inner().name)
}

fn close(broker: &TestBroker, name: &str) {
    let request = pb::CloseStepRequest { name: name.to_owned(), ..Default::default() };
    let mut client = ExecutorServiceClient::new(broker.executor());
    assert!(broker.block_on(client.close_step(request)).unwrap().into_inner().closed);
}

fn named(step: &str, id: &str) -> pb::OpenStepRequest {
    pb::OpenStepRequest { request_id: id.to_owned(), ..open_request("deploy", step) }
}

#[test]
fn a_rotation_under_a_used_id_is_refused_and_not_acknowledged() {
    let mut broker = TestBroker::start();
    let admin = broker.operator();
    assert_eq!(put_secret(&broker, &admin, "old", "rid").unwrap(), 1);
    assert_eq!(put_secret(&broker, &admin, "old", "rid").unwrap(), 1);
    let reused = put_secret(&broker, &admin, "new", "rid");
    assert_eq!(reused.as_ref().unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(reason(reused), "REQUEST_ID_REUSED");
    broker.restart();
    let admin = broker.operator();
    assert_eq!(put_secret(&broker, &admin, "old", "rid").unwrap(), 1);
    assert_eq!(reason(put_secret(&broker, &admin, "new", "rid")), "REQUEST_ID_REUSED");
    let step = broker.open("deploy", "build");
    assert_eq!(broker.resolve(&step, "secret:token").unwrap().fields["value"], "old");
    // The stored hash of the request reveals nothing about the value, and the value is nowhere.
    let journal = std::fs::read_to_string(broker.journal_path()).unwrap();
    assert!(journal.contains("request_mac") && !journal.contains("PutSecret"));
}

#[test]
fn every_field_of_a_change_is_bound_to_its_id() {
    let broker = TestBroker::start();
    broker.create_connection("slack/a", &[("api_token", "t")], &["workflow:w"]).unwrap();
    let mut client = ConnectionServiceClient::new(broker.operator());
    let first = pb::UpdateConnectionRequest {
        connection: Some(pb::Connection {
            name: "connections/slack/a".to_owned(),
            labels: [("one", "1"), ("two", "2")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ..Default::default()
        }),
        request_id: "rid".to_owned(),
        ..Default::default()
    };
    let mut send = |request| broker.block_on(client.update_connection(request)).map(drop);
    send(first.clone()).unwrap();
    send(first.clone()).unwrap();
    let connection = first.connection.clone().unwrap();
    let others = [
        pb::Connection { disabled: true, ..connection.clone() },
        pb::Connection { access: resolver(&["workflow:x"]), ..connection.clone() },
        pb::Connection { fields: bytes(&[("api_token", "u")]), ..connection.clone() },
        pb::Connection { labels: [("one".to_owned(), "1".to_owned())].into(), ..connection },
    ];
    for other in others {
        let request = pb::UpdateConnectionRequest { connection: Some(other), ..first.clone() };
        assert_eq!(reason(send(request)), "REQUEST_ID_REUSED");
    }
    let mask = prost_types::FieldMask { paths: vec!["labels".to_owned()] };
    let masked = pb::UpdateConnectionRequest { update_mask: Some(mask), ..first };
    assert_eq!(reason(send(masked)), "REQUEST_ID_REUSED");
}

#[test]
fn a_repeated_open_of_an_earlier_attempt_closes_nothing() {
    let mut broker = TestBroker::start();
    let executor = broker.executor();
    let first = open(&broker, &executor, named("s", "one")).unwrap();
    let second = open(&broker, &executor, named("s", "two")).unwrap();
    for _ in 0..2 {
        let executor = broker.executor();
        // The first attempt is closed, and a repeated request for it does not close the second.
        assert_eq!(reason(open(&broker, &executor, named("s", "one"))), "STEP_CLOSED");
        assert_eq!(open(&broker, &executor, named("s", "two")).unwrap(), second);
        broker.restart();
    }
    assert_ne!(first, second);
    let executor = broker.executor();
    for other in [
        pb::OpenStepRequest { run_as: vec!["user:root".to_owned()], ..named("s", "two") },
        pb::OpenStepRequest { attempt: Some(9), ..named("s", "one") },
        named("t", "one"),
    ] {
        assert_eq!(reason(open(&broker, &executor, other)), "REQUEST_ID_REUSED");
    }
    // The second attempt is closed too, and ids of other executors do not count.
    close(&broker, &second);
    assert_eq!(reason(open(&broker, &executor, named("s", "two"))), "STEP_CLOSED");
    let other = broker.enroll_executor("other", &["*"], &[]);
    open(&broker, &other, named("s", "two")).unwrap();
}

#[test]
fn an_id_is_its_registrations_and_goes_with_it() {
    let broker = TestBroker::start();
    let bob = broker.enroll("bob", pb::Role::Operator);
    assert_eq!(put_secret(&broker, &bob, "bobs", "rid").unwrap(), 1);
    // The id answers no other operator.
    assert_eq!(put_secret(&broker, &broker.operator(), "mine", "rid").unwrap(), 2);
    let name = "operators/bob".to_owned();
    let request = pb::DeleteOperatorRequest { name, ..Default::default() };
    broker
        .block_on(OperatorServiceClient::new(broker.operator()).delete_operator(request))
        .unwrap();
    let bob = broker.enroll("bob", pb::Role::Operator);
    assert_eq!(put_secret(&broker, &bob, "bobs", "rid").unwrap(), 3);
}

/// A request of a newer client, with a field that this broker does not know.
#[derive(Clone, PartialEq, prost::Message)]
struct NewerPutSecret {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(string, tag = "4")]
    request_id: String,
    #[prost(string, tag = "100")]
    of_tomorrow: String,
}

#[test]
fn under_an_id_nothing_that_is_not_known_is_left_out() {
    let broker = TestBroker::start();
    let put = |request_id: &str, of_tomorrow: &str| {
        let request = NewerPutSecret {
            name: "workflows/deploy/secrets/token".to_owned(),
            value: b"v".to_vec(),
            request_id: request_id.to_owned(),
            of_tomorrow: of_tomorrow.to_owned(),
        };
        let channel = broker.operator();
        broker.block_on(async {
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.unwrap();
            let path = "/keyhatch.v1.SecretService/PutSecret".parse().unwrap();
            let codec = tonic_prost::ProstCodec::<NewerPutSecret, pb::Secret>::default();
            client.unary(tonic::Request::new(request), path, codec).await.map(drop)
        })
    };
    put("", "x").unwrap();
    put("rid", "").unwrap();
    let refused = put("rid-2", "x");
    assert_eq!(refused.as_ref().unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(reason(refused), "REQUEST_FIELD_UNKNOWN");
}
