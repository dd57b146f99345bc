//! Exchanges that end early: within a second, with a reason, upstream and in the journal.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::block_service_client::BlockServiceClient;
use keyhatch::grpc::pb::lease_service_client::LeaseServiceClient;
use tonic::{Status, Streaming};

use super::upstream::write;
use super::{World, begin, head};
use crate::harness::{bytes, reason, wait_until};

/// An exchange whose answer has begun and never ends.
fn endless(world: &World) -> Streaming<pb::SendResponse> {
    world.upstream.answers(|_, stream| {
        write(stream, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n");
    });
    world.broker.block_on(async {
        let ask = head("http/api", "GET", "/");
        let mut answer = begin(&world.step.channel, ask, &[]).await.unwrap();
        for _ in 0..2 {
            answer.message().await.unwrap().unwrap();
        }
        answer
    })
}

/// Why the exchange ends.
fn end(world: &World, mut answer: Streaming<pb::SendResponse>) -> Result<(), Status> {
    world.broker.block_on(async { answer.message().await.map(drop) })
}

#[test]
fn what_takes_access_away_ends_the_exchange() {
    let world = World::start();
    let limit = |methods: &[&str], paths: &[&str]| {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        let send = Some(pb::SendLimits { methods: owned(methods), paths: owned(paths) });
        world.update(pb::Connection { send, ..Default::default() }, &["send"]);
    };
    let changes: [(&str, &dyn Fn()); 7] = [
        // Limits that still admit the request end nothing.
        ("SEND_NOT_ALLOWED", &|| {
            limit(&["GET", "POST"], &[]);
            limit(&["POST"], &[]);
        }),
        ("SEND_NOT_ALLOWED", &|| limit(&["GET"], &["/elsewhere"])),
        ("CONNECTION_DISABLED", &|| {
            world.update(pb::Connection { disabled: true, ..Default::default() }, &["disabled"]);
        }),
        ("VERSION_SUPERSEDED", &|| {
            let fields = bytes(&[("tokens.key", "another-token")]);
            world.update(pb::Connection { fields, ..Default::default() }, &["fields.`tokens.key`"]);
        }),
        ("RESOLVE_DENIED", &|| {
            let access = super::user("workflow:other");
            world.update(pb::Connection { access, ..Default::default() }, &["access"]);
        }),
        ("RESOLVE_DENIED", &|| world.broker.delete_connection("http/api").unwrap()),
        ("STEP_NOT_OPEN", &|| drop(world.broker.close(&world.step))),
    ];
    for (ended, (expected, change)) in (1..).zip(changes) {
        let answer = endless(&world);
        change();
        assert_eq!(reason(end(&world, answer)), expected);
        // A closed step has no exchange: its close says so.
        if expected == "STEP_NOT_OPEN" {
            break;
        }
        wait_until("the end is journaled", || world.broker.journaled("sent").len() == ended);
        let last = world.broker.journaled("sent").pop().unwrap();
        assert_eq!((&last["fault"], &last["received_bytes"]), (&expected.into(), &5.into()));
        restore(&world, expected);
    }
}

/// Brings http/api back as it was.
fn restore(world: &World, after: &str) {
    match after {
        "CONNECTION_DISABLED" => {
            world.update(pb::Connection::default(), &["disabled"]);
        }
        // Wider limits are written with the credential.
        "SEND_NOT_ALLOWED" => {
            let fields = bytes(&[("tokens.key", super::TOKEN)]);
            let paths = ["send", "fields.`tokens.key`"];
            world.update(pb::Connection { fields, ..Default::default() }, &paths);
        }
        "RESOLVE_DENIED" if world.broker.get_connection("http/api").is_ok() => {
            let access = super::user("workflow:w");
            world.update(pb::Connection { access, ..Default::default() }, &["access"]);
        }
        "RESOLVE_DENIED" => {
            let base_url = format!("{}/v1", world.upstream.origin());
            let fields = [("base_url", base_url.as_str()), ("tokens.key", super::TOKEN)];
            world.create("http/api", "token", &fields);
        }
        _ => {}
    }
}

#[test]
fn what_an_operator_ends_ends_the_exchange() {
    let world = World::start();
    let reason_of = |answer| reason(end(&world, answer));
    let why = || "a step printed it".to_owned();
    let answer = endless(&world);
    let filter = pb::LeaseFilter { workflow: "w".to_owned(), ..Default::default() };
    let revoke =
        pb::RevokeLeasesRequest { filter: Some(filter), reason: why(), ..Default::default() };
    let mut leases = LeaseServiceClient::new(world.broker.operator());
    world.broker.block_on(leases.revoke_leases(revoke)).unwrap();
    assert_eq!(reason_of(answer), "RESOLVE_DENIED");
    let answer = endless(&world);
    let target = "connections/http/api".to_owned();
    let mut blocks = BlockServiceClient::new(world.broker.operator());
    let block = pb::BlockRequest { target, reason: why() };
    world.broker.block_on(blocks.block(block)).unwrap();
    assert_eq!(reason_of(answer), "RESOLVE_DENIED");
    assert_eq!(reason(world.get("/")), "RESOLVE_DENIED");
    wait_until("both ends are journaled", || world.broker.journaled("sent").len() == 2);
}

#[test]
fn a_step_that_goes_away_leaves_nothing_upstream() {
    let world = World::start();
    drop(endless(&world));
    wait_until("the end is journaled", || world.broker.journaled("sent").len() == 1);
    assert_eq!(world.broker.journaled("sent")[0]["fault"], "CANCELLED");
}

#[test]
fn an_exchange_that_a_restart_cuts_off_is_told() {
    let mut world = World::start();
    let answer = endless(&world);
    let lease = world.broker.journaled("send")[0]["lease"].clone();
    world.broker.restart();
    drop(answer);
    let ended = world.broker.journaled("sent");
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert_eq!(ended[0]["lease"], lease);
    assert!(["DRAINING", "INTERRUPTED"].contains(&ended[0]["fault"].as_str().unwrap()));
}

#[test]
fn a_step_has_so_many_exchanges_at_a_time() {
    let world = World::start();
    drop(fill(&world));
}

#[test]
fn a_thousand_exchanges_of_a_step_hold_up_no_other() {
    let mut world = World::start();
    world.broker.config.limits.step_request_burst = 10_000;
    world.broker.restart();
    world.step = world.broker.open("w", "many");
    world.broker.create_aws("prod", "hush", &["workflow:other"]);
    let other = world.broker.open("other", "s");
    let open = fill(&world);
    let more = world.broker.block_on(world.broker.connect_again(&world.step));
    for _ in 0..30 {
        world.broker.block_on(async {
            let sends = (0..32).map(|_| begin(&more, head("http/api", "GET", "/"), &[]));
            for refused in futures_util::future::join_all(sends).await {
                assert_eq!(reason(refused), "TOO_MANY_SENDS");
            }
        });
        assert_eq!(world.broker.resolve(&other, "aws/prod").unwrap().fields.len(), 2);
    }
    assert_eq!(world.broker.journaled("send").len(), 64, "a refused one is not decided");
    drop(open);
    world.upstream.says("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    wait_until("places are free", || world.get("/").is_ok());
}

/// As many exchanges as the step may have, none of which ends. A further one is refused.
pub(super) fn fill(world: &World) -> Vec<Streaming<pb::SendResponse>> {
    world.upstream.answers(|_, _| {});
    world.broker.block_on(async {
        let mut open = Vec::new();
        // A connection has 32 streams, and more of them are queued by the client.
        let mut channels = Vec::new();
        for _ in 0..3 {
            channels.push(world.broker.connect_again(&world.step).await);
        }
        for n in 0..64 {
            let ask = head("http/api", "GET", "/");
            open.push(begin(&channels[n / 30], ask, &[]).await.unwrap());
        }
        let refused = begin(&channels[2], head("http/api", "GET", "/"), &[]).await;
        assert_eq!(reason(refused), "TOO_MANY_SENDS");
        open
    })
}
