//! The levers of operators on the day of an incident: leases that end, steps that are closed, blocks.

mod blocks;
mod closes;
mod leases;
mod story;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::block_service_client::BlockServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::lease_service_client::LeaseServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::harness::{TestBroker, TestStep, reason, request};

/// Why the tests pull a lever.
const WHY: &str = "a step printed it";

/// An open Watch.
struct Watching<'a> {
    broker: &'a TestBroker,
    stream: Streaming<pb::WatchResponse>,
}

impl Watching<'_> {
    /// The version of the next delivery.
    fn version(&mut self) -> i64 {
        let next =
            self.broker.block_on(self.stream.message()).unwrap_or_else(|end| panic!("{end}"));
        next.unwrap().credential.unwrap().version
    }

    /// The reason of its end.
    fn end(&mut self) -> String {
        let next = self.broker.block_on(self.stream.message());
        reason(next.map(|delivery| delivery.map(|one| one.skipped_versions)))
    }
}

/// Begins a Watch, which has its first delivery.
fn watch<'a>(broker: &'a TestBroker, step: &TestStep, target: &str) -> Watching<'a> {
    let request = pb::WatchRequest { request: Some(request(target)) };
    let mut client = StepServiceClient::new(step.channel.clone());
    let stream = broker.block_on(client.watch(request)).unwrap().into_inner();
    let mut watching = Watching { broker, stream };
    assert_eq!(watching.version(), 1);
    watching
}

/// The leases of a connection.
fn on(reference: &str) -> pb::LeaseFilter {
    pb::LeaseFilter { connection: format!("connections/{reference}"), ..Default::default() }
}

/// The live leases that a filter admits, by a page of two after the other.
fn leases(broker: &TestBroker, filter: &pb::LeaseFilter) -> Vec<pb::LiveLease> {
    let mut client = LeaseServiceClient::new(broker.operator());
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let filter = Some(filter.clone());
        let request = pb::ListLeasesRequest { page_size: 2, page_token, filter };
        let page = broker.block_on(client.list_leases(request)).unwrap().into_inner();
        assert!(page.leases.len() <= 2);
        found.extend(page.leases);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

/// Revokes the leases that a filter admits, as this operator.
fn revoke(
    broker: &TestBroker,
    operator: Channel,
    filter: pb::LeaseFilter,
) -> Result<pb::RevokeLeasesResponse, Status> {
    let (filter, reason) = (Some(filter), WHY.to_owned());
    let request = pb::RevokeLeasesRequest { filter, reason, ..Default::default() };
    let mut client = LeaseServiceClient::new(operator);
    broker.block_on(client.revoke_leases(request)).map(tonic::Response::into_inner)
}

/// Blocks a target, as this operator.
fn block(
    broker: &TestBroker,
    operator: Channel,
    target: &str,
) -> Result<pb::BlockResponse, Status> {
    let request = pb::BlockRequest { target: target.to_owned(), reason: WHY.to_owned() };
    let mut client = BlockServiceClient::new(operator);
    broker.block_on(client.block(request)).map(tonic::Response::into_inner)
}

/// Lifts the block on a target, as this operator.
fn unblock(
    broker: &TestBroker,
    operator: Channel,
    target: &str,
) -> Result<pb::UnblockResponse, Status> {
    let request = pb::UnblockRequest { target: target.to_owned(), reason: WHY.to_owned() };
    let mut client = BlockServiceClient::new(operator);
    broker.block_on(client.unblock(request)).map(tonic::Response::into_inner)
}

/// The steps of run 1, as an operator sees them.
fn show(broker: &TestBroker) -> Vec<pb::RunStep> {
    let request = pb::GetRunRequest { workflow: String::new(), run: "1".to_owned() };
    let mut client = ExecutorServiceClient::new(broker.operator());
    broker.block_on(client.get_run(request)).unwrap().into_inner().steps
}
