//! A Watch of a minted connection delivers the next credential before the last one ends.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::model::Limits;
use tonic::{Status, Streaming};

use super::upstream::{status, token};
use super::{ROOT, World};
use crate::harness::{TestStep, bytes, reason, request, wait_until};

struct Watching<'a> {
    world: &'a World,
    stream: Streaming<pb::WatchResponse>,
}

impl World {
    fn watch(&self, step: &TestStep) -> Result<Watching<'_>, Status> {
        let request = pb::WatchRequest { request: Some(request("oauth2/api")) };
        let mut client = StepServiceClient::new(step.channel.clone());
        let stream = self.broker.block_on(client.watch(request))?.into_inner();
        Ok(Watching { world: self, stream })
    }

    /// A step whose Watch has delivered the first credential.
    fn watch_the_first(&self) -> (TestStep, Watching<'_>) {
        let step = self.broker.open("w", "s");
        let mut watching = self.watch(&step).ok().unwrap();
        assert_eq!(watching.token(), "minted-1");
        (step, watching)
    }

    /// Any change makes each Watch look at the clock.
    fn nudge(&self, n: u64) {
        self.broker.create_aws(&format!("other-{n}"), "x", &[]);
    }

    /// Moves the clock, and makes each Watch look at it.
    fn pass(&self, seconds: u64) {
        self.broker.advance(seconds);
        let now = self.broker.clock.now().millis();
        self.nudge(now.unsigned_abs());
    }

    /// How many deliveries were decided.
    fn deliveries(&self) -> usize {
        let lines = self.broker.journaled("resolve");
        lines.iter().filter(|line| line["watch"] == true && line["decision"] == "allow").count()
    }
}

impl Watching<'_> {
    fn next(&mut self) -> Result<pb::ResolveResponse, Status> {
        let next = self.world.broker.block_on(self.stream.message());
        next.map(|delivery| delivery.unwrap().credential.unwrap())
    }

    fn token(&mut self) -> String {
        String::from_utf8(self.next().ok().unwrap().fields["access_token"].clone()).unwrap()
    }

    fn end(&mut self) -> String {
        reason(self.next().map(|credential| credential.version))
    }
}

#[test]
fn the_next_credential_is_delivered_before_the_last_one_ends() {
    let world = World::start();
    let (step, mut watching) = world.watch_the_first();
    for n in 2..5 {
        world.pass(2401);
        assert_eq!(watching.token(), format!("minted-{n}"));
    }
    // One lease is left: each delivery has ended the one before.
    assert_eq!(world.deliveries(), 4);
    assert_eq!(world.broker.close(&step).revoked_leases, 1);
}

#[test]
fn a_replaced_token_is_not_revoked_in_the_middle_of_its_use() {
    let world = World::of_revocable();
    let (step, mut watching) = world.watch_the_first();
    world.pass(2401);
    assert_eq!(watching.token(), "minted-2");
    world.pass(1);
    assert_eq!((world.deliveries(), world.count("ending")), (2, 0));
    let closed = world.broker.close(&step);
    assert_eq!((closed.revoked_leases, closed.pending_endings), (2, vec![]));
    let mut revoked = world.upstream.revoked();
    revoked.sort();
    assert_eq!(revoked, ["minted-1", "minted-2"]);
}

#[test]
fn a_replaced_token_ends_with_its_own_lease() {
    let world = World::of_revocable();
    let (step, mut watching) = world.watch_the_first();
    let mut last = "minted-1".to_owned();
    for expired in 0..3 {
        world.pass(2401);
        assert_ne!(std::mem::replace(&mut last, watching.token()), last);
        // The lease before the last has expired with its token, and two are left.
        wait_until("it ends", || world.count("ending") == expired);
    }
    assert_eq!(world.broker.close(&step).revoked_leases, 2);
}

#[test]
fn a_replaced_token_gives_way_at_the_lease_limit() {
    let limits = Limits { step_live_leases: 1, ..Limits::default() };
    let world = World::of_revocable_with(limits);
    let (step, mut watching) = world.watch_the_first();
    world.pass(2401);
    assert_eq!(watching.token(), "minted-2");
    wait_until("the first is revoked", || world.upstream.revoked() == ["minted-1"]);
    assert_eq!(world.broker.close(&step).revoked_leases, 1);
}

#[test]
fn a_failing_upstream_takes_no_credential_away() {
    let world = World::start();
    let (_step, mut watching) = world.watch_the_first();
    world.upstream.answers(|_| status(503, "{}"));
    world.pass(2401);
    wait_until("it has failed", || world.count("mint_failed") == 1);
    world.pass(2);
    wait_until("it has failed again", || world.count("mint_failed") == 2);
    assert_eq!(world.deliveries(), 1);
    world.upstream.answers(|n| token(n, 3600));
    world.pass(10);
    assert_eq!(watching.token(), format!("minted-{}", world.upstream.calls()));
    assert_eq!(world.deliveries(), 2);
}

#[test]
fn without_a_next_credential_it_ends_with_the_last() {
    let world = World::start();
    let (_step, mut watching) = world.watch_the_first();
    world.upstream.answers(|_| status(503, "{}"));
    world.pass(2401);
    wait_until("it has failed", || world.count("mint_failed") == 1);
    world.pass(1200);
    assert_eq!(watching.end(), "UPSTREAM_UNAVAILABLE");
}

#[test]
fn a_first_credential_that_cannot_be_minted_refuses_the_watch() {
    let world = World::start();
    let step = world.broker.open("w", "s");
    world.upstream.answers(|_| status(401, "{\"error\": \"invalid_client\"}"));
    let refused = world.watch(&step).err().unwrap();
    assert_eq!(reason(Err::<(), _>(refused)), "UPSTREAM_REFUSED");
    assert_eq!(world.broker.close(&step).revoked_leases, 0);
}

/// A Watch whose first credential is being minted while this happens.
fn meanwhile(world: &World, happens: impl FnOnce()) -> Streaming<pb::WatchResponse> {
    let step = world.broker.open("w", "s");
    world.upstream.hold();
    let watch = pb::WatchRequest { request: Some(request("oauth2/api")) };
    let mut client = StepServiceClient::new(step.channel);
    let pending = world.broker.spawn(async move { client.watch(watch).await });
    wait_until("the upstream is asked", || world.upstream.calls() == 1);
    happens();
    world.upstream.release();
    world.broker.block_on(pending).unwrap().ok().unwrap().into_inner()
}

#[test]
fn a_change_while_it_waits_is_delivered_once() {
    let world = World::start();
    let stream = meanwhile(&world, || world.rotate("second"));
    let mut watching = Watching { world: &world, stream };
    let first = watching.next().ok().unwrap();
    assert_eq!((first.version, &*first.fields["access_token"]), (2, b"minted-2".as_slice()));
    world.nudge(1);
    world.rotate("third");
    let second = watching.next().ok().unwrap();
    assert_eq!((second.version, &*second.fields["access_token"]), (3, b"minted-3".as_slice()));
}

#[test]
fn a_connection_made_stored_while_it_waits_is_delivered_once() {
    let world = World::start();
    let stream = meanwhile(&world, || {
        world.update(pb::Connection {
            release: pb::Release::Stored.into(),
            fields: bytes(&[("client_secret", ROOT)]),
            ..Default::default()
        });
    });
    let mut watching = Watching { world: &world, stream };
    let first = watching.next().ok().unwrap();
    assert_eq!((first.version, &*first.fields["client_secret"]), (2, ROOT.as_bytes()));
    world.nudge(1);
    world.rotate("third");
    let second = watching.next().ok().unwrap();
    assert_eq!((second.version, &*second.fields["client_secret"]), (3, b"third".as_slice()));
}

#[test]
fn access_removed_while_it_waits_ends_it() {
    let world = World::start();
    let (_step, mut watching) = world.watch_the_first();
    world.upstream.hold();
    world.pass(2401);
    wait_until("the upstream is asked", || world.upstream.calls() == 2);
    let access = crate::harness::resolver(&["workflow:other"]);
    world.update(pb::Connection { access, ..Default::default() });
    assert_eq!(watching.end(), "RESOLVE_DENIED");
    world.upstream.release();
}

#[test]
fn another_root_keeps_the_credential_until_the_next_is_there() {
    let world = World::start();
    let (step, mut watching) = world.watch_the_first();
    world.upstream.answers(|_| status(503, "{}"));
    world.rotate("second");
    wait_until("it has failed", || world.count("mint_failed") > 0);
    world.upstream.answers(|n| token(n, 3600));
    world.pass(5);
    let next = watching.next().ok().unwrap();
    let token = format!("minted-{}", world.upstream.calls());
    assert_eq!((next.version, &*next.fields["access_token"]), (2, token.as_bytes()));
    assert_eq!(world.broker.close(&step).revoked_leases, 1);
}

#[test]
fn a_watch_at_the_lease_limit_gets_another_root() {
    let world = World::start_with(Limits { step_live_leases: 1, ..Limits::default() });
    let (step, mut watching) = world.watch_the_first();
    for n in 2..4 {
        world.rotate(&format!("root-{n}"));
        assert_eq!(watching.token(), format!("minted-{n}"));
    }
    assert_eq!(reason(world.broker.resolve(&step, "oauth2/api")), "TOO_MANY_LEASES");
    assert_eq!(world.broker.close(&step).revoked_leases, 1);
}
