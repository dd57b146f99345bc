//! Credentials that are not made yet, or whose endings have not begun, when nobody may use them any more.

use std::time::Duration;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use tonic::{Request, Response, Status};

use super::bad_days::close_within;
use crate::harness::{TestStep, reason, wait_until};
use crate::mint::stories::executor_client;
use crate::mint::{Pending, World};

impl World {
    /// A step whose first token is being made. The upstream does not answer yet.
    fn minting(&self) -> (TestStep, Pending) {
        let step = self.broker.open("w", "s");
        self.upstream.hold();
        let pending = self.resolve_slowly(&step, "oauth2/api", 1);
        wait_until("its line is written", || self.count("minting") == 1);
        (step, pending)
    }

    /// The reply to a request that waits while the upstream does not answer.
    fn waits<T: Send + 'static>(
        &self,
        line: &str,
        request: impl Future<Output = Result<Response<T>, Status>> + Send + 'static,
    ) -> T {
        let reply = self.broker.spawn(request);
        wait_until("it is done", || self.count(line) > 0);
        self.upstream.release();
        let reply = self.broker.block_on(reply).unwrap().unwrap().into_inner();
        assert_eq!(self.upstream.revoked(), ["minted-1"], "the reply waits for it");
        reply
    }
}

#[test]
fn a_step_closed_while_it_mints_tells_of_the_credential() {
    let world = World::of_revocable();
    let (step, pending) = world.minting();
    let closed = close_within(&world, &step, Duration::from_secs(1));
    let [told] = &*closed.pending_endings else { panic!("{closed:?}") };
    assert_eq!((&*told.connection, &*told.handle), ("connections/oauth2/api", ""));
    assert_eq!(told.step, "workflow:w/run:1/step:s");
    world.upstream.release();
    assert_eq!(reason(world.end(pending)), "STEP_NOT_OPEN");
    world.ended(1);
    assert_eq!(world.upstream.revoked(), ["minted-1"]);
}

#[test]
fn a_closing_waits_for_a_mint_that_is_under_way() {
    let world = World::of_revocable();
    let (step, _pending) = world.minting();
    let name = step.opened.name;
    let mut client = executor_client(&world.broker);
    let request = pb::CloseStepRequest { name, ..Default::default() };
    let closed = world.waits("closed", async move { client.close_step(request).await });
    assert_eq!(closed.pending_endings, []);
}

#[test]
fn a_closed_run_waits_for_its_mints_too() {
    let world = World::of_revocable();
    let (_step, _pending) = world.minting();
    let request =
        pb::CloseRunRequest { workflow: "w".to_owned(), run: "1".to_owned(), ..Default::default() };
    let mut client = executor_client(&world.broker);
    let closed = world.waits("closed", async move { client.close_run(request).await });
    assert_eq!(closed.pending_endings, []);
}

#[test]
fn a_deletion_waits_for_a_mint_that_is_under_way() {
    let world = World::of_revocable();
    let (_step, _pending) = world.minting();
    let mut client = ConnectionServiceClient::new(world.broker.operator());
    let name = "connections/oauth2/api".to_owned();
    let request = pb::DeleteConnectionRequest { name, force: true, ..Default::default() };
    let begun = world.count("head");
    assert!(begun > 0);
    let reply = world.broker.spawn(async move { client.delete_connection(request).await });
    wait_until("it is deleted", || world.count("head") > begun);
    world.upstream.release();
    world.broker.block_on(reply).unwrap().unwrap();
    assert_eq!(world.upstream.revoked(), ["minted-1"], "the reply waits for it");
}

#[test]
fn a_mint_that_others_share_holds_up_no_closing() {
    // Without a revocation_url, all steps of the workflow share what is made.
    let world = World::start();
    let (step, pending) = world.minting();
    assert_eq!(world.broker.close(&step).pending_endings, []);
    assert_eq!(reason(world.end(pending)), "STEP_NOT_OPEN");
    world.upstream.release();
}

#[test]
fn a_mint_that_makes_nothing_is_not_pending() {
    let world = World::of_revocable();
    let (step, _pending) = world.minting();
    world.upstream.answers(|_| crate::mint::upstream::status(401, "{}"));
    let name = step.opened.name;
    let mut client = executor_client(&world.broker);
    let mut request = Request::new(pb::CloseStepRequest { name, ..Default::default() });
    request.set_timeout(Duration::from_secs(30));
    let reply = world.broker.spawn(async move { client.close_step(request).await });
    wait_until("it is closed", || world.count("closed") == 1);
    world.upstream.release();
    let closed = world.broker.block_on(reply).unwrap().unwrap().into_inner();
    assert_eq!((closed.pending_endings, world.count("ending")), (vec![], 0));
}
