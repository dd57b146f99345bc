//! An editor of a member does not decide which member a group selects.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_service_client::ApplyServiceClient;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::group_service_client::GroupServiceClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::harness::{TestBroker, bytes, reason, resolver};

/// Group `azg` identifies its members by region: `az1` is eu, `az4` is br. Operator `az4er` edits az4 alone.
struct World {
    broker: TestBroker,
    editor: Channel,
}

impl World {
    fn start() -> Self {
        let broker = TestBroker::start();
        let editor = broker.enroll("az4er", pb::Role::Operator);
        let world = Self { broker, editor };
        world.create("az1", "region:eu");
        world.create("az4", "region:br");
        let group = pb::ConnectionGroup {
            name: "groups/azg".to_owned(),
            integration: "slack".to_owned(),
            identifiers: vec!["region".to_owned()],
            access: vec![bound(pb::Relation::Viewer, "workflow:az")],
            ..Default::default()
        };
        let request = pb::CreateGroupRequest { group: Some(group), ..Default::default() };
        world.broker.block_on(world.groups().create_group(request)).unwrap();
        world.members(&["az1", "az4"], true);
        world
    }

    fn create(&self, name: &str, tag: &str) {
        let mut access = resolver(&["workflow:az"]);
        access.push(bound(pb::Relation::Editor, "operator:az4er"));
        access.retain(|binding| name == "az4" || binding.relation() != pb::Relation::Editor);
        let connection = pb::Connection {
            fields: bytes(&[("api_token", name)]),
            access,
            ..tagged(name, &[tag, "team:a"])
        };
        let request =
            pb::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        let mut client = ConnectionServiceClient::new(self.broker.operator());
        self.broker.block_on(client.create_connection(request)).map(drop).unwrap();
    }

    fn groups(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(self.broker.operator())
    }

    fn members(&self, members: &[&str], add: bool) {
        let name = "groups/azg".to_owned();
        let members = members.iter().map(|name| format!("connections/slack/{name}")).collect();
        let mut client = self.groups();
        let outcome = match add {
            true => {
                let request = pb::AddMembersRequest { name, members, ..Default::default() };
                self.broker.block_on(client.add_members(request))
            }
            false => {
                let request = pb::RemoveMembersRequest { name, members, ..Default::default() };
                self.broker.block_on(client.remove_members(request))
            }
        };
        outcome.unwrap();
    }

    /// Every way in which a caller can give az4 these tags.
    fn ways_to_tag(&self, caller: &Channel, tags: &[&str]) -> Vec<Result<(), Status>> {
        let mut client = ConnectionServiceClient::new(caller.clone());
        let connection = Some(tagged("az4", tags));
        let merged = pb::UpdateConnectionRequest { connection, ..Default::default() };
        let mask = prost_types::FieldMask { paths: vec!["tags".to_owned()] };
        let masked = pb::UpdateConnectionRequest { update_mask: Some(mask), ..merged.clone() };
        let trial = pb::UpdateConnectionRequest { validate_only: true, ..merged.clone() };
        let document = pb::apply_request::Document::Connection(pb::ConnectionDocument {
            integration: "slack".to_owned(),
            name: "az4".to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..Default::default()
        });
        let document = pb::ApplyRequest { document: Some(document) };
        let planned = pb::PlanRequest { document: Some(document.clone()) };
        let mut apply = ApplyServiceClient::new(caller.clone());
        self.broker.block_on(async {
            let mut outcomes = Vec::new();
            for request in [trial, merged, masked] {
                outcomes.push(client.update_connection(request).await.map(drop));
            }
            outcomes.push(apply.plan(tokio_stream::iter([planned])).await.map(drop));
            outcomes.push(apply.apply(tokio_stream::iter([document])).await.map(drop));
            outcomes
        })
    }

    /// The member that a step of az gets for a region.
    fn selected(&self, region: &str) -> Result<String, String> {
        let step = self.broker.open("az", region);
        let got = self.broker.resolve(&step, &format!("group:azg:region={region}"));
        got.map(|got| got.fields["api_token"].clone()).map_err(|error| reason(Err::<(), _>(error)))
    }
}

fn tagged(name: &str, tags: &[&str]) -> pb::Connection {
    pb::Connection {
        name: format!("connections/slack/{name}"),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..Default::default()
    }
}

fn bound(relation: pb::Relation, principal: &str) -> pb::AccessBinding {
    pb::AccessBinding { relation: relation.into(), principals: vec![principal.to_owned()] }
}

#[test]
fn a_members_editor_does_not_choose_what_a_group_selects() {
    let world = World::start();
    for outcome in world.ways_to_tag(&world.editor, &["region:cn"]) {
        assert!(outcome.as_ref().is_err_and(|error| error.message().contains("groups/azg")));
        assert_eq!(reason(outcome), "EDIT_DENIED");
    }
    assert_eq!(world.selected("cn"), Err("GROUP_MEMBER_NOT_FOUND".to_owned()));
    assert_eq!(world.selected("br"), Ok("az4".to_owned()));
    // Tags that are no identifiers of the group belong to the connection's editor.
    for outcome in world.ways_to_tag(&world.editor, &["region:br", "team:b"]) {
        outcome.unwrap();
    }
    // An administrator and an editor of both may do it.
    for outcome in world.ways_to_tag(&world.broker.operator(), &["region:us"]) {
        outcome.unwrap();
    }
    let group = pb::ConnectionGroup {
        name: "groups/azg".to_owned(),
        access: vec![bound(pb::Relation::Editor, "operator:az4er")],
        ..Default::default()
    };
    let request = pb::UpdateGroupRequest { group: Some(group), ..Default::default() };
    world.broker.block_on(world.groups().update_group(request)).unwrap();
    for outcome in world.ways_to_tag(&world.editor, &["region:cn"]) {
        outcome.unwrap();
    }
    assert_eq!(world.selected("cn"), Ok("az4".to_owned()));
}

#[test]
fn a_whole_change_needs_each_editor_that_its_parts_need() {
    let world = World::start();
    let tag = pb::apply_request::Document::Connection(pb::ConnectionDocument {
        integration: "slack".to_owned(),
        name: "az4".to_owned(),
        tags: vec!["region:cn".to_owned(), "team:b".to_owned()],
        ..Default::default()
    });
    let group = |name: &str| {
        pb::apply_request::Document::Group(pb::GroupDocument {
            name: name.to_owned(),
            integration: "slack".to_owned(),
            identifiers: vec!["team".to_owned()],
            members: (name == "his").then(|| pb::GroupMembers { names: vec!["az4".to_owned()] }),
            ..Default::default()
        })
    };
    // Neither new identifiers of the group nor an own group allow it.
    for documents in [
        vec![group("azg"), tag.clone()],
        vec![tag.clone(), group("azg")],
        vec![group("his"), tag.clone()],
        vec![group("azg")],
    ] {
        let requests = documents.into_iter().map(|one| pb::ApplyRequest { document: Some(one) });
        let mut client = ApplyServiceClient::new(world.editor.clone());
        let outcome =
            world.broker.block_on(client.apply(tokio_stream::iter(requests.collect::<Vec<_>>())));
        assert_eq!(reason(outcome), "EDIT_DENIED");
        assert_eq!(world.selected("br"), Ok("az4".to_owned()));
    }
    world.broker.apply(vec![group("azg"), tag]).unwrap();
    let step = world.broker.open("az", "team");
    let got = world.broker.resolve(&step, "group:azg:team=b").unwrap();
    assert_eq!(got.fields["api_token"], "az4");
}

#[test]
fn nobody_takes_the_value_of_a_member_that_is_out() {
    let world = World::start();
    world.members(&["az1"], false);
    for outcome in world.ways_to_tag(&world.editor, &["region:eu"]) {
        assert_eq!(reason(outcome), "EDIT_DENIED");
    }
    world.members(&["az1"], true);
    assert_eq!(world.selected("eu"), Ok("az1".to_owned()));
}

#[test]
fn a_recreated_connection_is_no_member() {
    let world = World::start();
    let mut client = ConnectionServiceClient::new(world.editor.clone());
    let name = "connections/slack/az4".to_owned();
    let request = pb::DeleteConnectionRequest { name, force: true, ..Default::default() };
    world.broker.block_on(client.delete_connection(request)).unwrap();
    let connection = pb::Connection {
        fields: bytes(&[("api_token", "his")]),
        access: resolver(&["workflow:az"]),
        ..tagged("az4", &["region:cn"])
    };
    let request =
        pb::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
    world.broker.block_on(client.create_connection(request)).unwrap();
    for region in ["br", "cn"] {
        assert_eq!(world.selected(region), Err("GROUP_MEMBER_NOT_FOUND".to_owned()));
    }
}
