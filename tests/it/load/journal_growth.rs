//! A request is free and a journal line stays forever, so nobody can fill the disk with requests.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::model::Limits;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::harness::{
    TestBroker, TestStep, connection_document, open_request, reason, request, wait_until,
};

/// Sends concurrent calls that must be refused. Returns the message of each refusal.
fn refused_deletes(broker: &TestBroker, who: &Channel, count: usize) -> Vec<String> {
    let name = format!("connections/aws/{}", "x".repeat(128));
    let delete = || {
        let request = pb::DeleteConnectionRequest { name: name.clone(), ..Default::default() };
        let mut client = ConnectionServiceClient::new(who.clone());
        async move { client.delete_connection(request).await.unwrap_err() }
    };
    let all = futures_util::future::join_all((0..count).map(|_| delete()));
    broker.block_on(all).iter().map(|status| format!("{status:?}")).collect()
}

/// The number of a principal's requests that the journal counts without their own line.
fn counted(broker: &TestBroker, principal: &str) -> u64 {
    let lines = broker.journaled("rate_refused");
    let own = lines.iter().filter(|line| line["principal"] == principal);
    own.filter_map(|line| line["requests"].as_u64()).sum()
}

fn journal_bytes(broker: &TestBroker) -> u64 {
    broker.journal_path().metadata().unwrap().len()
}

#[test]
fn a_refused_viewer_cannot_grow_the_journal() {
    let broker = TestBroker::start();
    let viewer = broker.enroll("looks", pb::Role::Viewer);
    let before = journal_bytes(&broker);
    for _second in 0..60 {
        refused_deletes(&broker, &viewer, 30);
        broker.advance(1);
    }
    // A fast burst gets no more.
    for _ in 0..40 {
        refused_deletes(&broker, &viewer, 30);
    }
    let lines = broker.journaled("admin_refused").len();
    let most = 100 + 2 * 61;
    assert!((100..=most).contains(&lines), "{lines}");
    wait_until("the rest is counted", || {
        counted(&broker, "operator:looks") + lines as u64 == 100 * 30
    });
    let grown = journal_bytes(&broker) - before;
    assert!(grown < 1 << 20, "{grown} bytes");
}

#[test]
fn refusals_beyond_the_budget_are_counted() {
    let limits = Limits { admin_refusal_burst: 5, ..Limits::default() };
    let mut broker = TestBroker::start_with(limits);
    let viewer = broker.enroll("looks", pb::Role::Viewer);
    let other = broker.enroll("sees", pb::Role::Viewer);
    let words = refused_deletes(&broker, &viewer, 20);
    assert!(words.iter().all(|one| *one == words[0] && one.contains("ROLE_REQUIRED")), "{words:?}");
    // The budgets of others are untouched.
    assert_eq!(refused_deletes(&broker, &other, 1).len(), 1);
    // A stopping daemon writes the remaining counts.
    broker.stop();
    let told = broker.journaled("admin_refused");
    let of = |who: &str| told.iter().filter(|line| line["principal"] == who).count();
    assert_eq!((of("operator:looks"), of("operator:sees")), (5, 1));
    assert_eq!((counted(&broker, "operator:looks"), counted(&broker, "operator:sees")), (15, 0));
    let lines = broker.journaled("rate_refused");
    let methods = lines.iter().filter_map(|line| line["methods"]["DeleteConnection"].as_u64());
    assert_eq!(methods.sum::<u64>(), 15);
}

#[test]
fn a_step_that_is_closed_leaves_no_refusal_uncounted() {
    let limits = Limits { step_request_burst: 3, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    let step = broker.open("deploy", "build");
    for _ in 0..10 {
        let _ = broker.resolve(&step, "aws/nothere");
    }
    broker.close(&step);
    let principal = "workflow:deploy/run:1/step:build";
    assert_eq!(broker.journaled("resolve").len() as u64 + counted(&broker, principal), 10);
    assert_eq!(broker.journaled("closed").len(), 1);
}

fn update(
    broker: &TestBroker,
    who: &Channel,
    label: &str,
    request_id: String,
) -> Result<(), Status> {
    let connection = pb::Connection {
        name: "connections/aws/prod".to_owned(),
        labels: [("a".to_owned(), label.to_owned())].into(),
        ..Default::default()
    };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] });
    let connection = Some(connection);
    let request =
        pb::UpdateConnectionRequest { connection, update_mask, request_id, ..Default::default() };
    let mut client = ConnectionServiceClient::new(who.clone());
    broker.block_on(client.update_connection(request)).map(drop)
}

#[test]
fn a_request_that_changes_nothing_costs_the_same_budget() {
    let limits = Limits { admin_refusal_burst: 4, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s3cret", &[]);
    let operator = broker.operator();
    update(&broker, &operator, "1", "first".to_owned()).unwrap();
    let lines = broker.journal().len();
    let outcomes: Vec<_> =
        (0..10).map(|number| update(&broker, &operator, "1", format!("again-{number}"))).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 4);
    assert_eq!(reason(outcomes.into_iter().next_back().unwrap()), "TOO_MANY_REQUESTS");
    // Each change has an intent and a head.
    let written = broker.journal().len() - lines;
    assert!(written <= 4 * 2 + 2, "{written}");
    // A test of values costs the same, because it must have its line. Without an id no answer is remembered.
    let test = pb::TestConnectionRequest { name: "connections/aws/prod".to_owned(), mint: false };
    let mut client = ConnectionServiceClient::new(operator.clone());
    let tested = broker.block_on(client.test_connection(test.clone()));
    assert_eq!(reason(tested), "TOO_MANY_REQUESTS");
    update(&broker, &operator, "1", String::new()).unwrap();
    // A real change is still possible, and with time the budget refills.
    update(&broker, &operator, "2", "second".to_owned()).unwrap();
    broker.advance(1);
    broker.block_on(client.test_connection(test)).unwrap();
    assert_eq!(broker.journaled("tested").len(), 1);
}

#[test]
fn new_openings_bring_no_new_budget() {
    let limits = Limits { step_refusal_burst: 10, executor_refusal_burst: 25, ..Limits::default() };
    let mut broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    for _ in 0..8 {
        let step = broker.open("deploy", "build");
        for _ in 0..12 {
            broker.resolve(&step, "aws/nothere").unwrap_err();
        }
        // Without a budget for refusals, permitted requests still succeed.
        let other = broker.open("deploy", "good");
        broker.resolve(&other, "aws/prod").unwrap();
        broker.close(&step);
        broker.close(&other);
    }
    // Another executor has its own budget.
    let other = broker.enroll_executor("other", &["deploy"], &[]);
    let mut client = ExecutorServiceClient::new(other);
    let opened = broker.block_on(client.open_step(open_request("deploy", "theirs"))).unwrap();
    let theirs = broker.become_step(opened.into_inner());
    assert_eq!(reason(broker.resolve(&theirs, "aws/nothere")), "RESOLVE_DENIED");
    broker.stop();
    let of = |principal: &str| {
        let lines = broker.journaled("resolve").into_iter();
        lines.filter(|line| line["principal"] == principal).count() as u64
    };
    let step = "workflow:deploy/run:1/step:build";
    let told = of(step) + counted(&broker, step) + counted(&broker, "executor:local");
    assert_eq!(told, 8 * 12);
    let sums = broker.journaled("rate_refused").into_iter();
    let sums = sums.filter(|line| line["principal"] == step).count() as u64;
    assert!((10..=25).contains(&(of(step) + sums)), "{} and {sums}", of(step));
    assert_eq!(of("workflow:deploy/run:1/step:theirs"), 1);
}

/// The number of answered requests. The others must be refused by their rate.
fn resolved(broker: &TestBroker, step: &TestStep, times: usize) -> usize {
    let outcomes = (0..times).map(|_| broker.resolve(step, "aws/prod").map(drop));
    let (answered, refused): (Vec<_>, Vec<_>) = outcomes.partition(Result::is_ok);
    for outcome in refused {
        let status = outcome.unwrap_err();
        assert!(status.get_error_details().retry_info().is_some());
        assert_eq!(reason(Err::<(), _>(status)), "TOO_MANY_REQUESTS");
    }
    answered.len()
}

/// Limits: 10 at once and one a second for a workflow, 40 and four for the executor, and two for each opening.
fn paced() -> Limits {
    Limits {
        executor_decisions_per_second: 4,
        executor_decision_burst: 40,
        own_decisions_per_minute: 2,
        ..Limits::default()
    }
}

#[test]
fn a_new_opening_brings_no_new_rate_of_resolving() {
    let mut broker = TestBroker::start_with(paced());
    broker.create_aws("prod", "s3cret", &["workflow:*"]);
    let mut answered = 0;
    for _ in 0..8 {
        let step = broker.open("deploy", "build");
        answered += resolved(&broker, &step, 10);
        broker.close(&step);
    }
    // Each opening has its own rate, and then the rest of its workflow's.
    assert_eq!(answered, 8 * 2 + 10);
    // A workflow has a quarter of its executor's rate, and other workflows keep theirs.
    let others = ["a", "b", "c", "d"].map(|workflow| broker.open(workflow, "build"));
    let answers = others.each_ref().map(|step| resolved(&broker, step, 14));
    assert_eq!(answers, [12, 12, 12, 2]);
    let theirs = broker.enroll_executor("other", &["deploy"], &[]);
    let mut client = ExecutorServiceClient::new(theirs);
    let opened = broker.block_on(client.open_step(open_request("deploy", "theirs"))).unwrap();
    let theirs = broker.become_step(opened.into_inner());
    assert_eq!(resolved(&broker, &theirs, 12), 12);
    broker.advance(1);
    assert_eq!(resolved(&broker, &others[3], 14), 1);
    broker.stop();
    // The refused requests have no lines, only a count.
    let lines = broker.journaled("resolve").len();
    assert_eq!(lines, 26 + 38 + 12 + 1);
    let counts = broker.journaled("rate_refused");
    let counted: u64 = counts.iter().filter_map(|line| line["requests"].as_u64()).sum();
    assert_eq!(counted, 54 + 18 + 13);
}

/// A caller chooses the content of a line, so longer lines must cost more.
#[test]
fn a_long_line_costs_as_much_as_several() {
    let limits = Limits { executor_open_burst: 8, step_refusal_burst: 10, ..paced() };
    let broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s3cret", &["workflow:deploy", "user:alice"]);
    let open = |step: &str| {
        let others = (0..99).map(|number| format!("user:{number}-{}", "x".repeat(120)));
        let run_as = others.chain(["user:alice".to_owned()]).collect();
        let request = pb::OpenStepRequest { run_as, ..open_request("deploy", step) };
        broker.try_open(request).map(|opened| broker.become_step(opened))
    };
    let (first, second) = (open("a").unwrap(), open("b").unwrap());
    open("c").unwrap();
    assert_eq!(reason(open("d").map(drop)), "TOO_MANY_REQUESTS");
    // One comes from its own rate and one from its workflow's, and each costs 13.
    assert_eq!(resolved(&broker, &first, 5), 2);
    let fields: Vec<String> =
        (0..64).map(|number| format!("f{number}{}", "x".repeat(100))).collect();
    let long = format!("aws/prod#{}", fields.join(","));
    let refused: Vec<_> = (0..4).map(|_| reason(broker.resolve(&second, &long))).collect();
    assert_eq!(refused[..2], ["FIELD_UNKNOWN", "TOO_MANY_REQUESTS"]);
}

#[test]
fn renewals_and_watches_cost_the_same_rate() {
    let limits = Limits { own_decisions_per_minute: 1, executor_decision_burst: 8, ..paced() };
    let broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    let mut client = StepServiceClient::new(step.channel.clone());
    let watch = || pb::WatchRequest { request: Some(request("aws/prod")) };
    let mut watching = broker.block_on(client.watch(watch())).unwrap().into_inner();
    broker.block_on(watching.message()).unwrap().unwrap();
    let name = broker.resolve(&step, "aws/prod").unwrap().lease.name;
    let renew = pb::RenewLeaseRequest { name: name.clone(), ..Default::default() };
    broker.block_on(client.renew_lease(renew.clone())).unwrap();
    assert_eq!(reason(broker.block_on(client.renew_lease(renew))), "TOO_MANY_REQUESTS");
    assert_eq!(reason(broker.block_on(client.watch(watch())).map(drop)), "TOO_MANY_REQUESTS");
    // New versions are still delivered, and leases can still be given back.
    let document = connection_document("aws/prod", &[("secret_access_key", "new")], vec![]);
    broker.apply(vec![document]).unwrap();
    let delivery = broker.block_on(watching.message()).unwrap().unwrap();
    assert_eq!(delivery.credential.unwrap().version, 2);
    broker.block_on(client.revoke_lease(pb::RevokeLeaseRequest { name })).unwrap();
}

#[test]
fn an_executor_opens_no_faster_than_its_rate() {
    let limits =
        Limits { executor_opens_per_second: 1, executor_open_burst: 3, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    let open = |caller: &Channel, step: &str| {
        let request =
            pb::OpenStepRequest { request_id: step.to_owned(), ..open_request("deploy", step) };
        broker.block_on(ExecutorServiceClient::new(caller.clone()).open_step(request)).map(drop)
    };
    let local = broker.executor();
    for step in ["a", "b", "c"] {
        open(&local, step).unwrap();
    }
    let before = broker.journal().len();
    let refused = open(&local, "d").unwrap_err();
    assert!(refused.get_error_details().retry_info().is_some());
    assert_eq!(reason(Err::<(), _>(refused)), "TOO_MANY_REQUESTS");
    // Nothing was written, and an older attempt of a step is still open.
    assert_eq!(reason(broker.try_open(open_request("deploy", "a"))), "TOO_MANY_REQUESTS");
    assert_eq!(broker.journal().len(), before);
    // A request that has opened its step is answered again, and other executors have their own rate.
    open(&local, "a").unwrap();
    open(&broker.enroll_executor("other", &["deploy"], &[]), "theirs").unwrap();
    broker.advance(1);
    open(&local, "d").unwrap();
}

#[test]
fn closing_never_waits_for_a_rate() {
    let limits = Limits { executor_open_burst: 3, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    let steps = ["a", "b", "c"].map(|step| broker.open("deploy", step));
    assert_eq!(reason(broker.try_open(open_request("deploy", "d"))), "TOO_MANY_REQUESTS");
    let mut client = ExecutorServiceClient::new(broker.executor());
    for _ in 0..200 {
        let name = steps[0].opened.name.clone();
        let renew = pb::RenewStepRequest { name, ..Default::default() };
        broker.block_on(client.renew_step(renew)).unwrap();
    }
    assert!(broker.close(&steps[0]).closed);
    let (workflow, run) = ("deploy".to_owned(), "1".to_owned());
    let run = pb::CloseRunRequest { workflow, run, ..Default::default() };
    assert_eq!(broker.block_on(client.close_run(run)).unwrap().into_inner().closed_steps, 2);
}
