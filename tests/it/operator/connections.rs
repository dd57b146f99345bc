//! A change of a connection touches only the named parts, happens once, and requires the last state.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use tonic::Status;

use crate::harness::{TestBroker, bytes, reason};

struct World(TestBroker);

impl World {
    fn start() -> Self {
        let world = Self(TestBroker::start());
        world.0.create_aws("prod", "secret", &["workflow:w"]);
        world
    }

    fn client(&self) -> ConnectionServiceClient<tonic::transport::Channel> {
        ConnectionServiceClient::new(self.0.operator())
    }

    fn get(&self, name: &str) -> pb::Connection {
        let request = pb::GetConnectionRequest { name: format!("connections/{name}") };
        self.0.block_on(self.client().get_connection(request)).ok().unwrap().into_inner()
    }

    fn send(&self, request: pb::UpdateConnectionRequest) -> Result<pb::Connection, Status> {
        let updated = self.0.block_on(self.client().update_connection(request));
        updated.map(tonic::Response::into_inner)
    }

    /// Changes these paths of aws/prod.
    fn update(&self, change: pb::Connection, paths: &[&str]) -> Result<pb::Connection, Status> {
        self.send(masked(change, paths))
    }

    fn list(&self, filter: &str) -> Result<Vec<String>, Status> {
        let filter = filter.to_owned();
        let request = pb::ListConnectionsRequest { filter, ..Default::default() };
        let listed = self.0.block_on(self.client().list_connections(request))?.into_inner();
        Ok(listed.connections.into_iter().map(|one| one.name).collect())
    }
}

fn masked(change: pb::Connection, paths: &[&str]) -> pb::UpdateConnectionRequest {
    let name = "connections/aws/prod".to_owned();
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    pb::UpdateConnectionRequest {
        connection: Some(pb::Connection { name, ..change }),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..Default::default()
    }
}

fn with_fields(fields: &[(&str, &str)]) -> pb::Connection {
    pb::Connection { fields: bytes(fields), ..Default::default() }
}

fn field_names(connection: &pb::Connection) -> Vec<&str> {
    connection.field_states.iter().map(|field| field.name.as_str()).collect()
}

#[test]
fn an_update_changes_only_its_mask_and_makes_one_version() {
    let world = World::start();
    let two =
        with_fields(&[("accessKeyID", "AKIB"), ("region", "eu-west-1"), ("session_token", "no")]);
    let updated = world.update(two, &["fields.accessKeyID", "fields.region"]).ok().unwrap();
    assert_eq!(updated.version, 2);
    assert_eq!(field_names(&updated), ["access_key_id", "region", "secret_access_key"]);
    let step = world.0.open("w", "s");
    let got = world.0.resolve(&step, "aws/prod").unwrap();
    assert_eq!((got.version, got.fields["access_key_id"].as_str()), (2, "AKIB"));
    // A named field without a value is removed. An unnamed field stays.
    let updated = world.update(pb::Connection::default(), &["fields.region"]).ok().unwrap();
    assert_eq!(field_names(&updated), ["access_key_id", "secret_access_key"]);
    assert_eq!(updated.version, 3);
    // Removing it again changes nothing.
    let again = world.update(pb::Connection::default(), &["fields.region"]).ok().unwrap();
    assert_eq!((again.version, again.etag), (3, updated.etag));
    // Replacing all fields removes the missing ones.
    let whole = with_fields(&[("access_key_id", "A"), ("secret_access_key", "B"), ("region", "x")]);
    world.update(whole, &["fields"]).ok().unwrap();
    let fewer = with_fields(&[("access_key_id", "A"), ("secret_access_key", "B")]);
    let updated = world.update(fewer, &["fields"]).ok().unwrap();
    assert_eq!(field_names(&updated), ["access_key_id", "secret_access_key"]);
    // Without a mask the given fields are set.
    let change = pb::Connection {
        name: "connections/aws/prod".to_owned(),
        tags: vec!["env:prod".to_owned()],
        ..Default::default()
    };
    let request = pb::UpdateConnectionRequest { connection: Some(change), ..Default::default() };
    assert_eq!(world.send(request).ok().unwrap().tags, ["env:prod"]);
}

#[test]
fn required_parts_stay_and_unknown_parts_are_refused() {
    let world = World::start();
    let none = || pb::Connection::default();
    assert_eq!(reason(world.update(none(), &["fields.access_key_id"]).map(drop)), "FIELDS_INVALID");
    assert_eq!(reason(world.update(none(), &["fields"]).map(drop)), "FIELDS_INVALID");
    for path in ["nonsense", "kind", "integration", "name", "version", "field_states", ""] {
        let outcome = world.update(none(), &[path]).map(drop);
        assert_eq!(reason(outcome), "UPDATE_MASK_INVALID", "{path}");
    }
    let other = pb::Connection { kind: "assume_role".to_owned(), ..none() };
    assert_eq!(reason(world.update(other, &["disabled"]).map(drop)), "KIND_INVALID");
    let long = prost_types::Duration { seconds: 8 * 24 * 3600, nanos: 0 };
    let change = pb::Connection { max_ttl: Some(long), ..none() };
    assert_eq!(reason(world.update(change, &["max_ttl"]).map(drop)), "TTL_OUT_OF_RANGE");
    let labels = [("a b".to_owned(), "x".to_owned())].into();
    let change = pb::Connection { labels, ..none() };
    assert_eq!(reason(world.update(change, &["labels"]).map(drop)), "LABEL_INVALID");
}

/// A token stays while a header refers to it, and the header keeps its reference.
#[test]
fn a_token_that_is_referred_to_cannot_be_removed() {
    let world = World::start();
    let fields = [
        ("base_url", "https://a.example"),
        ("tokens.one", "1"),
        ("tokens.two", "2"),
        ("headers.X", "{{ one }}"),
    ];
    world.0.create_connection("http/api", &fields, &[]).ok().unwrap();
    let remove = |path: &str| {
        let mut request = masked(pb::Connection::default(), &[path]);
        request.connection.as_mut().unwrap().name = "connections/http/api".to_owned();
        world.send(request).map(drop)
    };
    assert_eq!(reason(remove("fields.tokens.one")), "FIELDS_INVALID");
    remove("fields.`tokens.two`").unwrap();
}

/// Adding, changing or removing a destination sends no secret to another address.
#[test]
fn an_editor_of_everything_reads_no_value_by_any_side_door() {
    let world = World::start();
    let fields = [("base_url", "https://a.example"), ("tokens.one", "canary"), ("headers.Y", "y")];
    world.0.create_connection("http/api", &fields, &["workflow:w"]).ok().unwrap();
    let update = |fields: &[(&str, &str)], paths: &[&str]| {
        let mut request = masked(with_fields(fields), paths);
        request.connection.as_mut().unwrap().name = "connections/http/api".to_owned();
        world.send(request)
    };
    let evil = ("base_url", "https://evil.example");
    for (fields, paths) in [
        (&[evil][..], &["fields.base_url"][..]),
        (&[("headers.Z", "{{ one }}")], &["fields.headers.Z"]),
        (&[("body", "{{ one }}")], &["fields.body"]),
        (&[], &["fields.headers.Y"]),
        (&[evil, ("headers.Y", "y")], &["fields.base_url", "fields.headers.Y"]),
    ] {
        assert_eq!(reason(update(fields, paths).map(drop)), "SECRETS_REQUIRED", "{paths:?}");
    }
    // Removing the last secret leaves nothing to protect.
    let whole = update(&[evil, ("tokens.two", "mine")], &["fields"]).ok().unwrap();
    assert_eq!(field_names(&whole), ["base_url", "tokens.two"]);
    let step = world.0.open("w", "s");
    let got = world.0.resolve(&step, "http/api").unwrap();
    assert!(!got.fields.values().any(|value| value.contains("canary")));
}

#[test]
fn one_of_two_writers_with_one_etag_wins() {
    let world = World::start();
    for round in 0..20 {
        let etag = world.get("aws/prod").etag;
        let write = |region: String| {
            let change =
                pb::Connection { etag: etag.clone(), ..with_fields(&[("region", &region)]) };
            let request = masked(change, &["fields.region"]);
            let mut client = world.client();
            async move { client.update_connection(request).await.map(drop) }
        };
        let (one, other) = (write(format!("a{round}")), write(format!("b{round}")));
        let (one, other) = world.0.block_on(async { tokio::join!(one, other) });
        let outcomes = [one, other];
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        let lost = outcomes.into_iter().find(Result::is_err).unwrap();
        assert_eq!(reason(lost), "ETAG_MISMATCH");
    }
}

#[test]
fn a_trial_checks_everything_and_changes_nothing() {
    let world = World::start();
    let before = (world.get("aws/prod").etag, world.0.journaled("intent").len());
    let trial = |fields: &[(&str, &str)]| {
        let request = masked(with_fields(fields), &["fields.region"]);
        world.send(pb::UpdateConnectionRequest { validate_only: true, ..request })
    };
    assert_eq!(trial(&[("region", "eu-west-1")]).ok().unwrap().version, 2);
    assert_eq!(reason(trial(&[("region", "no region")]).map(drop)), "FIELDS_INVALID");
    let request = pb::DeleteConnectionRequest {
        name: "connections/aws/prod".to_owned(),
        validate_only: true,
        ..Default::default()
    };
    world.0.block_on(world.client().delete_connection(request)).unwrap();
    assert_eq!((world.get("aws/prod").etag, world.0.journaled("intent").len()), before);
}

#[test]
fn a_request_with_an_id_is_done_once_also_across_a_restart() {
    let mut world = World::start();
    let create = |world: &World, id: &str, name: &str| {
        let connection = pb::Connection {
            name: format!("connections/slack/{name}"),
            fields: bytes(&[("api_token", "t")]),
            ..Default::default()
        };
        let request = pb::CreateConnectionRequest {
            connection: Some(connection),
            request_id: id.to_owned(),
            ..Default::default()
        };
        let made = world.0.block_on(world.client().create_connection(request));
        made.map(|made| made.into_inner().uid)
    };
    let uid = create(&world, "one", "a").ok().unwrap();
    assert_eq!(create(&world, "one", "a").ok().unwrap(), uid);
    assert_eq!(reason(create(&world, "two", "a")), "CONNECTION_EXISTS");
    assert_eq!(reason(create(&world, "one", "b")), "REQUEST_ID_REUSED");
    world.0.restart();
    assert_eq!(create(&world, "one", "a").ok().unwrap(), uid);
    assert_eq!(reason(create(&world, "a\nb", "c")), "NAME_INVALID");
    // A repeated request for a done deletion succeeds, although nothing is left to delete.
    let delete = |world: &World, id: &str| {
        let (name, request_id) = ("connections/slack/a".to_owned(), id.to_owned());
        let request = pb::DeleteConnectionRequest { name, request_id, ..Default::default() };
        world.0.block_on(world.client().delete_connection(request)).map(drop)
    };
    delete(&world, "three").unwrap();
    delete(&world, "three").unwrap();
    assert_eq!(reason(delete(&world, "four")), "CONNECTION_NOT_FOUND");
    let request = pb::DeleteConnectionRequest {
        name: "connections/slack/a".to_owned(),
        allow_missing: true,
        ..Default::default()
    };
    world.0.block_on(world.client().delete_connection(request)).unwrap();
}

#[test]
fn an_update_creates_what_is_missing_only_if_it_may() {
    let world = World::start();
    let update = |allow_missing: bool, etag: &str| {
        let connection = pb::Connection {
            name: "connections/slack/new".to_owned(),
            etag: etag.to_owned(),
            ..with_fields(&[("api_token", "t")])
        };
        let connection = Some(connection);
        world.send(pb::UpdateConnectionRequest { connection, allow_missing, ..Default::default() })
    };
    assert_eq!(reason(update(false, "").map(drop)), "CONNECTION_NOT_FOUND");
    // A caller with an etag has seen the connection, so the answer may say that it is gone.
    assert_eq!(reason(update(true, "x").map(drop)), "CONNECTION_NOT_FOUND");
    assert_eq!(update(true, "").ok().unwrap().version, 1);
}

#[test]
fn a_disabled_connection_is_handed_to_nobody_and_its_leases_end() {
    let world = World::start();
    let step = world.0.open("w", "s");
    world.0.resolve(&step, "aws/prod").unwrap();
    assert_eq!(world.get("aws/prod").live_leases, 1);
    let disabled = |disabled: bool| {
        let change = pb::Connection { disabled, ..Default::default() };
        world.update(change, &["disabled"]).ok().unwrap()
    };
    assert_eq!(disabled(true).live_leases, 0);
    assert_eq!(reason(world.0.resolve(&step, "aws/prod")), "CONNECTION_DISABLED");
    // A step without access learns nothing about it.
    let other = world.0.open("other", "s");
    assert_eq!(reason(world.0.resolve(&other, "aws/prod")), "RESOLVE_DENIED");
    let line = world.0.journaled("intent").pop().unwrap();
    assert_eq!(line["changes"][0]["settings"][0], "disabled=true");
    assert_eq!(disabled(false).version, 1);
    world.0.resolve(&step, "aws/prod").unwrap();
}

#[test]
fn a_connections_own_maximum_shortens_its_leases() {
    let world = World::start();
    let max_ttl = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    let change = pb::Connection { max_ttl, ..Default::default() };
    world.update(change, &["max_ttl"]).ok().unwrap();
    let step = world.0.open("w", "s");
    let got = world.0.resolve(&step, "aws/prod").unwrap();
    assert_eq!(got.lease.ttl_limited_by(), pb::TtlLimit::Connection);
    let life =
        |lease: &pb::Lease| lease.expire_time.unwrap().seconds - lease.issue_time.unwrap().seconds;
    assert_eq!(life(&got.lease), 600);
    world.update(pb::Connection::default(), &["max_ttl"]).ok().unwrap();
    let step = world.0.open("w", "t");
    assert_eq!(life(&world.0.resolve(&step, "aws/prod").unwrap().lease), 3600);
}

#[test]
fn a_default_connection_follows_the_same_access_rules() {
    let mut world = World::start();
    world.0.create_aws("other", "second", &["workflow:w"]);
    let set = |world: &World, name: &str, default: bool| {
        let mut request = masked(pb::Connection { default, ..Default::default() }, &["default"]);
        request.connection.as_mut().unwrap().name = format!("connections/aws/{name}");
        world.send(request)
    };
    let step = world.0.open("w", "s");
    assert_eq!(reason(world.0.resolve(&step, "default:aws")), "RESOLVE_DENIED");
    set(&world, "prod", true).ok().unwrap();
    let got = world.0.resolve(&step, "default:aws").unwrap();
    assert_eq!(
        (got.name.as_str(), got.fields["secret_access_key"].as_str()),
        ("connections/aws/prod", "secret")
    );
    // Another connection becomes the default, and leases by the default end.
    assert_eq!(world.get("aws/prod").live_leases, 1);
    set(&world, "other", true).ok().unwrap();
    assert!(!world.get("aws/prod").default && world.get("aws/prod").live_leases == 0);
    assert_eq!(world.0.resolve(&step, "default:aws").unwrap().name, "connections/aws/other");
    world.0.restart();
    let step = world.0.open("w", "s2");
    assert_eq!(world.0.resolve(&step, "default:aws").unwrap().name, "connections/aws/other");
    let stranger = world.0.open("stranger", "s");
    assert_eq!(reason(world.0.resolve(&stranger, "default:aws")), "RESOLVE_DENIED");
    assert_eq!(reason(world.0.resolve(&step, "default:slack")), "RESOLVE_DENIED");
    assert_eq!(reason(world.0.resolve(&step, "default:No Such")), "TARGET_INVALID");
    // Only administrators choose the default.
    let mut works = ConnectionServiceClient::new(world.0.enroll("works", pb::Role::Operator));
    let connection = pb::Connection {
        name: "connections/aws/mine".to_owned(),
        default: true,
        ..with_fields(&[("access_key_id", "A"), ("secret_access_key", "B")])
    };
    let connection = Some(connection);
    let request = pb::CreateConnectionRequest { connection, ..Default::default() };
    let made = world.0.block_on(works.create_connection(request)).map(drop);
    assert_eq!(reason(made), "ROLE_REQUIRED");
    set(&world, "other", false).ok().unwrap();
    assert_eq!(reason(world.0.resolve(&step, "default:aws")), "RESOLVE_DENIED");
}

#[test]
fn lists_are_filtered_by_what_connections_have() {
    let world = World::start();
    for (name, tags, team) in [("a", "env:prod", "red"), ("b", "env:staging", "blue")] {
        let connection = pb::Connection {
            name: format!("connections/slack/{name}"),
            tags: vec![tags.to_owned()],
            labels: [("team".to_owned(), team.to_owned())].into(),
            ..with_fields(&[("api_token", "t")])
        };
        let connection = Some(connection);
        let request = pb::CreateConnectionRequest { connection, ..Default::default() };
        world.0.block_on(world.client().create_connection(request)).ok().unwrap();
    }
    let names = |filter: &str| {
        let listed = world.list(filter).unwrap();
        listed.iter().map(|name| name.trim_start_matches("connections/").to_owned()).collect()
    };
    let cases: [(&str, &[&str]); 9] = [
        ("", &["aws/prod", "slack/a", "slack/b"]),
        ("integration = slack", &["slack/a", "slack/b"]),
        ("tags.env = PROD", &["slack/a"]),
        ("tags.env != prod", &["aws/prod", "slack/b"]),
        ("tags.env = * AND labels.team = b*", &["slack/b"]),
        (r#"labels.team = "red""#, &["slack/a"]),
        ("disabled = true", &[]),
        ("name = p*", &["aws/prod"]),
        ("kind = access_key AND updated_by = operator:admin", &["aws/prod"]),
    ];
    for (filter, expected) in cases {
        let found: Vec<String> = names(filter);
        assert_eq!(found, expected, "{filter}");
    }
    assert_eq!(reason(world.list("nonsense = x")), "FILTER_INVALID");
}

#[test]
fn a_test_reports_faults_of_values_and_shows_no_value() {
    let world = World::start();
    let (key, _) = keyhatch::identity::new_request().unwrap();
    let certificate = world.0.authority().root_pem().to_owned();
    let fields = [
        ("base_url", "https://a b"),
        ("certificate", certificate.as_str()),
        ("private_key", key.as_str()),
    ];
    let test = |name: &str| {
        let request =
            pb::TestConnectionRequest { name: format!("connections/{name}"), mint: false };
        world.0.block_on(world.client().test_connection(request)).unwrap().into_inner()
    };
    assert!(test("aws/prod").findings.is_empty());
    world.0.create_connection("http/m", &fields, &[]).ok().unwrap();
    let tested = test("http/m");
    let found: Vec<_> =
        tested.findings.iter().map(|one| (one.field.as_str(), one.description.as_str())).collect();
    assert_eq!(
        found,
        [
            ("base_url", "the value is not an absolute URL, such as https://api.example.com/v1"),
            ("private_key", "the private key does not belong to the certificate"),
        ]
    );
    // The test is a decision in the journal.
    let line = world.0.journaled("tested").pop().unwrap();
    assert_eq!(line["principal"], "operator:admin");
    assert_eq!(line["resource"], "connections/http/m");
    assert_eq!(tested.decision_id, format!("1.{}", line["n"]));
    let secret = "hush-7f3a9c51\n";
    world.0.create_connection("slack/x", &[("api_token", secret)], &[]).ok().unwrap();
    let tested = test("slack/x");
    assert!(tested.findings[0].description.contains("newline"));
    assert!(!format!("{tested:?}").contains("7f3a9c51"));
}

/// A trial answers the same for the stored value and for others, because it can be repeated.
#[test]
fn a_trial_is_no_way_to_guess_a_stored_value() {
    let world = World::start();
    let put = |value: &str, validate_only: bool| {
        let request = pb::PutSecretRequest {
            name: "workflows/w/secrets/pin".to_owned(),
            value: value.into(),
            validate_only,
            ..Default::default()
        };
        let mut secrets = pb::secret_service_client::SecretServiceClient::new(world.0.operator());
        world.0.block_on(secrets.put_secret(request)).unwrap().into_inner().version
    };
    assert_eq!(put("4711", false), 1);
    assert_eq!((put("0000", true), put("4711", true)), (2, 2));
    let trial = |value: &str| {
        let change = with_fields(&[("secret_access_key", value)]);
        let request = masked(change, &["fields.secret_access_key"]);
        let trial = pb::UpdateConnectionRequest { validate_only: true, ..request };
        let told = world.send(trial).ok().unwrap();
        (told.version, told.etag)
    };
    assert_eq!(trial("guess"), trial("secret"));
}

#[test]
fn a_request_that_wrote_nothing_is_remembered_too() {
    let world = World::start();
    let delete = || {
        let request = pb::DeleteConnectionRequest {
            name: "connections/slack/x".to_owned(),
            allow_missing: true,
            request_id: "one".to_owned(),
            ..Default::default()
        };
        world.0.block_on(world.client().delete_connection(request)).unwrap();
    };
    delete();
    world.0.create_connection("slack/x", &[("api_token", "t")], &[]).ok().unwrap();
    // A repeated request is not done again.
    delete();
    assert_eq!(world.list("name = x").unwrap().len(), 1);
}

#[test]
fn a_missing_field_or_a_sensitive_kind_is_refused() {
    let world = World::start();
    let remove = world.update(pb::Connection::default(), &["fields.secret_acces_key"]);
    assert_eq!(reason(remove.map(drop)), "FIELDS_INVALID");
    let (key, _) = keyhatch::identity::new_request().unwrap();
    let swapped = with_fields(&[("region", &key)]);
    assert_eq!(reason(world.update(swapped, &["fields.region"]).map(drop)), "FIELDS_INVALID");
    let fields = [("base_url", "https://a.example"), ("certificate", &key), ("private_key", &key)];
    let made = world.0.create_connection("http/m", &fields, &[]);
    assert_eq!(reason(made.map(drop)), "FIELDS_INVALID");
}

#[test]
fn a_shorter_maximum_counts_for_the_next_ask_already() {
    let world = World::start();
    let step = world.0.open("w", "s");
    let before = world.0.resolve(&step, "aws/prod").unwrap().lease;
    let max_ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let change = pb::Connection { max_ttl, ..Default::default() };
    world.update(change, &["max_ttl"]).ok().unwrap();
    let after = world.0.resolve(&step, "aws/prod").unwrap().lease;
    assert_ne!(after.name, before.name);
    assert_eq!(after.expire_time.unwrap().seconds - after.issue_time.unwrap().seconds, 60);
}

/// The reason arrives even with more problems than a client accepts in headers.
#[test]
fn an_error_with_very_many_problems_still_fits() {
    let world = World::start();
    let bad = |n: usize| {
        crate::harness::connection_document(&format!("slack/{n}"), &[("nonsense", "x")], vec![])
    };
    let status = world.0.apply((0..2000).map(bad).collect()).unwrap_err();
    let told = tonic_types::StatusExt::get_error_details(&status);
    let last = told.bad_request().unwrap().field_violations.last().unwrap().description.clone();
    assert!(last.ends_with(" more"), "{last}");
    assert!(status.details().len() < 8192);
    assert_eq!(reason(Err::<(), _>(status)), "DOCUMENTS_INVALID");
}

#[test]
fn a_recently_used_connection_is_deleted_only_by_force() {
    let world = World::start();
    let step = world.0.open("w", "s");
    world.0.resolve(&step, "aws/prod").unwrap();
    let delete = |force: bool| {
        let name = "connections/aws/prod".to_owned();
        let request = pb::DeleteConnectionRequest { name, force, ..Default::default() };
        world.0.block_on(world.client().delete_connection(request)).map(drop)
    };
    let refused = delete(false).unwrap_err();
    assert!(refused.message().contains("workflow w"), "{}", refused.message());
    assert_eq!(reason(Err::<(), _>(refused)), "IN_USE");
    world.0.advance(31 * 24 * 3600);
    delete(false).unwrap();
}
