//! Runs and workflows as operators list them from the journal.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::run_service_client::RunServiceClient;
use keyhatch::model::Limits;
use tonic::Status;

use crate::harness::{
    ServeProcess, TestBroker, keyhatch_in, open_request, reason, succeeded, temp_dir, wait_until,
};

fn runs(broker: &TestBroker, wanted: pb::ListRunsRequest) -> Result<pb::ListRunsResponse, Status> {
    let mut client = RunServiceClient::new(broker.operator());
    broker.block_on(client.list_runs(wanted)).map(tonic::Response::into_inner)
}

fn workflows(broker: &TestBroker, filter: &str) -> Vec<pb::WorkflowSummary> {
    let mut client = RunServiceClient::new(broker.operator());
    let wanted = pb::ListWorkflowsRequest { filter: filter.to_owned(), ..Default::default() };
    broker.block_on(client.list_workflows(wanted)).unwrap().into_inner().workflows
}

/// The runs that a filter admits, as WORKFLOW/RUN, page by page.
fn names(broker: &TestBroker, filter: &str, order_by: &str) -> Vec<String> {
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let wanted = pb::ListRunsRequest {
            filter: filter.to_owned(),
            order_by: order_by.to_owned(),
            page_size: 2,
            page_token,
            ..Default::default()
        };
        let page = runs(broker, wanted).unwrap();
        names.extend(page.runs.iter().map(|run| format!("{}/{}", run.workflow, run.run)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            assert_eq!(i32::try_from(names.len()), Ok(page.total_size));
            return names;
        }
    }
}

/// Opens a step of a run, which resolves `aws/prod` so often and is refused as often as `denied` says.
fn run(broker: &TestBroker, [workflow, run]: [&str; 2], uses: usize, denied: usize) -> String {
    let request = pb::OpenStepRequest { run: run.to_owned(), ..open_request(workflow, "s") };
    let step = broker.become_step(broker.try_open(request).unwrap());
    (0..uses).for_each(|_| drop(broker.resolve(&step, "aws/prod").unwrap()));
    (0..denied).for_each(|_| drop(broker.resolve(&step, "aws/other").unwrap_err()));
    broker.advance(1);
    step.opened.name
}

fn close(broker: &TestBroker, name: String) {
    use pb::executor_service_client::ExecutorServiceClient;
    let request = pb::CloseStepRequest { name, ..Default::default() };
    broker.block_on(ExecutorServiceClient::new(broker.executor()).close_step(request)).unwrap();
    broker.advance(1);
}

#[test]
fn runs_are_listed_with_times_uses_and_denials_after_their_end() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let first = run(&broker, ["deploy", "1"], 2, 0);
    close(&broker, first);
    run(&broker, ["deploy", "2"], 1, 1);
    let nightly = run(&broker, ["nightly", "1"], 0, 3);
    close(&broker, nightly);
    for restarted in [false, true] {
        if restarted {
            broker.restart();
        }
        let found = runs(&broker, pb::ListRunsRequest::default()).unwrap();
        assert_eq!((found.total_size, found.total_size_estimated), (3, false));
        let told = |run: &pb::RunSummary| {
            let counts = [run.opened_steps, run.open_steps, run.use_count, run.denial_count];
            (format!("{}/{} by {}", run.workflow, run.run, run.executor), counts)
        };
        let told: Vec<_> = found.runs.iter().map(told).collect();
        let expected = [
            ("nightly/1 by local".to_owned(), [1, 0, 0, 3]),
            ("deploy/2 by local".to_owned(), [1, 1, 1, 1]),
            ("deploy/1 by local".to_owned(), [1, 0, 2, 0]),
        ];
        assert_eq!(told, expected, "restarted: {restarted}");
        let of_deploy = &workflows(&broker, "name = deploy")[0];
        assert_eq!((of_deploy.run_count, of_deploy.opened_steps), (2, 2));
        assert_eq!((of_deploy.open_steps, of_deploy.use_count, of_deploy.denial_count), (1, 3, 1));
        assert_eq!(of_deploy.first_time, found.runs[2].first_time);
        assert_eq!(of_deploy.last_time, found.runs[1].last_time);
    }
}

#[test]
fn runs_are_filtered_ordered_and_paged() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    for (workflow, name, denied) in [("deploy", "b", 0), ("deploy", "a", 1), ("nightly", "c", 0)] {
        let opened = run(&broker, [workflow, name], usize::from(workflow == "deploy"), denied);
        if name != "c" {
            close(&broker, opened);
        }
    }
    for (filter, order, expected) in [
        ("", "", "nightly/c deploy/a deploy/b"),
        ("", "first_time", "deploy/b deploy/a nightly/c"),
        ("", "name", "deploy/a deploy/b nightly/c"),
        ("", "name desc", "nightly/c deploy/b deploy/a"),
        ("workflow = deploy", "", "deploy/a deploy/b"),
        ("open = true", "", "nightly/c"),
        ("denied = true", "", "deploy/a"),
        ("text : NIGHT", "", "nightly/c"),
        ("executor = local AND name != c", "name", "deploy/a deploy/b"),
    ] {
        assert_eq!(names(&broker, filter, order).join(" "), expected, "{filter} {order}");
    }
    let open: Vec<_> =
        workflows(&broker, "open = true").into_iter().map(|one| one.workflow).collect();
    assert_eq!(open, ["nightly"]);
    broker.advance(3600);
    let since = Some(prost_types::Timestamp { seconds: broker.clock.now().seconds(), nanos: 0 });
    let recent = runs(&broker, pb::ListRunsRequest { since, ..Default::default() }).unwrap();
    let recent: Vec<_> = recent.runs.iter().map(|run| run.run.as_str()).collect();
    // A run with an open step counts as recent.
    assert_eq!(recent, ["c"]);
    let wrong = |filter: &str, order_by: &str| {
        let (filter, order_by) = (filter.to_owned(), order_by.to_owned());
        reason(runs(&broker, pb::ListRunsRequest { filter, order_by, ..Default::default() }))
    };
    assert_eq!(wrong("kind = x", ""), "FILTER_INVALID");
    assert_eq!(wrong("", "update_time"), "ORDER_BY_INVALID");
}

#[test]
fn a_run_over_several_files_of_the_journal_is_one_run() {
    let limits = Limits {
        journal_file_bytes: 64 * 1024,
        step_request_burst: 1_000_000,
        ..Limits::default()
    };
    let mut broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let request = pb::OpenStepRequest { run: "long".to_owned(), ..open_request("deploy", "s") };
    let step = broker.become_step(broker.try_open(request).unwrap());
    let files = || std::fs::read_dir(broker.config.state.join("journal")).unwrap().count();
    let (before, mut uses) = (files(), 0);
    wait_until("the journal has more files", || {
        for _ in 0..100 {
            broker.resolve(&step, "aws/prod").unwrap();
            uses += 1;
        }
        files() > before + 2
    });
    for restarted in [false, true] {
        if restarted {
            broker.restart();
        }
        let found = runs(&broker, pb::ListRunsRequest::default()).unwrap().runs;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].opened_steps, found[0].use_count), (1, uses), "{restarted}");
        assert_eq!(workflows(&broker, "")[0].use_count, uses);
    }
}

#[test]
fn run_list_and_workflow_list_show_what_was_refused() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let names = ["--workflow", "deploy", "--run", "7", "--step", "s"];
    let command = [&["step", "run"], &names[..], &["--", env!("CARGO_BIN_EXE_keyhatch")]].concat();
    let refused = [&command[..], &["get", "slack/nothing"]].concat();
    assert!(!keyhatch_in(directory.path(), &refused).output().unwrap().status.success());
    let json = |arguments: &[&str]| -> serde_json::Value {
        let told = serving.must(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&told).unwrap()
    };
    let run = &json(&["run", "list", "--denied"])[0];
    assert_eq!((&run["run"], &run["denials"], &run["open"]), (&"7".into(), &1.into(), &0.into()));
    assert_eq!(json(&["run", "list", "--open"]).as_array().unwrap().len(), 0);
    let workflow = &json(&["workflow", "list"])[0];
    assert_eq!((&workflow["workflow"], &workflow["runs"]), (&"deploy".into(), &1.into()));
    assert_eq!(serving.must(&["workflow", "list", "--denied", "-o", "name"]), "deploy\n");
    let limited = serving.run(&["run", "list", "--limit", "1"]);
    succeeded(&limited);
    assert!(String::from_utf8_lossy(&limited.stderr).contains("1 of 1"));
}
