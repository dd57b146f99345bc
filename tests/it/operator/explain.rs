//! A refusal reveals nothing to a step, and everything to an operator.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::explain_request::Question;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::harness::{TestBroker, reason};

fn dry_run(
    broker: &TestBroker,
    target: &str,
    run_as: &[&str],
) -> Result<pb::ExplainResponse, Status> {
    let dry_run = pb::DryRun {
        workflow: "deploy".to_owned(),
        step: "build".to_owned(),
        run_as: run_as.iter().map(|one| (*one).to_owned()).collect(),
        target: target.to_owned(),
        fields: vec![],
        use_only: false,
    };
    broker.explain(Question::DryRun(dry_run))
}

fn would_allow(told: &pb::ExplainResponse) -> Vec<&str> {
    let resource = told.resources.iter().find(|one| !one.allowed).unwrap();
    resource.would_allow.iter().map(String::as_str).collect()
}

#[test]
fn the_decision_id_of_a_refusal_leads_to_the_full_story() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:other", "workflow:deploy/step:test"]);
    let step = broker.open("deploy", "build");
    let refused = broker.resolve(&step, "aws/prod").unwrap_err();
    let details = refused.get_error_details();
    let id = details.error_info().unwrap().metadata["decision_id"].clone();
    broker.restart();
    let told = broker.explain(Question::DecisionId(id.clone())).unwrap();
    let past = told.past.as_ref().unwrap();
    assert_eq!(past.outcome, "RESOLVE_DENIED");
    assert!(past.decision_id.starts_with("1.") && past.decision_id != id, "{}", past.decision_id);
    assert_eq!(told.principal, "workflow:deploy/run:1/step:build");
    assert_eq!((told.target.as_str(), told.outcome.as_str()), ("aws/prod", "RESOLVE_DENIED"));
    let principals: Vec<_> = told.resources[0]
        .principals
        .iter()
        .map(|one| (one.principal.as_str(), one.enough, one.admits))
        .collect();
    assert_eq!(
        principals,
        [
            ("workflow:other", true, false),
            ("workflow:deploy/step:test", true, false),
            ("operator:admin", true, false),
        ]
    );
    assert_eq!(would_allow(&told), ["workflow:deploy/step:build", "workflow:deploy"]);
    for (id, expected) in [
        ("1.9999", "DECISION_NOT_FOUND"),
        ("9.1", "DECISION_NOT_FOUND"),
        // This line is no decision.
        ("1.1", "DECISION_NOT_FOUND"),
        ("nonsense", "DECISION_INVALID"),
        ("../1.1", "DECISION_INVALID"),
    ] {
        assert_eq!(reason(broker.explain(Question::DecisionId(id.to_owned()))), expected, "{id}");
    }
}

#[test]
fn a_dry_run_says_what_would_be_decided_and_writes_nothing() {
    let broker = TestBroker::start();
    broker.create_aws("ours", "s", &["workflow:deploy"]);
    broker.create_aws("teams", "s", &["workflow:deploy", "team:ops"]);
    let lines = broker.journal().len();
    let told = dry_run(&broker, "aws/ours", &[]).unwrap();
    assert_eq!(
        (told.outcome.as_str(), told.allowed_by.as_str()),
        ("ALLOWED", "resolver workflow:deploy")
    );
    let told = dry_run(&broker, "aws/ours", &["team:ops"]).unwrap();
    assert_eq!(would_allow(&told), ["team:ops"]);
    // The workflow is bound, but a run-as principal is missing.
    let told = dry_run(&broker, "aws/teams", &[]).unwrap();
    assert_eq!(told.outcome, "RESOLVE_DENIED");
    assert!(would_allow(&told).is_empty());
    let told = dry_run(&broker, "aws/nothere", &[]).unwrap();
    assert!(!told.resources[0].exists);
    assert_eq!(dry_run(&broker, "secret:x", &[]).unwrap().outcome, "SECRET_NOT_FOUND");
    assert_eq!(dry_run(&broker, "default:aws", &[]).unwrap().outcome, "RESOLVE_DENIED");
    assert_eq!(reason(dry_run(&broker, "nonsense", &[])), "TARGET_INVALID");
    assert_eq!(broker.journal().len(), lines);
}

#[test]
fn explain_lists_a_groups_nearest_members_and_differences() {
    use pb::apply_request::Document;
    let broker = TestBroker::start();
    let mut documents = vec![Document::Group(pb::GroupDocument {
        name: "g".to_owned(),
        integration: "slack".to_owned(),
        identifiers: vec!["env".to_owned(), "region".to_owned()],
        members: Some(pb::GroupMembers { names: (0..9).map(|n| format!("c{n}")).collect() }),
        access: vec![pb::AccessBinding {
            relation: pb::Relation::Viewer.into(),
            principals: vec!["workflow:deploy".to_owned()],
        }],
        ..Default::default()
    })];
    for n in 0..9 {
        documents.push(Document::Connection(pb::ConnectionDocument {
            name: format!("c{n}"),
            integration: "slack".to_owned(),
            fields: crate::harness::bytes(&[("api_token", "t")]),
            tags: vec![
                format!("env:{}", ["prod", "dev", "test"][n / 3]),
                format!("region:{}", n % 3),
            ],
            access: crate::harness::resolver(&["workflow:deploy"]),
            ..Default::default()
        }));
    }
    broker.apply(documents).unwrap();
    let told = dry_run(&broker, "group:g:env=prod,region=9", &[]).unwrap();
    assert_eq!(told.outcome, "GROUP_MEMBER_NOT_FOUND");
    let near: Vec<_> =
        told.near_members.iter().map(|one| (one.name.as_str(), one.differences.len())).collect();
    assert_eq!(near.len(), 5);
    assert_eq!(
        near[..3],
        [("connections/slack/c0", 1), ("connections/slack/c1", 1), ("connections/slack/c2", 1)]
    );
    let one = &told.near_members[0].differences[0];
    assert_eq!(
        (one.identifier.as_str(), one.asked.as_str(), one.value.as_str()),
        ("region", "9", "0")
    );
    let told = dry_run(&broker, "group:g:env=prod,region=1", &[]).unwrap();
    assert_eq!(
        (told.outcome.as_str(), told.connection.as_str()),
        ("ALLOWED", "connections/slack/c1")
    );
    let told = dry_run(&broker, "group:g:env=prod", &[]).unwrap();
    assert_eq!(told.outcome, "IDENTIFIERS_INCOMPLETE");
}
