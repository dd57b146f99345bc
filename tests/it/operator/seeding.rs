//! Documents through the API: each kind, in any order, all or nothing. No value is ever read back.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_request::Document;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::group_service_client::GroupServiceClient;
use tonic_types::StatusExt as _;

use crate::harness::{TestBroker, bytes, connection_document, reason, resolver, secret_document};
use crate::operator::own_integrations::acme;

const AWS: [(&str, &str); 2] = [("access_key_id", "AKIA"), ("secret_access_key", "s")];

fn violations(status: &tonic::Status) -> Vec<String> {
    let details = status.get_error_details();
    let bad = details.bad_request().cloned().unwrap();
    bad.field_violations.into_iter().map(|violation| violation.field).collect()
}

fn actions(results: &[pb::ApplyResult]) -> Vec<pb::ApplyAction> {
    results.iter().map(pb::ApplyResult::action).collect()
}

#[test]
fn an_operator_sees_set_fields_and_no_sensitive_value() {
    let broker = TestBroker::start();
    let created = broker.create_connection("aws/prod", &AWS, &["workflow:deploy"]);
    assert!(created.is_ok());
    let connection = broker.get_connection("aws/prod").ok().unwrap();
    assert!(connection.fields.is_empty());
    let states: Vec<_> = connection
        .field_states
        .iter()
        .map(|field| {
            (
                field.name.as_str(),
                field.sensitive,
                field.value.as_slice(),
                field.updated_by.as_str(),
            )
        })
        .collect();
    assert_eq!(
        states,
        [
            ("access_key_id", false, &b"AKIA"[..], "operator:admin"),
            ("secret_access_key", true, &b""[..], "operator:admin"),
        ]
    );
    assert_eq!((connection.version, connection.kind.as_str()), (1, "access_key"));
    // The creator becomes an editor.
    let editors: Vec<_> =
        connection.access.iter().filter(|one| one.relation() == pb::Relation::Editor).collect();
    assert_eq!(editors[0].principals, ["operator:admin"]);
}

#[test]
fn a_name_is_unique_within_its_integration() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &[]);
    let status = broker.create_connection("aws/prod", &AWS, &[]).err().unwrap();
    assert_eq!(reason(Err::<(), _>(status)), "CONNECTION_EXISTS");
    assert!(broker.create_connection("slack/prod", &[("api_token", "t")], &[]).is_ok());
}

#[test]
fn all_faults_of_all_documents_are_reported_at_once() {
    let broker = TestBroker::start();
    let status = broker
        .apply(vec![
            connection_document("aws/good", &AWS, vec![]),
            connection_document("slack/bad", &[("api_token", "***"), ("nonsense", "x")], vec![]),
            connection_document("nonsense/x", &[("a", "b")], vec![]),
            connection_document("github/x", &[("a", "b")], vec![]),
            secret_document("w", "s", &"x".repeat(64 * 1024 + 1)),
        ])
        .unwrap_err();
    assert_eq!(
        violations(&status),
        [
            "connections/slack/bad: api_token",
            "connections/slack/bad: nonsense",
            "connections/nonsense/x",
            "connections/github/x: a",
            "workflows/w/secrets/s: value",
        ]
    );
    assert_eq!(reason(Err::<(), _>(status)), "DOCUMENTS_INVALID");
    let absent = broker.get_connection("aws/good").err().unwrap();
    assert_eq!(reason(Err::<(), _>(absent)), "CONNECTION_NOT_FOUND");
    assert_eq!(broker.journaled("intent").len(), 1, "only the first registrations");
}

#[test]
fn values_at_the_limits_are_kept_and_over_them_refused() {
    let broker = TestBroker::start();
    let longest = "x".repeat(64 * 1024);
    let fields = |count: usize| -> Vec<(String, String)> {
        (0..count).map(|n| (format!("f{n}"), longest.clone())).collect()
    };
    let create = |name: &str, count| {
        let fields = fields(count);
        let fields: Vec<_> = fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        broker.create_connection(&format!("generic/{name}"), &fields, &["workflow:w"])
    };
    assert!(create("four", 4).is_ok());
    assert_eq!(violations(&create("five", 5).err().unwrap()), [""]);
    let step = broker.open("w", "s");
    let got = broker.resolve(&step, "generic/four").unwrap();
    assert!(got.fields.values().all(|value| *value == longest));
}

#[test]
fn empty_and_binary_values_are_values() {
    let broker = TestBroker::start();
    let connection = pb::Connection {
        name: "connections/generic/odd".to_owned(),
        fields: [("empty".to_owned(), vec![]), ("zero".to_owned(), vec![0])].into(),
        access: resolver(&["workflow:w"]),
        ..Default::default()
    };
    let mut client = ConnectionServiceClient::new(broker.operator());
    let request =
        pb::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
    assert!(broker.block_on(client.create_connection(request)).is_ok());
    let step = broker.open("w", "s");
    let got = broker.resolve(&step, "generic/odd").unwrap();
    assert_eq!((got.fields["empty"].as_str(), got.fields["zero"].as_str()), ("", "\0"));
}

#[test]
fn only_a_changed_document_makes_a_version() {
    let broker = TestBroker::start();
    let document = || connection_document("aws/prod", &AWS, resolver(&["workflow:deploy"]));
    let secret = |value| secret_document("deploy", "token", value);
    let first = broker.apply(vec![document(), secret("one")]).unwrap();
    assert_eq!(actions(&first), [pb::ApplyAction::Created; 2]);
    let lines = broker.journal().len();
    let again = broker.apply(vec![document(), secret("one")]).unwrap();
    assert_eq!(actions(&again), [pb::ApplyAction::Unchanged; 2]);
    assert_eq!(broker.journal().len(), lines);

    let both = connection_document(
        "aws/prod",
        &[("accessKeyID", "AKIB"), ("secretAccessKey", "t")],
        vec![],
    );
    let changed = broker.apply(vec![both, secret("two")]).unwrap();
    assert_eq!(actions(&changed), [pb::ApplyAction::Changed; 2]);
    let connection = broker.get_connection("aws/prod").ok().unwrap();
    assert_eq!(connection.version, 2);
    let step = broker.open("deploy", "build");
    let got = broker.resolve(&step, "aws/prod").unwrap();
    assert_eq!(
        (got.fields["access_key_id"].as_str(), got.fields["secret_access_key"].as_str()),
        ("AKIB", "t")
    );
    assert_eq!(broker.resolve(&step, "secret:token").unwrap().fields["value"], "two");
}

#[test]
fn parts_that_a_document_does_not_name_stay() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let only_region = connection_document("aws/prod", &[("region", "eu-west-1")], vec![]);
    broker.apply(vec![only_region]).unwrap();
    let step = broker.open("deploy", "build");
    let got = broker.resolve(&step, "aws/prod").unwrap();
    assert_eq!(got.fields["secret_access_key"], "s");
    assert_eq!(got.fields["region"], "eu-west-1");
}

/// An editor cannot learn a secret by sending it to another address.
#[test]
fn a_destination_changes_only_together_with_every_secret() {
    let broker = TestBroker::start();
    let http = |fields: &[(&str, &str)]| {
        broker
            .apply(vec![connection_document("http/api", fields, vec![])])
            .map(|results| actions(&results))
    };
    let (here, there) = (("base_url", "https://a.example"), ("base_url", "https://evil.example"));
    let (one, two) = (("tokens.one", "1"), ("tokens.two", "2"));
    http(&[here, one, two]).unwrap();
    assert_eq!(reason(http(&[there])), "SECRETS_REQUIRED");
    assert_eq!(reason(http(&[there, one])), "SECRETS_REQUIRED");
    // An equal value counts as given again, and an unchanged destination needs no secrets.
    http(&[there, one, two]).unwrap();
    http(&[there, ("tokens.one", "new")]).unwrap();
    let moved = connection_document("http/api", &[("kind", "x")], vec![]);
    assert!(broker.apply(vec![moved]).is_err());
}

/// Every field that could carry a secret elsewhere is refused, or counts as a destination.
#[test]
fn http_headers_bodies_and_addresses_count_as_destinations() {
    let broker = TestBroker::start();
    let http = |fields: &[(&str, &str)]| {
        // A failed apply counts as a comparison of stored values, which are limited to ten a minute.
        broker.advance(6);
        broker
            .apply(vec![connection_document("http/api", fields, vec![])])
            .map(|results| actions(&results))
    };
    let (here, token) = (("base_url", "https://a.example"), ("tokens.key", "1"));
    let header = |value| ("headers.Authorization", value);
    http(&[here, token, header("Bearer {{ key }}")]).unwrap();
    for bad in [
        header("Bearer {{ nope }}"),
        header("Bearer {{ key"),
        header("a\r\nHost: evil.example"),
        ("headers.Host", "evil.example"),
        ("url_parameters.k", "{{ .. }}"),
        ("base_url", "https://a.example\r\nx: y"),
        ("base_url", "ftp://a.example"),
    ] {
        assert_eq!(reason(http(&[token, bad])), "DOCUMENTS_INVALID", "{bad:?}");
    }
    for moved in [header("{{ key }}"), ("body", "{{ key }}"), ("url_parameters.k", "{{ key }}")] {
        assert_eq!(reason(http(&[moved])), "SECRETS_REQUIRED");
        http(&[token, moved]).unwrap();
    }
}

#[test]
fn only_the_broker_makes_the_external_id_of_a_role() {
    let broker = TestBroker::start();
    let role = [("account_id", "123456789012"), ("role", "deploy")];
    broker.create_connection("aws/role", &role, &["workflow:w"]).ok().unwrap();
    let step = broker.open("w", "s");
    let id = broker.resolve(&step, "aws/role#external_id").unwrap().fields["external_id"].clone();
    assert_eq!(id.len(), 32);
    let theirs = [role[0], role[1], ("external_id", "mine")];
    let status = broker.create_connection("aws/other", &theirs, &[]).err().unwrap();
    assert_eq!(violations(&status), ["external_id"]);
    let bad = [("account_id", "12345678901"), ("role", "deploy")];
    let status = broker.create_connection("aws/bad", &bad, &[]).err().unwrap();
    assert_eq!(violations(&status), ["account_id"]);
}

#[test]
fn a_connection_cannot_outgrow_its_limits_by_documents() {
    let broker = TestBroker::start();
    let long = "x".repeat(60_000);
    let grow = |fields: &[(&str, &str)]| {
        broker.apply(vec![connection_document("generic/g", fields, vec![])])
    };
    grow(&[("a", &long), ("b", &long), ("c", &long), ("d", &long)]).unwrap();
    assert_eq!(reason(grow(&[("e", &long)])), "DOCUMENTS_INVALID");
    grow(&[("a", "short"), ("e", &long)]).unwrap();
    let names: Vec<String> = (0..129).map(|n| format!("f{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(
        reason(broker.create_connection("generic/many", &many, &[]).map(drop)),
        "FIELDS_INVALID"
    );
    broker.create_connection("generic/many", &many[..128], &[]).ok().unwrap();
}

#[test]
fn the_kind_never_changes() {
    let broker = TestBroker::start();
    broker.create_connection("github/x", &[("access_token", "t")], &[]).ok().unwrap();
    let document = pb::apply_request::Document::Connection(pb::ConnectionDocument {
        integration: "github".to_owned(),
        name: "x".to_owned(),
        kind: "app".to_owned(),
        fields: bytes(&[("app_id", "1")]),
        ..Default::default()
    });
    let status = broker.apply(vec![document]).unwrap_err();
    assert_eq!(violations(&status), ["connections/github/x: kind"]);
}

#[test]
fn deleting_takes_the_etag_that_was_read_and_no_other() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &[]);
    let old = broker.get_connection("aws/prod").ok().unwrap().etag;
    broker.apply(vec![connection_document("aws/prod", &[("region", "x")], vec![])]).unwrap();
    let delete = |etag: String| {
        let request = pb::DeleteConnectionRequest {
            name: "connections/aws/prod".to_owned(),
            etag,
            ..Default::default()
        };
        let mut client = ConnectionServiceClient::new(broker.operator());
        broker.block_on(client.delete_connection(request)).map(drop)
    };
    assert_eq!(reason(delete(old)), "ETAG_MISMATCH");
    delete(broker.get_connection("aws/prod").ok().unwrap().etag).unwrap();
    assert_eq!(reason(delete(String::new())), "CONNECTION_NOT_FOUND");
}

#[test]
fn lists_come_in_pages_in_order() {
    let broker = TestBroker::start();
    let names: Vec<String> = (0..25).map(|n| format!("c{n:02}")).collect();
    let documents =
        names.iter().map(|name| connection_document(&format!("aws/{name}"), &AWS, vec![]));
    broker.apply(documents.collect()).unwrap();
    broker.create_connection("slack/x", &[("api_token", "t")], &[]).ok().unwrap();
    let mut client = ConnectionServiceClient::new(broker.operator());
    let mut listed = Vec::new();
    let mut token = String::new();
    loop {
        let request = pb::ListConnectionsRequest {
            page_size: 10,
            page_token: token,
            integration: "aws".to_owned(),
            ..Default::default()
        };
        let page = broker.block_on(client.list_connections(request)).ok().unwrap().into_inner();
        listed.extend(page.connections.into_iter().map(|one| one.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let expected: Vec<_> = names.iter().map(|name| format!("connections/aws/{name}")).collect();
    assert_eq!(listed, expected);
    let forged = pb::ListConnectionsRequest { page_token: "!".to_owned(), ..Default::default() };
    let status = broker.block_on(client.list_connections(forged)).err().unwrap();
    assert_eq!(reason(Err::<(), _>(status)), "PAGE_TOKEN_INVALID");
}

#[test]
fn executors_and_operators_cannot_do_each_others_work() {
    let broker = TestBroker::start();
    let mut as_executor = ConnectionServiceClient::new(broker.executor());
    let list = broker.block_on(as_executor.list_connections(pb::ListConnectionsRequest::default()));
    assert_eq!(reason(Err::<(), _>(list.err().unwrap())), "ROLE_REQUIRED");
    let mut as_operator =
        pb::executor_service_client::ExecutorServiceClient::new(broker.operator());
    let open = broker.block_on(as_operator.open_step(crate::harness::open_request("w", "s")));
    assert_eq!(reason(open), "ROLE_REQUIRED");
    let refused = broker.journaled("admin_refused");
    let who: Vec<_> = refused.iter().map(|line| (&line["principal"], &line["method"])).collect();
    assert_eq!(who[0], (&"executor:local".into(), &"ListConnections".into()));
    assert_eq!(who[1], (&"operator:admin".into(), &"OpenStep".into()));
}

fn member(name: &str, tag: &str) -> Document {
    Document::Connection(pb::ConnectionDocument {
        integration: "acme".to_owned(),
        name: name.to_owned(),
        fields: bytes(&[("token", name)]),
        tags: vec![tag.to_owned()],
        access: resolver(&["workflow:w"]),
        ..Default::default()
    })
}

fn group(identifiers: &[&str], members: Option<&[&str]>) -> Document {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Document::Group(pb::GroupDocument {
        name: "g".to_owned(),
        integration: "acme".to_owned(),
        identifiers: texts(identifiers),
        members: members.map(|names| pb::GroupMembers { names: texts(names) }),
        access: vec![pb::AccessBinding {
            relation: pb::Relation::Viewer.into(),
            principals: vec!["workflow:w".to_owned()],
        }],
        ..Default::default()
    })
}

fn applied(broker: &TestBroker, documents: Vec<Document>) -> Vec<pb::ApplyAction> {
    actions(&broker.apply(documents).unwrap())
}

#[test]
fn documents_come_in_any_order_and_again_without_a_change() {
    use pb::ApplyAction::{Changed, Created, Unchanged};
    let broker = TestBroker::start();
    let all = || {
        vec![
            group(&["env"], Some(&["a", "b"])),
            member("a", "env:prod"),
            member("b", "env:dev"),
            Document::Integration(acme("acme")),
        ]
    };
    assert_eq!(applied(&broker, all()), [Created; 4]);
    let lines = broker.journal().len();
    assert_eq!(applied(&broker, all()), [Unchanged; 4]);
    assert_eq!(broker.journal().len(), lines);
    let step = broker.open("w", "s");
    let token = |broker: &TestBroker, env: &str| {
        let got = broker.resolve(&step, &format!("group:g:env={env}#token"));
        got.map(|got| got.fields["token"].clone())
    };
    assert_eq!(token(&broker, "prod").unwrap(), "a");
    // Unnamed parts stay, and named parts are replaced.
    assert_eq!(applied(&broker, vec![group(&[], None)]), [Unchanged]);
    assert_eq!(applied(&broker, vec![group(&[], Some(&["b"]))]), [Changed]);
    assert_eq!(reason(token(&broker, "prod")), "GROUP_MEMBER_NOT_FOUND");
    assert_eq!(token(&broker, "dev").unwrap(), "b");
    // One member replaces another with the same values.
    let swap = vec![member("c", "env:dev"), group(&[], Some(&["c"]))];
    assert_eq!(applied(&broker, swap), [Created, Changed]);
    assert_eq!(token(&broker, "dev").unwrap(), "c");
}

#[test]
fn a_group_document_keeps_the_groups_rules_and_is_atomic() {
    let broker = TestBroker::start();
    let start = vec![Document::Integration(acme("acme")), member("a", "env:prod")];
    broker.apply(start).unwrap();
    let apply = |documents| reason(broker.apply(documents));
    // A group needs identifiers.
    assert_eq!(apply(vec![group(&[], Some(&["a"]))]), "DOCUMENTS_INVALID");
    assert_eq!(apply(vec![group(&["zone"], Some(&["a"]))]), "IDENTIFIER_MISSING");
    let twice = vec![member("b", "env:prod"), group(&["env"], Some(&["a", "b"]))];
    assert_eq!(apply(twice), "IDENTIFIERS_NOT_UNIQUE");
    assert_eq!(apply(vec![group(&["env"], Some(&["nothere"]))]), "CONNECTION_NOT_FOUND");
    let mut client = GroupServiceClient::new(broker.operator());
    let listed = broker.block_on(client.list_groups(pb::ListGroupsRequest::default())).unwrap();
    assert!(listed.into_inner().groups.is_empty());
}
