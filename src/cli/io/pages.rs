//! Lists come in pages; people and scripts want all of it.

use tonic::transport::Channel;

use super::failure::Failure;
use super::output::say;
use crate::grpc::pb;
use crate::grpc::pb::connection_service_client::ConnectionServiceClient;
use crate::grpc::pb::executor_service_client::ExecutorServiceClient;
use crate::grpc::pb::group_service_client::GroupServiceClient;
use crate::grpc::pb::integration_service_client::IntegrationServiceClient;
use crate::grpc::pb::secret_service_client::SecretServiceClient;

/// The most that a page holds.
const LARGEST: i32 = 1000;

/// Asks for page after page. `page` is given the token of the page to ask for.
///
/// # Errors
/// As `page`.
pub async fn all<T, P>(mut page: impl FnMut(String) -> P) -> Result<Vec<T>, Failure>
where
    P: Future<Output = Result<(Vec<T>, String), tonic::Status>>,
{
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let (items, next) = page(token).await?;
        found.extend(items);
        if next.is_empty() {
            return Ok(found);
        }
        token = next;
    }
}

/// Says what a list leaves out, because the broker cannot read it.
pub fn tell_newer(names: &[String]) {
    for name in names {
        say(&format!(
            "{name} was written by a newer keyhatch, and this version uses nothing of it; run the newer keyhatch"
        ));
    }
}

/// Every connection that is asked for, by integration and name.
///
/// # Errors
/// As `ConnectionService.ListConnections`.
pub async fn connections(
    channel: &Channel,
    wanted: pb::ListConnectionsRequest,
) -> Result<Vec<pb::Connection>, Failure> {
    let mut found = Vec::new();
    let take = |page| {
        found.extend::<Vec<_>>(page);
        Ok(())
    };
    connections_by_page(channel, wanted, take).await?;
    Ok(found)
}

/// The same, page by page: nobody waits for the last one to see the first.
///
/// # Errors
/// As `ConnectionService.ListConnections`, or as `take`.
pub async fn connections_by_page(
    channel: &Channel,
    mut wanted: pb::ListConnectionsRequest,
    mut take: impl FnMut(Vec<pb::Connection>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut client = ConnectionServiceClient::new(channel.clone());
    wanted.page_size = LARGEST;
    loop {
        let page = client.list_connections(wanted.clone()).await?.into_inner();
        take(page.connections)?;
        tell_newer(&page.newer);
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        wanted.page_token = page.next_page_token;
    }
}

/// Every group, by name.
///
/// # Errors
/// As `GroupService.ListGroups`.
pub async fn groups(channel: &Channel) -> Result<Vec<pb::ConnectionGroup>, Failure> {
    let client = GroupServiceClient::new(channel.clone());
    let page = |page_token| {
        let request = pb::ListGroupsRequest { page_size: LARGEST, page_token };
        let mut client = client.clone();
        async move {
            let page = client.list_groups(request).await?.into_inner();
            tell_newer(&page.newer);
            Ok((page.groups, page.next_page_token))
        }
    };
    all(page).await
}

/// The members of a group, "connections/INTEGRATION/NAME".
///
/// # Errors
/// As `GroupService.ListMembers`.
pub async fn members(channel: &Channel, group: &str) -> Result<Vec<String>, Failure> {
    let client = GroupServiceClient::new(channel.clone());
    let page = |page_token| {
        let request =
            pb::ListMembersRequest { name: group.to_owned(), page_size: LARGEST, page_token };
        let mut client = client.clone();
        async move {
            let page = client.list_members(request).await?.into_inner();
            Ok((page.members, page.next_page_token))
        }
    };
    all(page).await
}

/// Every integration, the broker's and operators' own, by name.
///
/// # Errors
/// As `IntegrationService.ListIntegrations`.
pub async fn integrations(channel: &Channel) -> Result<Vec<pb::Integration>, Failure> {
    let client = IntegrationServiceClient::new(channel.clone());
    let page = |page_token| {
        let request = pb::ListIntegrationsRequest { page_size: LARGEST, page_token };
        let mut client = client.clone();
        async move {
            let page = client.list_integrations(request).await?.into_inner();
            tell_newer(&page.newer);
            Ok((page.integrations, page.next_page_token))
        }
    };
    all(page).await
}

/// Every secret of a workflow, or of all, by workflow and name.
///
/// # Errors
/// As `SecretService.ListSecrets`.
pub async fn secrets(
    channel: &Channel,
    workflow: Option<&str>,
) -> Result<Vec<pb::Secret>, Failure> {
    let client = SecretServiceClient::new(channel.clone());
    let page = |page_token| {
        let workflow = workflow.unwrap_or("-").to_owned();
        let request = pb::ListSecretsRequest { workflow, page_size: LARGEST, page_token };
        let mut client = client.clone();
        async move {
            let page = client.list_secrets(request).await?.into_inner();
            tell_newer(&page.newer);
            Ok((page.secrets, page.next_page_token))
        }
    };
    all(page).await
}

/// Every open step that the caller sees, of a workflow or of all.
///
/// # Errors
/// As `ExecutorService.ListSteps`.
pub async fn steps(channel: &Channel, workflow: Option<&str>) -> Result<Vec<pb::Step>, Failure> {
    let client = ExecutorServiceClient::new(channel.clone());
    let page = |page_token| {
        let workflow = workflow.unwrap_or_default().to_owned();
        let request = pb::ListStepsRequest { page_size: LARGEST, page_token, workflow };
        let mut client = client.clone();
        async move {
            let page = client.list_steps(request).await?.into_inner();
            Ok((page.steps, page.next_page_token))
        }
    };
    all(page).await
}
