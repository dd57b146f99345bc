//! A connection is minted or stored. Who may change it can stop a root from reaching steps, and cannot start it without
//! the root.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_request::Document;
use keyhatch::grpc::pb::apply_service_client::ApplyServiceClient;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use pb::Release::{Minted, Stored, Unspecified};
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use super::own_integrations::acme;
use crate::harness::{
    ServeProcess, TestBroker, bytes, connection_document, reason, temp_dir, text,
};

type KindFields = &'static [(&'static str, &'static str)];

/// The kinds that have a source, with the fields that each needs to be minted, and their default.
const KINDS: [(&str, KindFields, pb::Release); 8] = [
    ("aws/role", &ROLE, Minted),
    ("oauth2/api", &CLIENT, Minted),
    ("github/app", &INSTALLATION, Minted),
    ("http/two", &TWO_STEP, Minted),
    ("gcp/key", &[("service_account_key", "{}")], Stored),
    ("gcp/account", &[("service_account_email", "a@b.example"), ("private_key", "k")], Stored),
    ("azure/app", &APP, Stored),
    ("microsoft-teams/app", &APP, Stored),
];
const ROLE: [(&str, &str); 4] = [
    ("account_id", "123456789012"),
    ("role", "deploy"),
    ("source_access_key_id", "AKIAIOSFODNN7EXAMPLE"),
    ("source_secret_access_key", "canary"),
];
const CLIENT: [(&str, &str); 3] =
    [("token_url", "https://auth.example/token"), ("client_id", "me"), ("client_secret", "canary")];
const INSTALLATION: [(&str, &str); 3] =
    [("app_id", "1"), ("installation_id", "2"), ("private_key", "canary")];
const TWO_STEP: [(&str, &str); 6] = [
    ("base_url", "https://api.example"),
    ("request_url", "https://auth.example/token"),
    ("request_method", "POST"),
    ("access_token_path", "body.token"),
    ("tokens.key", "canary"),
    ("headers.Authorization", "Bearer {{ accessToken }}"),
];
const APP: [(&str, &str); 3] =
    [("tenant_id", "t"), ("client_id", "me"), ("client_secret", "canary")];

type Outcome = Result<pb::Connection, Status>;

fn refusal(outcome: Outcome) -> String {
    reason(outcome.map(drop))
}

struct World(TestBroker);

impl World {
    /// A broker with a minted role, which operator works may edit.
    fn start() -> Self {
        let world = Self(TestBroker::start());
        world.0.create_connection("aws/role", &ROLE, &["workflow:w"]).unwrap();
        world
    }

    fn create(&self, reference: &str, fields: &[(&str, &str)], release: pb::Release) -> Outcome {
        let connection = pb::Connection {
            name: format!("connections/{reference}"),
            kind: if reference == "http/two" { "two_step" } else { "" }.to_owned(),
            fields: bytes(fields),
            release: release.into(),
            ..Default::default()
        };
        let connection = Some(connection);
        let request = pb::CreateConnectionRequest { connection, ..Default::default() };
        let mut client = ConnectionServiceClient::new(self.0.operator());
        self.0.block_on(client.create_connection(request)).map(tonic::Response::into_inner)
    }

    fn get(&self, reference: &str) -> pb::Connection {
        self.0.get_connection(reference).ok().unwrap()
    }

    fn list(&self, filter: &str) -> Vec<String> {
        let request =
            pb::ListConnectionsRequest { filter: filter.to_owned(), ..Default::default() };
        let mut client = ConnectionServiceClient::new(self.0.operator());
        let listed = self.0.block_on(client.list_connections(request)).unwrap().into_inner();
        listed.connections.into_iter().map(|one| one.name.replace("connections/", "")).collect()
    }

    fn apply_as(&self, who: &Channel, document: Document) -> Result<pb::ApplyResult, Status> {
        let request = pb::ApplyRequest { document: Some(document) };
        let mut client = ApplyServiceClient::new(who.clone());
        let applied = self.0.block_on(client.apply(tokio_stream::iter([request])));
        applied.map(|response| response.into_inner().results.remove(0))
    }
}

/// An update of aws/role with these fields and this release.
fn update(fields: &[(&str, &str)], release: pb::Release) -> pb::UpdateConnectionRequest {
    let connection = pb::Connection {
        name: "connections/aws/role".to_owned(),
        fields: bytes(fields),
        release: release.into(),
        ..Default::default()
    };
    let paths = fields.iter().map(|(name, _)| format!("fields.{name}"));
    let paths = paths.chain(["release".to_owned()]).collect();
    pb::UpdateConnectionRequest {
        connection: Some(connection),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..Default::default()
    }
}

/// A document of aws/role.
fn document(fields: &[(&str, &str)], release: pb::Release) -> Document {
    match connection_document("aws/role", fields, Vec::new()) {
        Document::Connection(document) => Document::Connection(pb::ConnectionDocument {
            kind: "assume_role".to_owned(),
            release: release.into(),
            ..document
        }),
        other => other,
    }
}

fn send(world: &World, who: &Channel, request: pb::UpdateConnectionRequest) -> Outcome {
    let mut client = ConnectionServiceClient::new(who.clone());
    world.0.block_on(client.update_connection(request)).map(tonic::Response::into_inner)
}

#[test]
fn a_new_connection_releases_what_its_kind_says() {
    let world = World(TestBroker::start());
    for (reference, fields, default) in KINDS {
        let made = world.create(reference, fields, Unspecified).unwrap();
        assert_eq!((made.release(), made.mintable), (default, true), "{reference}");
    }
    let (without_key, _) = ROLE.split_at(2);
    let made = world.create("aws/no-key", without_key, Unspecified).unwrap();
    assert_eq!((made.release(), made.mintable), (Stored, false));
    let made = world.create("slack/chat", &[("api_token", "t")], Unspecified).unwrap();
    assert_eq!((made.release(), made.mintable), (Stored, false));
    world.create("oauth2/raw", &CLIENT, Stored).unwrap();
    world.create("azure/minted", &APP, Minted).unwrap();
    assert_eq!(
        world.list("release = minted"),
        ["aws/role", "azure/minted", "github/app", "http/two", "oauth2/api"]
    );
    let long_lived = ["azure/app", "gcp/account", "gcp/key", "microsoft-teams/app", "oauth2/raw"];
    assert_eq!(world.list("release = stored AND mintable = true"), long_lived);
}

/// Nobody but who has the secrets makes a minted connection release its roots, administrators included.
#[test]
fn a_root_is_released_again_only_with_every_secret() {
    let world = World::start();
    let editor = world.0.enroll("works", pb::Role::Operator);
    let access = pb::UpdateConnectionRequest {
        connection: Some(pb::Connection {
            name: "connections/aws/role".to_owned(),
            access: vec![pb::AccessBinding {
                relation: pb::Relation::Editor.into(),
                principals: vec!["operator:works".to_owned()],
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    send(&world, &world.0.operator(), access).unwrap();
    let (id, secret) = (ROLE[2], ROLE[3]);
    for who in [editor, world.0.operator()] {
        let refused =
            |request| assert_eq!(refusal(send(&world, &who, request)), "SECRETS_REQUIRED");
        refused(update(&[], Stored));
        refused(update(&[id], Stored));
        refused(update(&[("region", "eu-west-1"), secret], Stored));
        refused(pb::UpdateConnectionRequest { update_mask: None, ..update(&[], Stored) });
        refused(pb::UpdateConnectionRequest { validate_only: true, ..update(&[], Stored) });
        refused(pb::UpdateConnectionRequest { allow_missing: true, ..update(&[id], Stored) });
        let apply = |document| reason(world.apply_as(&who, document).map(|applied| applied.name));
        assert_eq!(apply(document(&[], Stored)), "SECRETS_REQUIRED");
        assert_eq!(apply(document(&ROLE[..3], Stored)), "SECRETS_REQUIRED");
        let Document::Connection(kept) = document(&ROLE[..2], Stored) else { unreachable!() };
        let kept_fields = vec![id.0.to_owned(), secret.0.to_owned()];
        let kept = pb::ConnectionDocument { kept_fields, ..kept };
        assert_eq!(apply(Document::Connection(kept)), "SECRETS_REQUIRED");
        assert_eq!(world.get("aws/role").release(), Minted);

        // Values that are equal to the stored ones count: who gives them knows them.
        let stored = send(&world, &who, update(&[id, secret], Stored)).unwrap();
        assert_eq!(stored.release(), Stored);
        let minted = send(&world, &who, update(&[], Minted)).unwrap();
        assert_eq!((minted.release(), minted.version), (Minted, stored.version + 1));
        world.apply_as(&who, document(&ROLE, Stored)).unwrap();
        assert_eq!(world.get("aws/role").release(), Stored);
        world.apply_as(&who, document(&[], Minted)).unwrap();
    }
    // What is removed is not released.
    let mut removal = update(&[id, secret], Stored);
    removal.connection.as_mut().unwrap().fields.clear();
    send(&world, &world.0.operator(), removal).unwrap();
    let left = world.get("aws/role");
    assert!((left.release(), left.mintable) == (Stored, false));
}

#[test]
fn a_change_of_release_makes_a_version_and_the_same_makes_none() {
    let world = World(TestBroker::start());
    world.0.create_connection("azure/app", &APP, &["workflow:w"]).unwrap();
    let step = world.0.open("w", "s");
    assert_eq!(world.0.resolve(&step, "azure/app").unwrap().fields["client_secret"], "canary");
    let minted = |paths: &[&str]| {
        let mut request = update(&[], Minted);
        request.connection.as_mut().unwrap().name = "connections/azure/app".to_owned();
        request.update_mask.as_mut().unwrap().paths =
            paths.iter().map(|path| (*path).to_owned()).collect();
        send(&world, &world.0.operator(), request).unwrap()
    };
    let changed = minted(&["release"]);
    assert_eq!((changed.release(), changed.version), (Minted, 2));
    let again = minted(&["release"]);
    assert_eq!((again.version, &again.etag), (2, &changed.etag));
    let intents = world.0.journaled("intent");
    let noted = intents.last().unwrap().to_string();
    assert!(noted.contains("release=minted") && !noted.contains("canary"), "{noted}");
    // The client of an earlier version knows nothing of it, and names everything else.
    let mut whole = update(&APP, Unspecified);
    whole.connection.as_mut().unwrap().name = "connections/azure/app".to_owned();
    whole.update_mask.as_mut().unwrap().paths = vec!["*".to_owned()];
    let kept = send(&world, &world.0.operator(), whole).unwrap();
    assert_eq!((kept.release(), kept.version), (Minted, 2));
}

#[test]
fn what_cannot_be_minted_is_refused_with_what_is_missing() {
    let world = World::start();
    let refused = |reference: &str, fields: &[(&str, &str)], field: &str, expected: &str| {
        let status = world.create(reference, fields, Minted).map(drop).unwrap_err();
        let details = status.get_error_details();
        let problems = &details.bad_request().unwrap().field_violations;
        let mut problems = problems.iter().filter(|one| one.field == field);
        assert!(problems.any(|one| one.description.contains(expected)), "{reference}: {status:?}");
        assert_eq!(reason::<()>(Err(status)), "FIELDS_INVALID");
    };
    refused("slack/chat", &[("api_token", "t")], "release", "cannot mint credentials of kind");
    refused("aws/x", &ROLE[..3], "source_secret_access_key", "a minted connection needs it");
    let with = |fields: &[(&'static str, &'static str)], more| [fields, &[more]].concat();
    let life = |seconds| with(&ROLE, ("mint_seconds", seconds));
    for seconds in ["899", "43201", "+900", "", "3600s"] {
        refused("aws/x", &life(seconds), "mint_seconds", "a whole number from 900 to 43200");
    }
    let key = [("service_account_key", "{}"), ("mint_seconds", "900")];
    refused("gcp/x", &key, "mint_seconds", "only with impersonate");
    let token = ("headers.X", "{{ key }}");
    refused("http/two", &with(&TWO_STEP, token), "headers.X", "to the step");
    let client = with(&CLIENT, ("client_auth", "both"));
    refused("oauth2/x", &client, "client_auth", "must match");
    world.create("http/two", &with(&TWO_STEP, token), Stored).unwrap();
    world.create("aws/long", &life("43200"), Minted).unwrap();
    // A root stays while the connection is minted.
    let mut removal = update(&[ROLE[3]], Unspecified);
    removal.connection.as_mut().unwrap().fields.clear();
    assert_eq!(refusal(send(&world, &world.0.operator(), removal)), "FIELDS_INVALID");
}

#[test]
fn what_says_what_is_minted_changes_only_with_every_secret() {
    let world = World::start();
    for field in [
        ("policy", "{}"),
        ("policy_arns", "arn:aws:iam::aws:policy/ReadOnlyAccess"),
        ("session_tags", "team=payments"),
        ("sts_url", "https://evil.example"),
        ("ca_certificate", "x"),
        ("role", "admin"),
    ] {
        let moved = send(&world, &world.0.operator(), update(&[field], Unspecified));
        assert_eq!(refusal(moved), "SECRETS_REQUIRED", "{}", field.0);
    }
    let longer = update(&[("mint_seconds", "900"), ("region", "eu-west-1")], Unspecified);
    send(&world, &world.0.operator(), longer).unwrap();
}

#[test]
fn no_name_of_a_root_gets_it_from_a_minted_connection() {
    let world = World(TestBroker::start());
    let step = world.0.open("w", "s");
    for (reference, fields, _) in KINDS {
        let mut made = world.create(reference, fields, Minted).unwrap();
        made.fields.clear();
        made.access = crate::harness::resolver(&["workflow:w"]);
        let request = pb::UpdateConnectionRequest { connection: Some(made), ..Default::default() };
        send(&world, &world.0.operator(), request).unwrap();
        let secret = fields.iter().filter(|(_, value)| ["canary", "{}", "k"].contains(value));
        for (name, _) in secret {
            let asked = world.0.resolve(&step, &format!("{reference}#{name}"));
            assert_eq!(reason(asked.map(drop)), "FIELD_UNKNOWN", "{reference}: {name}");
        }
    }
    for alias in ["serviceAccountKey", "request_url", "access_token_path"] {
        let reference = if alias == "serviceAccountKey" { "gcp/key" } else { "http/two" };
        let asked = world.0.resolve(&step, &format!("{reference}#{alias}"));
        assert_eq!(reason(asked.map(drop)), "FIELD_UNKNOWN", "{alias}");
    }
}

#[test]
fn an_operators_own_integration_cannot_be_minted() {
    let world = World(TestBroker::start());
    let create = |change: fn(&mut pb::CredentialKind)| {
        let mut integration = acme("acme");
        change(&mut integration.kinds[0]);
        reason(world.0.apply(vec![Document::Integration(integration)]))
    };
    assert_eq!(create(|kind| kind.release = Minted.into()), "DOCUMENTS_INVALID");
    assert_eq!(create(|kind| kind.fields[1].root = true), "DOCUMENTS_INVALID");
    assert_eq!(create(|kind| kind.minted_fields = kind.fields.clone()), "DOCUMENTS_INVALID");
    world.0.apply(vec![Document::Integration(acme("acme"))]).unwrap();
    let fields = [("url", "https://a.example"), ("token", "t")];
    assert_eq!(refusal(world.create("acme/x", &fields, Minted)), "FIELDS_INVALID");

    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let seed = directory.path().join("own.yaml");
    std::fs::write(
        &seed,
        "apiVersion: keyhatch/v1\nkind: Integration\nmetadata: {name: acme}\nspec:\n  title: Acme\n  kinds:\n  - \
         {name: token, source: aws_sts, fields: [{name: t, sensitive: true, description: d}]}\n",
    )
    .unwrap();
    let applied = serving.run(&["apply", "-f", seed.to_str().unwrap()]);
    assert!(text(&applied.stderr).contains("mints credentials of built-in integrations only"));
}
