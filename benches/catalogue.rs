//! What groups and writes cost, through the real sockets of a daemon in a process of its own.
//!
//! `cargo bench --bench catalogue`; README.md of this directory says what each row is.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench measures by the machine's own clock, fails by panicking, and prints its results"
)]

mod load;

use std::time::{Duration, Instant};

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_service_client::ApplyServiceClient;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::group_service_client::GroupServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use tonic::transport::Channel;

use load::{Daemon, Spread, in_flight};

/// The load is to leave as much of the machine as it can to the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many requests are open at a time.
const IN_FLIGHT: usize = 64;
/// How often each is measured, in turns.
const ROUNDS: usize = 9;
/// How many resolves a round has.
const RESOLVES: usize = 20_000;
/// How often writes are measured.
const WRITE_ROUNDS: usize = 7;
/// How many connections are created.
const CREATED: usize = 10_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Cargo adds --bench; any other word names what to run.
    let wanted = std::env::args().nth(1).filter(|word| !word.starts_with('-'));
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
    if is_wanted("groups") {
        println!(
            "groups: server CPU per Resolve, {IN_FLIGHT} in flight, {ROUNDS} rounds of {RESOLVES} each, in turns"
        );
        for members in [10, 100_000] {
            runtime.block_on(groups(members));
        }
    }
    if is_wanted("writes") {
        println!(
            "writes: {CREATED} durable, {IN_FLIGHT} in flight, {WRITE_ROUNDS} rounds, in turns"
        );
        runtime.block_on(writes());
    }
}

/// A member of a group, by its name and by the group's identifier.
async fn groups(members: usize) {
    let daemon = Daemon::start();
    let admin = daemon.operator().await;
    fill(&admin, members).await;
    let steps = daemon.steps(4).await;
    let direct = |n: usize| {
        request(pb::resolve_request::Target::Connection(pb::ConnectionTarget {
            integration: "aws".to_owned(),
            name: format!("c{}", n * 7919 % members),
        }))
    };
    let by_group = |n: usize| {
        request(pb::resolve_request::Target::Group(pb::GroupTarget {
            name: "g".to_owned(),
            identifiers: [("account".to_owned(), (n * 7919 % members).to_string())].into(),
        }))
    };
    let mut costs = [Vec::new(), Vec::new()];
    // The first of each warms up.
    for round in 0..=ROUNDS {
        let pair = [
            resolve_all(&daemon, &steps, &direct).await,
            resolve_all(&daemon, &steps, &by_group).await,
        ];
        if round > 0 {
            for (cost, measured) in costs.iter_mut().zip(pair) {
                cost.push(measured);
            }
        }
    }
    let [direct, by_group] = &costs;
    let ratios = by_group.iter().zip(direct).map(|(group, direct)| group / direct).collect();
    println!(
        "  {members:>7} members   direct {}   by group {}   ratio {}",
        Spread::of(direct.clone(), " µs"),
        Spread::of(by_group.clone(), " µs"),
        Spread::of(ratios, "×")
    );
}

fn request(target: pb::resolve_request::Target) -> pb::ResolveRequest {
    pb::ResolveRequest { target: Some(target), ..Default::default() }
}

/// The daemon's CPU for each of so many resolves, in microseconds.
async fn resolve_all(
    daemon: &Daemon,
    steps: &[Channel],
    request: &impl Fn(usize) -> pb::ResolveRequest,
) -> f64 {
    let before = daemon.process.cpu();
    in_flight(RESOLVES, IN_FLIGHT, |n| {
        let mut client = StepServiceClient::new(steps[n % steps.len()].clone());
        let request = request(n);
        async move {
            client.resolve(request).await.unwrap_or_else(|status| panic!("{}", status.message()));
        }
    })
    .await;
    micros(daemon.process.cpu() - before) / RESOLVES as f64
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Connections told apart by one tag, all of them members of one group.
async fn fill(admin: &Channel, members: usize) {
    let names: Vec<usize> = (0..members).collect();
    for some in names.chunks(10_000) {
        let documents = some.iter().map(|n| {
            let document = pb::apply_request::Document::Connection(connection(*n));
            pb::ApplyRequest { document: Some(document) }
        });
        let documents = tokio_stream::iter(documents.collect::<Vec<_>>());
        ApplyServiceClient::new(admin.clone()).apply(documents).await.unwrap();
    }
    let access = bound(pb::Relation::Viewer);
    let group = pb::ConnectionGroup {
        name: "groups/g".to_owned(),
        integration: "aws".to_owned(),
        identifiers: vec!["account".to_owned()],
        access,
        ..Default::default()
    };
    let mut client = GroupServiceClient::new(admin.clone());
    let request = pb::CreateGroupRequest { group: Some(group), ..Default::default() };
    client.create_group(request).await.unwrap();
    for some in names.chunks(1000) {
        let members = some.iter().map(|n| format!("connections/aws/c{n}")).collect();
        let name = "groups/g".to_owned();
        let request = pb::AddMembersRequest { name, members, ..Default::default() };
        client.add_members(request).await.unwrap();
    }
}

fn bound(relation: pb::Relation) -> Vec<pb::AccessBinding> {
    let principals = vec!["workflow:bench".to_owned()];
    vec![pb::AccessBinding { relation: relation.into(), principals }]
}

fn fields() -> std::collections::BTreeMap<String, Vec<u8>> {
    let secret = b"not-a-real-secret-of-forty-characters-xx".to_vec();
    let id = b"AKIAIOSFODNN7EXAMPLE".to_vec();
    [("access_key_id".to_owned(), id), ("secret_access_key".to_owned(), secret)].into()
}

fn connection(n: usize) -> pb::ConnectionDocument {
    pb::ConnectionDocument {
        integration: "aws".to_owned(),
        name: format!("c{n}"),
        fields: fields(),
        access: bound(pb::Relation::Resolver),
        tags: vec![format!("account:{n}")],
        ..Default::default()
    }
}

/// Connections created through the API, and as many bare commits of the store's engine.
async fn writes() {
    let (mut created, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..WRITE_ROUNDS {
        created.push(create().await);
        raw.push(load::raw_commits(CREATED, IN_FLIGHT).await);
    }
    let ratios = created.iter().zip(&raw).map(|(api, raw)| api / raw).collect();
    println!(
        "  CreateConnection {}   bare commits of sled {}   ratio {}",
        Spread::of(created, "/s"),
        Spread::of(raw, "/s"),
        Spread::of(ratios, "×")
    );
}

async fn create() -> f64 {
    let daemon = Daemon::start();
    let mut channels = Vec::new();
    for _ in 0..4 {
        channels.push(daemon.operator().await);
    }
    let begin = Instant::now();
    in_flight(CREATED, IN_FLIGHT, |n| {
        let mut client = ConnectionServiceClient::new(channels[n % channels.len()].clone());
        let connection = pb::Connection {
            name: format!("connections/aws/c{n}"),
            fields: fields(),
            access: bound(pb::Relation::Resolver),
            ..Default::default()
        };
        let connection = Some(connection);
        let request = pb::CreateConnectionRequest { connection, ..Default::default() };
        async move {
            client.create_connection(request).await.unwrap_or_else(|_| panic!("not created"));
        }
    })
    .await;
    CREATED as f64 / begin.elapsed().as_secs_f64()
}
