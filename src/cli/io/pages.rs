//! Every list RPC, all its pages at once: people and scripts want the whole list.

use tonic::transport::Channel;

use super::failure::Failure;
use super::output::say;
use crate::grpc::pb;
use crate::grpc::pb::block_service_client::BlockServiceClient;
use crate::grpc::pb::connection_service_client::ConnectionServiceClient;
use crate::grpc::pb::executor_registry_service_client::ExecutorRegistryServiceClient;
use crate::grpc::pb::executor_service_client::ExecutorServiceClient;
use crate::grpc::pb::group_service_client::GroupServiceClient;
use crate::grpc::pb::integration_service_client::IntegrationServiceClient;
use crate::grpc::pb::lease_service_client::LeaseServiceClient;
use crate::grpc::pb::operator_service_client::OperatorServiceClient;
use crate::grpc::pb::run_service_client::RunServiceClient;
use crate::grpc::pb::secret_service_client::SecretServiceClient;
use crate::grpc::pb::system_service_client::SystemServiceClient;

/// The most items that the broker puts on a page.
const LARGEST: i32 = 1000;

/// Items, names of those that only a newer version can read, and the token of the next page.
type Page<T> = (Vec<T>, Vec<String>, String);

/// Asks for page after page. `page` is given the token of the page to ask for, and `take` what is on it.
async fn each<T>(
    mut page: impl AsyncFnMut(String) -> Result<Page<T>, tonic::Status>,
    mut take: impl FnMut(Vec<T>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut token = String::new();
    loop {
        let (items, newer, next) = page(token).await?;
        take(items)?;
        for name in newer {
            say(&format!(
                "{name} was written by a newer keyhatch, and this version uses nothing of it; run the newer keyhatch"
            ));
        }
        if next.is_empty() {
            return Ok(());
        }
        token = next;
    }
}

async fn all<T>(
    page: impl AsyncFnMut(String) -> Result<Page<T>, tonic::Status>,
) -> Result<Vec<T>, Failure> {
    let mut found = Vec::new();
    let take = |items| {
        found.extend::<Vec<_>>(items);
        Ok(())
    };
    each(page, take).await?;
    Ok(found)
}

/// The connections asked for, by integration and name; as `ConnectionService.ListConnections`.
pub async fn connections(
    channel: &Channel,
    wanted: pb::ListConnectionsRequest,
) -> Result<Vec<pb::Connection>, Failure> {
    let mut found = Vec::new();
    let take = |page| {
        found.extend::<Vec<_>>(page);
        Ok(())
    };
    each_connections(channel, wanted, take).await?;
    Ok(found)
}

/// The same page by page, so that the first is printed before the last has come.
pub async fn each_connections(
    channel: &Channel,
    wanted: pb::ListConnectionsRequest,
    take: impl FnMut(Vec<pb::Connection>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut client = ConnectionServiceClient::new(channel.clone());
    let page = async |page_token| {
        let request =
            pb::ListConnectionsRequest { page_size: LARGEST, page_token, ..wanted.clone() };
        let page = client.list_connections(request).await?.into_inner();
        Ok((page.connections, page.newer, page.next_page_token))
    };
    each(page, take).await
}

/// The groups asked for, by name if no order is; as `GroupService.ListGroups`.
pub async fn groups(
    channel: &Channel,
    wanted: pb::ListGroupsRequest,
) -> Result<Vec<pb::ConnectionGroup>, Failure> {
    let mut client = GroupServiceClient::new(channel.clone());
    let page = async |page_token| {
        let request = pb::ListGroupsRequest { page_size: LARGEST, page_token, ..wanted.clone() };
        let page = client.list_groups(request).await?.into_inner();
        Ok((page.groups, page.newer, page.next_page_token))
    };
    all(page).await
}

/// The members of a group, "connections/INTEGRATION/NAME"; as `GroupService.ListMembers`.
pub async fn members(channel: &Channel, group: &str) -> Result<Vec<String>, Failure> {
    let mut client = GroupServiceClient::new(channel.clone());
    let page = async |page_token| {
        let name = group.to_owned();
        let request = pb::ListMembersRequest { name, page_size: LARGEST, page_token };
        let page = client.list_members(request).await?.into_inner();
        Ok((page.members, Vec::new(), page.next_page_token))
    };
    all(page).await
}

/// The candidates asked for; as `GroupService.ListCandidates`.
pub async fn candidates(
    channel: &Channel,
    wanted: pb::ListCandidatesRequest,
) -> Result<Vec<pb::Candidate>, Failure> {
    let mut client = GroupServiceClient::new(channel.clone());
    let page = async |page_token| {
        let request =
            pb::ListCandidatesRequest { page_size: LARGEST, page_token, ..wanted.clone() };
        let page = client.list_candidates(request).await?.into_inner();
        Ok((page.candidates, Vec::new(), page.next_page_token))
    };
    all(page).await
}

/// Every integration by name, built in or operators' own; as `IntegrationService.ListIntegrations`.
pub async fn integrations(channel: &Channel) -> Result<Vec<pb::Integration>, Failure> {
    let mut client = IntegrationServiceClient::new(channel.clone());
    let page = async |page_token| {
        let request = pb::ListIntegrationsRequest { page_size: LARGEST, page_token };
        let page = client.list_integrations(request).await?.into_inner();
        Ok((page.integrations, page.newer, page.next_page_token))
    };
    all(page).await
}

/// The secrets asked for, by workflow and name if no order is; as `SecretService.ListSecrets`.
pub async fn secrets(
    channel: &Channel,
    wanted: pb::ListSecretsRequest,
) -> Result<Vec<pb::Secret>, Failure> {
    let mut client = SecretServiceClient::new(channel.clone());
    let page = async |page_token| {
        let request = pb::ListSecretsRequest { page_size: LARGEST, page_token, ..wanted.clone() };
        let page = client.list_secrets(request).await?.into_inner();
        Ok((page.secrets, page.newer, page.next_page_token))
    };
    all(page).await
}

/// A request for the secrets of a workflow, or of all.
pub fn secrets_of(workflow: Option<&str>) -> pb::ListSecretsRequest {
    let workflow = workflow.unwrap_or("-").to_owned();
    pb::ListSecretsRequest { workflow, ..Default::default() }
}

/// The open steps that the caller sees, of a workflow or of all; as `ExecutorService.ListSteps`.
pub async fn steps(channel: &Channel, workflow: Option<&str>) -> Result<Vec<pb::Step>, Failure> {
    let mut client = ExecutorServiceClient::new(channel.clone());
    let page = async |page_token| {
        let workflow = workflow.unwrap_or_default().to_owned();
        let request = pb::ListStepsRequest { page_size: LARGEST, page_token, workflow };
        let page = client.list_steps(request).await?.into_inner();
        Ok((page.steps, Vec::new(), page.next_page_token))
    };
    all(page).await
}

/// The runs asked for; as `RunService.ListRuns`.
pub async fn runs(
    channel: &Channel,
    wanted: pb::ListRunsRequest,
) -> Result<Vec<pb::RunSummary>, Failure> {
    let mut client = RunServiceClient::new(channel.clone());
    let page = async |page_token| {
        let request = pb::ListRunsRequest { page_size: LARGEST, page_token, ..wanted.clone() };
        let page = client.list_runs(request).await?.into_inner();
        Ok((page.runs, Vec::new(), page.next_page_token))
    };
    all(page).await
}

/// Every block, by what it is on; as `BlockService.ListBlocks`.
pub async fn blocks(channel: &Channel) -> Result<Vec<pb::AccessBlock>, Failure> {
    let mut client = BlockServiceClient::new(channel.clone());
    let page = async |page_token| {
        let request = pb::ListBlocksRequest { page_size: LARGEST, page_token };
        let page = client.list_blocks(request).await?.into_inner();
        Ok((page.blocks, Vec::new(), page.next_page_token))
    };
    all(page).await
}

/// The workflows asked for; as `RunService.ListWorkflows`.
pub async fn workflows(
    channel: &Channel,
    wanted: pb::ListWorkflowsRequest,
) -> Result<Vec<pb::WorkflowSummary>, Failure> {
    let mut client = RunServiceClient::new(channel.clone());
    let page = async |page_token| {
        let request = pb::ListWorkflowsRequest { page_size: LARGEST, page_token, ..wanted.clone() };
        let page = client.list_workflows(request).await?.into_inner();
        Ok((page.workflows, Vec::new(), page.next_page_token))
    };
    all(page).await
}

/// The live leases that a filter admits; as `LeaseService.ListLeases`.
pub async fn leases(
    channel: &Channel,
    filter: &pb::LeaseFilter,
) -> Result<Vec<pb::LiveLease>, Failure> {
    let mut client = LeaseServiceClient::new(channel.clone());
    let page = async |page_token| {
        let filter = Some(filter.clone());
        let request = pb::ListLeasesRequest { page_size: LARGEST, page_token, filter };
        let page = client.list_leases(request).await?.into_inner();
        Ok((page.leases, Vec::new(), page.next_page_token))
    };
    all(page).await
}

/// The endings that are not over, of a connection or of all; as `SystemService.ListEndings`.
pub async fn endings(
    channel: &Channel,
    connection: Option<&str>,
) -> Result<Vec<pb::Ending>, Failure> {
    let mut client = SystemServiceClient::new(channel.clone());
    let page = async |page_token| {
        let connection = connection.unwrap_or_default().to_owned();
        let request = pb::ListEndingsRequest { page_size: LARGEST, page_token, connection };
        let page = client.list_endings(request).await?.into_inner();
        Ok((page.endings, Vec::new(), page.next_page_token))
    };
    all(page).await
}

/// Every operator; as `OperatorService.ListOperators`.
pub async fn operators(channel: &Channel) -> Result<Vec<pb::Operator>, Failure> {
    let mut client = OperatorServiceClient::new(channel.clone());
    let page = async |page_token| {
        let request = pb::ListOperatorsRequest { page_size: LARGEST, page_token };
        let page = client.list_operators(request).await?.into_inner();
        Ok((page.operators, page.newer, page.next_page_token))
    };
    all(page).await
}

/// Every executor; as `ExecutorRegistryService.ListExecutors`.
pub async fn executors(channel: &Channel) -> Result<Vec<pb::Executor>, Failure> {
    let mut client = ExecutorRegistryServiceClient::new(channel.clone());
    let page = async |page_token| {
        let request = pb::ListExecutorsRequest { page_size: LARGEST, page_token };
        let page = client.list_executors(request).await?.into_inner();
        Ok((page.executors, page.newer, page.next_page_token))
    };
    all(page).await
}
