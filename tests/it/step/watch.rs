//! A Watch sends the current credential at once, and then every new version, until it has a reason to end.

use std::process::Stdio;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use keyhatch::model::Limits;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::harness::{
    ServeProcess, TestBroker, TestStep, bytes, connection_document, keyhatch_in, path_with_binary,
    reason, request, resolver, secret_document, temp_dir, wait_until,
};

/// An open Watch.
struct Watching<'a> {
    broker: &'a TestBroker,
    stream: Streaming<pb::WatchResponse>,
}

impl Watching<'_> {
    fn next(&mut self) -> Result<pb::WatchResponse, Status> {
        let next = self.broker.block_on(self.stream.message());
        next.map(|delivery| delivery.unwrap_or_else(|| panic!("it ended without a reason")))
    }

    /// The version and one field of the next delivery.
    fn value(&mut self, field: &str) -> (i64, String) {
        let credential = self.next().ok().unwrap().credential.unwrap();
        (credential.version, String::from_utf8(credential.fields[field].clone()).unwrap())
    }

    /// The reason of its end.
    fn end(&mut self) -> String {
        reason(self.next().map(|delivery| delivery.skipped_versions))
    }
}

fn watch<'a>(
    broker: &'a TestBroker,
    step: &TestStep,
    target: &str,
) -> Result<Watching<'a>, Status> {
    let request = pb::WatchRequest { request: Some(request(target)) };
    let mut client = StepServiceClient::new(step.channel.clone());
    let stream = broker.block_on(client.watch(request))?.into_inner();
    Ok(Watching { broker, stream })
}

fn rotate(broker: &TestBroker, secret: &str) {
    broker
        .apply(vec![connection_document("aws/prod", &[("secret_access_key", secret)], vec![])])
        .unwrap();
}

#[test]
fn every_new_version_comes_with_a_lease_replacing_the_last() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "one", &["workflow:w"]);
    let step = broker.open("w", "s");
    let mut watching = watch(&broker, &step, "aws/prod").ok().unwrap();
    assert_eq!(watching.value("secret_access_key"), (1, "one".to_owned()));
    for (version, secret) in [(2, "two"), (3, "three")] {
        rotate(&broker, secret);
        assert_eq!(watching.value("secret_access_key"), (version, secret.to_owned()));
    }
    // Other changes cause no delivery.
    broker.create_aws("other", "x", &[]);
    rotate(&broker, "four");
    assert_eq!(watching.value("secret_access_key"), (4, "four".to_owned()));
    let lines = broker.journaled("resolve");
    assert_eq!(lines.len(), 4);
    assert!(lines.iter().all(|line| line["watch"] == true));
    assert_eq!(lines[1]["ended"], lines[0]["lease"]);
    // The Watch has its own lease, which no other request gets.
    let own = broker.resolve(&step, "aws/prod").unwrap();
    assert_ne!(own.lease.name, format!("leases/{}", lines[3]["lease"].as_str().unwrap()));
    assert_eq!(broker.close(&step).revoked_leases, 2);
}

#[test]
fn a_watch_follows_groups_and_secrets_like_connections() {
    use pb::apply_request::Document;
    let broker = TestBroker::start();
    let member = |name: &str, tag: &str| {
        Document::Connection(pb::ConnectionDocument {
            integration: "slack".to_owned(),
            name: name.to_owned(),
            fields: bytes(&[("api_token", name)]),
            tags: vec![tag.to_owned()],
            access: resolver(&["workflow:w"]),
            ..Default::default()
        })
    };
    let group = |members: &[&str]| {
        Document::Group(pb::GroupDocument {
            name: "g".to_owned(),
            integration: "slack".to_owned(),
            identifiers: vec!["env".to_owned()],
            members: Some(pb::GroupMembers {
                names: members.iter().map(|name| (*name).to_owned()).collect(),
            }),
            access: vec![pb::AccessBinding {
                relation: pb::Relation::Viewer.into(),
                principals: vec!["workflow:w".to_owned()],
            }],
            ..Default::default()
        })
    };
    broker.apply(vec![member("a", "env:prod"), member("b", "env:prod"), group(&["a"])]).unwrap();
    broker.apply(vec![secret_document("w", "s", "one")]).unwrap();
    let step = broker.open("w", "s");
    let mut of_group = watch(&broker, &step, "group:g:env=prod").ok().unwrap();
    let mut of_secret = watch(&broker, &step, "secret:s").ok().unwrap();
    assert_eq!(of_group.value("api_token").1, "a");
    assert_eq!(of_secret.value("value").1, "one");
    broker.apply(vec![group(&["b"]), secret_document("w", "s", "two")]).unwrap();
    assert_eq!(of_group.value("api_token").1, "b");
    assert_eq!(of_secret.value("value"), (2, "two".to_owned()));
    broker.apply(vec![group(&[])]).unwrap();
    assert_eq!(of_group.end(), "GROUP_MEMBER_NOT_FOUND");
}

#[test]
fn it_ends_with_the_reason() {
    let mut broker = TestBroker::start();
    for name in ["gone", "taken", "off", "kept"] {
        broker.create_aws(name, "s", &["workflow:w"]);
    }
    let step = broker.open("w", "s");
    let names = ["aws/gone", "aws/taken", "aws/off", "aws/kept"];
    let mut all: Vec<_> =
        names.iter().map(|name| watch(&broker, &step, name).ok().unwrap()).collect();
    for watching in &mut all {
        watching.next().ok().unwrap();
    }
    broker.delete_connection("aws/gone").unwrap();
    assert_eq!(all[0].end(), "CONNECTION_NOT_FOUND");
    let access = resolver(&["workflow:other"]);
    broker.apply(vec![connection_document("aws/taken", &[], access)]).unwrap();
    assert_eq!(all[1].end(), "RESOLVE_DENIED");
    let off = pb::ConnectionDocument {
        integration: "aws".to_owned(),
        name: "off".to_owned(),
        disabled: Some(true),
        ..Default::default()
    };
    broker.apply(vec![pb::apply_request::Document::Connection(off)]).unwrap();
    assert_eq!(all[2].end(), "CONNECTION_DISABLED");
    broker.close(&step);
    assert_eq!(all[3].end(), "STEP_NOT_OPEN");
    // A forbidden target is refused at the start, with the message of Resolve.
    let step = broker.open("w", "t");
    assert_eq!(
        watch(&broker, &step, "aws/nothere").map(drop).map_err(|s| reason(Err::<(), _>(s))),
        Err("RESOLVE_DENIED".to_owned())
    );
    let mut last = watch(&broker, &step, "aws/kept").ok().unwrap();
    last.next().ok().unwrap();
    let stream = last.stream;
    broker.stop();
    let mut last = Watching { broker: &broker, stream };
    assert_eq!(last.end(), "DRAINING");
}

#[test]
fn at_two_thirds_of_its_lease_it_delivers_again() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "one", &["workflow:w"]);
    let step = broker.open("w", "s");
    let mut watching = watch(&broker, &step, "aws/prod").ok().unwrap();
    let first = watching.next().ok().unwrap().credential.unwrap().lease.unwrap();
    broker.advance(2400);
    // Any change makes the Watch check the clock.
    broker.create_aws("other", "x", &[]);
    let second = watching.next().ok().unwrap();
    assert_eq!(second.skipped_versions, 0);
    let second = second.credential.unwrap().lease.unwrap();
    assert_ne!(second.name, first.name);
    assert_eq!(second.issue_time.unwrap().seconds - first.issue_time.unwrap().seconds, 2400);
}

/// Writes a version that soon fills the buffers of a connection.
fn write_large(broker: &TestBroker, n: usize) {
    let value = format!("{n}{}", "x".repeat(60_000));
    let fields = ["a", "b", "c", "d"].map(|name| (name, value.as_str()));
    let document = connection_document("generic/g", &fields, resolver(&["workflow:w"]));
    broker.apply(vec![document]).unwrap();
}

#[test]
fn a_slow_reader_gets_the_newest_version_and_a_skip_count() {
    let broker = TestBroker::start();
    write_large(&broker, 0);
    let step = broker.open("w", "s");
    let mut watching = watch(&broker, &step, "generic/g").ok().unwrap();
    // All writes are acknowledged while nobody reads, because the writer waits for no delivery.
    (1..=40).for_each(|n| write_large(&broker, n));
    let (mut skipped, mut seen, mut last) = (0, 0, 0);
    while last < 41 {
        let delivery = watching.next().ok().unwrap();
        skipped += delivery.skipped_versions;
        last = delivery.credential.unwrap().version;
        seen += 1;
    }
    assert_eq!(seen + skipped, 41);
    assert!(skipped > 0, "it was never slow");
}

#[test]
fn nothing_is_sent_to_a_slow_reader_after_lost_access() {
    let broker = TestBroker::start();
    write_large(&broker, 0);
    let step = broker.open("w", "s");
    let mut watching = watch(&broker, &step, "generic/g").ok().unwrap();
    (1..=40).for_each(|n| write_large(&broker, n));
    let others = resolver(&["workflow:other"]);
    broker.apply(vec![connection_document("generic/g", &[], others)]).unwrap();
    let decided = broker.journaled("resolve").len();
    let mut sent = 0;
    let end = loop {
        match watching.next() {
            Ok(_) => sent += 1,
            Err(status) => break reason::<()>(Err(status)),
        }
    };
    assert_eq!(end, "RESOLVE_DENIED");
    // Sent deliveries arrive. Waiting deliveries do not.
    assert!(sent < decided, "{sent} of {decided}");
}

#[test]
fn an_openings_watches_are_limited_and_an_end_makes_room() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "one", &["workflow:w"]);
    let step = broker.open("w", "s");
    // A connection carries 32 streams, so three connections carry all Watches.
    let again = || broker.become_step(step.opened.clone());
    let steps = [again(), again(), again()];
    let mut all: Vec<_> =
        (0..64).map(|n| watch(&broker, &steps[n / 30], "aws/prod").ok().unwrap()).collect();
    for watching in &mut all {
        watching.next().ok().unwrap();
    }
    let refused = watch(&broker, &steps[2], "aws/prod").err().unwrap();
    assert_eq!(reason(Err::<(), _>(refused)), "TOO_MANY_WATCHES");
    rotate(&broker, "two");
    for watching in &mut all {
        assert_eq!(watching.value("secret_access_key").0, 2);
    }
    drop(all.pop());
    wait_until("there is room", || watch(&broker, &steps[2], "aws/prod").is_ok());
}

/// All openings of one host watch the same connection.
#[test]
fn ten_thousand_watchers_get_a_version_without_delaying_it() {
    const WATCHERS: usize = 10_000;
    const EACH: usize = 64;
    let limits =
        Limits { step_request_burst: 1000, step_requests_per_second: 1000, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "one", &["workflow:w"]);
    let steps: Vec<_> =
        (0..WATCHERS.div_ceil(EACH)).map(|n| broker.open("w", &format!("s{n}"))).collect();
    let mut watching = Vec::with_capacity(WATCHERS);
    for number in 0..WATCHERS {
        let step = &steps[number / EACH];
        // One HTTP/2 connection carries 32 requests at a time.
        let channel = match number % EACH {
            0 | 32 => broker.become_step(step.opened.clone()).channel,
            _ => watching.last().map(|(channel, _): &(Channel, _)| channel.clone()).unwrap(),
        };
        let request = pb::WatchRequest { request: Some(request("aws/prod")) };
        let mut client = StepServiceClient::new(channel.clone());
        let mut stream = broker.block_on(client.watch(request)).unwrap().into_inner();
        let first = broker.block_on(stream.message()).unwrap().unwrap();
        assert_eq!(first.credential.unwrap().version, 1);
        watching.push((channel, stream));
    }
    // The write is acknowledged although nobody reads.
    rotate(&broker, "two");
    let got = watching.iter_mut().map(|(_, stream)| {
        let delivery = broker.block_on(stream.message()).unwrap().unwrap();
        let credential = delivery.credential.unwrap();
        (credential.version, credential.fields["secret_access_key"].clone())
    });
    assert_eq!(got.filter(|got| *got == (2, b"two".to_vec())).count(), WATCHERS);
    let mut client = SystemServiceClient::new(broker.operator());
    let status = broker.block_on(client.get_status(pb::GetStatusRequest {})).unwrap();
    assert_eq!(status.into_inner().live_leases, i64::try_from(WATCHERS).unwrap());
}

#[test]
fn the_command_line_prints_a_line_for_each_version() {
    use std::io::BufRead as _;
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let seed = directory.path().join("seed.yaml");
    let write = |serving: &ServeProcess, token: &str| {
        let text = format!(
            "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {{name: a}}\nspec:\n  integration: slack\n  \
             fields: {{api_token: {token}}}\n  access: {{resolver: ['workflow:w']}}\n"
        );
        std::fs::write(&seed, text).unwrap();
        serving.must(&["apply", "-f", seed.to_str().unwrap()]);
    };
    write(&serving, "one");
    let words = "step run --workflow w --run 1 --step s -- keyhatch get slack/a --watch";
    let mut watching = keyhatch_in(directory.path(), &words.split(' ').collect::<Vec<_>>());
    watching.env("PATH", path_with_binary()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = watching.spawn().unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut token = || {
        let line: serde_json::Value =
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        line["fields"]["api_token"].as_str().unwrap().to_owned()
    };
    assert_eq!(token(), "one");
    write(&serving, "two");
    assert_eq!(token(), "two");
    // The command waits for a daemon that is away, and does not print a version again.
    serving.kill();
    let serving = ServeProcess::start(directory.path());
    write(&serving, "three");
    assert_eq!(token(), "three");
    assert!(serving.terminate());
    let serving = ServeProcess::start(directory.path());
    write(&serving, "four");
    assert_eq!(token(), "four");
    serving.must(&["connection", "delete", "slack/a", "--yes", "--force"]);
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("error: CONNECTION_NOT_FOUND"), "{said}");
    assert_eq!(ended.status.code(), Some(1));
}
