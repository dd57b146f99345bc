//! A user may have the broker act with a connection, and gets no value of it.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::explain_request::Question;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::harness::{
    TestBroker, TestStep, bound, bytes, connection_document, reason, request, resolver, wait_until,
};

const RELATIONS: [Option<pb::Relation>; 5] = [
    None,
    Some(pb::Relation::Viewer),
    Some(pb::Relation::User),
    Some(pb::Relation::Resolver),
    Some(pb::Relation::Editor),
];

/// An integration for each relation, so that each has a default. Each has the field `api_token`.
const INTEGRATIONS: [&str; 5] = ["openai", "anthropic", "circleci", "slack", "cloudflare"];

fn bind(relation: Option<pb::Relation>) -> Vec<pb::AccessBinding> {
    relation.map(|relation| bound(relation, &["workflow:deploy"])).into_iter().collect()
}

/// A connection for each relation, each a default and the member of a group.
fn seed(broker: &TestBroker) {
    use pb::apply_request::Document;
    let seeds = RELATIONS.into_iter().zip(INTEGRATIONS).flat_map(|(relation, integration)| {
        let connection = pb::ConnectionDocument {
            integration: integration.to_owned(),
            name: "it".to_owned(),
            fields: bytes(&[("api_token", "s3cret")]),
            tags: vec!["env:prod".to_owned()],
            access: bind(relation),
            default: Some(true),
            ..Default::default()
        };
        let group = pb::GroupDocument {
            name: integration.to_owned(),
            integration: integration.to_owned(),
            identifiers: vec!["env".to_owned()],
            members: Some(pb::GroupMembers { names: vec!["it".to_owned()] }),
            access: bind(Some(pb::Relation::Viewer)),
            ..Default::default()
        };
        [Document::Connection(connection), Document::Group(group)]
    });
    broker.apply(seeds.collect()).unwrap();
}

/// The outcomes of Resolve, BatchResolve and Watch: whether a value came, or the reason.
fn asked(broker: &TestBroker, step: &TestStep, reference: &str) -> [Result<(), String>; 3] {
    let mut client = StepServiceClient::new(step.channel.clone());
    let told = |outcome: Result<pb::ResolveResponse, Status>| match outcome {
        Ok(response) => {
            assert!(response.fields.into_values().all(|value| *value == b"s3cret"[..]));
            Ok(())
        }
        Err(status) => Err(reason(Err::<(), _>(status))),
    };
    broker.block_on(async {
        let resolved = client.resolve(request(reference)).await.map(tonic::Response::into_inner);
        let batch = pb::BatchResolveRequest { requests: vec![request(reference)] };
        let batch = client.batch_resolve(batch).await.unwrap().into_inner().results;
        let in_batch = match batch.into_iter().next().unwrap().result.unwrap() {
            pb::batch_resolve_result::Result::Response(response) => told(Ok(response)),
            pb::batch_resolve_result::Result::Error(error) => Err(error.reason),
        };
        let watch = pb::WatchRequest { request: Some(request(reference)) };
        let delivered = match client.watch(watch).await {
            Ok(stream) => {
                let first = stream.into_inner().message().await;
                first.map(|delivery| delivery.unwrap().credential.unwrap())
            }
            Err(status) => Err(status),
        };
        [told(resolved), in_batch, told(delivered)]
    })
}

/// What the broker would decide, if it is to act with the connection or to hand it out.
fn explained(broker: &TestBroker, target: &str, use_only: bool) -> pb::ExplainResponse {
    let dry_run = pb::DryRun {
        workflow: "deploy".to_owned(),
        step: "build".to_owned(),
        target: target.to_owned(),
        use_only,
        ..Default::default()
    };
    broker.explain(Question::DryRun(dry_run)).unwrap()
}

#[test]
fn a_user_gets_no_value() {
    let mut broker = TestBroker::start();
    seed(&broker);
    for is_restarted in [false, true] {
        if is_restarted {
            broker.restart();
        }
        let step = broker.open("deploy", if is_restarted { "again" } else { "build" });
        for (place, integration) in INTEGRATIONS.into_iter().enumerate() {
            let (is_user, is_resolver) = (place >= 2, place >= 3);
            let targets = [
                format!("{integration}/it"),
                format!("default:{integration}"),
                format!("group:{integration}:env=prod"),
            ];
            for target in targets {
                let denied = "RESOLVE_DENIED".to_owned();
                let expected = if is_resolver { Ok(()) } else { Err(denied) };
                let outcomes = asked(&broker, &step, &target);
                assert_eq!(outcomes, [(); 3].map(|()| expected.clone()), "{target}");
                for (use_only, is_allowed) in [(false, is_resolver), (true, is_user)] {
                    let outcome = explained(&broker, &target, use_only).outcome;
                    let expected = if is_allowed { "ALLOWED" } else { "RESOLVE_DENIED" };
                    assert_eq!(outcome, expected, "{target}, use only: {use_only}");
                }
            }
        }
    }
}

/// The whole status of a refusal, without the id of the decision.
fn words(status: &Status) -> (tonic::Code, String, usize, Vec<String>) {
    let info = status.get_error_details().error_info().cloned().unwrap();
    let id = &info.metadata["decision_id"];
    let keys = info.metadata.keys().cloned().collect();
    let message = [&info.reason, " ", &status.message().replace(id, "ID")].concat();
    (status.code(), message, status.details().len(), keys)
}

#[test]
fn a_refused_user_is_told_what_a_stranger_is_told() {
    let broker = TestBroker::start();
    seed(&broker);
    let step = broker.open("deploy", "build");
    let refused = |reference: &str| words(&broker.resolve(&step, reference).unwrap_err());
    let stranger = refused("aws/missing");
    assert!(stranger.1.starts_with("RESOLVE_DENIED"), "{stranger:?}");
    for reference in ["openai/it", "anthropic/it", "circleci/it", "circleci/it#nonsense"] {
        assert_eq!(refused(reference), stranger, "{reference}");
    }
    assert_eq!(refused("group:circleci:env=prod"), refused("group:openai:env=prod"));
}

#[test]
fn the_journal_and_explain_say_that_a_relation_was_too_low() {
    let broker = TestBroker::start();
    seed(&broker);
    let step = broker.open("deploy", "build");
    for (reference, by, held) in [
        ("openai/it", None, pb::Relation::Unspecified),
        ("anthropic/it", Some("viewer workflow:deploy"), pb::Relation::Viewer),
        ("circleci/it", Some("user workflow:deploy"), pb::Relation::User),
        ("group:circleci:env=prod", Some("user workflow:deploy"), pb::Relation::User),
    ] {
        let refused = broker.resolve(&step, reference).unwrap_err();
        let line = broker.journaled("resolve").pop().unwrap();
        assert_eq!((line["decision"].as_str(), line["by"].as_str()), (Some("refuse"), by));
        assert_eq!(line["uid"].is_string(), by.is_some(), "{reference}: {line}");
        let id = refused.get_error_details().error_info().unwrap().metadata["decision_id"].clone();
        let told = broker.explain_decision(&id).unwrap();
        assert_eq!(told.past.unwrap().refused_by, by.unwrap_or_default(), "{reference}");
        let connection = told.resources.last().unwrap();
        assert_eq!((connection.held(), connection.needed()), (held, pb::Relation::Resolver));
        let says_held = told.explanation.contains("and it needs resolver");
        assert_eq!(says_held, by.is_some(), "{}", told.explanation);
    }
    let told = explained(&broker, "anthropic/it", true);
    assert_eq!(told.resources[0].needed(), pb::Relation::User);
    assert_eq!(
        told.explanation,
        "its relation to connections/anthropic/it is viewer, and it needs user"
    );
}

#[test]
fn who_becomes_a_user_loses_leases_and_watches() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    broker.resolve(&step, "aws/prod").unwrap();
    let mut client = StepServiceClient::new(step.channel.clone());
    let watch = pb::WatchRequest { request: Some(request("aws/prod")) };
    let mut watched = broker.block_on(client.watch(watch)).unwrap().into_inner();
    broker.block_on(watched.message()).unwrap().unwrap();
    let lowered =
        [bound(pb::Relation::User, &["workflow:deploy"]), bound(pb::Relation::Resolver, &[])];
    broker.apply(vec![connection_document("aws/prod", &[], lowered.to_vec())]).unwrap();
    assert_eq!(reason(broker.resolve(&step, "aws/prod")), "RESOLVE_DENIED");
    assert_eq!(reason(broker.block_on(watched.message()).map(drop)), "RESOLVE_DENIED");
    let live = || {
        let mut client = SystemServiceClient::new(broker.operator());
        broker
            .block_on(client.get_status(pb::GetStatusRequest {}))
            .unwrap()
            .into_inner()
            .live_leases
    };
    wait_until("the leases have ended", || live() == 0);
    // A resolver may use, too, and stays one when it is also bound as a user.
    broker
        .apply(vec![connection_document("aws/prod", &[], resolver(&["workflow:deploy"]))])
        .unwrap();
    broker.resolve(&step, "aws/prod").unwrap();
    assert_eq!(explained(&broker, "aws/prod", true).allowed_by, "user workflow:deploy");
}

#[test]
fn access_suggest_lowers_and_raises_by_what_happened() {
    let broker = TestBroker::start();
    seed(&broker);
    let step = broker.open("deploy", "build");
    broker.resolve(&step, "circleci/it").unwrap_err();
    broker.resolve(&step, "slack/it").unwrap();
    let mut client = SystemServiceClient::new(broker.operator());
    let request = pb::SuggestAccessRequest { workflow: "deploy".to_owned(), since: None };
    let told = broker.block_on(client.suggest_access(request)).unwrap().into_inner();
    let of = |name: &str| {
        let found = told.suggestions.iter().find(|one| one.resource == name);
        found.map(|one| (one.advice(), one.needed()))
    };
    let (raise, keep) = (pb::AccessAdvice::Raise, pb::AccessAdvice::Keep);
    assert_eq!(of("connections/circleci/it"), Some((raise, pb::Relation::Resolver)));
    assert_eq!(of("connections/slack/it"), Some((keep, pb::Relation::Resolver)));
    // A viewer may not use it.
    assert_eq!(of("connections/anthropic/it"), None);
    let raised = told.suggestions.iter().find(|one| one.advice() == raise).unwrap();
    assert_eq!((raised.refusal_count, &*raised.refused_step), (1, "build"));
    let refused = broker.explain_decision(&raised.refusal_decision_id).unwrap();
    assert!(refused.principal.contains("build"), "{}", refused.principal);
    assert_eq!(refused.target, "circleci/it");
}
