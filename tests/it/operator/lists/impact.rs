//! What a change would break, as it is told before the change and as it then happens.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_request::Document;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::group_service_client::GroupServiceClient;
use keyhatch::grpc::pb::impact_service_client::ImpactServiceClient;
use keyhatch::grpc::pb::preview_request::Change;
use tonic::Status;
use tonic::transport::Channel;

use crate::harness::{
    Steps, TestBroker, TestStep, bound, bytes, reason, resolver, secret_document, text,
};

fn preview_by(broker: &TestBroker, who: Channel, change: Change) -> Result<pb::Impact, Status> {
    let request = pb::PreviewRequest { change: Some(change) };
    broker.block_on(ImpactServiceClient::new(who).preview(request)).map(tonic::Response::into_inner)
}

fn preview(broker: &TestBroker, change: Change) -> pb::Impact {
    preview_by(broker, broker.operator(), change).unwrap()
}

fn delete(name: &str) -> Change {
    Change::Delete(name.to_owned())
}

/// The steps of the leases that end.
fn steps(impact: &pb::Impact) -> Vec<String> {
    assert_eq!(usize::try_from(impact.lease_count), Ok(impact.leases.len()));
    impact.leases.iter().map(|one| format!("{}/{}", one.workflow, one.step)).collect()
}

fn workflows(impact: &pb::Impact) -> Vec<&str> {
    assert_eq!(usize::try_from(impact.workflow_count), Ok(impact.workflows.len()));
    impact.workflows.iter().map(|one| one.workflow.as_str()).collect()
}

fn live_leases(broker: &TestBroker) -> i64 {
    let one = |reference| broker.get_connection(reference).map_or(0, |found| found.live_leases);
    one("generic/a") + one("generic/b")
}

/// Two members of a group, and steps of two workflows with leases on them.
fn seeded() -> (TestBroker, Vec<TestStep>) {
    let broker = TestBroker::start();
    let connection = |name: &str, env: &str, default: bool| {
        Document::Connection(pb::ConnectionDocument {
            integration: "generic".to_owned(),
            name: name.to_owned(),
            fields: bytes(&[("token", "hush")]),
            tags: vec![format!("env:{env}")],
            access: resolver(&["workflow:deploy", "workflow:night*"]),
            default: Some(default),
            ..Default::default()
        })
    };
    let group = Document::Group(pb::GroupDocument {
        name: "g".to_owned(),
        integration: "generic".to_owned(),
        identifiers: vec!["env".to_owned()],
        access: vec![bound(pb::Relation::Viewer, &["workflow:deploy"])],
        members: Some(pb::GroupMembers { names: vec!["a".to_owned(), "b".to_owned()] }),
        ..Default::default()
    });
    let documents = vec![connection("a", "prod", true), connection("b", "dev", false), group];
    broker.apply(documents).unwrap();
    broker.apply(vec![secret_document("deploy", "token", "hush")]).unwrap();
    let open = [("deploy", "direct"), ("deploy", "by-group"), ("nightly", "direct")];
    let steps: Vec<_> = open.iter().map(|(workflow, step)| broker.open(workflow, step)).collect();
    broker.resolve(&steps[0], "generic/a").unwrap();
    broker.resolve(&steps[0], "secret:token").unwrap();
    broker.resolve(&steps[1], "group:g:env=prod").unwrap();
    broker.resolve(&steps[2], "generic/a").unwrap();
    (broker, steps)
}

#[test]
fn a_deletion_breaks_what_its_preview_says() {
    let (broker, _steps) = seeded();
    let impact = preview(&broker, delete("connections/generic/a"));
    assert_eq!(steps(&impact), ["deploy/by-group", "deploy/direct", "nightly/direct"]);
    assert_eq!(workflows(&impact), ["deploy", "nightly"]);
    let runs: Vec<_> = impact.runs.iter().map(|run| (run.workflow.as_str(), run.steps)).collect();
    assert_eq!((runs, impact.run_count), (vec![("deploy", 2), ("nightly", 1)], 2));
    let group = &impact.groups[0];
    assert_eq!(
        (group.group.as_str(), &group.lost_values),
        ("groups/g", &vec!["env:prod".to_owned()])
    );
    assert!(group.new_values.is_empty() && impact.group_count == 1);
    assert_eq!(impact.default_of, "generic");
    // Nothing has happened yet, and then it happens.
    assert_eq!(live_leases(&broker), 3);
    let mut client = ConnectionServiceClient::new(broker.operator());
    let name = "connections/generic/a".to_owned();
    let request = pb::DeleteConnectionRequest { name, force: true, ..Default::default() };
    broker.block_on(client.delete_connection(request)).unwrap();
    let ended = broker.journaled("head").pop().unwrap();
    assert_eq!(ended["revoked"].as_array().unwrap().len(), impact.leases.len());
    let secret = preview(&broker, delete("workflows/deploy/secrets/token"));
    assert_eq!(
        (steps(&secret), workflows(&secret)),
        (vec!["deploy/direct".to_owned()], vec!["deploy"])
    );
    assert_eq!(preview(&broker, delete("connections/generic/b")).lease_count, 0);
}

#[test]
fn a_change_of_access_breaks_those_who_lose_it() {
    let (broker, _steps) = seeded();
    let access = |principals: &[&str]| {
        let name = "connections/generic/a".to_owned();
        Change::Access(pb::AccessChange { name, access: resolver(principals) })
    };
    let narrowed = preview(&broker, access(&["workflow:deploy"]));
    assert_eq!(
        (steps(&narrowed), workflows(&narrowed)),
        (vec!["nightly/direct".to_owned()], vec!["nightly"])
    );
    assert!(narrowed.groups.is_empty() && narrowed.default_of.is_empty());
    let same = preview(&broker, access(&["workflow:*"]));
    assert_eq!((same.lease_count, same.workflow_count), (0, 0));
    // The first team refuses every step that runs on behalf of nobody.
    let team = preview(&broker, access(&["workflow:*", "team:ops"]));
    assert_eq!(team.lease_count, 3);
    let name = "groups/g".to_owned();
    let viewers = vec![bound(pb::Relation::Viewer, &["workflow:nightly"])];
    let of_group = Change::Access(pb::AccessChange { name, access: viewers });
    let of_group = preview(&broker, of_group);
    assert_eq!(
        (steps(&of_group), workflows(&of_group)),
        (vec!["deploy/by-group".to_owned()], vec!["deploy"])
    );
}

#[test]
fn members_and_tags_break_those_who_come_by_the_group() {
    let (broker, _steps) = seeded();
    let name = "groups/g".to_owned();
    let remove_members = vec!["connections/generic/a".to_owned()];
    let members = pb::MembersChange { name, remove_members, add_members: Vec::new() };
    let members = preview(&broker, Change::Members(members));
    assert_eq!(
        (steps(&members), workflows(&members)),
        (vec!["deploy/by-group".to_owned()], vec!["deploy"])
    );
    assert_eq!(members.groups[0].member, "connections/generic/a");
    let tags = |tags: &[&str]| {
        let name = "connections/generic/a".to_owned();
        let tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        Change::Tags(pb::TagsChange { name, tags })
    };
    let moved = preview(&broker, tags(&["env:test"]));
    assert_eq!(
        (steps(&moved), workflows(&moved)),
        (vec!["deploy/by-group".to_owned()], vec!["deploy"])
    );
    let values = &moved.groups[0];
    assert_eq!(
        (&values.lost_values[0], &values.new_values[0]),
        (&"env:prod".to_owned(), &"env:test".to_owned())
    );
    let more = preview(&broker, tags(&["env:prod", "owner:ann"]));
    assert_eq!((more.lease_count, more.workflow_count, more.group_count), (0, 0, 0));
    // A change that is refused is refused before, too.
    let refused = preview_by(&broker, broker.operator(), tags(&["env:dev"]));
    assert_eq!(reason(refused), "IDENTIFIERS_NOT_UNIQUE");
    let group = preview(&broker, delete("groups/g"));
    assert_eq!((steps(&group), group.group_count), (vec!["deploy/by-group".to_owned()], 2));
}

#[test]
fn a_preview_needs_the_right_to_make_the_change() {
    let (broker, _steps) = seeded();
    let works = broker.enroll("works", pb::Role::Operator);
    let asked = |change| reason(preview_by(&broker, works.clone(), change));
    assert_eq!(asked(delete("connections/generic/a")), "EDIT_DENIED");
    assert_eq!(asked(delete("groups/g")), "EDIT_DENIED");
    assert_eq!(asked(delete("connections/generic/absent")), "CONNECTION_NOT_FOUND");
    assert_eq!(asked(delete("operators/admin")), "NAME_INVALID");
    let release = pb::ReleaseChange { name: "connections/generic/a".to_owned(), release: 0 };
    assert_eq!(asked(Change::Release(release)), "EDIT_DENIED");
    let nothing = pb::PreviewRequest { change: None };
    let mut client = ImpactServiceClient::new(works);
    assert_eq!(reason(broker.block_on(client.preview(nothing))), "TARGET_INVALID");
    // A preview writes neither the change nor a line of it.
    assert!(!broker.journaled("intent").iter().any(|line| line.to_string().contains("delete")));
    let group = pb::GetGroupRequest { name: "groups/g".to_owned() };
    let mut client = GroupServiceClient::new(broker.operator());
    assert_eq!(broker.block_on(client.get_group(group)).unwrap().into_inner().member_count, 2);
}

#[test]
fn commands_show_what_breaks_before_they_ask() {
    let steps = Steps::seeded(
        "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: chat, tags: {env: prod}}\nspec: {integration: slack, \
         fields: {api_token: t}, default: true, access: {resolver: ['workflow:w']}}\n---\napiVersion: keyhatch/v1\nkind: \
         ConnectionGroup\nmetadata: {name: g}\nspec: {integration: slack, identifiers: [env], members: [chat], access: \
         {viewer: ['workflow:w']}}\n",
    );
    steps.answer(&["get", "slack/chat"]);
    let said = |arguments: &[&str]| {
        let ran = steps.serving.run(arguments);
        (ran.status.success(), text(&ran.stderr))
    };
    let (deleted, shown) = said(&["connection", "delete", "slack/chat", "--force"]);
    assert!(!deleted, "nobody is there to ask");
    for line in
        ["workflow w has used it 1 time(s)", "group g loses env:prod", "default:slack is nothing"]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    // A change goes on without a terminal, and says what it breaks.
    let update = ["group", "update", "g", "--remove-member", "slack/chat"];
    let (updated, shown) = said(&update);
    assert!(updated && shown.contains("group g loses env:prod: slack/chat"), "{shown}");
    let remove =
        ["access", "remove", "slack/chat", "--relation", "resolver", "--principal", "workflow:w"];
    let (removed, shown) = said(&remove);
    assert!(removed && shown.contains("workflow w has used it"), "{shown}");
    let (deleted, shown) = said(&["connection", "delete", "slack/chat", "--force", "--yes"]);
    assert!(deleted && !shown.contains("has used it"), "{shown}");
}
