//! What changes while an upstream is asked: access and the opening are decided again before anything is handed out.

use keyhatch::grpc::pb;

use super::{ROOT, World};
use crate::harness::{bytes, reason, resolver, wait_until};

/// The reason for which a Resolve fails if this happens while the upstream is asked. Nothing is handed out.
fn meanwhile(happens: impl FnOnce(&World)) -> String {
    let world = World::start();
    let step = world.broker.open("w", "s");
    world.upstream.hold();
    let pending = world.resolve_slowly(&step, "oauth2/api", 1);
    happens(&world);
    world.upstream.release();
    let reason = reason(world.end(pending));
    wait_until("the mint has ended", || world.count("minted") + world.count("mint_failed") > 0);
    assert_eq!(world.count("mint_joined"), 0, "{reason}");
    let lines = world.broker.journal();
    let live = lines.iter().filter(|line| line["decision"] == "allow").count();
    assert_eq!(live, 1, "nothing else was allowed: {reason}");
    assert_eq!(world.broker.close(&step).revoked_leases, 0, "{reason}");
    reason
}

#[test]
fn a_connection_deleted_meanwhile_hands_out_nothing() {
    let reason = meanwhile(|world| world.broker.delete_connection("oauth2/api").unwrap());
    assert_eq!(reason, "RESOLVE_DENIED");
}

#[test]
fn a_connection_disabled_meanwhile_hands_out_nothing() {
    let off = pb::Connection { disabled: true, ..Default::default() };
    assert_eq!(meanwhile(|world| world.update(off)), "CONNECTION_DISABLED");
}

#[test]
fn access_removed_meanwhile_hands_out_nothing() {
    let access = resolver(&["workflow:other"]);
    let moved = pb::Connection { access, ..Default::default() };
    assert_eq!(meanwhile(|world| world.update(moved)), "RESOLVE_DENIED");
}

#[test]
fn a_step_closed_meanwhile_gets_nothing() {
    let world = World::start();
    let step = world.broker.open("w", "s");
    world.upstream.hold();
    let pending = world.resolve_slowly(&step, "oauth2/api", 1);
    assert_eq!(world.broker.close(&step).revoked_leases, 1);
    world.upstream.release();
    let refused = reason(world.end(pending));
    assert!(["STEP_NOT_OPEN", "SVID_INVALID"].contains(&refused.as_str()), "{refused}");
    wait_until("the mint has ended", || world.count("minted") == 1);
    assert_eq!(world.count("mint_joined"), 0);
}

#[test]
fn another_root_meanwhile_is_asked_instead() {
    let world = World::start();
    let step = world.broker.open("w", "s");
    world.upstream.hold();
    let pending = world.resolve_slowly(&step, "oauth2/api", 1);
    world.rotate("another root");
    world.upstream.release();
    let got = world.end(pending).unwrap();
    assert_eq!((got.version, got.fields["access_token"].as_str()), (2, "minted-2"));
    let headers = world.upstream.asked();
    assert_ne!(headers[0].header("authorization"), headers[1].header("authorization"));
    // Nobody gets what the old root made.
    assert_eq!(world.token(&step), "minted-2");
}

#[test]
fn a_connection_made_stored_meanwhile_is_handed_out_as_stored() {
    let world = World::start();
    let step = world.broker.open("w", "s");
    world.upstream.hold();
    let pending = world.resolve_slowly(&step, "oauth2/api", 1);
    world.update(pb::Connection {
        release: pb::Release::Stored.into(),
        fields: bytes(&[("client_secret", ROOT)]),
        ..Default::default()
    });
    world.upstream.release();
    let got = world.end(pending).unwrap();
    assert_eq!(got.fields["client_secret"], ROOT);
    assert!(!got.fields.contains_key("access_token"));
}

#[test]
fn the_root_of_a_removed_step_is_not_opened() {
    let world = World::start();
    let (gone, stays) = (world.broker.open("w", "gone"), world.broker.open("w", "stays"));
    world.upstream.hold();
    // Sixteen mints of one connection are the most at a time; the next waits.
    let names: Vec<_> = (0..16).map(|n| format!("w{n}")).collect();
    let access: Vec<_> = names.iter().map(|name| format!("workflow:{name}")).collect();
    let access: Vec<_> = access.iter().map(String::as_str).chain(["workflow:w"]).collect();
    world.update(pb::Connection { access: resolver(&access), ..Default::default() });
    let steps: Vec<_> = names.iter().map(|name| world.broker.open(name, "s")).collect();
    let busy: Vec<_> = steps
        .iter()
        .enumerate()
        .map(|(n, step)| world.resolve_slowly(step, "oauth2/api", n + 1))
        .collect();
    let decided = world.count("resolve");
    let waits = world.broker.spawn(crate::harness::resolve_on(
        gone.channel.clone(),
        crate::harness::request("oauth2/api"),
    ));
    wait_until("it is decided", || world.count("resolve") == decided + 1);
    let joins = world
        .broker
        .spawn(crate::harness::resolve_on(stays.channel, crate::harness::request("oauth2/api")));
    wait_until("the other joins it", || world.count("resolve") == decided + 2);
    assert_eq!(world.upstream.calls(), 16);
    world.broker.close(&gone);
    world.upstream.release();
    for pending in busy {
        assert!(world.end(pending).is_ok());
    }
    assert!(world.end(waits).is_err());
    // The flight of the closed step never began. The step that had joined it asks for itself.
    assert!(world.end(joins).is_ok());
    let begun = world.broker.journaled("minting");
    assert!(begun.iter().all(|line| !line["principal"].as_str().unwrap().contains("gone")));
    assert_eq!(begun.len(), 17);
}
