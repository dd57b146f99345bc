//! The requested resources: connections, groups, and the requests for them.

#![allow(dead_code, reason = "not every bench asks for all")]

use std::collections::BTreeMap;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_service_client::ApplyServiceClient;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::group_service_client::GroupServiceClient;
use keyhatch::grpc::pb::resolve_request::Target;
use tonic::transport::Channel;

/// The most documents of an Apply.
const DOCUMENTS: usize = 10_000;
/// A stride that visits numbers in a scattered order.
const STRIDE: usize = 7919;

pub fn request(target: Target) -> pb::ResolveRequest {
    pb::ResolveRequest { target: Some(target), ..Default::default() }
}

/// Asks for the connection of this name.
pub fn named(name: &str) -> pb::ResolveRequest {
    let (integration, name) = ("aws".to_owned(), name.to_owned());
    request(Target::Connection(pb::ConnectionTarget { integration, name }))
}

/// Asks for one of `count` connections.
pub fn any_of(count: usize, n: usize) -> pb::ResolveRequest {
    named(&format!("c{}", n * STRIDE % count))
}

/// Asks for one of `count` members by its unique tag.
pub fn any_member_of(count: usize, n: usize) -> pb::ResolveRequest {
    let account = (n * STRIDE % count).to_string();
    let identifiers = [("account".to_owned(), account)].into();
    request(Target::Group(pb::GroupTarget { name: "g".to_owned(), identifiers }))
}

/// Asks for `of` connections at once.
pub fn batch(of: usize) -> pb::BatchResolveRequest {
    pb::BatchResolveRequest { requests: (0..of).map(|n| any_of(of, n)).collect() }
}

fn bound(relation: pb::Relation) -> Vec<pb::AccessBinding> {
    let principals = vec!["workflow:bench".to_owned()];
    vec![pb::AccessBinding { relation: relation.into(), principals }]
}

/// The fields of an aws connection.
pub fn fields(secret: String) -> BTreeMap<String, Vec<u8>> {
    let id = b"AKIAIOSFODNN7EXAMPLE".to_vec();
    let secret = secret.into_bytes();
    [("access_key_id".to_owned(), id), ("secret_access_key".to_owned(), secret)].into()
}

/// A connection for every step of workflow bench.
pub fn connection(name: &str, secret: String) -> pb::Connection {
    pb::Connection {
        name: format!("connections/aws/{name}"),
        fields: fields(secret),
        access: bound(pb::Relation::Resolver),
        ..Default::default()
    }
}

pub async fn create(admin: Channel, name: &str, secret: String) {
    let connection = Some(connection(name, secret));
    let request = pb::CreateConnectionRequest { connection, ..Default::default() };
    let created = ConnectionServiceClient::new(admin).create_connection(request).await;
    created.unwrap_or_else(|status| panic!("{}", status.message()));
}

pub async fn update(admin: Channel, name: &str, secret: String) {
    let connection = Some(connection(name, secret));
    let request = pb::UpdateConnectionRequest { connection, ..Default::default() };
    let updated = ConnectionServiceClient::new(admin).update_connection(request).await;
    updated.unwrap_or_else(|status| panic!("{}", status.message()));
}

/// Creates connections c0, c1, … with a unique tag each.
pub async fn fill(admin: &Channel, count: usize) {
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(DOCUMENTS) {
        let documents = some.iter().map(|n| {
            let document = pb::ConnectionDocument {
                integration: "aws".to_owned(),
                name: format!("c{n}"),
                fields: fields(format!("{n:040}")),
                access: bound(pb::Relation::Resolver),
                tags: vec![format!("account:{n}")],
                ..Default::default()
            };
            let document = pb::apply_request::Document::Connection(document);
            pb::ApplyRequest { document: Some(document) }
        });
        apply(admin, documents.collect()).await;
    }
}

/// Applies documents, all or none.
pub async fn apply(admin: &Channel, documents: Vec<pb::ApplyRequest>) {
    let documents = tokio_stream::iter(documents);
    let applied = ApplyServiceClient::new(admin.clone()).apply(documents).await;
    applied.unwrap_or_else(|status| panic!("{}", status.message()));
}

/// The fields of a credential kind.
pub type KindFields = Vec<(&'static str, String)>;

/// Documents of a kind, by their names, for every step of workflow bench.
pub fn of_kind(
    integration: &str,
    kind: &str,
    fields: KindFields,
    release: pb::Release,
) -> impl Fn(String) -> pb::ApplyRequest {
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes()));
    let document = pb::ConnectionDocument {
        integration: integration.to_owned(),
        kind: kind.to_owned(),
        fields: fields.collect(),
        access: bound(pb::Relation::Resolver),
        release: release.into(),
        ..Default::default()
    };
    move |name| {
        let document = pb::ConnectionDocument { name, ..document.clone() };
        let document = pb::apply_request::Document::Connection(document);
        pb::ApplyRequest { document: Some(document) }
    }
}

/// Creates a group of `count` connections.
pub async fn group(admin: &Channel, count: usize) {
    let group = pb::ConnectionGroup {
        name: "groups/g".to_owned(),
        integration: "aws".to_owned(),
        identifiers: vec!["account".to_owned()],
        access: bound(pb::Relation::Viewer),
        ..Default::default()
    };
    let mut client = GroupServiceClient::new(admin.clone());
    let request = pb::CreateGroupRequest { group: Some(group), ..Default::default() };
    client.create_group(request).await.unwrap();
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(1000) {
        let members = some.iter().map(|n| format!("connections/aws/c{n}")).collect();
        let name = "groups/g".to_owned();
        let request = pb::AddMembersRequest { name, members, ..Default::default() };
        client.add_members(request).await.unwrap();
    }
}
