//! Leases of all steps, listed and revoked by operators.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::lease_service_client::LeaseServiceClient;

use super::{WHY, leases, on, revoke, show, watch};
use crate::harness::{
    Steps, TestBroker, bound, connection, connection_document, keyhatch_in, open_request, reason,
    secret_document, text,
};

/// Two runs of workflow w and one step of workflow x, each with a lease on aws/prod.
fn three_holders(broker: &TestBroker) {
    broker.create_aws("prod", "s", &["workflow:*"]);
    broker.create_aws("other", "s", &["workflow:*"]);
    broker.apply(vec![secret_document("w", "token", "v")]).unwrap();
    for (workflow, run, step) in [("w", "1", "one"), ("w", "2", "two"), ("x", "1", "one")] {
        let request = pb::OpenStepRequest { run: run.to_owned(), ..open_request(workflow, step) };
        let step = broker.become_step(broker.try_open(request).unwrap());
        broker.resolve(&step, "aws/prod").unwrap();
        broker.resolve(&step, "aws/other").unwrap();
        if workflow == "w" {
            broker.resolve(&step, "secret:token").unwrap();
        }
    }
}

#[test]
fn operators_list_live_leases_by_every_filter() {
    let broker = TestBroker::start();
    three_holders(&broker);
    let field = |text: &str| text.to_owned();
    let none = pb::LeaseFilter::default;
    let filters = [
        (none(), 8),
        (on("aws/prod"), 3),
        (pb::LeaseFilter { workflow: field("w"), ..none() }, 6),
        (pb::LeaseFilter { run: field("1"), ..none() }, 5),
        (pb::LeaseFilter { step: field("one"), ..none() }, 5),
        (pb::LeaseFilter { workflow: field("w"), run: field("1"), ..on("aws/prod") }, 1),
        (pb::LeaseFilter { version: 1, ..on("aws/prod") }, 3),
        (pb::LeaseFilter { version: 2, ..on("aws/prod") }, 0),
        (pb::LeaseFilter { workflow: field("nobody"), ..none() }, 0),
    ];
    for (filter, expected) in filters {
        let found = leases(&broker, &filter);
        assert_eq!(found.len(), expected, "{filter:?}");
        assert!(found.is_sorted_by(|one, other| one.name < other.name), "{filter:?}");
    }
    let one = pb::LeaseFilter { run: field("2"), ..on("aws/prod") };
    let [lease] = &*leases(&broker, &one) else { panic!("one lease") };
    assert_eq!((lease.workflow.as_str(), lease.step.as_str()), ("w", "two"));
    assert_eq!((lease.resource.as_str(), lease.version), ("connections/aws/prod", 1));
    assert_eq!((lease.watch, lease.used, lease.target.as_str()), (false, false, ""));
    // A lease that is over is no live lease.
    broker.advance(24 * 3600);
    assert_eq!(leases(&broker, &none()), []);
}

#[test]
fn a_revoked_lease_ends_its_watch_and_shows_in_its_run() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    let (leaky, other) = (broker.open("w", "leaky"), broker.open("w", "other"));
    let (mut watching, mut unharmed) =
        (watch(&broker, &leaky, "aws/prod"), watch(&broker, &other, "aws/prod"));
    broker.resolve(&leaky, "aws/prod").unwrap();
    let filter = pb::LeaseFilter { step: "leaky".to_owned(), ..on("aws/prod") };
    let revoked = revoke(&broker, broker.operator(), filter.clone()).unwrap();
    assert_eq!((revoked.revoked_leases, revoked.pending_endings), (2, vec![]));
    assert_eq!(watching.end(), "LEASE_REVOKED");
    assert_eq!(leases(&broker, &filter), []);
    // The other step goes on, and a revocation forbids nothing.
    broker
        .apply(vec![connection_document("aws/prod", &[("secret_access_key", "t")], vec![])])
        .unwrap();
    assert_eq!(unharmed.version(), 2);
    broker.resolve(&leaky, "aws/prod").unwrap();
    let states = |broker: &TestBroker| -> Vec<_> {
        show(broker)[0].received.iter().map(|one| one.state()).collect()
    };
    use pb::LeaseState::{Live, Revoked};
    assert_eq!(states(&broker), [Revoked, Revoked, Live]);
    // Also after a restart, and after they would have expired.
    drop((watching, unharmed));
    broker.restart();
    assert_eq!(states(&broker), [Revoked, Revoked, Live]);
    broker.advance(5 * 3600);
    assert_eq!(states(&broker)[..2], [Revoked, Revoked]);
    let [line] = &*broker.journaled("leases_revoked") else { panic!("one line") };
    assert_eq!((&line["principal"], &line["reason"]), (&"operator:admin".into(), &WHY.into()));
    assert_eq!(line["revoked"][0]["step"], "workflow:w/run:1/step:leaky");
    assert_eq!(line["revoked"][0]["leases"].as_array().unwrap().len(), 2);
}

#[test]
fn who_may_not_revoke_a_lease_is_told_and_no_lease_ends() {
    let broker = TestBroker::start();
    three_holders(&broker);
    let edits = bound(pb::Relation::Editor, &["operator:works"]);
    broker.apply(vec![connection_document("aws/prod", &[], vec![edits])]).unwrap();
    let viewer = broker.enroll("looks", pb::Role::Viewer);
    let works = broker.enroll("works", pb::Role::Operator);
    let of_run = pb::LeaseFilter { run: "2".to_owned(), ..Default::default() };
    let refused = |channel, filter| reason(revoke(&broker, channel, filter));
    assert_eq!(refused(viewer, on("aws/prod")), "ROLE_REQUIRED");
    assert_eq!(refused(broker.executor(), on("aws/prod")), "ROLE_REQUIRED");
    // An editor of one of the connections ends no lease on the other.
    assert_eq!(refused(works.clone(), of_run), "EDIT_DENIED");
    assert_eq!(leases(&broker, &pb::LeaseFilter::default()).len(), 8);
    assert_eq!(revoke(&broker, works, on("aws/prod")).unwrap().revoked_leases, 3);
    let denied = broker.journaled("admin_refused");
    assert_eq!(denied.len(), 3);
    assert!(denied.iter().all(|line| line["method"] == "RevokeLeases"), "{denied:?}");
}

#[test]
fn leases_that_are_over_or_not_named_are_refused_clearly() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    let step = broker.open("w", "s");
    let lease = broker.resolve(&step, "aws/prod").unwrap().lease.name;
    let mut client = LeaseServiceClient::new(broker.operator());
    let mut revoke = |request: pb::RevokeLeasesRequest| {
        let reason = WHY.to_owned();
        let request = pb::RevokeLeasesRequest { reason, ..request };
        broker.block_on(client.revoke_leases(request)).map(tonic::Response::into_inner)
    };
    let named =
        |name: &str| pb::RevokeLeasesRequest { name: name.to_owned(), ..Default::default() };
    let trial = pb::RevokeLeasesRequest { validate_only: true, ..named(&lease) };
    assert_eq!(revoke(trial).unwrap().revoked_leases, 1);
    assert_eq!(revoke(named(&lease)).unwrap().revoked_leases, 1);
    let over = revoke(named(&lease));
    assert!(over.as_ref().unwrap_err().message().contains("keyhatch lease list"), "{over:?}");
    assert_eq!(reason(over), "LEASE_NOT_FOUND");
    assert_eq!(reason(revoke(named("leases/x"))), "NAME_INVALID");
    assert_eq!(reason(revoke(named(""))), "TARGET_INVALID");
    let of = |filter| pb::RevokeLeasesRequest { filter: Some(filter), ..Default::default() };
    assert_eq!(reason(revoke(of(pb::LeaseFilter::default()))), "TARGET_INVALID");
    let both = pb::RevokeLeasesRequest { filter: Some(on("aws/prod")), ..named(&lease) };
    assert_eq!(reason(revoke(both)), "TARGET_INVALID");
    let version = pb::LeaseFilter { version: 1, ..Default::default() };
    assert_eq!(reason(revoke(of(version))), "TARGET_INVALID");
    assert_eq!(reason(revoke(of(on("aws/none")))), "CONNECTION_NOT_FOUND");
    // Nothing to revoke is no error, and has no line.
    assert_eq!(revoke(of(on("aws/prod"))).unwrap().revoked_leases, 0);
    assert_eq!(broker.journaled("leases_revoked").len(), 1);
    let wordless = pb::RevokeLeasesRequest { filter: Some(on("aws/prod")), ..Default::default() };
    let refused =
        broker.block_on(LeaseServiceClient::new(broker.operator()).revoke_leases(wordless));
    assert_eq!(reason(refused), "NAME_INVALID");
}

#[test]
fn lease_list_and_revoke_say_what_they_do() {
    let steps = Steps::seeded(&connection("slack", "team", &[("api_token", "a-token")]));
    let opened =
        ["step", "open", "--workflow=w", "--run=1", "--step=s", "--mount-path=host", "-o=json"];
    let opened = steps.serving.run(&opened).stdout;
    let opened: serde_json::Value = serde_json::from_slice(&opened).unwrap();
    let directory = opened["directory"].as_str().unwrap();
    let mut get = keyhatch_in(steps.directory.path(), &["get", "slack/team"]);
    assert!(get.env("KEYHATCH_DIR", directory).output().unwrap().status.success());
    let listed = text(&steps.serving.run(&["lease", "list", "--connection", "slack/team"]).stdout);
    assert!(listed.contains("slack/team") && listed.contains("WORKFLOW"), "{listed}");
    let revoke = ["lease", "revoke", "--run", "1", "--reason", "a test"];
    let asked = steps.serving.run(&revoke);
    let stderr = text(&asked.stderr);
    assert!(stderr.contains("Revoke 1 lease(s)?") && stderr.contains("--yes"), "{stderr}");
    let revoked = steps.serving.run(&[&revoke[..], &["--yes"]].concat());
    assert_eq!(text(&revoked.stdout), "1 lease(s) revoked\n");
    let nothing = steps.serving.run(&["lease", "list"]);
    assert_eq!(text(&nothing.stdout), "no such lease is live\n");
    let nobody = steps.serving.run(&["lease", "revoke", "--reason", "a test"]);
    assert_eq!(nobody.status.code(), Some(2));
}
