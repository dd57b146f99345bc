//! Endings that are not over have a limit: an upstream that ends nothing makes nothing grow.

use std::time::Duration;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::model::limits::MAX_STEP_ENDINGS;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::harness::{Got, TestStep, reason, wait_until};
use crate::mint::World;
use crate::mint::upstream::status;

impl World {
    /// Its upstream makes tokens, and asks for patience before it revokes one.
    fn revokes_later(&self) {
        self.upstream.revokes(|_| {
            let mut late = status(429, "{}");
            late.1.push(("retry-after", "1000".to_owned()));
            late
        });
    }

    fn give_back(&self, step: &TestStep, got: &Got) {
        let mut client = StepServiceClient::new(step.channel.clone());
        let mut request = Request::new(pb::RevokeLeaseRequest { name: got.lease.name.clone() });
        request.set_timeout(Duration::from_secs(2));
        self.broker.block_on(client.revoke_lease(request)).unwrap();
    }

    /// The step asks and gives back, until this many endings of its are not over.
    fn pile_up(&self, step: &TestStep, count: usize) {
        while self.count("ending") < count {
            let got = self.broker.resolve(step, "oauth2/api").unwrap();
            self.give_back(step, &got);
        }
    }
}

#[test]
fn a_step_that_asks_again_and_again_comes_to_an_end() {
    let mut world = World::of_revocable();
    world.revokes_later();
    let step = world.broker.open("w", "s");
    world.pile_up(&step, MAX_STEP_ENDINGS);
    let begun = world.count("minting");
    let refused = world.broker.resolve(&step, "oauth2/api").unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "TOO_MANY_ENDINGS");
    assert!(details.retry_info().is_some());
    let text = refused.message();
    assert!(text.contains("oauth2/api") && text.contains("keyhatch ending list"), "{text}");
    // The lines tell it, the upstream was not asked, and nothing has grown but the lines of the refusal.
    let line = world.broker.journaled("mint_failed").pop().unwrap();
    assert_eq!(line["reason"], "TOO_MANY_ENDINGS");
    assert!(line["detail"].as_str().unwrap().contains("16 credentials"), "{line}");
    assert_eq!((world.count("minting"), world.endings().len()), (begun, MAX_STEP_ENDINGS));
    // Another step of the workflow is served.
    let other = world.broker.open("w", "other");
    world.token(&other);
    // A restart changes nothing.
    world.broker.restart();
    let step = world.broker.become_step(step.opened);
    assert_eq!(reason(world.broker.resolve(&step, "oauth2/api")), "TOO_MANY_ENDINGS");
    let is_late = |one: &pb::Ending| !one.failure_reason.is_empty();
    wait_until("the upstream is asked again", || world.endings().iter().any(is_late));
    // As soon as the upstream has ended them, the step is served again.
    world.upstream.revokes(|_| status(200, ""));
    world.broker.advance(1001);
    wait_until("they have ended", || world.endings().is_empty());
    wait_until("the step is served", || world.broker.resolve(&step, "oauth2/api").is_ok());
}

#[test]
fn a_token_that_is_made_is_handed_out_at_the_limit() {
    let world = World::of_revocable();
    world.revokes_later();
    let step = world.broker.open("w", "s");
    world.pile_up(&step, MAX_STEP_ENDINGS - 1);
    let before = world.broker.resolve(&step, "oauth2/api").unwrap();
    // It is time for the next, which is made in the background.
    world.broker.advance(2401);
    let begun = world.count("minted");
    let again = world.broker.resolve(&step, "oauth2/api").unwrap();
    assert_eq!(again.fields["access_token"], before.fields["access_token"]);
    wait_until("the next is made", || world.count("minted") == begun + 1);
    let next = world.broker.resolve(&step, "oauth2/api").unwrap();
    assert_ne!(next.fields["access_token"], before.fields["access_token"]);
    for lease in [&before, &again] {
        world.give_back(&step, lease);
    }
    assert_eq!(world.count("ending"), MAX_STEP_ENDINGS);
    assert_eq!(world.token(&step), next.fields["access_token"]);
    world.give_back(&step, &next);
    assert_eq!(reason(world.broker.resolve(&step, "oauth2/api")), "TOO_MANY_ENDINGS");
}
