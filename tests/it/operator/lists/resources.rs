//! Lists that are filtered, ordered and counted: connections, groups and secrets by the same words.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_request::Document;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::group_service_client::GroupServiceClient;
use keyhatch::grpc::pb::secret_service_client::SecretServiceClient;
use tonic::Status;

use crate::harness::{
    ServeProcess, TestBroker, assert_says, connection_document, reason, resolver, secret_document,
    succeeded, temp_dir, text,
};

const PAGE: i32 = 2;

fn list(
    broker: &TestBroker,
    wanted: pb::ListConnectionsRequest,
) -> Result<pb::ListConnectionsResponse, Status> {
    let mut client = ConnectionServiceClient::new(broker.operator());
    broker.block_on(client.list_connections(wanted)).map(tonic::Response::into_inner)
}

fn groups(
    broker: &TestBroker,
    wanted: pb::ListGroupsRequest,
) -> Result<pb::ListGroupsResponse, Status> {
    let mut client = GroupServiceClient::new(broker.operator());
    broker.block_on(client.list_groups(wanted)).map(tonic::Response::into_inner)
}

fn secrets(
    broker: &TestBroker,
    wanted: pb::ListSecretsRequest,
) -> Result<pb::ListSecretsResponse, Status> {
    let mut client = SecretServiceClient::new(broker.operator());
    broker.block_on(client.list_secrets(wanted)).map(tonic::Response::into_inner)
}

/// The names on all pages, without what they have in common, and the total that every page says.
fn all(broker: &TestBroker, filter: &str, order_by: &str) -> (Vec<String>, i32) {
    let (mut names, mut page_token, mut totals) = (Vec::new(), String::new(), Vec::new());
    loop {
        let (filter, order_by) = (filter.to_owned(), order_by.to_owned());
        let wanted = pb::ListConnectionsRequest {
            filter,
            order_by,
            page_size: PAGE,
            page_token,
            ..Default::default()
        };
        let page = list(broker, wanted).unwrap();
        assert!(!page.total_size_estimated);
        totals.push(page.total_size);
        let short = |one: pb::Connection| one.name.replacen("connections/", "", 1);
        names.extend(page.connections.into_iter().map(short));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            totals.dedup();
            assert_eq!(totals.len(), 1, "{totals:?}");
            return (names, totals[0]);
        }
    }
}

fn names(broker: &TestBroker, filter: &str, order_by: &str) -> Vec<String> {
    let (names, total) = all(broker, filter, order_by);
    assert_eq!(i32::try_from(names.len()), Ok(total), "{filter}");
    names
}

/// Five connections of different tags, labels and access, created a second apart.
fn seeded() -> TestBroker {
    let broker = TestBroker::start();
    for (name, env, team, bound) in [
        ("slack/alerts", "prod", "Ops", "workflow:deploy"),
        ("slack/builds", "dev", "ops", "workflow:*"),
        ("generic/c", "prod", "web", "workflow:nightly/step:sweep"),
        ("generic/b", "test", "web", "team:ops"),
        ("generic/a", "prod", "db", "operator:ann"),
    ] {
        let field = if name.starts_with("slack") { "api_token" } else { "token" };
        let Document::Connection(document) =
            connection_document(name, &[(field, "hush")], resolver(&[bound]))
        else {
            panic!("a connection")
        };
        let document = pb::ConnectionDocument {
            tags: vec![format!("env:{env}"), format!("n:{}", name.replace('/', "-"))],
            labels: [("team".to_owned(), team.to_owned())].into(),
            ..document
        };
        broker.apply(vec![Document::Connection(document)]).unwrap();
        broker.advance(1);
    }
    broker
}

fn create_group(broker: &TestBroker, name: &str, label: &str, viewer: &str, members: &[&str]) {
    let group = Document::Group(pb::GroupDocument {
        name: name.to_owned(),
        integration: "generic".to_owned(),
        identifiers: vec!["n".to_owned()],
        labels: [("team".to_owned(), label.to_owned())].into(),
        access: vec![crate::harness::bound(pb::Relation::Viewer, &[viewer])],
        members: Some(pb::GroupMembers { names: members.iter().map(|&one| one.into()).collect() }),
    });
    broker.apply(vec![group]).unwrap();
}

#[test]
fn connections_are_found_by_every_word_of_a_filter() {
    let broker = seeded();
    create_group(&broker, "g", "x", "workflow:w", &["a", "b"]);
    for (filter, expected) in [
        ("", "generic/a generic/b generic/c slack/alerts slack/builds"),
        ("integration = slack", "slack/alerts slack/builds"),
        ("tags.env = prod AND integration != slack", "generic/a generic/c"),
        ("text : ALERT", "slack/alerts"),
        ("text : generic/", "generic/a generic/b generic/c"),
        ("text : env:PROD", "generic/a generic/c slack/alerts"),
        ("text : team=op", "slack/alerts slack/builds"),
        ("labels.team : OPS", "slack/alerts slack/builds"),
        ("labels.team = ops", "slack/builds"),
        ("group = g", "generic/a generic/b"),
        ("group != g AND integration = generic", "generic/c"),
        ("group : *", "generic/a generic/b"),
        ("principal = workflow:deploy", "slack/alerts slack/builds"),
        ("principal = workflow:nightly", "generic/c slack/builds"),
        ("principal = workflow:nightly/step:other", "slack/builds"),
        ("principal = team:ops", "generic/b"),
        ("principal = operator:ann", "generic/a"),
        ("principal = workflow:dep*", "slack/alerts"),
        ("principal : \"step:\"", "generic/c"),
        ("release = minted", ""),
        ("stale = true", ""),
    ] {
        assert_eq!(names(&broker, filter, "").join(" "), expected, "{filter}");
    }
}

#[test]
fn connections_come_in_the_order_asked_for_page_by_page() {
    let broker = seeded();
    let created = ["slack/alerts", "slack/builds", "generic/c", "generic/b", "generic/a"];
    let reversed: Vec<_> = created.iter().rev().copied().collect();
    let step = broker.open("deploy", "s");
    broker.resolve(&step, "slack/builds").unwrap();
    broker.advance(1);
    broker.resolve(&step, "slack/alerts").unwrap();
    let by_name = ["generic/a", "generic/b", "generic/c", "slack/alerts", "slack/builds"];
    let by_name_down: Vec<_> = by_name.iter().rev().copied().collect();
    for (order, expected) in [
        ("name", &by_name[..]),
        ("name desc", &by_name_down[..]),
        ("create_time", &created[..]),
        ("update_time desc", &reversed[..]),
        // Connections without the time come last, by name.
        ("expire_time", &by_name[..]),
        ("last_use_time", &[created[1], created[0], "generic/a", "generic/b", "generic/c"][..]),
        (
            "last_use_time desc",
            &[created[0], created[1], "generic/a", "generic/b", "generic/c"][..],
        ),
    ] {
        assert_eq!(names(&broker, "", order), expected, "{order}");
    }
    let prod = ["generic/a", "generic/c", "slack/alerts"];
    assert_eq!(names(&broker, "tags.env = prod", "update_time desc"), prod);
    // What changes between two lists is seen by the second.
    broker.delete_connection("generic/c").unwrap();
    broker.create_aws("new", "s", &[]);
    assert_eq!(names(&broker, "", "create_time desc")[..2], ["aws/new", "generic/a"]);
    assert_eq!(names(&broker, "name = c", "create_time").len(), 0);
}

#[test]
fn a_connection_is_stale_while_a_step_holds_an_older_version() {
    let broker = seeded();
    let step = broker.open("deploy", "s");
    broker.resolve(&step, "slack/alerts").unwrap();
    broker.resolve(&step, "slack/builds").unwrap();
    assert_eq!(names(&broker, "stale = true", ""), [""; 0]);
    let rotated = Document::Connection(pb::ConnectionDocument {
        integration: "slack".to_owned(),
        name: "alerts".to_owned(),
        fields: crate::harness::bytes(&[("api_token", "another")]),
        ..Default::default()
    });
    broker.apply(vec![rotated]).unwrap();
    assert_eq!(names(&broker, "stale = true", ""), ["slack/alerts"]);
    assert_eq!(names(&broker, "stale = false AND integration = slack", ""), ["slack/builds"]);
    assert_eq!(broker.get_connection("slack/alerts").unwrap().stale_leases, 1);
    broker.close(&step);
    assert_eq!(names(&broker, "stale = true", ""), [""; 0]);
}

#[test]
fn groups_and_secrets_are_listed_by_the_same_words() {
    let broker = seeded();
    create_group(&broker, "first", "Ops", "workflow:deploy", &["a"]);
    broker.advance(1);
    create_group(&broker, "second", "web", "workflow:*", &[]);
    let found = |filter: &str, order_by: &str| {
        let (filter, order_by) = (filter.to_owned(), order_by.to_owned());
        let wanted = pb::ListGroupsRequest { filter, order_by, page_size: 1, ..Default::default() };
        let page = groups(&broker, wanted).unwrap();
        (page.groups.first().map_or(String::new(), |one| one.name.clone()), page.total_size)
    };
    assert_eq!(found("", "update_time desc"), ("groups/second".to_owned(), 2));
    assert_eq!(found("text : ops", ""), ("groups/first".to_owned(), 1));
    assert_eq!(found("principal = workflow:nightly", ""), ("groups/second".to_owned(), 1));
    assert_eq!(found("identifier = n AND integration = generic", "name desc").1, 2);
    assert_eq!(found("labels.team = nobody", ""), (String::new(), 0));
    for (workflow, name) in [("deploy", "token"), ("deploy", "salt"), ("nightly", "token")] {
        broker.apply(vec![secret_document(workflow, name, "hush")]).unwrap();
        broker.advance(1);
    }
    let step = broker.open("deploy", "s");
    broker.resolve(&step, "secret:token").unwrap();
    let found = |workflow: &str, filter: &str, order_by: &str| {
        let [workflow, filter, order_by] = [workflow, filter, order_by].map(str::to_owned);
        let wanted = pb::ListSecretsRequest { workflow, filter, order_by, ..Default::default() };
        let page = secrets(&broker, wanted).unwrap();
        assert_eq!(i32::try_from(page.secrets.len()), Ok(page.total_size));
        page.secrets
    };
    let names = |secrets: Vec<pb::Secret>| -> Vec<String> {
        let short = |one: pb::Secret| one.name.replace("workflows/", "").replace("secrets/", "");
        secrets.into_iter().map(short).collect()
    };
    let down = ["nightly/token", "deploy/salt", "deploy/token"];
    assert_eq!(names(found("-", "", "update_time desc")), down);
    assert_eq!(names(found("-", "text : TOK", "")), ["deploy/token", "nightly/token"]);
    assert_eq!(names(found("deploy", "name != salt", "")), ["deploy/token"]);
    let used = found("deploy", "", "last_use_time desc");
    assert_eq!((used[0].use_count, used[0].live_leases), (1, 1));
    assert!(used[0].last_use_time.is_some() && used[1].last_use_time.is_none());
}

#[test]
fn a_group_shows_who_has_used_it() {
    let mut broker = seeded();
    let bound = resolver(&["workflow:deploy"]);
    broker.apply(vec![connection_document("generic/a", &[("token", "t")], bound)]).unwrap();
    create_group(&broker, "g", "x", "workflow:deploy", &["a"]);
    let step = broker.open("deploy", "s");
    broker.resolve(&step, "group:g:n=generic-a").unwrap();
    broker.restart();
    let mut client = GroupServiceClient::new(broker.operator());
    let request = pb::GetGroupRequest { name: "groups/g".to_owned() };
    let group = broker.block_on(client.get_group(request)).unwrap().into_inner();
    let uses: Vec<_> =
        group.uses.iter().map(|one| (one.workflow.as_str(), one.use_count)).collect();
    assert_eq!((uses, group.use_count), (vec![("deploy", 1)], 1));
    let listed = groups(&broker, pb::ListGroupsRequest::default()).unwrap().groups;
    assert_eq!(listed[0].last_use_time, group.last_use_time);
    assert!(listed[0].last_use_time.is_some() && listed[0].uses.is_empty());
}

#[test]
fn wrong_filters_orders_and_tokens_say_what_is_right() {
    let broker = seeded();
    let asked = |filter: &str, order_by: &str, page_token: &str| {
        let [filter, order_by, page_token] = [filter, order_by, page_token].map(str::to_owned);
        list(
            &broker,
            pb::ListConnectionsRequest {
                filter,
                order_by,
                page_token,
                page_size: 1,
                ..Default::default()
            },
        )
    };
    for (filter, order, expected, said) in [
        ("nonsense", "", "FILTER_INVALID", "write terms such as"),
        ("colour = red", "", "FILTER_INVALID", "labels.KEY"),
        ("disabled = yes", "", "FILTER_INVALID", "true or false"),
        ("principal = nobody", "", "FILTER_INVALID", "workflow:NAME"),
        ("", "colour", "ORDER_BY_INVALID", "last_use_time"),
        ("", "name upwards", "ORDER_BY_INVALID", "FIELD desc"),
        ("", "name, update_time", "ORDER_BY_INVALID", "FIELD desc"),
    ] {
        let refused = asked(filter, order, "").err().unwrap();
        assert!(refused.message().contains(said), "{filter}{order}: {}", refused.message());
        assert_eq!(reason::<()>(Err(refused)), expected, "{filter}{order}");
    }
    let token = asked("tags.env = prod", "", "").unwrap().next_page_token;
    assert_eq!(asked("tags.env = prod", "", &token).unwrap().connections.len(), 1);
    for (filter, order) in [("tags.env = dev", ""), ("", ""), ("tags.env = prod", "name desc")] {
        let refused = asked(filter, order, &token).err().unwrap();
        assert!(refused.message().contains("leave it out"), "{}", refused.message());
        assert_eq!(reason::<()>(Err(refused)), "PAGE_TOKEN_INVALID", "{filter} {order}");
    }
    let of_groups = pb::ListGroupsRequest { page_token: token, ..Default::default() };
    assert_eq!(reason(groups(&broker, of_groups)), "PAGE_TOKEN_INVALID");
    assert_eq!(reason(asked("", "", "bm9uc2Vuc2U").map(drop)), "PAGE_TOKEN_INVALID");
}

#[test]
fn many_matches_are_estimated_and_a_page_token_keeps_that() {
    const MANY: usize = 12_000;
    let broker = TestBroker::start();
    let fields = [("token", "hush")];
    for half in 0..2 {
        let numbers = half * MANY / 2..(half + 1) * MANY / 2;
        let document =
            |number| connection_document(&format!("generic/c{number:05}"), &fields, vec![]);
        broker.apply(numbers.map(document).collect()).unwrap();
    }
    let asked = |filter: &str, page_token: String| {
        let filter = filter.to_owned();
        let wanted =
            pb::ListConnectionsRequest { filter, page_token, page_size: 10, ..Default::default() };
        list(&broker, wanted).unwrap()
    };
    let few = asked("name : 7777", String::new());
    assert_eq!((few.total_size, few.total_size_estimated), (1, false));
    let whole = asked("", String::new());
    assert_eq!((whole.total_size, whole.total_size_estimated), (12_000, false));
    let first = asked("name = c*", String::new());
    assert!(first.total_size_estimated && first.total_size > 10_000, "{}", first.total_size);
    let second = asked("name = c*", first.next_page_token);
    assert_eq!((second.total_size, second.total_size_estimated), (first.total_size, true));
    assert_eq!(second.connections[0].name, "connections/generic/c00010");
}

#[test]
fn list_commands_search_order_and_count() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let seed = "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: alerts, tags: {env: prod}}\nspec: \
                {integration: slack, fields: {api_token: t}, access: {resolver: ['workflow:deploy']}}\n---\n\
                apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: other}\nspec: {integration: slack, fields: \
                {api_token: t}}\n---\napiVersion: keyhatch/v1\nkind: ConnectionGroup\nmetadata: {name: chats}\nspec: \
                {integration: slack, identifiers: [env], members: [alerts], access: {viewer: ['workflow:deploy']}}\n";
    let path = directory.path().join("seed.yaml");
    std::fs::write(&path, seed).unwrap();
    serving.must(&["apply", "-f", path.to_str().unwrap()]);
    let names = |arguments: &[&str]| {
        let arguments = [arguments, &["-o", "name"]].concat();
        serving.must(&arguments).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (options, expected) in [
        (&["--search", "ALERT"][..], "slack/alerts"),
        (&["--group", "chats"][..], "slack/alerts"),
        (&["--principal", "workflow:deploy"][..], "slack/alerts"),
        (&["--stale"][..], ""),
        (&["--order-by", "name desc"][..], "slack/other slack/alerts"),
        (&["--search", "slack", "--tag", "env:prod"][..], "slack/alerts"),
    ] {
        assert_eq!(names(&[&["connection", "list"], options].concat()), expected, "{options:?}");
    }
    assert_eq!(names(&["group", "list", "--principal", "workflow:deploy"]), "chats");
    assert_eq!(names(&["group", "list", "--search", "nothing"]), "");
    succeeded(&serving.run(&["secret", "list", "--workflow", "w", "--order-by", "update_time"]));
    let first = serving.run(&["connection", "list", "--limit", "1"]);
    assert_says(&text(&first.stderr), &["1 of 2"]);
    let wrong = serving.run(&["connection", "list", "--order-by", "colour"]);
    assert_says(&text(&wrong.stderr), &["ORDER_BY_INVALID", "update_time"]);
}
