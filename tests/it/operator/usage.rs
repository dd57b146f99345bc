//! The users of each resource and the end of each credential, as operators see them from the journal and the values.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::group_service_client::GroupServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;

use crate::harness::{START, Steps, TestBroker, bytes};

fn at(broker: &TestBroker) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: broker.clock.now().seconds(), nanos: 0 }
}

fn list(broker: &TestBroker, wanted: pb::ListConnectionsRequest) -> Vec<String> {
    let mut client = ConnectionServiceClient::new(broker.operator());
    let listed = broker.block_on(client.list_connections(wanted)).unwrap().into_inner();
    listed.connections.into_iter().map(|one| one.name.replacen("connections/", "", 1)).collect()
}

fn set(broker: &TestBroker, reference: &str, fields: &[(&str, &str)]) -> pb::Connection {
    let connection = pb::Connection {
        name: format!("connections/{reference}"),
        fields: bytes(fields),
        ..Default::default()
    };
    let request =
        pb::UpdateConnectionRequest { connection: Some(connection), ..Default::default() };
    let mut client = ConnectionServiceClient::new(broker.operator());
    broker.block_on(client.update_connection(request)).unwrap().into_inner()
}

#[test]
fn a_connection_shows_its_users_and_held_versions() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "one", &["workflow:*"]);
    let never = broker.get_connection("aws/prod").unwrap();
    assert!(never.uses.is_empty() && never.holders.is_empty() && never.last_use_time.is_none());
    let (deploy, nightly) = (broker.open("deploy", "build"), broker.open("nightly", "all"));
    for step in [&deploy, &deploy, &nightly] {
        broker.resolve(step, "aws/prod").unwrap();
    }
    let updated = set(&broker, "aws/prod", &[("secret_access_key", "two")]);
    broker.resolve(&nightly, "aws/prod").unwrap();
    // The reply to a rotation lists the holders of the old version.
    let held = |connection: &pb::Connection| {
        let holder =
            |one: &pb::LeaseHolder| (one.version, format!("{}/{}", one.workflow, one.step));
        connection.holders.iter().map(holder).collect::<Vec<_>>()
    };
    let old = [(1, "deploy/build".to_owned()), (1, "nightly/all".to_owned())];
    assert_eq!(held(&updated), old);
    let now = broker.get_connection("aws/prod").unwrap();
    let both = [old.to_vec(), vec![(2, "nightly/all".to_owned())]].concat();
    assert_eq!(held(&now), both);
    let uses = |connection: &pb::Connection| {
        let used = |one: &pb::ConnectionUse| (one.workflow.clone(), one.use_count);
        connection.uses.iter().map(used).collect::<Vec<_>>()
    };
    let expected = [("deploy".to_owned(), 2), ("nightly".to_owned(), 2)];
    assert_eq!((uses(&now), now.use_count), (expected.to_vec(), 4));
    assert!(now.last_use_time.is_some());
    broker.close(&nightly);
    broker.restart();
    let after = broker.get_connection("aws/prod").unwrap();
    assert_eq!((held(&after), uses(&after)), (old[..1].to_vec(), expected.to_vec()));
}

#[test]
fn long_unused_connections_are_listed_and_new_ones_not() {
    let broker = TestBroker::start();
    for name in ["used", "unused", "used-long-ago"] {
        broker.create_aws(name, "s", &["workflow:deploy"]);
    }
    let step = broker.open("deploy", "build");
    broker.resolve(&step, "aws/used-long-ago").unwrap();
    broker.advance(1000);
    let since = Some(at(&broker));
    broker.advance(1000);
    broker.resolve(&step, "aws/used").unwrap();
    broker.create_aws("new", "s", &[]);
    let wanted = pb::ListConnectionsRequest { unused_since: since, ..Default::default() };
    assert_eq!(list(&broker, wanted.clone()), ["aws/unused", "aws/used-long-ago"]);
    let filtered = pb::ListConnectionsRequest { filter: "name = used*".to_owned(), ..wanted };
    assert_eq!(list(&broker, filtered), ["aws/used-long-ago"]);
}

fn token_that_ends(seconds: i64) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let (header, claims) = (r#"{"alg":"RS256"}"#.to_owned(), format!(r#"{{"exp":{seconds}}}"#));
    format!("{}.{}.c2lnbmF0dXJl", part(header), part(claims))
}

#[test]
fn connections_that_expire_soon_are_listed() {
    let mut broker = TestBroker::start();
    let now = *START / 1000;
    let token = token_that_ends(now + 5000);
    broker.create_connection("slack/token", &[("api_token", &token)], &[]).unwrap();
    broker.create_connection("slack/plain", &[("api_token", "plain")], &[]).unwrap();
    let certificate = broker.authority().root_pem().to_owned();
    let ca = [
        ("server", "https://k8s.example"),
        ("token", "t"),
        ("certificate_authority", certificate.as_str()),
    ];
    let made = broker.create_connection("kubernetes/cluster", &ca, &[]);
    assert!(made.is_ok(), "{:?}", made.err());
    let mut client = ConnectionServiceClient::new(broker.operator());
    let said = |reference: &str, seconds: Option<i64>| pb::UpdateConnectionRequest {
        connection: Some(pb::Connection {
            name: format!("connections/{reference}"),
            expires: seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["expires".to_owned()] }),
        ..Default::default()
    };
    broker.block_on(client.update_connection(said("slack/plain", Some(now + 3000)))).unwrap();
    broker.restart();
    let before = |seconds: i64| {
        let expires_before = Some(prost_types::Timestamp { seconds, nanos: 0 });
        list(&broker, pb::ListConnectionsRequest { expires_before, ..Default::default() })
    };
    assert!(before(now + 3000).is_empty());
    assert_eq!(before(now + 3001), ["slack/plain"]);
    assert_eq!(before(now + 6000), ["slack/plain", "slack/token"]);
    let ten_years = 11 * 365 * 24 * 3600;
    assert_eq!(before(now + ten_years), ["kubernetes/cluster", "slack/plain", "slack/token"]);
    // The field shows the same end, and a new value shows another.
    let state = |reference: &str| broker.get_connection(reference).unwrap().field_states;
    let end = state("slack/token").remove(0).expire_time.unwrap();
    assert_eq!(end.seconds, now + 5000);
    set(&broker, "slack/token", &[("api_token", &token_that_ends(now + 9000))]);
    assert_eq!(before(now + 6000), ["slack/plain"]);
    let mut client = ConnectionServiceClient::new(broker.operator());
    broker.block_on(client.update_connection(said("slack/plain", None))).unwrap();
    assert!(before(now + 6000).is_empty());
}

fn create_group_of_deploy(broker: &TestBroker) {
    let group = pb::ConnectionGroup {
        name: "groups/g".to_owned(),
        integration: "aws".to_owned(),
        identifiers: vec!["env".to_owned()],
        access: vec![pb::AccessBinding {
            relation: pb::Relation::Viewer.into(),
            principals: vec!["workflow:deploy".to_owned()],
        }],
        ..Default::default()
    };
    let request = pb::CreateGroupRequest { group: Some(group), ..Default::default() };
    let mut groups = GroupServiceClient::new(broker.operator());
    broker.block_on(groups.create_group(request)).unwrap();
}

#[test]
fn access_suggest_names_unused_and_too_wide_access() {
    use pb::AccessAdvice::{Keep, Narrow, Others, Remove};
    let broker = TestBroker::start();
    let names = ["own", "own-unused", "for-all", "for-all-unused", "others", "not-mine"];
    for name in names {
        let bound = match name {
            "own" | "own-unused" => "workflow:deploy",
            "not-mine" => "workflow:other",
            _ => "workflow:*",
        };
        broker.create_aws(name, "s", &[bound]);
    }
    create_group_of_deploy(&broker);
    broker.advance(1000);
    let since = Some(at(&broker));
    broker.advance(1000);
    let (deploy, other) = (broker.open("deploy", "build"), broker.open("other", "s"));
    broker.resolve(&deploy, "aws/own").unwrap();
    broker.resolve(&deploy, "aws/for-all").unwrap();
    broker.resolve(&other, "aws/others").unwrap();
    broker.create_aws("new", "s", &["workflow:deploy"]);
    let mut client = SystemServiceClient::new(broker.operator());
    let workflow = "deploy".to_owned();
    let request = pb::SuggestAccessRequest { workflow, since };
    let told = broker.block_on(client.suggest_access(request)).unwrap().into_inner();
    let advice: Vec<_> =
        told.suggestions.iter().map(|one| (one.resource.as_str(), one.advice())).collect();
    assert_eq!(
        advice,
        [
            ("connections/aws/for-all-unused", Remove),
            ("connections/aws/own-unused", Remove),
            ("groups/g", Remove),
            ("connections/aws/for-all", Narrow),
            ("connections/aws/others", Others),
            ("connections/aws/new", Keep),
            ("connections/aws/own", Keep),
        ]
    );
    assert_eq!((told.more, told.suggestions[3].use_count), (0, 1));
    assert!(!told.suggestions[3].others_use && told.suggestions[4].others_use);
}

#[test]
fn access_suggestions_are_commands_that_work() {
    let steps = Steps::seeded(
        "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: chat}\nspec: {integration: slack, fields: \
         {api_token: t}, expires: 2020-01-01, access: {resolver: ['workflow:w', 'workflow:v']}}\n",
    );
    let run = |arguments: &[&str]| {
        let ran = steps.serving.run(arguments);
        assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    };
    steps.answer(&["get", "slack/chat"]);
    let shown = run(&["connection", "get", "slack/chat"]);
    assert!(shown.contains("workflow w, 1 time(s), last "), "{shown}");
    assert!(shown.contains("2020-01-01T23:59:59Z"), "{shown}");
    let expiring = run(&["connection", "list", "--expiring", "30d"]);
    assert!(expiring.contains("slack/chat") && expiring.contains("EXPIRES"), "{expiring}");
    assert_eq!(run(&["connection", "list", "--unused-since", "1d", "-o", "name"]), "");
    // Access younger than the given time is kept. All access is older than zero.
    assert!(run(&["access", "suggest", "v"]).contains("all were used, or are new"));
    let suggested = run(&["access", "suggest", "v", "--since", "0s"]);
    let command = "keyhatch access remove slack/chat --relation resolver --principal workflow:v";
    assert!(suggested.ends_with(&format!("{command}\n")), "{suggested}");
    let words: Vec<_> = command.split(' ').skip(1).collect();
    run(&words);
    assert!(!run(&["access", "list", "slack/chat"]).contains("workflow:v"));
    steps.refusal(&["get", "slack/nothing"]);
    let denied = run(&["journal", "tail", "--denied", "-o", "json"]);
    let lines: Vec<&str> = denied.lines().collect();
    assert!(lines.len() == 1 && lines[0].contains("slack/nothing"), "{denied}");
    assert!(run(&["journal", "tail", "--denied", "--since", "1h"]).contains("slack/nothing"));
}
