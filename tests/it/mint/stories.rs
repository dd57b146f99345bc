//! What operators are told of mints: by explain, by run show, and by the journal.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;

use super::World;
use super::upstream::{status, token};
use tonic::transport::Channel;

use crate::harness::{TestBroker, TestStep, open_request};

/// The service for executors.
pub fn executor_client(broker: &TestBroker) -> ExecutorServiceClient<Channel> {
    ExecutorServiceClient::new(broker.executor())
}

impl World {
    fn open_in(&self, run: &str, step: &str) -> TestStep {
        let request = pb::OpenStepRequest { run: run.to_owned(), ..open_request("w", step) };
        self.broker.become_step(self.broker.try_open(request).unwrap())
    }

    /// The credentials that a run has received.
    pub fn received(&self, run: &str) -> Vec<pb::ReceivedCredential> {
        let request = pb::GetRunRequest { workflow: "w".to_owned(), run: run.to_owned() };
        let mut client = executor_client(&self.broker);
        let told = self.broker.block_on(client.get_run(request)).unwrap().into_inner();
        told.steps.into_iter().flat_map(|step| step.received).collect()
    }

    /// The story of the mint behind a decision, or of a mint by its id.
    pub fn story(&self, id: &str) -> pb::MintStory {
        self.broker.explain_decision(id).unwrap().past.unwrap().mint.unwrap()
    }

    /// The ids of all decisions on Resolves.
    pub fn decisions(&self) -> Vec<String> {
        let lines = self.broker.journaled("resolve");
        lines.iter().map(|line| format!("1.{}", line["n"])).collect()
    }
}

#[test]
fn runs_that_share_a_mint_are_told_whose_it_was() {
    let world = World::start();
    let (one, other) = (world.open_in("1", "a"), world.open_in("2", "b"));
    assert_eq!(world.token(&one), world.token(&other));
    let [begun, joined] = &*world.decisions() else { panic!("two decisions") };
    let [first, second] = [begun, joined].map(|id| world.story(id));
    assert_eq!(first, second);
    assert_eq!((first.outcome.as_str(), first.source.as_str()), ("MINTED", "oauth2_client"));
    assert_eq!(&first.begun_for, begun);
    assert_eq!(first.begun_by, "workflow:w/run:1/step:a");
    // The id of a mint leads to the same story.
    assert_eq!(world.story(&first.mint), first);
    for run in ["1", "2"] {
        let received = world.received(run);
        let [credential] = &*received else { panic!("{received:?}") };
        let [mint] = &*credential.mints else { panic!("{credential:?}") };
        assert_eq!((&mint.mint, &mint.source), (&first.mint, &first.source));
        assert_eq!(mint.credential_expire_time, first.credential_expire_time);
        assert_eq!(credential.expire_time, first.credential_expire_time);
    }
}

#[test]
fn a_failed_mint_is_told_with_its_reason_and_nothing_received() {
    let world = World::start();
    let step = world.open_in("1", "a");
    world.upstream.answers(|_| status(401, "{\"error\": \"invalid_client\"}"));
    for _ in 0..2 {
        world.broker.resolve(&step, "oauth2/api").unwrap_err();
    }
    let [first, again] = &*world.decisions() else { panic!("two decisions") };
    let story = world.story(first);
    assert_eq!(story.outcome, "UPSTREAM_REFUSED");
    assert!(story.detail.contains("invalid_client"), "{}", story.detail);
    // The second was refused without a mint of its own.
    assert_eq!(world.story(again), story);
    assert_eq!(world.upstream.calls(), 1);
    assert_eq!(world.received("1"), []);
}

#[test]
fn a_mint_that_is_under_way_is_told_as_such() {
    let world = World::start();
    let (one, other) = (world.open_in("1", "a"), world.open_in("2", "b"));
    world.upstream.hold();
    let begun = world.resolve_slowly(&one, "oauth2/api", 1);
    let joined = world.resolve_slowly(&other, "oauth2/api", 1);
    crate::harness::wait_until("both have decisions", || world.count("resolve") == 2);
    let [first, second] = &*world.decisions() else { panic!("two decisions") };
    assert_eq!(world.story(first).outcome, "UNDER_WAY");
    assert_eq!(world.received("1"), []);
    world.upstream.answers(|n| token(n, 3600));
    world.upstream.release();
    for pending in [begun, joined] {
        world.end(pending).unwrap();
    }
    let told = world.story(second);
    assert_eq!((told.outcome.as_str(), &told.begun_for), ("MINTED", first));
    assert_eq!(world.count("minting"), 1);
    assert_eq!((world.received("1").len(), world.received("2").len()), (1, 1));
}
