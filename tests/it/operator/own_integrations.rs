//! Operators' own integrations.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::integration_service_client::IntegrationServiceClient;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::harness::{TestBroker, connection_document, reason, resolver};

/// An integration with an address and a token.
pub fn acme(name: &str) -> pb::Integration {
    pb::Integration {
        name: format!("integrations/{name}"),
        title: "Acme".to_owned(),
        kinds: vec![pb::CredentialKind {
            name: "token".to_owned(),
            title: "A token".to_owned(),
            fields: vec![
                pb::FieldSchema { destination: true, ..field("url", false) },
                pb::FieldSchema { aliases: vec!["apiToken".to_owned()], ..field("token", true) },
                field("note", false),
            ],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn field(name: &str, sensitive: bool) -> pb::FieldSchema {
    pb::FieldSchema {
        name: name.to_owned(),
        description: "What it is".to_owned(),
        sensitive,
        ..Default::default()
    }
}

fn create(broker: &TestBroker, integration: pb::Integration) -> Result<pb::Integration, Status> {
    let integration = Some(integration);
    let request = pb::CreateIntegrationRequest { integration, ..Default::default() };
    let mut client = IntegrationServiceClient::new(broker.operator());
    broker.block_on(client.create_integration(request)).map(tonic::Response::into_inner)
}

fn update(broker: &TestBroker, integration: pb::Integration) -> Result<pb::Integration, Status> {
    let integration = Some(integration);
    let request = pb::UpdateIntegrationRequest { integration, ..Default::default() };
    let mut client = IntegrationServiceClient::new(broker.operator());
    broker.block_on(client.update_integration(request)).map(tonic::Response::into_inner)
}

fn delete(broker: &TestBroker, name: &str) -> Result<(), Status> {
    let name = format!("integrations/{name}");
    let request = pb::DeleteIntegrationRequest { name, ..Default::default() };
    let mut client = IntegrationServiceClient::new(broker.operator());
    broker.block_on(client.delete_integration(request)).map(drop)
}

const FIELDS: [(&str, &str); 3] =
    [("url", "https://a.example"), ("apiToken", "hush"), ("note", "hello")];

fn apply(broker: &TestBroker, fields: &[(&str, &str)]) -> Result<(), Status> {
    let access = resolver(&["workflow:w"]);
    broker.apply(vec![connection_document("acme/x", fields, access)]).map(drop)
}

fn states(broker: &TestBroker) -> Vec<(String, bool, Vec<u8>)> {
    let mut client = pb::connection_service_client::ConnectionServiceClient::new(broker.operator());
    let request = pb::GetConnectionRequest { name: "connections/acme/x".to_owned() };
    let found = broker.block_on(client.get_connection(request)).ok().unwrap().into_inner();
    found.field_states.into_iter().map(|one| (one.name, one.sensitive, one.value)).collect()
}

#[test]
fn an_own_integration_works_like_any_other() {
    let mut broker = TestBroker::start();
    assert_eq!(reason(apply(&broker, &FIELDS)), "DOCUMENTS_INVALID");
    let made = create(&broker, acme("acme")).unwrap();
    assert!(!made.built_in && !made.etag.is_empty());
    apply(&broker, &FIELDS).unwrap();
    broker.restart();
    let step = broker.open("w", "s");
    let got = broker.resolve(&step, "acme/x#apiToken,url").unwrap();
    assert_eq!(got.fields["apiToken"], "hush");
    // The broker's rules for destinations hold for own integrations too.
    assert_eq!(reason(apply(&broker, &[("url", "https://evil.example")])), "SECRETS_REQUIRED");
}

/// A value that was sensitive when it was written stays sensitive under every later schema.
#[test]
fn no_change_of_a_schema_loosens_a_stored_value() {
    let broker = TestBroker::start();
    create(&broker, acme("acme")).unwrap();
    apply(&broker, &FIELDS).unwrap();
    let mut loose = acme("acme");
    loose.kinds[0].fields[1].sensitive = false;
    update(&broker, loose).unwrap();
    let hidden = |broker: &TestBroker| {
        states(broker)
            .into_iter()
            .any(|(name, sensitive, value)| name == "token" && sensitive && value.is_empty())
    };
    assert!(hidden(&broker));
    // Writing the same value again makes no new value and reveals nothing.
    apply(&broker, &[("token", "hush"), ("note", "other")]).unwrap();
    assert!(hidden(&broker));
    // A new value follows the new schema.
    apply(&broker, &[("token", "new")]).unwrap();
    assert!(states(&broker).contains(&("token".to_owned(), false, b"new".into())));
    // A value that is written again under a stricter schema is sensitive, even if it is equal.
    update(&broker, acme("acme")).unwrap();
    apply(&broker, &[("token", "new")]).unwrap();
    assert!(hidden(&broker));
}

/// While connections exist, no schema changes a destination into another field.
#[test]
fn a_destination_stays_one_and_keeps_its_name() {
    let broker = TestBroker::start();
    create(&broker, acme("acme")).unwrap();
    apply(&broker, &FIELDS).unwrap();
    let changes: [fn(&mut Vec<pb::FieldSchema>); 3] = [
        |fields| fields[0].destination = false,
        |fields| drop(fields.remove(0)),
        |fields| {
            let aliases = vec!["url".to_owned()];
            fields[0] = pb::FieldSchema { aliases, ..field("address", false) };
        },
    ];
    for change in changes {
        let mut other = acme("acme");
        change(&mut other.kinds[0].fields);
        assert_eq!(reason(update(&broker, other)), "IN_USE");
    }
    let mut more = acme("acme");
    more.kinds[0].fields.push(field("more", true));
    more.kinds[0].fields[2].destination = true;
    update(&broker, more).unwrap();
}

#[test]
fn the_broker_sends_requests_with_built_in_ones_only() {
    let broker = TestBroker::start();
    let mut sent = acme("acme");
    sent.kinds[0].sends.push(pb::SendSchema::default());
    assert_eq!(reason(create(&broker, sent)), "INTEGRATION_INVALID");
    assert!(create(&broker, acme("acme")).unwrap().kinds[0].sends.is_empty());
    let name = "integrations/github".to_owned();
    let mut client = IntegrationServiceClient::new(broker.operator());
    let get = client.get_integration(pb::GetIntegrationRequest { name });
    let github = broker.block_on(get).unwrap().into_inner();
    let services: Vec<_> = github.kinds[0].sends.iter().map(|one| one.service.as_str()).collect();
    assert_eq!(services, ["", "git"]);
}

#[test]
fn a_slow_pattern_is_refused_and_a_long_value_not_matched() {
    let broker = TestBroker::start();
    let with_pattern = |pattern: &str| {
        let mut integration = acme("acme");
        integration.kinds[0].fields[2].pattern = pattern.to_owned();
        create(&broker, integration)
    };
    assert_eq!(reason(with_pattern("(?:[a-z]?){50000}z")), "INTEGRATION_INVALID");
    with_pattern("^[a-z]*$").unwrap();
    let long = "a".repeat(5000);
    assert_eq!(reason(apply(&broker, &[("note", &long)])), "DOCUMENTS_INVALID");
}

#[test]
fn used_integrations_stay_and_built_in_ones_never_change() {
    let broker = TestBroker::start();
    let made = create(&broker, acme("acme")).unwrap();
    apply(&broker, &FIELDS).unwrap();
    let mut other = acme("acme");
    other.kinds[0].name = "other".to_owned();
    assert_eq!(reason(update(&broker, other)), "IN_USE");
    assert_eq!(reason(delete(&broker, "acme")), "IN_USE");
    assert_eq!(reason(create(&broker, acme("acme"))), "INTEGRATION_EXISTS");
    assert_eq!(reason(create(&broker, acme("aws"))), "INTEGRATION_EXISTS");
    assert_eq!(reason(update(&broker, acme("aws"))), "INTEGRATION_BUILT_IN");
    assert_eq!(reason(delete(&broker, "aws")), "INTEGRATION_BUILT_IN");
    assert_eq!(reason(update(&broker, acme("nothere"))), "INTEGRATION_NOT_FOUND");
    let titled = |etag: &str, title: &str| {
        let (etag, title) = (etag.to_owned(), title.to_owned());
        update(&broker, pb::Integration { etag, title, ..acme("acme") })
    };
    titled(&made.etag, "one").unwrap();
    assert_eq!(reason(titled(&made.etag, "two")), "ETAG_MISMATCH");
    broker.delete_connection("acme/x").unwrap();
    delete(&broker, "acme").unwrap();
    assert_eq!(reason(apply(&broker, &FIELDS)), "DOCUMENTS_INVALID");
}

#[test]
fn a_schema_is_refused_with_every_problem_it_has() {
    let broker = TestBroker::start();
    let mut bad = acme("bad");
    bad.kinds[0].fields = vec![
        field("a b", true),
        pb::FieldSchema { pattern: "(".to_owned(), ..field("pattern", true) },
        pb::FieldSchema { description: String::new(), ..field("what", true) },
        pb::FieldSchema { aliases: vec!["pattern".to_owned()], ..field("alias", true) },
        pb::FieldSchema { env: "1 X".to_owned(), ..field("env", true) },
        pb::FieldSchema { example: "\u{7}".to_owned(), ..field("bell", true) },
    ];
    let status = create(&broker, bad).unwrap_err();
    let details = status.get_error_details();
    let fields: Vec<_> =
        details.bad_request().unwrap().field_violations.iter().map(|one| &one.field).collect();
    for name in ["a b", "pattern", "what", "alias", "env", "bell"] {
        let place = format!("kinds.token.fields.{name}");
        assert!(fields.iter().any(|field| **field == place), "{name}: {fields:?}");
    }
    assert_eq!(reason(Err::<(), _>(status)), "INTEGRATION_INVALID");
    let none = pb::Integration { kinds: vec![], ..acme("none") };
    assert_eq!(reason(create(&broker, none)), "INTEGRATION_INVALID");
}
