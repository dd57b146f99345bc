//! Connection groups, by the examples in Datadog's documentation.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::group_service_client::GroupServiceClient;
use tonic::Status;

use crate::harness::{
    ServeProcess, TestBroker, bound, bytes, keyhatch_in, path_with_binary, reason, resolver,
    succeeded, temp_dir, text,
};

/// A broker with the connections of the documentation's example.
struct World(TestBroker);

impl World {
    /// "ConnectionA has the tag account_id:123456789, ConnectionB has account_id:987654321, and
    /// ConnectionC has account_id:123456789".
    fn start() -> Self {
        let world = Self(TestBroker::start());
        for (name, account) in [("A", "123456789"), ("B", "987654321"), ("C", "123456789")] {
            let tags = [format!("account_id:{account}"), "env:prod".to_owned()];
            world.connect(&format!("connection{name}"), &tags, &["workflow:deploy"]).unwrap();
        }
        world
    }

    fn connect(&self, name: &str, tags: &[String], resolvers: &[&str]) -> Result<(), Status> {
        let connection = pb::Connection {
            name: format!("connections/aws/{name}"),
            fields: bytes(&[("access_key_id", name), ("secret_access_key", "s")]),
            access: resolver(resolvers),
            tags: tags.to_vec(),
            ..Default::default()
        };
        let request =
            pb::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        let mut client = ConnectionServiceClient::new(self.0.operator());
        self.0.block_on(client.create_connection(request)).map(drop)
    }

    fn client(&self) -> GroupServiceClient<tonic::transport::Channel> {
        GroupServiceClient::new(self.0.operator())
    }

    fn create(&self, name: &str, identifiers: &[&str], viewer: &str) -> Result<(), Status> {
        let access = vec![pb::AccessBinding {
            relation: pb::Relation::Viewer.into(),
            principals: vec![viewer.to_owned()],
        }];
        let group = pb::ConnectionGroup {
            name: format!("groups/{name}"),
            integration: "aws".to_owned(),
            identifiers: identifiers.iter().map(|key| (*key).to_owned()).collect(),
            access,
            ..Default::default()
        };
        let request = pb::CreateGroupRequest { group: Some(group), ..Default::default() };
        self.0.block_on(self.client().create_group(request)).map(drop)
    }

    fn members(&self, group: &str, members: &[&str], add: bool) -> Result<i64, Status> {
        let name = format!("groups/{group}");
        let members = members.iter().map(|member| format!("connections/{member}")).collect();
        let mut client = self.client();
        let changed = if add {
            self.0.block_on(client.add_members(pb::AddMembersRequest {
                name,
                members,
                ..Default::default()
            }))
        } else {
            self.0.block_on(client.remove_members(pb::RemoveMembersRequest {
                name,
                members,
                ..Default::default()
            }))
        };
        changed.map(|group| group.into_inner().member_count)
    }

    fn update(&self, name: &str, change: pb::UpdateGroupRequest) -> Result<(), Status> {
        let name = format!("groups/{name}");
        let group = pb::ConnectionGroup { name, ..change.group.unwrap_or_default() };
        let request = pb::UpdateGroupRequest { group: Some(group), ..change };
        self.0.block_on(self.client().update_group(request)).map(drop)
    }

    fn retag(&self, connection: &str, tags: &[&str]) -> Result<(), Status> {
        let document = pb::apply_request::Document::Connection(pb::ConnectionDocument {
            integration: "aws".to_owned(),
            name: connection.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..Default::default()
        });
        self.0.apply(vec![document]).map(drop)
    }
}

#[test]
fn a_step_selects_a_member_by_the_groups_identifiers() {
    let world = World::start();
    world.create("aws-accounts", &["account_id"], "workflow:deploy").unwrap();
    assert_eq!(
        world.members("aws-accounts", &["aws/connectionA", "aws/connectionB"], true).unwrap(),
        2
    );
    let step = world.0.open("deploy", "build");
    for (account, expected) in [("123456789", "connectionA"), ("987654321", "connectionB")] {
        let got =
            world.0.resolve(&step, &format!("group:aws-accounts:account_id={account}")).unwrap();
        assert_eq!(got.name, format!("connections/aws/{expected}"));
        assert_eq!(got.fields["access_key_id"], expected);
    }
    // Requests are folded like tags.
    let folded = world.0.resolve(&step, "group:aws-accounts:ACCOUNT_ID=123456789").unwrap();
    assert_eq!(folded.fields["access_key_id"], "connectionA");
    let line = world.0.journaled("resolve").pop().unwrap();
    assert_eq!(line["target"], "group:aws-accounts:account_id=123456789");
    assert_eq!(line["by"], "group viewer workflow:deploy, resolver workflow:deploy");
}

/// "You cannot add ConnectionA and ConnectionC because the group would contain duplicate tag values."
#[test]
fn two_members_with_the_same_values_are_refused_whole() {
    let world = World::start();
    world.create("g", &["account_id"], "workflow:deploy").unwrap();
    world.members("g", &["aws/connectionA"], true).unwrap();
    let refused = world.members("g", &["aws/connectionB", "aws/connectionC"], true);
    assert_eq!(reason(refused), "IDENTIFIERS_NOT_UNIQUE");
    let group = pb::GetGroupRequest { name: "groups/g".to_owned() };
    let group = world.0.block_on(world.client().get_group(group)).unwrap().into_inner();
    assert_eq!(group.member_count, 1);
}

#[test]
fn a_member_has_every_identifier_and_the_groups_integration() {
    let world = World::start();
    world.create("g", &["account_id", "region"], "workflow:deploy").unwrap();
    assert_eq!(reason(world.members("g", &["aws/connectionA"], true)), "IDENTIFIER_MISSING");
    world.0.create_connection("slack/x", &[("api_token", "t")], &[]).ok().unwrap();
    assert_eq!(reason(world.members("g", &["slack/x"], true)), "INTEGRATION_MISMATCH");
    assert_eq!(reason(world.members("g", &["aws/nothere"], true)), "CONNECTION_NOT_FOUND");
    assert_eq!(reason(world.members("nothere", &["aws/connectionA"], true)), "GROUP_NOT_FOUND");
    for identifiers in
        [&[][..], &["a", "b", "c", "d"], &["a", "A"], &["default"], &["1a"], &["a:b"]]
    {
        assert_eq!(reason(world.create("h", identifiers, "workflow:w")), "IDENTIFIER_TAG_INVALID");
    }
    world.create("three", &["account_id", "env", "zone"], "workflow:w").unwrap();
}

/// A missing identifier, an unknown identifier and no match are three different errors. No request gets the first
/// fitting member.
#[test]
fn a_request_gives_a_value_for_exactly_the_groups_identifiers() {
    let world = World::start();
    world.create("g", &["account_id", "env"], "workflow:deploy").unwrap();
    world.members("g", &["aws/connectionA", "aws/connectionB"], true).unwrap();
    let step = world.0.open("deploy", "build");
    for (identifiers, expected) in [
        ("account_id=123456789", "IDENTIFIERS_INCOMPLETE"),
        ("", "IDENTIFIERS_INCOMPLETE"),
        ("account_id=123456789,env=prod,team=x", "IDENTIFIER_UNKNOWN"),
        ("account_id=5,env=prod", "GROUP_MEMBER_NOT_FOUND"),
        ("account_id=a:b,env=prod", "IDENTIFIER_TAG_INVALID"),
        ("account_id=default,env=prod", "IDENTIFIER_TAG_INVALID"),
    ] {
        let outcome = world.0.resolve(&step, &format!("group:g:{identifiers}"));
        assert_eq!(reason(outcome), expected, "{identifiers}");
    }
}

/// "You can only use connections within a group if you have Resolver permission for those connections":
/// their 403. And both documented ways to repair it.
#[test]
fn a_group_needs_viewer_on_it_and_resolver_on_the_member() {
    let world = World::start();
    world.create("g", &["account_id"], "workflow:deploy").unwrap();
    let theirs = ["account_id:555".to_owned()];
    world.connect("theirs", &theirs, &["workflow:other"]).unwrap();
    world.members("g", &["aws/connectionA", "aws/theirs"], true).unwrap();
    let (deploy, other) = (world.0.open("deploy", "build"), world.0.open("other", "build"));
    assert_eq!(reason(world.0.resolve(&deploy, "group:g:account_id=555")), "RESOLVE_DENIED");
    // A step that may not view the group cannot tell it from a missing group.
    for target in ["group:g:account_id=555", "group:g:nonsense=1", "group:nothere:account_id=555"] {
        assert_eq!(reason(world.0.resolve(&other, target)), "RESOLVE_DENIED");
    }
    // "Configure the workflow … so that it can't point to a connection that doesn't have a Resolver
    // permission": the other member.
    world.0.resolve(&deploy, "group:g:account_id=123456789").unwrap();
    // "Remove the connection that doesn't have a Resolver permission from the connection group".
    world.members("g", &["aws/theirs"], false).unwrap();
    assert_eq!(
        reason(world.0.resolve(&deploy, "group:g:account_id=555")),
        "GROUP_MEMBER_NOT_FOUND"
    );
}

/// "these can never be empty, but they can be completely replaced"
#[test]
fn identifiers_are_replaced_as_a_whole_if_every_member_fits() {
    let world = World::start();
    world.create("g", &["account_id"], "workflow:deploy").unwrap();
    world.members("g", &["aws/connectionA", "aws/connectionB"], true).unwrap();
    let replace = |keys: &[&str]| {
        let identifiers = keys.iter().map(|key| (*key).to_owned()).collect();
        let group = pb::ConnectionGroup { identifiers, ..Default::default() };
        world.update("g", pb::UpdateGroupRequest { group: Some(group), ..Default::default() })
    };
    assert_eq!(reason(replace(&["region"])), "IDENTIFIER_MISSING");
    assert_eq!(reason(replace(&["env"])), "IDENTIFIERS_NOT_UNIQUE");
    world.retag("connectionA", &["zone:a"]).unwrap();
    world.retag("connectionB", &["zone:b"]).unwrap();
    replace(&["zone"]).unwrap();
    let step = world.0.open("deploy", "build");
    let got = world.0.resolve(&step, "group:g:zone=b").unwrap();
    assert_eq!(got.fields["access_key_id"], "connectionB");
}

#[test]
fn a_change_of_tags_may_move_a_member_and_not_break_a_group() {
    let world = World::start();
    world.create("g", &["account_id"], "workflow:deploy").unwrap();
    world.members("g", &["aws/connectionA", "aws/connectionB"], true).unwrap();
    let step = world.0.open("deploy", "build");
    let lease = world.0.resolve(&step, "group:g:account_id=123456789").unwrap().lease.name;
    let broken = world.retag("connectionA", &["account_id:987654321"]);
    assert!(broken.as_ref().unwrap_err().message().contains("group g"));
    assert_eq!(reason(broken), "IDENTIFIERS_NOT_UNIQUE");
    world.retag("connectionA", &["account_id:1"]).unwrap();
    assert_eq!(
        reason(world.0.resolve(&step, "group:g:account_id=123456789")),
        "GROUP_MEMBER_NOT_FOUND"
    );
    world.0.resolve(&step, "group:g:account_id=1").unwrap();
    // Leases under the old values ended with the change.
    let head = world.0.journaled("head").pop().unwrap();
    assert_eq!(head["revoked"][0], lease.strip_prefix("leases/").unwrap());
}

#[test]
fn a_members_change_shows_in_each_of_its_groups_at_once() {
    let mut world = World::start();
    for group in ["g", "h"] {
        world.create(group, &["account_id"], "workflow:deploy").unwrap();
        world.members(group, &["aws/connectionA"], true).unwrap();
    }
    let change = |document: pb::ConnectionDocument| {
        let document = pb::ConnectionDocument {
            integration: "aws".to_owned(),
            name: "connectionA".to_owned(),
            ..document
        };
        let document = pb::apply_request::Document::Connection(document);
        world.0.apply(vec![document]).unwrap();
    };
    let step = world.0.open("deploy", "build");
    let by = |target: &str| world.0.resolve(&step, target);
    let targets =
        ["group:g:account_id=123456789", "group:h:account_id=123456789", "aws/connectionA"];

    change(pb::ConnectionDocument {
        fields: bytes(&[("access_key_id", "second")]),
        ..Default::default()
    });
    for target in targets {
        let got = by(target).unwrap();
        assert_eq!((&*got.fields["access_key_id"], got.version), ("second", 2), "{target}");
    }
    change(pb::ConnectionDocument { disabled: Some(true), ..Default::default() });
    for target in targets {
        assert_eq!(reason(by(target)), "CONNECTION_DISABLED", "{target}");
    }
    change(pb::ConnectionDocument {
        disabled: Some(false),
        access: resolver(&["workflow:other"]),
        ..Default::default()
    });
    for target in targets {
        assert_eq!(reason(by(target)), "RESOLVE_DENIED", "{target}");
    }
    world.0.stop();
    world.0.serve();
    let step = world.0.open("deploy", "build");
    for target in targets {
        assert_eq!(reason(world.0.resolve(&step, target)), "RESOLVE_DENIED", "{target}");
    }
}

#[test]
fn a_grouped_connection_is_deleted_only_by_force() {
    let world = World::start();
    world.create("g", &["account_id"], "workflow:deploy").unwrap();
    world.members("g", &["aws/connectionA"], true).unwrap();
    let name = "connections/aws/connectionA".to_owned();
    let request = pb::DeleteConnectionRequest { name, ..Default::default() };
    let mut client = ConnectionServiceClient::new(world.0.operator());
    let refused = world.0.block_on(client.delete_connection(request)).map(drop);
    assert!(refused.as_ref().unwrap_err().message().contains("group g"));
    assert_eq!(reason(refused), "IN_USE");
    let name = "connections/aws/connectionA".to_owned();
    let request = pb::DeleteConnectionRequest { name, force: true, ..Default::default() };
    let mut client = ConnectionServiceClient::new(world.0.operator());
    world.0.block_on(client.delete_connection(request)).unwrap();
    // The values of the removed member are free again.
    assert_eq!(world.members("g", &["aws/connectionC"], true).unwrap(), 1);
}

#[test]
fn a_changed_group_is_found_again_after_a_restart() {
    let mut world = World::start();
    world.create("g", &["account_id"], "workflow:deploy").unwrap();
    world.create("taken", &["env"], "workflow:deploy").unwrap();
    world.members("g", &["aws/connectionA", "aws/connectionB"], true).unwrap();
    let rename =
        |to: &str| pb::UpdateGroupRequest { new_name: to.to_owned(), ..Default::default() };
    assert_eq!(reason(world.update("g", rename("taken"))), "GROUP_EXISTS");
    world.update("g", rename("renamed")).unwrap();
    world.0.restart();
    let step = world.0.open("deploy", "build");
    assert_eq!(reason(world.0.resolve(&step, "group:g:account_id=987654321")), "RESOLVE_DENIED");
    world.0.resolve(&step, "group:renamed:account_id=987654321").unwrap();
    let emptied = world.members("renamed", &["aws/connectionA", "aws/connectionB"], false);
    assert_eq!(emptied.unwrap(), 0);
    let request = pb::DeleteGroupRequest {
        name: "groups/renamed".to_owned(),
        force: true,
        ..Default::default()
    };
    world.0.block_on(world.client().delete_group(request)).unwrap();
    assert_eq!(
        reason(world.0.resolve(&step, "group:renamed:account_id=987654321")),
        "RESOLVE_DENIED"
    );
    world.0.resolve(&step, "aws/connectionA").unwrap();
}

#[test]
fn a_group_has_neither_users_nor_resolvers() {
    let world = World::start();
    world.create("g", &["account_id"], "workflow:deploy").unwrap();
    for relation in [pb::Relation::User, pb::Relation::Resolver] {
        let access = vec![bound(relation, &["workflow:w"])];
        let group = pb::ConnectionGroup { access, ..Default::default() };
        let change = pb::UpdateGroupRequest { group: Some(group), ..Default::default() };
        assert_eq!(reason(world.update("g", change)), "PRINCIPAL_INVALID");
    }
}

#[test]
fn one_of_two_concurrent_adds_of_the_same_values_wins() {
    let world = World::start();
    world.create("g", &["account_id"], "workflow:deploy").unwrap();
    for _ in 0..10 {
        let outcomes = std::thread::scope(|scope| {
            let adding = ["aws/connectionA", "aws/connectionC"]
                .map(|member| scope.spawn(|| world.members("g", &[member], true).is_ok()));
            adding.map(|one| one.join().unwrap())
        });
        assert_eq!(outcomes.iter().filter(|won| **won).count(), 1);
        world.members("g", &["aws/connectionA", "aws/connectionC"], false).unwrap();
    }
}

/// Both forms of tags in seed files.
fn seed_file() -> String {
    let one = |name: &str, tags: &str| {
        format!(
            "---\napiVersion: keyhatch/v1\nkind: Connection\nmetadata: {{name: {name}, tags: {tags}}}\nspec:\n  \
             integration: aws\n  fields: {{access_key_id: {name}, secret_access_key: s}}\n  \
             access: {{resolver: ['workflow:w']}}\n"
        )
    };
    one("connectionA", "{account_id: '123456789'}")
        + &one("connectionB", "['account_id:987654321']")
}

#[test]
fn a_group_made_by_commands_gives_a_step_its_member() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let seed = directory.path().join("seed.yaml");
    std::fs::write(&seed, seed_file()).unwrap();
    let run = |arguments: &[&str]| succeeded(&serving.run(arguments));
    run(&["apply", "-f", seed.to_str().unwrap()]);
    let made = run(&[
        "group",
        "create",
        "aws-accounts",
        "--integration",
        "aws",
        "--identifier",
        "account_id",
        "--member",
        "aws/connectionA",
        "--member",
        "aws/connectionB",
        "--viewer",
        "workflow:w",
    ]);
    assert_eq!(made, "group aws-accounts: 2 member(s) selected by account_id\n");
    assert!(run(&["group", "get", "aws-accounts"]).contains("aws/connectionB"));
    assert!(run(&["group", "list"]).contains("account_id"));
    assert!(run(&["connection", "get", "aws/connectionA"]).contains("account_id:123456789"));
    let script = "keyhatch get group:aws-accounts:account_id=123456789 --field access_key_id; \
                  keyhatch exec --env K=group:aws-accounts:account_id=987654321:access_key_id -- sh -c 'printf %s $K'";
    let mut step = keyhatch_in(
        directory.path(),
        &["step", "run", "--workflow", "w", "--run", "1", "--step", "s", "--", "sh", "-c", script],
    );
    let ran = step.env("PATH", path_with_binary()).output().unwrap();
    assert_eq!(text(&ran.stdout), "connectionAconnectionB");
    run(&[
        "group",
        "update",
        "aws-accounts",
        "--rename",
        "accounts",
        "--remove-member",
        "aws/connectionB",
    ]);
    assert!(!run(&["group", "get", "accounts"]).contains("connectionB"));
    run(&["group", "delete", "accounts", "--yes"]);
    assert_eq!(run(&["group", "list"]), "no groups\n");
}
