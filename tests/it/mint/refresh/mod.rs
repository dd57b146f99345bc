//! Refresh tokens of a server that others wrote: it replaces them with each use, and ends all of them if it sees one again.

mod kills;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::model::Timestamp;
use tonic::Status;

use super::token_servers::is_active;
use crate::harness::{
    TestBroker, TestStep, Upstream, allowing, bytes, reason, request, resolve_on, wait_until,
};

const NAME: &str = "oauth2/app";

/// A broker and a token server.
struct World {
    broker: TestBroker,
    tokens: Upstream,
}

impl World {
    /// With oauth2/app, which steps of workflows v and w may resolve. `None` if the server is not installed.
    fn start() -> Option<Self> {
        let tokens = Upstream::tokens()?;
        let mut broker = TestBroker::start();
        broker.config.egress = allowing(&[&tokens.origin()]);
        broker.restart();
        let world = Self { broker, tokens };
        world.create(NAME, &world.seed());
        Some(world)
    }

    /// A refresh token that a person got by a sign-in.
    fn seed(&self) -> String {
        self.tokens.get("/seed/kh-refresh")
    }

    fn create(&self, name: &str, seed: &str) {
        let url = format!("{}/token", self.tokens.origin());
        let fields = [
            ("token_url", url.as_str()),
            ("client_id", "kh-refresh"),
            ("client_secret", "r3fresh-secret"),
            ("refresh_token", seed),
        ];
        self.broker.create_connection(name, &fields, &["workflow:v", "workflow:w"]).unwrap();
    }

    fn update(&self, name: &str, fields: &[(&str, &str)]) -> Result<pb::Connection, Status> {
        let name = format!("connections/{name}");
        let connection = pb::Connection { name, fields: bytes(fields), ..Default::default() };
        let request =
            pb::UpdateConnectionRequest { connection: Some(connection), ..Default::default() };
        let mut client = ConnectionServiceClient::new(self.broker.operator());
        self.broker.block_on(client.update_connection(request)).map(tonic::Response::into_inner)
    }

    fn test(&self, name: &str) -> pb::TestConnectionResponse {
        let name = format!("connections/{name}");
        let request = pb::TestConnectionRequest { name, mint: true };
        let mut client = ConnectionServiceClient::new(self.broker.operator());
        self.broker.block_on(client.test_connection(request)).unwrap().into_inner()
    }

    /// The access token that a new step of a workflow gets of oauth2/app.
    fn token(&self, workflow: &str, step: &str) -> String {
        let step = self.broker.open(workflow, step);
        self.of(&step, NAME).unwrap_or_else(|error| panic!("{error}"))
    }

    fn of(&self, step: &TestStep, name: &str) -> Result<String, Status> {
        self.broker.resolve(step, name).map(|got| got.fields["access_token"].clone())
    }

    /// How often the server has replaced the refresh token.
    fn generation(&self, name: &str) -> i64 {
        let state = self.broker.get_connection(name).unwrap().refresh_token;
        state.map_or(0, |state| state.generation)
    }

    /// How many requests the server has had.
    fn asked(&self) -> String {
        self.tokens.get("/asked")
    }

    fn is_active(&self, token: &str) -> bool {
        is_active(&self.tokens, token)
    }
}

#[test]
fn a_rotated_refresh_token_outlives_the_daemon() {
    let Some(mut world) = World::start() else { return };
    let step = world.broker.open("w", "s");
    let got = world.broker.resolve(&step, NAME).unwrap();
    let names: Vec<_> = got.fields.keys().map(String::as_str).collect();
    assert_eq!(names, ["access_token", "client_id", "token_type", "token_url"]);
    assert_eq!(got.lease.ttl_limited_by(), pb::TtlLimit::Upstream);
    assert_eq!(reason(world.broker.resolve(&step, "oauth2/app#refresh_token")), "FIELD_UNKNOWN");
    let mut tokens = vec![got.fields["access_token"].clone()];
    for generation in 2..=3 {
        world.broker.restart();
        tokens.push(world.token("w", &format!("s{generation}")));
        let shown = world.broker.get_connection(NAME).unwrap();
        assert_eq!((shown.version, shown.field_states.len()), (1, 4));
        let state = shown.refresh_token.unwrap();
        assert_eq!((state.generation, state.reauthorization_required.as_str()), (generation, ""));
        assert!(
            Timestamp::from_seconds(state.update_time.unwrap().seconds)
                > Timestamp::from_seconds(0)
        );
    }
    assert!(tokens.iter().all(|token| world.is_active(token)));
    assert_eq!(world.asked(), "3");
}

#[test]
fn a_public_client_is_minted_too() {
    let Some(world) = World::start() else { return };
    let (url, seed) =
        (format!("{}/token", world.tokens.origin()), world.tokens.get("/seed/kh-public"));
    let fields =
        [("token_url", url.as_str()), ("client_id", "kh-public"), ("refresh_token", &seed)];
    world.broker.create_connection("oauth2/public", &fields, &["workflow:w"]).unwrap();
    let step = world.broker.open("w", "s");
    assert!(world.is_active(&world.of(&step, "oauth2/public").unwrap()));
}

#[test]
fn workflows_take_turns_and_burn_no_refresh_token() {
    let Some(world) = World::start() else { return };
    world.tokens.get("/gate/before");
    let steps = ["v", "w"].map(|workflow| world.broker.open(workflow, "s"));
    let pending = steps
        .each_ref()
        .map(|step| world.broker.spawn(resolve_on(step.channel.clone(), request(NAME))));
    wait_until("both are decided", || world.broker.journaled("resolve").len() == 2);
    wait_until("one is asked for", || world.tokens.get("/held") == "1");
    assert_eq!(world.broker.journaled("minting").len(), 1);
    world.tokens.get("/gate/open");
    let got = pending.map(|one| world.broker.block_on(one).unwrap().unwrap());
    let tokens = got.map(|got| got.fields["access_token"].clone());
    assert_ne!(tokens[0], tokens[1]);
    assert!(tokens.iter().all(|token| world.is_active(token)));
    assert_eq!((world.asked().as_str(), world.generation(NAME)), ("2", 2));
}

#[test]
fn a_test_that_mints_takes_its_turn_and_keeps_the_token() {
    let Some(world) = World::start() else { return };
    world.tokens.get("/gate/before");
    let step = world.broker.open("w", "s");
    let pending = world.broker.spawn(resolve_on(step.channel, request(NAME)));
    wait_until("a step's is asked for", || world.tokens.get("/held") == "1");
    let mut client = ConnectionServiceClient::new(world.broker.operator());
    let test = pb::TestConnectionRequest { name: format!("connections/{NAME}"), mint: true };
    let testing = world.broker.spawn(async move { client.test_connection(test).await });
    world.tokens.get("/gate/open");
    assert!(world.broker.block_on(pending).unwrap().is_ok());
    let tested = world.broker.block_on(testing).unwrap().unwrap().into_inner();
    assert!(tested.minted.is_some(), "{tested:?}");
    assert_eq!((world.asked().as_str(), world.generation(NAME)), ("2", 2));
    assert!(world.test(NAME).minted.is_some());
    assert!(world.is_active(&world.token("v", "s")));
    assert_eq!(world.generation(NAME), 4);
}

#[test]
fn a_refresh_token_that_steps_get_is_not_used_for_a_test() {
    let Some(world) = World::start() else { return };
    let url = format!("{}/token", world.tokens.origin());
    let fields = [("token_url", url.as_str()), ("client_id", "kh-refresh"), ("refresh_token", "x")];
    let connection = pb::Connection {
        name: "connections/oauth2/stored".to_owned(),
        kind: "refresh_token".to_owned(),
        fields: bytes(&fields),
        release: pb::Release::Stored.into(),
        ..Default::default()
    };
    let request =
        pb::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
    let mut client = ConnectionServiceClient::new(world.broker.operator());
    world.broker.block_on(client.create_connection(request)).unwrap();
    let tested = world.test("oauth2/stored");
    assert_eq!(tested.mint_failure, "NOT_MINTABLE");
    assert!(tested.findings.last().unwrap().description.contains("--release minted"));
    assert_eq!(world.asked(), "0");
}

#[test]
fn an_old_seed_undoes_no_rotation_and_another_resets() {
    let Some(world) = World::start() else { return };
    let first = world.seed();
    let before = world.update(NAME, &[("refresh_token", &first)]).unwrap();
    world.token("w", "s1");
    let again = world.update(NAME, &[("refresh_token", &first)]).unwrap();
    assert_eq!((again.version, again.etag), (before.version, before.etag), "nothing has changed");
    assert!(world.is_active(&world.token("v", "s2")));
    assert_eq!(world.generation(NAME), 2);
    // The value that was rotated is known to nobody, so an equal seed does not send it elsewhere.
    let url = format!("{}/other", world.tokens.origin());
    let moved = [("token_url", url.as_str()), ("client_secret", "r3fresh-secret")];
    let with_seed = [&moved[..], &[("refresh_token", first.as_str())]].concat();
    assert_eq!(reason(world.update(NAME, &with_seed).map(drop)), "SECRETS_REQUIRED");
    // Another field leaves the rotation alone.
    world.update(NAME, &[("client_auth", "basic")]).unwrap();
    assert!(world.is_active(&world.token("w", "s3")));
    assert_eq!(world.generation(NAME), 3);
    let second = world.seed();
    assert_eq!(world.update(NAME, &[("refresh_token", &second)]).unwrap().refresh_token, None);
    assert!(world.is_active(&world.token("w", "s4")));
    assert_eq!(world.generation(NAME), 1);
}

#[test]
fn a_burnt_token_is_told_once_and_never_sent_again() {
    let Some(mut world) = World::start() else { return };
    let burnt = world.seed();
    for name in ["oauth2/thief", "oauth2/owner"] {
        world.create(name, &burnt);
    }
    let step = world.broker.open("w", "s");
    world.of(&step, "oauth2/thief").unwrap();
    let refused = world.of(&step, "oauth2/owner").unwrap_err();
    assert!(refused.message().contains("an operator writes another"), "{refused}");
    assert_eq!(reason::<()>(Err(refused)), "REAUTHORIZATION_REQUIRED");
    let asked = world.asked();
    let other = world.broker.open("v", "s");
    world.broker.advance(600);
    assert_eq!(reason(world.of(&other, "oauth2/owner")), "REAUTHORIZATION_REQUIRED");
    world.broker.restart();
    let step = world.broker.become_step(step.opened);
    assert_eq!(reason(world.of(&step, "oauth2/owner")), "REAUTHORIZATION_REQUIRED");
    let tested = world.test("oauth2/owner");
    assert_eq!(tested.mint_failure, "REAUTHORIZATION_REQUIRED");
    assert!(tested.findings.last().unwrap().description.contains("invalid_grant"));
    world.update("oauth2/owner", &[("refresh_token", &burnt)]).unwrap();
    assert_eq!(reason(world.of(&step, "oauth2/owner")), "REAUTHORIZATION_REQUIRED");
    assert_eq!(world.asked(), asked);
    let state = world.broker.get_connection("oauth2/owner").unwrap().refresh_token.unwrap();
    assert!(state.reauthorization_required.contains("invalid_grant"), "{state:?}");
    let listed = pb::ListConnectionsRequest {
        filter: "reauthorize = true".to_owned(),
        ..Default::default()
    };
    let mut client = ConnectionServiceClient::new(world.broker.operator());
    let listed = world.broker.block_on(client.list_connections(listed)).unwrap().into_inner();
    let listed: Vec<_> = listed.connections.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(listed, ["connections/oauth2/owner"]);
    world.update("oauth2/owner", &[("refresh_token", &world.seed())]).unwrap();
    assert!(world.is_active(&world.of(&step, "oauth2/owner").unwrap()));
}

#[test]
fn a_deleted_connection_forgets_its_newest_token() {
    let Some(world) = World::start() else { return };
    let records = || {
        let mut client =
            pb::system_service_client::SystemServiceClient::new(world.broker.operator());
        let listed = world.broker.block_on(client.list_keys(pb::ListKeysRequest {})).unwrap();
        listed.into_inner().deks.iter().map(|dek| dek.records).sum::<i64>()
    };
    let before = records();
    world.token("w", "s1");
    assert_eq!(records(), before + 1);
    world.broker.delete_connection(NAME).unwrap();
    assert_eq!(records(), before - 2);
    world.create(NAME, &world.seed());
    assert!(world.is_active(&world.token("w", "s2")));
    assert_eq!(world.generation(NAME), 1);
}

#[test]
fn an_answer_comes_too_late_for_a_token_that_was_written() {
    let Some(world) = World::start() else { return };
    let seed = world.seed();
    world.update(NAME, &[("refresh_token", &seed)]).unwrap();
    world.tokens.get("/gate/after");
    let step = world.broker.open("w", "s");
    let pending = world.broker.spawn(resolve_on(step.channel, request(NAME)));
    wait_until("the answer is held", || world.tokens.get("/held") == "1");
    world.broker.advance(1);
    world.update(NAME, &[("refresh_token", "another")]).unwrap();
    world.update(NAME, &[("refresh_token", &seed)]).unwrap();
    world.tokens.get("/gate/open");
    let _ = world.broker.block_on(pending);
    // The successor belongs to the value that stood there before, even if the two are equal.
    assert_eq!(world.generation(NAME), 0);
}

#[test]
fn a_damaged_file_of_a_refresh_token_is_set_aside() {
    let Some(world) = World::start() else { return };
    let uid = world.broker.get_connection(NAME).unwrap().uid;
    let file = world.broker.config.state.join(format!("refresh-token-{uid}.sealed"));
    for damaged in ["", "no refresh token", &"x".repeat(400)] {
        std::fs::write(&file, damaged).unwrap();
        assert_eq!(world.test(NAME).mint_failure, "");
        assert!(!file.exists(), "{damaged}");
        let aside = std::fs::read_to_string(file.with_extension("set-aside")).unwrap();
        assert_eq!(aside, damaged, "an operator may look at it");
    }
    assert_eq!(world.generation(NAME), 3, "the store's own are used");
}
