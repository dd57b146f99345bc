//! Every identity with every relation calls every RPC method, and `access_table.txt` gives each outcome.

use std::collections::BTreeSet;

use keyhatch::egress::EgressTable;
use keyhatch::grpc::pb;
use keyhatch::identity::new_request;
use keyhatch::model::Limits;
use prost::Message as _;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{TestBroker, bytes, identity_in, reason};

const RELATIONS: [Option<pb::Relation>; 5] = [
    None,
    Some(pb::Relation::Viewer),
    Some(pb::Relation::User),
    Some(pb::Relation::Resolver),
    Some(pb::Relation::Editor),
];
const IDENTITIES: [(&str, &str); 5] = [
    ("step", "workflow:deploy"),
    ("executor", "workflow:nobody"),
    ("viewer", "operator:looks"),
    ("operator", "operator:works"),
    ("administrator", "operator:rules"),
];

/// One row: a method, and the outcome for each identity and relation.
struct Row {
    method: String,
    outcomes: Vec<[String; RELATIONS.len()]>,
}

fn table() -> Vec<Row> {
    let lines = include_str!("access_table.txt").lines();
    let rows = lines.filter(|line| !line.starts_with('#') && !line.is_empty());
    rows.map(|line| {
        let mut words = line.split_whitespace();
        let method = words.next().unwrap().to_owned();
        let cell = |word: &str| {
            let parts: Vec<_> = word.split('/').map(ToOwned::to_owned).collect();
            match parts.as_slice() {
                [same] => std::array::from_fn(|_| same.clone()),
                each => each.to_vec().try_into().unwrap(),
            }
        };
        let outcomes: Vec<_> = words.map(cell).collect();
        assert_eq!(outcomes.len(), IDENTITIES.len(), "{line}");
        Row { method, outcomes }
    })
    .collect()
}

/// All methods, from the compiled protos.
pub fn methods() -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap();
    let ours = set.file.iter().filter(|file| file.package() == "keyhatch.v1");
    let services = ours.flat_map(|file| &file.service);
    let names = services.flat_map(|service| {
        service.method.iter().map(|method| format!("{}.{}", service.name(), method.name()))
    });
    names.collect()
}

#[test]
fn every_method_has_a_row_and_every_row_a_method() {
    let method = |row: Row| row.method.split('+').next().unwrap().to_owned();
    let rows: BTreeSet<String> = table().into_iter().map(method).collect();
    assert_eq!(rows, methods());
}

#[test]
fn every_identity_and_relation_may_do_what_the_table_says() {
    let broker = table_broker(TestBroker::start_with(limits()));
    let step = broker.open("deploy", "build");
    let channels = [
        step.channel,
        broker.executor(),
        broker.enroll("looks", pb::Role::Viewer),
        broker.enroll("works", pb::Role::Operator),
        broker.enroll("rules", pb::Role::Administrator),
    ];
    check_table(&broker, &channels.map(Some));
}

#[test]
fn over_tcp_operators_may_do_the_same_and_others_nothing() {
    let broker = table_broker(TestBroker::start_with_tcp(limits()));
    let opened = broker.open("deploy", "build").opened;
    let others = [opened.directory.into(), broker.config.state.join("executors/local")];
    for directory in others {
        assert!(broker.connect_tcp(identity_in(&directory)).is_err(), "{}", directory.display());
    }
    let operators = [
        ("looks", pb::Role::Viewer),
        ("works", pb::Role::Operator),
        ("rules", pb::Role::Administrator),
    ];
    let connect = |(name, role)| broker.connect_tcp(broker.enroll_remote(name, role)).ok();
    let [viewer, operator, administrator] = operators.map(connect);
    assert!([&viewer, &operator, &administrator].iter().all(|channel| channel.is_some()));
    check_table(&broker, &[None, None, viewer, operator, administrator]);
}

fn limits() -> Limits {
    Limits {
        step_request_burst: 10_000,
        step_refusal_burst: 10_000,
        executor_refusal_burst: 10_000,
        executor_open_burst: 10_000,
        admin_refusal_burst: 10_000,
        admin_request_burst: 10_000,
        ..Limits::default()
    }
}

/// A broker with the resources of every cell.
fn table_broker(mut broker: TestBroker) -> TestBroker {
    // What a step has sent goes nowhere.
    let deny = vec!["slack.com".to_owned()];
    broker.config.egress = EgressTable { deny, ..EgressTable::default() }.rules().unwrap();
    broker.restart();
    seed(&broker, &table());
    broker
}

/// Makes the calls of every row over the channel of each identity, if there is one.
fn check_table(broker: &TestBroker, channels: &[Option<Channel>; IDENTITIES.len()]) {
    let mut wrong = Vec::new();
    for (number, row) in table().iter().enumerate() {
        for (identity, outcomes) in row.outcomes.iter().enumerate() {
            let Some(channel) = &channels[identity] else { continue };
            for (relation, expected) in outcomes.iter().enumerate() {
                let cell = cell_of(number, identity, relation);
                let outcome = broker.block_on(call(channel.clone(), &row.method, cell));
                let got = word(outcome);
                if got != *expected {
                    let (who, held) = (IDENTITIES[identity].0, RELATIONS[relation]);
                    wrong.push(format!("{} by {who}, {held:?}: {got}, not {expected}", row.method));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// `WhoAmI` tells a console what to offer.
#[test]
fn whoami_lists_the_methods_that_the_table_allows() {
    let broker = TestBroker::start();
    let rows = table();
    for (identity, role) in
        [(2, pb::Role::Viewer), (3, pb::Role::Operator), (4, pb::Role::Administrator)]
    {
        let name = IDENTITIES[identity].0;
        let mut client =
            pb::operator_service_client::OperatorServiceClient::new(broker.enroll(name, role));
        let asked = client.who_am_i(pb::OperatorServiceWhoAmIRequest {});
        let me = broker.block_on(asked).unwrap().into_inner();
        // An editor shows whether the role is enough.
        let is_included = |row: &&Row| row.outcomes[identity][RELATIONS.len() - 1] == "ok";
        let allowed: BTreeSet<String> = rows
            .iter()
            .filter(is_included)
            .map(|row| row.method.split('+').next().unwrap().replacen('.', "/", 1))
            .map(|method| format!("keyhatch.v1.{method}"))
            .collect();
        let listed: BTreeSet<String> = me.methods.iter().cloned().collect();
        let (more, less) = (listed.difference(&allowed), allowed.difference(&listed));
        let (more, less): (Vec<_>, Vec<_>) = (more.collect(), less.collect());
        let place = "src/grpc/admin/abilities.rs";
        assert!(more.is_empty() && less.is_empty(), "{name}: {place} has {more:?}, lacks {less:?}");
        let operator = me.operator.unwrap();
        assert_eq!((operator.name, operator.role), (format!("operators/{name}"), role.into()));
        assert_eq!(me.spiffe_id, format!("spiffe://keyhatch.local/operator/{name}"));
        assert_eq!(me.certificate_expire_time, operator.certificates[0].expire_time);
    }
}

/// The number of a cell. Each cell has its own connection and group, with its one relation on both. In a row `+member`
/// the connection is a member of the group, and everybody edits the connection.
fn cell_of(row: usize, identity: usize, relation: usize) -> usize {
    (row * IDENTITIES.len() + identity) * RELATIONS.len() + relation
}

fn seed(broker: &TestBroker, rows: &[Row]) {
    use pb::apply_request::Document;
    let mut documents = Vec::new();
    for (row, Row { method, .. }) in rows.iter().enumerate() {
        let is_member = method.ends_with("+member");
        for (identity, (_, principal)) in IDENTITIES.iter().enumerate() {
            for (held, relation) in RELATIONS.iter().enumerate() {
                let cell = cell_of(row, identity, held);
                let access = |of_group: bool| {
                    let of_members = [pb::Relation::User, pb::Relation::Resolver];
                    let is_bound =
                        |relation: &pb::Relation| !of_group || !of_members.contains(relation);
                    let relation = match is_member && !of_group {
                        true => Some(pb::Relation::Editor),
                        false => *relation,
                    };
                    let bound = relation.filter(is_bound).map(|relation| pb::AccessBinding {
                        relation: relation.into(),
                        principals: vec![(*principal).to_owned()],
                    });
                    bound.into_iter().collect()
                };
                documents.push(Document::Connection(pb::ConnectionDocument {
                    integration: "slack".to_owned(),
                    name: format!("c{cell}"),
                    fields: bytes(&[("api_token", "a-token")]),
                    tags: vec![format!("cell:{cell}")],
                    access: access(false),
                    ..Default::default()
                }));
                documents.push(Document::Group(pb::GroupDocument {
                    integration: "slack".to_owned(),
                    name: format!("g{cell}"),
                    identifiers: vec!["cell".to_owned()],
                    access: access(true),
                    members: is_member
                        .then(|| pb::GroupMembers { names: vec![format!("c{cell}")] }),
                    ..Default::default()
                }));
            }
        }
    }
    broker.apply(documents).unwrap();
}

fn word(outcome: Result<(), Status>) -> String {
    match outcome {
        Ok(()) => "ok".to_owned(),
        Err(status) if status.code() == Code::Unimplemented => "door".to_owned(),
        Err(status) => match reason(Err::<(), _>(status)).as_str() {
            "ROLE_REQUIRED" => "role".to_owned(),
            "EDIT_DENIED" => "edit".to_owned(),
            "RESOLVE_DENIED" => "resolve".to_owned(),
            "SSH_KEY_MISSING" => "unfit".to_owned(),
            other => other.to_owned(),
        },
    }
}

/// Calls one method on a client of its service.
macro_rules! rpc {
    ($channel:expr, $module:ident :: $client:ident . $method:ident, $request:expr) => {
        pb::$module::$client::new($channel).$method($request).await.map(drop)
    };
}

pub async fn call(channel: Channel, method: &str, cell: usize) -> Result<(), Status> {
    let (service, name) = method.split_once('.').unwrap();
    match service {
        "ApplyService" => apply(channel, name, cell).await,
        "BlockService" => block(channel, name, cell).await,
        "ConnectionService" => connection(channel, name, cell).await,
        "ExecutorRegistryService" => executor_registry(channel, name, cell).await,
        "ExecutorService" => executor(channel, name, cell).await,
        "GroupService" => group(channel, name, cell).await,
        "IntegrationService" => integration(channel, name, cell).await,
        "ImpactService" => impact(channel, name, cell).await,
        "LeaseService" => lease(channel, name, cell).await,
        "OperatorService" => operator(channel, name, cell).await,
        "RunService" => runs(channel, name).await,
        "SecretService" => secret(channel, name, cell).await,
        "StepService" => step(channel, name, cell).await,
        "SystemService" => system(channel, name).await,
        _ => panic!("teach this test to call {method}"),
    }
}

async fn apply(channel: Channel, method: &str, cell: usize) -> Result<(), Status> {
    let document = pb::ConnectionDocument {
        integration: "slack".to_owned(),
        name: format!("c{cell}"),
        tags: vec!["env:prod".to_owned()],
        ..Default::default()
    };
    let document = Some(pb::apply_request::Document::Connection(document));
    let document = pb::ApplyRequest { document };
    match method {
        "Apply" => {
            let requests = tokio_stream::iter([document]);
            rpc!(channel, apply_service_client::ApplyServiceClient.apply, requests)
        }
        "Plan" => {
            let requests = tokio_stream::iter([pb::PlanRequest { document: Some(document) }]);
            rpc!(channel, apply_service_client::ApplyServiceClient.plan, requests)
        }
        _ => panic!("teach this test to call {method}"),
    }
}

async fn step(channel: Channel, method: &str, cell: usize) -> Result<(), Status> {
    use pb::resolve_request::Target;
    let (integration, name) = ("slack".to_owned(), format!("c{cell}"));
    let target = Some(Target::Connection(pb::ConnectionTarget { integration, name }));
    let request = pb::ResolveRequest { target, ..Default::default() };
    let mut client = pb::step_service_client::StepServiceClient::new(channel);
    match method {
        "Resolve" => client.resolve(request).await.map(drop),
        "BatchResolve" => {
            let request = pb::BatchResolveRequest { requests: vec![request] };
            let results = client.batch_resolve(request).await?.into_inner().results;
            match results.into_iter().next().unwrap().result.unwrap() {
                pb::batch_resolve_result::Result::Response(_) => Ok(()),
                pb::batch_resolve_result::Result::Error(error) => {
                    assert_eq!(error.reason, "RESOLVE_DENIED");
                    client.resolve(request_again(cell)).await.map(drop)
                }
            }
        }
        "Watch" => {
            let request = pb::WatchRequest { request: Some(request) };
            let mut deliveries = client.watch(request).await?.into_inner();
            deliveries.message().await.map(drop)
        }
        // The step's lease, if it can have one.
        "RenewLease" | "RevokeLease" => {
            let name = client.resolve(request).await?.into_inner().lease.unwrap().name;
            match method {
                "RenewLease" => {
                    let request = pb::RenewLeaseRequest { name, ..Default::default() };
                    client.renew_lease(request).await.map(drop)
                }
                _ => client.revoke_lease(pb::RevokeLeaseRequest { name }).await.map(drop),
            }
        }
        "WhoAmI" => client.who_am_i(pb::WhoAmIRequest {}).await.map(drop),
        _ => act(client, method, cell).await,
    }
}

/// Has the broker act with a connection.
async fn act(
    mut client: pb::step_service_client::StepServiceClient<Channel>,
    method: &str,
    cell: usize,
) -> Result<(), Status> {
    use pb::signing_target::Target;
    let (integration, name) = ("slack".to_owned(), format!("c{cell}"));
    let connection = pb::ConnectionTarget { integration, name };
    let signing = |connection| pb::SigningTarget { target: Some(Target::Connection(connection)) };
    match method {
        "Sign" => {
            let (target, data) = (Some(signing(connection)), crate::ssh::a_login());
            client.sign(pb::SignRequest { target, data }).await.map(drop)
        }
        "GetSigningKey" => {
            let target = Some(signing(connection));
            client.get_signing_key(pb::GetSigningKeyRequest { target }).await.map(drop)
        }
        "Send" => {
            let head = pb::SendHead {
                target: Some(pb::send_head::Target::Connection(connection)),
                method: "GET".to_owned(),
                ..Default::default()
            };
            let part = Some(pb::send_request::Part::Head(head));
            client.send(tokio_stream::iter([pb::SendRequest { part }])).await.map(drop)
        }
        _ => panic!("teach this test to call {method}"),
    }
}

/// A single request for the status of a refusal.
fn request_again(cell: usize) -> pb::ResolveRequest {
    crate::harness::request(&format!("slack/c{cell}"))
}

async fn executor(channel: Channel, method: &str, cell: usize) -> Result<(), Status> {
    let step = format!("s{cell}");
    let (workflow, run) = ("other".to_owned(), "1".to_owned());
    let mut client = pb::executor_service_client::ExecutorServiceClient::new(channel);
    match method {
        "OpenStep" => {
            client.open_step(crate::harness::open_request("other", &step)).await.map(drop)
        }
        "RenewStep" => {
            let request = pb::RenewStepRequest { workflow, run, step, ..Default::default() };
            // The step does not exist, so a caller that learns this was allowed to ask.
            absent_is_ok(client.renew_step(request).await)
        }
        "CloseRun" => {
            let (reason, block) = (word_of(cell), None);
            let request = pb::CloseRunRequest { workflow, run, reason, block };
            absent_is_ok(client.close_run(request).await)
        }
        "GetRun" => {
            let run = "none".to_owned();
            absent_is_ok(client.get_run(pb::GetRunRequest { workflow, run }).await)
        }
        "CloseStep" => {
            let reason = word_of(cell);
            let request =
                pb::CloseStepRequest { workflow, run, step, reason, ..Default::default() };
            client.close_step(request).await.map(drop)
        }
        "ListSteps" => client.list_steps(pb::ListStepsRequest::default()).await.map(drop),
        _ => panic!("teach this test to call {method}"),
    }
}

/// An administrator says why, and an executor does not.
fn word_of(cell: usize) -> String {
    let identity = IDENTITIES[cell / RELATIONS.len() % IDENTITIES.len()].0;
    if identity == "executor" { String::new() } else { "a test".to_owned() }
}

fn absent_is_ok<T>(outcome: Result<T, Status>) -> Result<(), Status> {
    match outcome {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        outcome => outcome.map(drop),
    }
}

async fn connection(channel: Channel, method: &str, cell: usize) -> Result<(), Status> {
    let name = format!("connections/slack/c{cell}");
    let mut client = pb::connection_service_client::ConnectionServiceClient::new(channel);
    match method {
        "CreateConnection" => {
            let connection = pb::Connection {
                name: format!("connections/slack/new{cell}"),
                fields: bytes(&[("api_token", "a-token")]),
                ..Default::default()
            };
            let connection = Some(connection);
            let request = pb::CreateConnectionRequest { connection, ..Default::default() };
            client.create_connection(request).await.map(drop)
        }
        "GetConnection" => client.get_connection(pb::GetConnectionRequest { name }).await.map(drop),
        "ListConnections" => {
            client.list_connections(pb::ListConnectionsRequest::default()).await.map(drop)
        }
        "UpdateConnection" => {
            let connection = Some(pb::Connection { name, disabled: true, ..Default::default() });
            let request = pb::UpdateConnectionRequest { connection, ..Default::default() };
            client.update_connection(request).await.map(drop)
        }
        "UpdateConnection+member" => {
            let tags = vec![format!("cell:new{cell}")];
            let connection = Some(pb::Connection { name, tags, ..Default::default() });
            let request = pb::UpdateConnectionRequest { connection, ..Default::default() };
            client.update_connection(request).await.map(drop)
        }
        "DeleteConnection" => {
            let request = pb::DeleteConnectionRequest { name, ..Default::default() };
            client.delete_connection(request).await.map(drop)
        }
        "TestConnection" => {
            client.test_connection(pb::TestConnectionRequest { name, mint: false }).await.map(drop)
        }
        _ => panic!("teach this test to call {method}"),
    }
}

async fn group(channel: Channel, method: &str, cell: usize) -> Result<(), Status> {
    let name = format!("groups/g{cell}");
    let members = vec![format!("connections/slack/c{cell}")];
    let mut client = pb::group_service_client::GroupServiceClient::new(channel);
    match method {
        "CreateGroup" => {
            let group = pb::ConnectionGroup {
                name: format!("groups/new{cell}"),
                integration: "slack".to_owned(),
                identifiers: vec!["cell".to_owned()],
                ..Default::default()
            };
            let request = pb::CreateGroupRequest { group: Some(group), ..Default::default() };
            client.create_group(request).await.map(drop)
        }
        "GetGroup" => client.get_group(pb::GetGroupRequest { name }).await.map(drop),
        "ListGroups" => client.list_groups(pb::ListGroupsRequest::default()).await.map(drop),
        "UpdateGroup" => {
            let labels = [("team".to_owned(), "x".to_owned())].into();
            let group = Some(pb::ConnectionGroup { name, labels, ..Default::default() });
            let request = pb::UpdateGroupRequest { group, ..Default::default() };
            client.update_group(request).await.map(drop)
        }
        "DeleteGroup" => {
            let request = pb::DeleteGroupRequest { name, ..Default::default() };
            client.delete_group(request).await.map(drop)
        }
        "ListCandidates" => {
            let request = pb::ListCandidatesRequest { group: name, ..Default::default() };
            client.list_candidates(request).await.map(drop)
        }
        "ListMembers" => {
            let request = pb::ListMembersRequest { name, ..Default::default() };
            client.list_members(request).await.map(drop)
        }
        "AddMembers" => {
            let request = pb::AddMembersRequest { name, members, ..Default::default() };
            client.add_members(request).await.map(drop)
        }
        "RemoveMembers" => {
            let request = pb::RemoveMembersRequest { name, members, ..Default::default() };
            client.remove_members(request).await.map(drop)
        }
        _ => panic!("teach this test to call {method}"),
    }
}

async fn impact(channel: Channel, method: &str, cell: usize) -> Result<(), Status> {
    let mut client = pb::impact_service_client::ImpactServiceClient::new(channel);
    match method {
        "Preview" => {
            let delete = format!("connections/slack/c{cell}");
            let change = Some(pb::preview_request::Change::Delete(delete));
            client.preview(pb::PreviewRequest { change }).await.map(drop)
        }
        _ => panic!("teach this test to call {method}"),
    }
}

async fn runs(channel: Channel, method: &str) -> Result<(), Status> {
    let mut client = pb::run_service_client::RunServiceClient::new(channel);
    match method {
        "ListRuns" => client.list_runs(pb::ListRunsRequest::default()).await.map(drop),
        "ListWorkflows" => {
            client.list_workflows(pb::ListWorkflowsRequest::default()).await.map(drop)
        }
        _ => panic!("teach this test to call {method}"),
    }
}

async fn secret(channel: Channel, method: &str, cell: usize) -> Result<(), Status> {
    let name = format!("workflows/deploy/secrets/s{cell}");
    let mut client = pb::secret_service_client::SecretServiceClient::new(channel);
    match method {
        "PutSecret" => {
            let request = pb::PutSecretRequest { name, value: b"v".into(), ..Default::default() };
            client.put_secret(request).await.map(drop)
        }
        "ListSecrets" => {
            let workflow = "deploy".to_owned();
            let request = pb::ListSecretsRequest { workflow, ..Default::default() };
            client.list_secrets(request).await.map(drop)
        }
        "DeleteSecret" => {
            let request =
                pb::DeleteSecretRequest { name, allow_missing: true, ..Default::default() };
            client.delete_secret(request).await.map(drop)
        }
        _ => panic!("teach this test to call {method}"),
    }
}

async fn block(channel: Channel, method: &str, cell: usize) -> Result<(), Status> {
    // Block and Unblock are on a connection, and in the rows +steps on a workflow that no other test has.
    let target = match method.strip_suffix("+steps") {
        Some(_) => format!("workflow:blocked{cell}"),
        None => format!("connections/slack/c{cell}"),
    };
    let reason = "a test".to_owned();
    let mut client = pb::block_service_client::BlockServiceClient::new(channel);
    match method.trim_end_matches("+steps") {
        "Block" => client.block(pb::BlockRequest { target, reason }).await.map(drop),
        "Unblock" => absent_is_ok(client.unblock(pb::UnblockRequest { target, reason }).await),
        "ListBlocks" => client.list_blocks(pb::ListBlocksRequest::default()).await.map(drop),
        _ => panic!("teach this test to call {method}"),
    }
}

async fn lease(channel: Channel, method: &str, cell: usize) -> Result<(), Status> {
    let connection = format!("connections/slack/c{cell}");
    let filter = Some(pb::LeaseFilter { connection, ..Default::default() });
    let mut client = pb::lease_service_client::LeaseServiceClient::new(channel);
    match method {
        "ListLeases" => {
            let request = pb::ListLeasesRequest { filter, ..Default::default() };
            client.list_leases(request).await.map(drop)
        }
        "RevokeLeases" => {
            let reason = "a test".to_owned();
            let request = pb::RevokeLeasesRequest { filter, reason, ..Default::default() };
            client.revoke_leases(request).await.map(drop)
        }
        _ => panic!("teach this test to call {method}"),
    }
}

async fn integration(channel: Channel, method: &str, cell: usize) -> Result<(), Status> {
    let name = format!("integrations/own{cell}");
    let integration = Some(crate::operator::own_integrations::acme(&format!("own{cell}")));
    let mut client = pb::integration_service_client::IntegrationServiceClient::new(channel);
    match method {
        "GetIntegration" => {
            let name = "integrations/aws".to_owned();
            client.get_integration(pb::GetIntegrationRequest { name }).await.map(drop)
        }
        "ListIntegrations" => {
            client.list_integrations(pb::ListIntegrationsRequest::default()).await.map(drop)
        }
        "CreateIntegration" => {
            let request = pb::CreateIntegrationRequest { integration, ..Default::default() };
            client.create_integration(request).await.map(drop)
        }
        "UpdateIntegration" => {
            let request = pb::UpdateIntegrationRequest {
                integration,
                allow_missing: true,
                ..Default::default()
            };
            client.update_integration(request).await.map(drop)
        }
        "DeleteIntegration" => {
            let request =
                pb::DeleteIntegrationRequest { name, allow_missing: true, ..Default::default() };
            client.delete_integration(request).await.map(drop)
        }
        _ => panic!("teach this test to call {method}"),
    }
}

async fn operator(channel: Channel, method: &str, cell: usize) -> Result<(), Status> {
    let name = format!("operators/o{cell}");
    let csr = new_request().unwrap().1.into_bytes();
    let mut client = pb::operator_service_client::OperatorServiceClient::new(channel);
    match method {
        "CreateOperator" => {
            let role = pb::Role::Viewer.into();
            let operator = Some(pb::Operator { name, role, ..Default::default() });
            let request = pb::CreateOperatorRequest { operator, csr, ..Default::default() };
            client.create_operator(request).await.map(drop)
        }
        "GetOperator" => {
            let name = "operators/admin".to_owned();
            client.get_operator(pb::GetOperatorRequest { name }).await.map(drop)
        }
        "ListOperators" => {
            client.list_operators(pb::ListOperatorsRequest::default()).await.map(drop)
        }
        "DeleteOperator" => {
            let request =
                pb::DeleteOperatorRequest { name, allow_missing: true, ..Default::default() };
            client.delete_operator(request).await.map(drop)
        }
        "UpdateOperator" => {
            let operator =
                Some(pb::Operator { name: "operators/admin".into(), ..Default::default() });
            let update_mask = Some(prost_types::FieldMask { paths: vec!["remote".to_owned()] });
            let request = pb::UpdateOperatorRequest { operator, update_mask, validate_only: false };
            client.update_operator(request).await.map(drop)
        }
        "WhoAmI" => client.who_am_i(pb::OperatorServiceWhoAmIRequest {}).await.map(drop),
        _ => panic!("teach this test to call {method}"),
    }
}

async fn executor_registry(channel: Channel, method: &str, cell: usize) -> Result<(), Status> {
    use pb::executor_registry_service_client::ExecutorRegistryServiceClient;
    let name = format!("executors/e{cell}");
    let csr = new_request().unwrap().1.into_bytes();
    let mut client = ExecutorRegistryServiceClient::new(channel);
    match method {
        "CreateExecutor" => {
            let workflows = vec!["deploy".to_owned()];
            let executor = Some(pb::Executor { name, workflows, ..Default::default() });
            let request = pb::CreateExecutorRequest { executor, csr, ..Default::default() };
            client.create_executor(request).await.map(drop)
        }
        "GetExecutor" => {
            let name = "executors/local".to_owned();
            client.get_executor(pb::GetExecutorRequest { name }).await.map(drop)
        }
        "ListExecutors" => {
            client.list_executors(pb::ListExecutorsRequest::default()).await.map(drop)
        }
        "DeleteExecutor" => {
            let request =
                pb::DeleteExecutorRequest { name, allow_missing: true, ..Default::default() };
            client.delete_executor(request).await.map(drop)
        }
        _ => panic!("teach this test to call {method}"),
    }
}

async fn system(channel: Channel, method: &str) -> Result<(), Status> {
    let mut client = pb::system_service_client::SystemServiceClient::new(channel);
    match method {
        "GetStatus" => client.get_status(pb::GetStatusRequest {}).await.map(drop),
        "ListEndings" => client.list_endings(pb::ListEndingsRequest::default()).await.map(drop),
        "ListKeys" => client.list_keys(pb::ListKeysRequest {}).await.map(drop),
        "GetIssuer" => client.get_issuer(pb::GetIssuerRequest {}).await.map(drop),
        "RotateIssuer" => {
            let request = pb::RotateIssuerRequest { force: true };
            client.rotate_issuer(request).await.map(drop)
        }
        "RotateDek" => client.rotate_dek(pb::RotateDekRequest {}).await.map(drop),
        "RotateKek" => client.rotate_kek(pb::RotateKekRequest {}).await.map(drop),
        "Explain" => {
            let dry_run = pb::DryRun {
                workflow: "deploy".to_owned(),
                step: "build".to_owned(),
                target: "slack/c1".to_owned(),
                ..Default::default()
            };
            let question = Some(pb::explain_request::Question::DryRun(dry_run));
            client.explain(pb::ExplainRequest { question }).await.map(drop)
        }
        "SuggestAccess" => {
            let request = pb::SuggestAccessRequest { workflow: "deploy".to_owned(), since: None };
            client.suggest_access(request).await.map(drop)
        }
        "TailJournal" => client.tail_journal(pb::TailJournalRequest::default()).await.map(drop),
        "Backup" => match client.backup(pb::BackupRequest {}).await {
            // The backup is read to its end, because only one runs at a time.
            Ok(pieces) => {
                let mut pieces = pieces.into_inner();
                while pieces.message().await?.is_some() {}
                Ok(())
            }
            Err(status) => Err(status),
        },
        "EndQuarantine" => {
            client.end_quarantine(pb::EndQuarantineRequest::default()).await.map(drop)
        }
        "RenewCertificate" => {
            // A refusal for the key shows that the call was allowed.
            let (_, csr) = new_request().unwrap();
            let request = pb::RenewCertificateRequest { csr: csr.into_bytes() };
            match client.renew_certificate(request).await.map(drop) {
                Err(status) if status.message().contains("another key") => Ok(()),
                outcome => outcome,
            }
        }
        _ => panic!("teach this test to call {method}"),
    }
}
