//! Tests of connections that have the upstream make a credential.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;

use super::upstream::status;
use super::{ROOT, World};
use crate::harness::wait_until;

impl World {
    fn try_mint(&self, reference: &str) -> pb::TestConnectionResponse {
        let name = format!("connections/{reference}");
        let request = pb::TestConnectionRequest { name, mint: true };
        let mut client = ConnectionServiceClient::new(self.broker.operator());
        self.broker.block_on(client.test_connection(request)).unwrap().into_inner()
    }
}

#[test]
fn a_test_tells_what_was_minted_and_no_value() {
    let world = World::start();
    let token = "minted-for-a-test-canary";
    world.upstream.answers(move |_| {
        let body =
            serde_json::json!({"access_token": token, "token_type": "Bearer", "expires_in": 60});
        status(200, &body.to_string())
    });
    let tested = world.try_mint("oauth2/api");
    assert!(tested.findings.is_empty() && tested.mint_failure.is_empty(), "{tested:?}");
    assert!(!format!("{tested:?}").contains(token));
    let minted = tested.minted.unwrap();
    assert_eq!(minted.fields, ["access_token", "client_id", "token_type", "token_url"]);
    assert_eq!(minted.handle.len(), 43, "the SHA-256 of the token");
    assert_eq!(minted.lifetime.unwrap().seconds, 60);
    let line = world.broker.journaled("tested").pop().unwrap();
    assert_eq!(
        (&line["mints"], &line["resource"]),
        (&true.into(), &"connections/oauth2/api".into())
    );
    // A step has a credential of its own.
    let step = world.broker.open("w", "s");
    world.token(&step);
    assert_eq!(world.upstream.calls(), 2);
}

#[test]
fn a_test_that_mints_nothing_gives_reason_and_next_step() {
    let world = World::start();
    for (answer, reason, word) in [
        (
            status(401, r#"{"error": "invalid_client", "error_description": "canary"}"#),
            "UPSTREAM_REFUSED",
            "invalid_client",
        ),
        (status(200, "<html>canary</html>"), "UPSTREAM_INVALID", "token endpoint"),
        (status(503, "canary"), "UPSTREAM_UNAVAILABLE", "HTTP 503"),
        (status(302, "canary"), "UPSTREAM_INVALID", "redirects"),
    ] {
        world.upstream.answers(move |_| answer.clone());
        let tested = world.try_mint("oauth2/api");
        assert_eq!(tested.mint_failure, reason);
        let last = tested.findings.last().unwrap();
        assert_eq!(last.severity(), pb::Severity::Error);
        assert!(last.description.contains(word), "{}", last.description);
        assert!(tested.minted.is_none() && !format!("{tested:?}").contains("canary"));
    }
    assert_eq!(world.upstream.calls(), 5, "only a failure of the upstream is repeated, once");
    world.broker.create_aws("key", ROOT, &[]);
    assert_eq!(world.try_mint("aws/key").mint_failure, "NOT_MINTABLE");
    world
        .broker
        .create_connection("aws/role", &[("account_id", "123456789012"), ("role", "r")], &[])
        .unwrap();
    let tested = world.try_mint("aws/role");
    assert_eq!(tested.mint_failure, "UPSTREAM_REFUSED");
    assert!(
        tested.findings.last().unwrap().description.contains("source_access_key_id is missing")
    );
}

#[test]
fn tests_that_mint_have_four_places_and_end_with_the_daemon() {
    let mut world = World::start();
    world.upstream.hold();
    let try_mint = |world: &World| {
        let mut client = ConnectionServiceClient::new(world.broker.operator());
        let name = "connections/oauth2/api".to_owned();
        let request = pb::TestConnectionRequest { name, mint: true };
        world.broker.spawn(async move { client.test_connection(request).await })
    };
    let _pending: Vec<_> = (0..4).map(|_| try_mint(&world)).collect();
    wait_until("all places are taken", || world.upstream.calls() == 4);
    assert_eq!(world.try_mint("oauth2/api").mint_failure, "OVERLOADED");
    assert_eq!(world.upstream.calls(), 4);
    world.broker.stop();
    world.upstream.release();
}
