//! Candidates for a group, and why they do not fit.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_request::Document;
use keyhatch::grpc::pb::group_service_client::GroupServiceClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::harness::{ServeProcess, TestBroker, bound, bytes, reason, temp_dir};

fn seeded() -> TestBroker {
    let broker = TestBroker::start();
    let connection = |integration: &str, name: &str, tags: &[&str]| {
        let field = if integration == "slack" { "api_token" } else { "token" };
        Document::Connection(pb::ConnectionDocument {
            integration: integration.to_owned(),
            name: name.to_owned(),
            fields: bytes(&[(field, "hush")]),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            access: vec![bound(pb::Relation::Resolver, &["operator:works"])],
            ..Default::default()
        })
    };
    let documents = vec![
        connection("generic", "prod", &["env:prod", "region:eu"]),
        connection("generic", "same", &["env:prod", "region:us"]),
        connection("generic", "dev", &["env:dev"]),
        connection("generic", "bare", &[]),
        connection("slack", "chat", &["env:test"]),
        Document::Group(pb::GroupDocument {
            name: "g".to_owned(),
            integration: "generic".to_owned(),
            identifiers: vec!["env".to_owned()],
            members: Some(pb::GroupMembers { names: vec!["prod".to_owned()] }),
            ..Default::default()
        }),
    ];
    broker.apply(documents).unwrap();
    broker
}

fn candidates(
    broker: &TestBroker,
    channel: Channel,
    wanted: pb::ListCandidatesRequest,
) -> Result<Vec<(String, Vec<String>)>, Status> {
    let mut client = GroupServiceClient::new(channel);
    let found = broker.block_on(client.list_candidates(wanted))?.into_inner();
    let problem = |one: &pb::CandidateProblem| {
        let reason = one.reason().as_str_name().trim_start_matches("CANDIDATE_REASON_");
        [reason, &one.identifier, &one.other].join(" ").trim().to_owned()
    };
    let told = |one: pb::Candidate| {
        let name = one.name.trim_start_matches("connections/").to_owned();
        (name, one.problems.iter().map(problem).collect())
    };
    Ok(found.candidates.into_iter().map(told).collect())
}

fn of_group() -> pb::ListCandidatesRequest {
    pb::ListCandidatesRequest { group: "groups/g".to_owned(), ..Default::default() }
}

fn told(expected: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let owned = |(name, reasons): &(&str, &[&str])| {
        ((*name).to_owned(), reasons.iter().map(|&reason| reason.to_owned()).collect())
    };
    expected.iter().map(owned).collect()
}

#[test]
fn each_connection_says_why_it_does_not_fit() {
    let broker = seeded();
    let works = broker.enroll("works", pb::Role::Operator);
    let others = broker.enroll("others", pb::Role::Operator);
    let same = "IDENTIFIERS_NOT_UNIQUE  connections/generic/prod";
    assert_eq!(
        candidates(&broker, works.clone(), of_group()).unwrap(),
        told(&[
            ("generic/bare", &["IDENTIFIER_MISSING env"]),
            ("generic/dev", &[]),
            ("generic/prod", &["MEMBER"]),
            ("generic/same", &[same]),
            ("slack/chat", &["INTEGRATION_MISMATCH"]),
        ])
    );
    // Who is no resolver of a connection cannot add it.
    let wanted = pb::ListCandidatesRequest {
        filter: "integration = generic AND name != prod".to_owned(),
        ..of_group()
    };
    assert_eq!(
        candidates(&broker, others, wanted).unwrap(),
        told(&[
            ("generic/bare", &["IDENTIFIER_MISSING env", "RESOLVER_REQUIRED"]),
            ("generic/dev", &["RESOLVER_REQUIRED"]),
            ("generic/same", &[same, "RESOLVER_REQUIRED"]),
        ])
    );
    let fitting = pb::ListCandidatesRequest { fitting_only: true, ..of_group() };
    assert_eq!(candidates(&broker, works, fitting).unwrap(), told(&[("generic/dev", &[])]));
}

#[test]
fn a_planned_group_has_candidates_and_is_created_with_them() {
    let broker = seeded();
    let planned = |identifiers: &[&str], members: &[&str]| pb::ListCandidatesRequest {
        integration: "generic".to_owned(),
        identifiers: identifiers.iter().map(|&key| key.to_owned()).collect(),
        members: members.iter().map(|one| format!("connections/generic/{one}")).collect(),
        filter: "integration = generic".to_owned(),
        ..Default::default()
    };
    let found = candidates(&broker, broker.operator(), planned(&["env"], &["same"])).unwrap();
    let same = "IDENTIFIERS_NOT_UNIQUE  connections/generic/same";
    assert_eq!(
        found,
        told(&[
            ("generic/bare", &["IDENTIFIER_MISSING env"]),
            ("generic/dev", &[]),
            ("generic/prod", &[same]),
            ("generic/same", &["MEMBER"]),
        ])
    );
    let both = candidates(&broker, broker.operator(), planned(&["env", "region"], &[])).unwrap();
    let fits: Vec<_> = both.iter().filter(|(_, reasons)| reasons.is_empty()).collect();
    assert_eq!(fits.len(), 2);
    // With other identifiers, the present members count by them.
    let regional = pb::ListCandidatesRequest {
        identifiers: vec!["env".to_owned(), "region".to_owned()],
        fitting_only: true,
        ..of_group()
    };
    let fits = candidates(&broker, broker.operator(), regional).unwrap();
    assert_eq!(fits, told(&[("generic/same", &[])]));
    let create = |members: &[&str]| {
        let group = pb::ConnectionGroup {
            name: "groups/new".to_owned(),
            integration: "generic".to_owned(),
            identifiers: vec!["env".to_owned()],
            ..Default::default()
        };
        let members = members.iter().map(|one| format!("connections/generic/{one}")).collect();
        let request = pb::CreateGroupRequest { group: Some(group), members, ..Default::default() };
        let mut client = GroupServiceClient::new(broker.operator());
        broker.block_on(client.create_group(request)).map(tonic::Response::into_inner)
    };
    // A group whose members do not fit is not created at all.
    assert_eq!(reason(create(&["same", "prod"])), "IDENTIFIERS_NOT_UNIQUE");
    assert_eq!(create(&["same", "dev"]).unwrap().member_count, 2);
    assert_eq!(
        reason(candidates(&broker, broker.operator(), Default::default())),
        "TARGET_INVALID"
    );
}

#[test]
fn group_candidates_tells_reasons_in_words() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let connection = |name: &str, env: &str| {
        format!(
            "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {{name: {name}, tags: {{env: {env}}}}}\nspec: \
             {{integration: slack, fields: {{api_token: t}}}}\n---\n"
        )
    };
    let seed = [connection("a", "prod"), connection("b", "prod"), connection("c", "dev")].concat();
    let path = directory.path().join("seed.yaml");
    std::fs::write(&path, seed.trim_end_matches("---\n")).unwrap();
    serving.must(&["apply", "-f", path.to_str().unwrap()]);
    serving.must(&[
        "group",
        "create",
        "g",
        "--integration",
        "slack",
        "--identifier",
        "env",
        "--member",
        "slack/a",
    ]);
    let shown = serving.must(&["group", "candidates", "g"]);
    for said in ["a member already", "same values as slack/a"] {
        assert!(shown.contains(said), "{shown}");
    }
    let fitting = serving.must(&["group", "candidates", "g", "--fitting", "-o", "name"]);
    assert_eq!(fitting, "slack/c\n");
    let planned = ["group", "candidates", "--integration", "slack", "--identifier", "env"];
    let planned = [&planned[..], &["--member", "slack/b", "--fitting", "-o", "name"]].concat();
    assert_eq!(serving.must(&planned), "slack/c\n");
}
