//! The length of a reply does not reveal its content.

use std::collections::{BTreeMap, BTreeSet};

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::batch_resolve_result::Result::Response;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use prost::Message as _;

use crate::harness::{TestBroker, TestStep, report, request, resolver, secret_document};

/// The lengths of the tried values: the shortest, the longest, and lengths around powers of two.
const LENGTHS: [usize; 16] = [1, 2, 16, 20, 40, 63, 64, 65, 127, 128, 129, 255, 256, 500, 513, 900];

fn connection_document(name: &str, value: &str) -> pb::apply_request::Document {
    pb::apply_request::Document::Connection(pb::ConnectionDocument {
        integration: "generic".to_owned(),
        name: name.to_owned(),
        fields: BTreeMap::from([("token".to_owned(), value.into())]),
        access: resolver(&["workflow:*"]),
        ..Default::default()
    })
}

/// Creates values of every length, under short names and under the longest names. Returns their references.
fn seeded(broker: &TestBroker) -> Vec<String> {
    let (mut documents, mut references) = (Vec::new(), Vec::new());
    for length in LENGTHS {
        let value = "v".repeat(length);
        for name in [format!("c{length}"), format!("{length:0>128}")] {
            references.extend([format!("generic/{name}"), format!("secret:{name}")]);
            documents.push(connection_document(&name, &value));
            documents.push(secret_document("w", &name, &value));
        }
    }
    broker.apply(documents).unwrap();
    references
}

async fn replies(step: &TestStep, reference: &str) -> [usize; 3] {
    let mut client = StepServiceClient::new(step.channel.clone());
    let asked = request(reference);
    let resolved = client.resolve(asked.clone()).await.unwrap().into_inner();
    let batch = pb::BatchResolveRequest { requests: vec![asked.clone()] };
    let batch = client.batch_resolve(batch).await.unwrap().into_inner();
    assert!(matches!(batch.results[0].result, Some(Response(_))));
    let watch = pb::WatchRequest { request: Some(asked) };
    let mut watch = client.watch(watch).await.unwrap().into_inner();
    let delivery = watch.message().await.unwrap().unwrap();
    [resolved.encoded_len(), batch.encoded_len(), delivery.encoded_len()]
}

async fn unpadded(step: &TestStep, reference: &str) -> usize {
    let mut client = StepServiceClient::new(step.channel.clone());
    let mut reply = client.resolve(request(reference)).await.unwrap().into_inner();
    assert!(reply.padding.iter().all(|byte| *byte == 0));
    reply.padding.clear();
    reply.encoded_len()
}

#[test]
fn replies_with_values_of_1_to_900_bytes_have_one_size() {
    let broker = TestBroker::start();
    let references = seeded(&broker);
    let (mut sizes, mut control) = (BTreeSet::new(), BTreeSet::new());
    for (number, references) in references.chunks(16).enumerate() {
        let step = broker.open("w", &format!("s{number}"));
        for reference in references {
            sizes.extend(broker.block_on(replies(&step, reference)));
            control.insert(broker.block_on(unpadded(&step, reference)));
        }
    }
    assert_eq!(sizes, BTreeSet::from([2048]));
    assert!(control.len() > 30, "{control:?}");
    report(
        "sizes of replies with values of 1 to 900 bytes",
        format!("{} replies", references.len() * 3),
        format!("{} size", sizes.len()),
        format!("{} sizes without padding", control.len()),
    );
}
