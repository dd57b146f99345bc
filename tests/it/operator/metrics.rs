//! The daemon's metrics: their counts are right, and their listener harms nobody.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use allocation_counter::measure;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::group_service_client::GroupServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use keyhatch::identity::Svid;
use keyhatch::metrics::Metrics;
use tonic::codegen::http::Request;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::harness::raw::{RESOLVE, Raw};
use crate::harness::{
    Scrape, ServeProcess, TestBroker, create_aws, identity_in, init_in, keyhatch_in, reason,
    request, say, secret_document, temp_dir, wait_until,
};
use crate::security::access_table::{call, methods};

const STEP: &str = "keyhatch.v1.StepService";

/// A daemon as a process with a metrics listener.
struct World {
    serving: ServeProcess,
    directory: tempfile::TempDir,
}

impl World {
    fn start() -> Self {
        let directory = temp_dir();
        init_in(directory.path());
        let mut serve = keyhatch_in(directory.path(), &["serve"]);
        serve.env("KEYHATCH_METRICS", "127.0.0.1:0");
        let serving = ServeProcess::spawn(directory.path(), serve);
        Self { serving, directory }
    }

    /// The address of the listener.
    fn address(&self) -> SocketAddr {
        self.serving.metrics_address()
    }

    fn run(&self, arguments: &[&str], env: &[(&str, &str)]) -> String {
        let mut command = keyhatch_in(self.directory.path(), arguments);
        let output = command.envs(env.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn each_request_is_counted_once_by_what_it_was_answered() {
    let broker = TestBroker::start_with_metrics();
    broker.block_on(create_aws(broker.operator()));
    let step = broker.open("deploy", "build");
    for _ in 0..3 {
        broker.resolve(&step, "aws/prod").unwrap();
    }
    for _ in 0..2 {
        assert_eq!(reason(broker.resolve(&step, "aws/nothere")), "RESOLVE_DENIED");
    }
    assert_eq!(reason(broker.resolve(&step, "aws/ nothere")), "TARGET_INVALID");
    let told = broker.scrape();
    let resolve = format!("{STEP}/Resolve");
    for (reason, count) in [("OK", 3), ("RESOLVE_DENIED", 2), ("TARGET_INVALID", 1)] {
        assert_eq!(told.requests("steps", &resolve, reason), count, "{reason}");
    }
    assert_eq!(told.all_requests("steps", &resolve), 6);
    let labels = [("door", "steps"), ("method", resolve.as_str())];
    assert_eq!(told.get("request_duration_seconds_count", &labels), Some(6.0));
    let sum = told.get("request_duration_seconds_sum", &labels).unwrap();
    assert!(sum > 0.0 && sum < 60.0, "{sum}");
    assert_eq!(told.requests("admin", "keyhatch.v1.ConnectionService/CreateConnection", "OK"), 1);
    assert_eq!(told.requests("admin", "keyhatch.v1.ExecutorService/OpenStep", "OK"), 1);
    // A method without calls has a sample of zero.
    assert!(told.text.contains("method=\"keyhatch.v1.SystemService/Backup\",reason=\"OK\"} 0\n"));
}

#[test]
fn requests_to_no_method_are_counted_without_their_words() {
    let broker = TestBroker::start_with_metrics();
    let step = broker.open("deploy", "build");
    let directory = Path::new(&step.opened.directory);
    let (socket, identity) = (directory.join("keyhatch.sock"), identity_in(directory));
    let raw = broker.block_on(Raw::connect(&socket, &identity, 65_535));
    let ask = |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(format!("https://localhost{path}"));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        broker.block_on(raw.ask(request.body(()).unwrap(), None)).unwrap()
    };
    ask("GET", RESOLVE);
    ask("POST", "/keyhatch.v1.StepService/NoSuchMethod");
    ask("POST", "/keyhatch.v1.SystemService/GetStatus");
    ask("POST", "/words.of.a.stranger/Resolve?query");
    // A request without a message is refused by tonic itself.
    ask("POST", RESOLVE);
    let told = broker.scrape();
    let resolve = format!("{STEP}/Resolve");
    assert_eq!(told.requests("steps", &resolve, "HTTP_INVALID"), 1);
    assert_eq!(told.requests("steps", "other", "UNIMPLEMENTED"), 2);
    assert_eq!(told.requests("steps", "other", "HTTP_INVALID"), 1);
    assert_eq!(told.all_requests("steps", &resolve), 2);
    assert_eq!(told.requests("steps", &resolve, "INTERNAL"), 0, "{}", told.text);
    assert!(!told.text.contains("stranger") && !told.text.contains("NoSuchMethod"));
}

#[test]
fn every_method_of_the_api_is_counted_under_its_name() {
    let broker = TestBroker::start_with_metrics();
    // The other cell is for operators, which delete its resources.
    broker.create_connection("slack/c1", &[("api_token", "t")], &["workflow:deploy"]).unwrap();
    let step = broker.open("deploy", "build");
    for method in methods() {
        let (service, name) = method.split_once('.').unwrap();
        let (door, channel, cell) = match service {
            "StepService" => ("steps", step.channel.clone(), 1),
            "ExecutorService" => ("admin", broker.executor(), 2),
            _ => ("admin", broker.operator(), 2),
        };
        let label = format!("keyhatch.v1.{service}/{name}");
        let before = broker.scrape().all_requests(door, &label);
        // The outcome of the call does not matter.
        let _ = broker.block_on(call(channel, &method, cell));
        let told = broker.scrape();
        assert!(told.all_requests(door, &label) > before, "{method}");
        assert_eq!(told.all_requests(door, "other"), 0, "{method}");
    }
}

#[test]
fn a_stream_is_counted_when_it_begins_and_when_it_ends() {
    let broker = TestBroker::start_with_metrics();
    broker.block_on(create_aws(broker.operator()));
    let step = broker.open("deploy", "build");
    let watch = || {
        let request = pb::WatchRequest { request: Some(request("aws/prod")) };
        let mut client = StepServiceClient::new(step.channel.clone());
        broker.block_on(async {
            let mut watch = client.watch(request).await.unwrap().into_inner();
            watch.message().await.unwrap().unwrap();
            watch
        })
    };
    let (mut kept, abandoned) = (watch(), watch());
    let method = format!("{STEP}/Watch");
    let ended = |told: &Scrape, code: &str| {
        let labels = [("door", "steps"), ("method", method.as_str()), ("code", code)];
        told.get("streams_ended_total", &labels).unwrap_or(0.0)
    };
    let told = broker.scrape();
    assert_eq!(told.requests("steps", &method, "OK"), 2);
    assert_eq!(told.get("watches", &[]), Some(2.0));
    drop(abandoned);
    wait_until("the Watch is over", || ended(&broker.scrape(), "CANCELLED") == 1.0);
    broker.delete_connection("aws/prod").unwrap();
    let end = broker.block_on(kept.message()).map(drop).unwrap_err();
    assert_eq!(end.code(), tonic::Code::NotFound);
    wait_until("no Watch is open", || broker.scrape().get("watches", &[]) == Some(0.0));
    let told = broker.scrape();
    assert_eq!((ended(&told, "NOT_FOUND"), ended(&told, "CANCELLED")), (1.0, 1.0));
    assert_eq!(told.all_requests("steps", &method), 2);
}

#[test]
fn gauges_say_what_is_so_now() {
    let broker = TestBroker::start_with_metrics();
    let expect = |what: &str, gauges: &[(&str, f64)]| {
        let told = broker.scrape();
        for (name, value) in gauges {
            assert_eq!(told.get(name, &[]), Some(*value), "{name}, {what}");
        }
        told
    };
    let counts = ["connections", "groups", "secrets", "open_steps", "live_leases", "watches"];
    let first = expect("at first", &counts.map(|name| (name, 0.0)));
    broker.block_on(create_aws(broker.operator()));
    broker.apply(vec![secret_document("deploy", "token", "hush")]).unwrap();
    let group = pb::ConnectionGroup {
        name: "groups/g".to_owned(),
        integration: "aws".to_owned(),
        identifiers: vec!["env".to_owned()],
        ..Default::default()
    };
    let create = pb::CreateGroupRequest { group: Some(group), ..Default::default() };
    broker.block_on(GroupServiceClient::new(broker.operator()).create_group(create)).unwrap();
    let step = broker.open("deploy", "build");
    broker.resolve(&step, "aws/prod").unwrap();
    broker.resolve(&step, "secret:token").unwrap();
    let stored = [("connections", 1.0), ("groups", 1.0), ("secrets", 1.0)];
    expect("seeded", &stored);
    let open = expect("while a step runs", &[("open_steps", 1.0), ("live_leases", 2.0)]);
    broker.close(&step);
    // Closing waits until all earlier lines are on disk.
    let over = expect("when it is over", &[("open_steps", 0.0), ("live_leases", 0.0)]);
    for (earlier, later) in [(&first, &open), (&open, &over)] {
        let line = |told: &Scrape| told.get("journal_line", &[]).unwrap();
        assert!(line(earlier) < line(later));
    }
    assert_eq!(over.get("store_head", &[]), first.get("store_head", &[]).map(|head| head + 3.0));
    for state in ["read-only", "quarantined", "no-secrets"] {
        assert_eq!(over.get("state", &[("state", state)]), Some(0.0), "{state}");
    }
    assert_eq!(over.get("state", &[("state", "serving")]), Some(1.0));
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(over.get("build_info", &version), Some(1.0));
    assert!(over.get("resident_memory_bytes", &[]).is_some_and(|bytes| bytes > 1e6));
    assert!(over.get("open_files", &[]).is_some_and(|files| files > 5.0));
    assert!(over.get("start_time_seconds", &[]).is_some_and(|moment| moment > 1.7e9));
}

#[test]
fn unsynced_lines_are_counted_until_they_are_on_disk() {
    let broker = TestBroker::start_with_metrics();
    broker.block_on(create_aws(broker.operator()));
    let (step, other) = (broker.open("deploy", "build"), broker.open("deploy", "other"));
    broker.close(&other);
    let lag = || {
        let told = broker.scrape();
        ["journal_unsynced_lines", "journal_unsynced_seconds"]
            .map(|name| told.get(name, &[]).unwrap())
    };
    let before = lag();
    for _ in 0..5 {
        broker.resolve(&step, "aws/prod").unwrap();
    }
    broker.advance(7);
    let [lines, seconds] = lag();
    assert!(lines >= before[0] + 5.0 && seconds >= 7.0, "{before:?}, {lines}, {seconds}");
    broker.close(&step);
    assert!(lag()[0] < 5.0);
}

#[test]
fn certificate_ends_are_those_of_the_files() {
    let broker = TestBroker::start_with_metrics();
    let told = broker.scrape();
    let state = &broker.config.state;
    let read = |path: &str| std::fs::read_to_string(state.join(path)).unwrap();
    let end_of = |path: &str| Svid::parse_own(&read(path)).unwrap().not_after.seconds();
    let (_, root) = x509_parser::pem::parse_x509_pem(read("ca.crt").as_bytes()).unwrap();
    let (_, root) = X509Certificate::from_der(&root.contents).unwrap();
    for (who, end) in [
        ("daemon", end_of("broker/tls.crt")),
        ("operators/admin", end_of("operators/admin/tls.crt")),
        ("executors/local", end_of("executors/local/tls.crt")),
        ("ca", root.validity().not_after.timestamp()),
    ] {
        let told = told.get("certificate_end_time_seconds", &[("who", who)]);
        assert_eq!(told.map(|end| format!("{end}")), Some(end.to_string()), "{who}");
    }
}

#[test]
fn refused_clients_are_counted_by_reason() {
    let broker = TestBroker::start_with_metrics();
    let refused = |reason: &str| {
        let labels = [("door", "admin"), ("reason", reason)];
        broker.scrape().get("connections_refused_total", &labels).unwrap_or(0.0)
    };
    let socket = broker.config.runtime.join("admin.sock");
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(&[0x55; 64]).unwrap();
    wait_until("garbage is counted", || refused("TLS_INVALID") == 1.0);
    // A step's certificate at the admin door.
    let step = broker.open("deploy", "build");
    let identity = identity_in(Path::new(&step.opened.directory));
    let outcome = broker.connect(&socket, identity).map(|channel| {
        let status = pb::GetStatusRequest {};
        broker.block_on(SystemServiceClient::new(channel).get_status(status)).map(drop)
    });
    assert!(!matches!(outcome, Ok(Ok(()))));
    wait_until("an unknown issuer is counted", || refused("CERTIFICATE_ISSUER_UNKNOWN") >= 1.0);
}

#[test]
fn counters_for_alerts_are_zero_before_anything_happens() {
    let told = TestBroker::start_with_metrics().scrape();
    for door in ["steps", "admin"] {
        for reason in ["TLS_INVALID", "CERTIFICATE_ISSUER_UNKNOWN", "OTHER_USER"] {
            let labels = [("door", door), ("reason", reason)];
            assert_eq!(told.get("connections_refused_total", &labels), Some(0.0), "{reason}");
        }
    }
    for (door, method) in [("steps", "StepService/Watch"), ("admin", "SystemService/TailJournal")] {
        let method = format!("keyhatch.v1.{method}");
        let labels = [("door", door), ("method", method.as_str()), ("code", "UNAVAILABLE")];
        assert_eq!(told.get("streams_ended_total", &labels), Some(0.0), "{method}");
    }
    let resolve = format!("{STEP}/Resolve");
    for reason in ["RESOLVE_DENIED", "JOURNAL_UNAVAILABLE", "INTERNAL"] {
        let labels = [("door", "steps"), ("method", resolve.as_str()), ("reason", reason)];
        assert_eq!(told.get("requests_total", &labels), Some(0.0), "{reason}");
    }
}

#[test]
fn the_older_metrics_format_has_the_same_counts() {
    let broker = TestBroker::start_with_metrics();
    let address = broker.metrics_address();
    let ask = |accept: &str| {
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n");
        let (status, head, body) = say(address, request.as_bytes());
        assert_eq!(status, 200, "{head}");
        (head, body)
    };
    let (head, classic) = ask("text/plain;version=0.0.4");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    for part in [
        "# TYPE keyhatch_build_info gauge\nkeyhatch_build_info{version=",
        "# TYPE keyhatch_requests_total counter\nkeyhatch_requests_total{door=",
        "# TYPE keyhatch_start_time_seconds gauge\nkeyhatch_start_time_seconds ",
    ] {
        assert!(classic.contains(part), "{part}: {classic}");
    }
    let samples = |text: &str| {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect::<Vec<_>>()
    };
    let (head, open) = ask("application/openmetrics-text;version=1.0.0,text/plain;q=0.5,*/*;q=0.1");
    assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
    assert_eq!(samples(&classic), samples(&open));
    assert!(!classic.contains("# EOF") && !classic.contains("# UNIT"));
}

#[test]
fn counting_a_request_takes_no_heap_block() {
    let metrics = Metrics::new(vec!["p.S/M".to_owned()], vec![], ["aws_sts"]);
    let count = || {
        let method = metrics.steps.method("/p.S/M");
        method.answer(None);
        method.answer(Some("RESOLVE_DENIED"));
        method.took(Duration::from_micros(70));
    };
    count();
    assert_eq!(measure(count).count_total, 0);
}

#[test]
fn no_stored_value_or_name_reaches_metrics() {
    let world = World::start();
    let (canary, name) = ("canary-51c7", "quite-a-name");
    let create = ["connection", "create", &format!("slack/{name}"), "--field", "api_token=env:V"];
    let access = ["--resolver", "workflow:telling-workflow"];
    world.run(&[&create[..], &access].concat(), &[("V", canary)]);
    let step = ["step", "run", "--workflow", "telling-workflow", "--run", "r-7f", "--step", "s-7f"];
    let get =
        ["--", "sh", "-c", "\"$0\" get slack/quite-a-name; \"$0\" get slack/canary-51c7; true"];
    let program = [env!("CARGO_BIN_EXE_keyhatch")];
    let got = world.run(&[&step[..], &get, &program].concat(), &[]);
    assert!(got.contains(canary), "the control: the step does get it");
    let told = Scrape::of(world.address());
    assert_eq!(told.requests("steps", &format!("{STEP}/Resolve"), "RESOLVE_DENIED"), 1);
    for word in [canary, name, "slack", "telling", "r-7f", "s-7f", "api_token"] {
        assert!(!told.text.contains(word), "{word}");
    }
    assert_eq!(told.values_of("door"), ["admin".to_owned(), "steps".to_owned()].into());
    let who = ["ca", "daemon", "executors/local", "operators/admin"].map(ToOwned::to_owned);
    assert_eq!(told.values_of("who"), who.into());
}

#[test]
fn only_a_loopback_host_is_reported_and_only_by_get() {
    let world = World::start();
    let address = world.address();
    let ask = |line: &str, headers: &str| {
        say(address, format!("{line} HTTP/1.1\r\n{headers}\r\n").as_bytes())
    };
    let host = format!("Host: {address}\r\n");
    assert_eq!(ask("GET /metrics", &host).0, 200);
    assert_eq!(ask("GET /metrics", "Host: localhost:1\r\n").0, 200);
    for foreign in [
        "",
        "Host: rebound.example\r\n",
        "Host: 10.0.0.1:9464\r\n",
        "Host: localhost\r\nHost: rebound.example\r\n",
    ] {
        let (status, _, body) = ask("GET /metrics", foreign);
        assert!(status == 421 || status == 400, "{foreign}: {status}");
        assert!(!body.contains("keyhatch_"), "{foreign}");
    }
    for path in ["/", "/metrics/", "/metrics%2f", "/healthz", "/debug"] {
        assert_eq!(ask(&format!("GET {path}"), &host).0, 404, "{path}");
    }
    for method in ["POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let (status, head, _) = ask(&format!("{method} /metrics"), &host);
        assert_eq!(status, 405, "{method}");
        assert!(head.contains("allow: get"), "{head}");
    }
    let long = format!("{host}X: {}\r\n", "x".repeat(64 * 1024));
    assert_eq!(ask("GET /metrics", &long).0, 431);
    let many = format!("{host}{}", "X: x\r\n".repeat(100));
    assert_eq!(ask("GET /metrics", &many).0, 431);
}

#[test]
fn slow_and_garbled_clients_hold_up_no_step_and_are_cut_off() {
    let world = World::start();
    let address = world.address();
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    for mut stream in silent.iter().take(100) {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").unwrap();
    }
    world.run(
        &[
            "connection",
            "create",
            "slack/a",
            "--field",
            "api_token=env:V",
            "--resolver",
            "workflow:w",
        ],
        &[("V", "t")],
    );
    let step = ["step", "run", "--workflow", "w", "--run", "1", "--step", "s", "--"];
    let get = [env!("CARGO_BIN_EXE_keyhatch"), "get", "slack/a"];
    world.run(&[&step[..], &get].concat(), &[]);
    drop(silent);
    for garbage in [
        &b"\0\0\0\0"[..],
        b"\x16\x03\x01\x02\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
    ] {
        let (status, ..) = say(address, garbage);
        assert!(status == 0 || status == 400, "{garbage:?}: {status}");
    }
    let told = Scrape::of(address);
    assert_eq!(told.requests("steps", &format!("{STEP}/Resolve"), "OK"), 1);
    assert!(world.serving.terminate());
}

#[test]
fn requests_for_other_paths_keep_no_scraper_waiting() {
    let world = World::start();
    let address = world.address();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    say(address, b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
                }
            });
        }
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        // Many times more requests than places.
        let told: Vec<_> = (0..200).map(|_| say(address, request).0).collect();
        is_over.store(true, Ordering::SeqCst);
        assert!(told.iter().all(|status| *status == 200), "{told:?}");
    });
}

#[test]
fn metrics_are_off_by_default_and_only_for_this_host() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    assert!(!serving.log().contains("metrics"));
    serving.terminate();
    for address in ["0.0.0.0:9464", "192.0.2.1:9464", "[::]:9464", "localhost:9464", "9464"] {
        let refused = keyhatch_in(directory.path(), &["serve", "--metrics", address]).output();
        let refused = refused.unwrap();
        let text = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{address}: {text}");
        assert!(text.contains("must be a loopback address with a port"), "{text}");
    }
    let config = directory.path().join("keyhatch.toml");
    std::fs::write(&config, "metrics = \"127.0.0.1:0\"\n").unwrap();
    let mut serve = keyhatch_in(directory.path(), &["serve", "--config"]);
    serve.arg(&config);
    let world = World { serving: ServeProcess::spawn(directory.path(), serve), directory };
    assert_eq!(Scrape::of(world.address()).get("connections", &[]), Some(0.0));
    // A daemon does not start if the address is taken.
    let other = temp_dir();
    init_in(other.path());
    let taken = world.address().to_string();
    let refused = keyhatch_in(other.path(), &["serve", "--metrics", &taken]).output().unwrap();
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains(&taken) && text.contains("choose another address"), "{text}");
}

#[test]
fn status_shows_counts_keys_journal_memory_and_expiry() {
    let world = World::start();
    let status = world.run(&["status", "-o", "json"], &[]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let expected = serde_json::json!({
        "groups": 0,
        "own_integrations": 0,
        "operators": 1,
        "executors": 1,
        "watches": 0,
        "kek_source": "file",
        "deks": 1,
        "resealing": false,
        "journal_mode": "written",
        "core_dumps_off": true,
        "freed_memory_wiped": true,
        "client_version": env!("CARGO_PKG_VERSION"),
    });
    for (name, expected) in expected.as_object().unwrap() {
        assert_eq!(&status[name], expected, "{name}");
    }
    let state = world.directory.path().join("state");
    let end_of = |path: &str| {
        let chain = std::fs::read_to_string(state.join(path)).unwrap();
        Svid::parse_own(&chain).unwrap().not_after.to_string()
    };
    assert_eq!(status["daemon_certificate_expire_time"], end_of("broker/tls.crt"));
    assert_eq!(status["caller_certificate_expire_time"], end_of("operators/admin/tls.crt"));
    assert!(status["ca_expire_time"].as_str().unwrap() > "2030");
    assert!(status["journal_unsynced_lines"].is_u64());
    wait_until("the journal is signed", || {
        let told = world.run(&["status"], &[]);
        let signed = told.lines().find(|line| line.starts_with("signed up to")).unwrap();
        signed.contains("line 1.")
    });
}

#[test]
fn a_renewed_daemon_certificate_shows_in_metrics_at_once() {
    let broker = TestBroker::start_with_metrics();
    let end = || broker.scrape().get("certificate_end_time_seconds", &[("who", "daemon")]).unwrap();
    let before = end();
    // This is past two thirds of the certificate's ninety days.
    broker.advance(61 * 24 * 3600);
    wait_until("the new end is told", || end() > before);
}
