//! Seed documents of every kind: whatever their order, as often as one likes, all or nothing.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_request::Document;
use keyhatch::grpc::pb::group_service_client::GroupServiceClient;

use crate::harness::{
    ServeProcess, TestBroker, bytes, keyhatch_in, path_with_binary, reason, resolver,
};
use crate::operator::own_integrations::acme;

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

fn actions(broker: &TestBroker, documents: Vec<Document>) -> Vec<pb::ApplyAction> {
    broker.apply(documents).unwrap().iter().map(pb::ApplyResult::action).collect()
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
    assert_eq!(actions(&broker, all()), [Created; 4]);
    let lines = broker.journal().len();
    assert_eq!(actions(&broker, all()), [Unchanged; 4]);
    assert_eq!(broker.journal().len(), lines);
    let step = broker.open("w", "s");
    let token = |broker: &TestBroker, env: &str| {
        let got = broker.resolve(&step, &format!("group:g:env={env}#token"));
        got.map(|got| got.fields["token"].clone())
    };
    assert_eq!(token(&broker, "prod").unwrap(), "a");
    // What is not named stays; what is named is exactly that.
    assert_eq!(actions(&broker, vec![group(&[], None)]), [Unchanged]);
    assert_eq!(actions(&broker, vec![group(&[], Some(&["b"]))]), [Changed]);
    assert_eq!(reason(token(&broker, "prod")), "GROUP_MEMBER_NOT_FOUND");
    assert_eq!(token(&broker, "dev").unwrap(), "b");
    // One takes the place of another with the same values.
    let swap = vec![member("c", "env:dev"), group(&[], Some(&["c"]))];
    assert_eq!(actions(&broker, swap), [Created, Changed]);
    assert_eq!(token(&broker, "dev").unwrap(), "c");
}

#[test]
fn a_group_document_keeps_the_rules_of_groups_and_takes_nothing_half() {
    let broker = TestBroker::start();
    let start = vec![Document::Integration(acme("acme")), member("a", "env:prod")];
    broker.apply(start).unwrap();
    let apply = |documents| reason(broker.apply(documents));
    // A group without identifiers is none.
    assert_eq!(apply(vec![group(&[], Some(&["a"]))]), "DOCUMENTS_INVALID");
    assert_eq!(apply(vec![group(&["zone"], Some(&["a"]))]), "IDENTIFIER_MISSING");
    let twice = vec![member("b", "env:prod"), group(&["env"], Some(&["a", "b"]))];
    assert_eq!(apply(twice), "IDENTIFIERS_NOT_UNIQUE");
    assert_eq!(apply(vec![group(&["env"], Some(&["nothere"]))]), "CONNECTION_NOT_FOUND");
    let mut client = GroupServiceClient::new(broker.operator());
    let listed = broker.block_on(client.list_groups(pb::ListGroupsRequest::default())).unwrap();
    assert!(listed.into_inner().groups.is_empty());
}

/// Relay's own example of a connection, in the form of its tools and with its field names.
#[test]
fn relays_my_aws_account_is_taken_as_it_is() {
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    let seed = directory.path().join("metadata.yaml");
    let text = "connections:\n  aws/my-aws-account:\n    accessKeyID: AKIAEXAMPLE\n    \
                secretAccessKey: hush\nsecrets:\n  my-secret: shh\n";
    std::fs::write(&seed, text).unwrap();
    let script = "keyhatch get aws/my-aws-account --field accessKeyID; \
                  keyhatch get aws/my-aws-account --field secretAccessKey; keyhatch get secret:my-secret --format raw";
    let seed = seed.to_str().unwrap();
    let mut dev = keyhatch_in(directory.path(), &["dev", "-f", seed, "--", "sh", "-c", script]);
    let ran = dev.env("PATH", path_with_binary()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "AKIAEXAMPLEhushshh");
}

const EVERY_KEY: &str = "\
apiVersion: keyhatch/v1
kind: ConnectionGroup
metadata: {name: g, labels: {team: x}}
spec: {integration: own, identifiers: [env], members: [a], access: {viewer: ['workflow:w']}}
---
apiVersion: keyhatch/v1
kind: Connection
metadata: {name: a, tags: {env: prod}, labels: {team: x}}
spec:
  integration: own
  kind: token
  fields: {token: hush}
  access: {resolver: ['workflow:w', 'team:ops']}
  default: true
  disabled: false
  maxTtl: 15m
---
apiVersion: keyhatch/v1
kind: Integration
metadata: {name: own}
spec:
  title: Our own
  kinds:
    - name: token
      fields: [{name: token, description: The token, sensitive: true, required: true, env: OWN_TOKEN}]
";

/// Every kind of document and every key of it, in YAML.
#[test]
fn a_seed_file_says_all_that_the_api_takes() {
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    let serving = ServeProcess::start(directory.path());
    let seed = directory.path().join("seed.yaml");
    std::fs::write(&seed, EVERY_KEY).unwrap();
    let run = |arguments: &[&str]| {
        let ran = serving.run(arguments);
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    };
    let seed = seed.to_str().unwrap();
    let applied = run(&["apply", "-f", seed]);
    assert_eq!(applied, "groups/g created\nconnections/own/a created\nintegrations/own created\n");
    assert!(run(&["apply", "-f", seed]).lines().all(|line| line.ends_with(" unchanged")));
    let shown: serde_json::Value =
        serde_json::from_str(&run(&["connection", "get", "own/a", "-o", "json"])).unwrap();
    assert_eq!(shown["max_ttl_seconds"], 900);
    assert_eq!(shown["default"], true);
    assert_eq!(shown["labels"]["team"], "x");
    assert_eq!(shown["groups"][0], "groups/g");
}

#[test]
fn a_key_of_another_kind_of_document_is_refused() {
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    for (kind, spec, word) in [
        ("Secret", "{value: x, fields: {}}", "no fields"),
        ("ConnectionGroup", "{integration: own, value: x}", "no value"),
        ("Integration", "{kinds: [{name: a, fields: [{name: b, description: c}]}]}", "sensitive"),
        ("Nonsense", "{}", "kind must be"),
    ] {
        let text = format!(
            "apiVersion: keyhatch/v1\nkind: {kind}\nmetadata: {{name: x, workflow: w}}\nspec: {spec}\n"
        );
        let text = if kind == "Secret" { text } else { text.replace(", workflow: w", "") };
        let path = directory.path().join("bad.yaml");
        std::fs::write(&path, text).unwrap();
        let apply = ["apply", "-f", path.to_str().unwrap()];
        let ran = keyhatch_in(directory.path(), &apply).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(!ran.status.success() && said.contains(word), "{kind}: {said}");
    }
}
