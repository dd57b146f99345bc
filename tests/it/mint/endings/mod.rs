//! The endings of minted credentials: what nobody may use any more is ended upstream, whatever happens meanwhile.

mod bad_days;
mod crowds;
mod levers;
mod limits;
mod pending;
mod processes;
mod real;
mod stories;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use keyhatch::model::Limits;

use super::upstream::REVOKE;
use super::{ROOT, World};
use crate::harness::{TestStep, bytes, reason, request, resolver, wait_until};

impl World {
    /// With the connection oauth2/api, whose tokens can be revoked: each step has its own.
    pub fn of_revocable() -> Self {
        Self::of_revocable_with(Limits::default())
    }

    pub fn of_revocable_with(limits: Limits) -> Self {
        let world = Self::start_with(limits);
        let url = world.upstream.url(REVOKE);
        let fields = bytes(&[("revocation_url", url.as_str()), ("client_secret", ROOT)]);
        world.update(pb::Connection { fields, ..Default::default() });
        world
    }

    /// The endings that are not over.
    fn endings(&self) -> Vec<pb::Ending> {
        let mut client = SystemServiceClient::new(self.broker.operator());
        let listed = self.broker.block_on(client.list_endings(pb::ListEndingsRequest::default()));
        listed.unwrap().into_inner().endings
    }

    /// Waits until every token was ended.
    fn ended(&self, count: usize) {
        wait_until("the upstream has ended them", || self.count("ended_upstream") == count);
        assert_eq!(self.endings(), []);
    }
}

/// The reason for which an ending has begun.
fn causes(world: &World) -> Vec<String> {
    let lines = world.broker.journaled("ending").into_iter();
    lines.map(|line| line["reason"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_closed_step_has_its_credential_ended_before_the_reply() {
    let world = World::of_revocable();
    let step = world.broker.open("w", "s");
    let token = world.token(&step);
    let closed = world.broker.close(&step);
    assert_eq!(world.upstream.revoked(), [token]);
    assert_eq!((closed.revoked_leases, closed.pending_endings), (1, vec![]));
    assert_eq!((causes(&world), world.endings()), (vec!["step_closed".to_owned()], vec![]));
    assert_eq!(world.count("ended_upstream"), 1);
}

#[test]
fn the_credentials_of_two_steps_end_each_by_itself() {
    let world = World::of_revocable();
    let (one, two) = (world.broker.open("w", "one"), world.broker.open("w", "two"));
    let (first, second) = (world.token(&one), world.token(&two));
    assert_ne!(first, second);
    world.broker.close(&one);
    assert_eq!(world.upstream.revoked(), std::slice::from_ref(&first));
    assert_eq!(world.token(&two), second);
    world.broker.close(&two);
    assert_eq!(world.upstream.revoked(), [first, second]);
}

#[test]
fn a_closed_run_waits_once_for_all_its_credentials() {
    let world = World::of_revocable();
    let steps = ["a", "b", "c"].map(|name| world.broker.open("w", name));
    let mut tokens = steps.each_ref().map(|step| world.token(step));
    let request =
        pb::CloseRunRequest { workflow: "w".to_owned(), run: "1".to_owned(), ..Default::default() };
    let mut client = super::stories::executor_client(&world.broker);
    let closed = world.broker.block_on(client.close_run(request)).unwrap().into_inner();
    assert_eq!((closed.closed_steps, closed.pending_endings), (3, vec![]));
    let mut revoked = world.upstream.revoked();
    revoked.sort();
    tokens.sort();
    assert_eq!(revoked, tokens);
}

#[test]
fn a_lease_that_expires_or_is_given_back_ends_its_credential() {
    let world = World::of_revocable();
    let step = world.broker.open("w", "s");
    let short = pb::ResolveRequest {
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..request("oauth2/api")
    };
    let first = world.broker.resolve_with(&step, &short).unwrap();
    world.broker.advance(61);
    world.ended(1);
    let second = world.broker.resolve(&step, "oauth2/api").unwrap();
    assert_ne!(first.fields["access_token"], second.fields["access_token"]);
    let mut client = pb::step_service_client::StepServiceClient::new(step.channel);
    let request = pb::RevokeLeaseRequest { name: second.lease.name.clone() };
    world.broker.block_on(client.revoke_lease(request)).unwrap();
    // The reply came after the upstream's.
    let tokens = [first, second].map(|got| got.fields["access_token"].clone());
    assert_eq!(world.upstream.revoked(), tokens);
    assert_eq!(causes(&world), ["lease_ended", "lease_ended"]);
}

#[test]
fn a_credential_that_another_lease_is_on_is_not_ended() {
    let world = World::of_revocable();
    let step = world.broker.open("w", "s");
    let all = world.broker.resolve(&step, "oauth2/api").unwrap();
    let one = world.broker.resolve(&step, "oauth2/api#access_token").unwrap();
    assert_eq!(one.fields["access_token"], all.fields["access_token"]);
    let mut client = pb::step_service_client::StepServiceClient::new(step.channel);
    for (lease, ended) in [(all.lease, 0), (one.lease, 1)] {
        let request = pb::RevokeLeaseRequest { name: lease.name };
        world.broker.block_on(client.revoke_lease(request)).unwrap();
        assert_eq!(world.upstream.revoked().len(), ended);
    }
}

#[test]
fn removed_access_begins_the_ending_before_the_reply() {
    let world = World::of_revocable();
    let step = world.broker.open("w", "s");
    let token = world.token(&step);
    world.upstream.hold();
    let access = resolver(&["workflow:other"]);
    world.update(pb::Connection { access, ..Default::default() });
    // The upstream has not answered, and the operator need not wait for it.
    assert_eq!(causes(&world), ["lease_ended"]);
    assert_eq!(world.count("ended_upstream"), 0);
    assert_eq!(reason(world.broker.resolve(&step, "oauth2/api")), "RESOLVE_DENIED");
    world.upstream.release();
    world.ended(1);
    assert_eq!(world.upstream.revoked(), [token]);
}

/// The request that made the token and the one that ended it, if this happens in between.
fn meanwhile(cause: &str, happens: impl FnOnce(&World, &TestStep)) {
    let world = World::of_revocable();
    let step = world.broker.open("w", "s");
    let token = world.token(&step);
    happens(&world, &step);
    world.ended(1);
    assert_eq!(world.upstream.revoked(), [token]);
    assert_eq!(causes(&world), [cause]);
    let asked = world.upstream.asked();
    let client = |path| {
        let found = asked.iter().find(|request| request.path == path);
        found.unwrap().header("authorization").to_owned()
    };
    assert_eq!(client("/token"), client(REVOKE), "it was ended with the root that made it");
}

#[test]
fn a_deleted_connection_has_its_credentials_ended() {
    meanwhile("connection_deleted", |world, _| {
        world.broker.delete_connection("oauth2/api").unwrap();
        assert_eq!(world.upstream.revoked().len(), 1, "the reply waits for it");
    });
}

#[test]
fn a_changed_root_ends_what_the_old_one_has_made() {
    meanwhile("connection_changed", |world, step| {
        world.rotate("another root");
        assert_ne!(world.token(step), "minted-1");
    });
}

#[test]
fn a_disabled_connection_has_its_credentials_ended() {
    meanwhile("connection_changed", |world, _| {
        world.update(pb::Connection { disabled: true, ..Default::default() });
    });
}

#[test]
fn a_record_of_what_ends_a_credential_is_removed_after_it() {
    let world = World::of_revocable();
    let step = world.broker.open("w", "s");
    world.token(&step);
    let noted = |action: &str| {
        let lines = world.broker.journaled("intent").into_iter();
        let changes = lines.flat_map(|line| line["changes"].as_array().unwrap().clone());
        changes.filter(|change| change["action"] == action).count()
    };
    assert_eq!((noted("ending.keep"), noted("ending.forget")), (1, 0));
    world.broker.close(&step);
    wait_until("the record is removed", || noted("ending.forget") == 1);
}
