//! Strangers hold no door, and no known client holds all of it.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keyhatch::grpc::pb;
use keyhatch::identity::ClientIdentity;
use keyhatch::model::Limits;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Response};

use crate::harness::raw::{RESOLVE, Raw, framed, post};
use crate::harness::{
    GROUP, GroupDaemon, Scrape, ServeProcess, TestBroker, copy_binary, identity_in, keyhatch,
    open_request, request, succeeded, temp_dir, wait_until,
};

const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// The default flow-control window of a client.
const WINDOW: u32 = 65_535;
/// A connection that lasts longer counts as never ended.
const PATIENCE: Duration = Duration::from_secs(20);

fn ask(path: &str) -> (Request<()>, Bytes) {
    (post(path).body(()).unwrap(), framed(&()))
}

fn connect_admin(broker: &TestBroker, identity: &ClientIdentity) -> Raw {
    let socket = broker.config.runtime.join("admin.sock");
    broker.block_on(Raw::connect(&socket, identity, WINDOW))
}

fn connect_step(broker: &TestBroker, directory: &Path, window: u32) -> Raw {
    let socket = directory.join("keyhatch.sock");
    broker.block_on(Raw::connect(&socket, &identity_in(directory), window))
}

/// Opens a stream that the server ends only with the connection.
fn watching(broker: &TestBroker, raw: &Raw, path: &str) -> Response<h2::RecvStream> {
    let (request, message) = ask(path);
    let head = broker.block_on(async { raw.send(request, Some(message)).await?.await });
    let head = head.unwrap();
    assert_eq!(head.status(), 200);
    assert!(!head.headers().contains_key("grpc-status"), "it was refused: {head:?}");
    head
}

/// Asserts that the server ends the connection before the idle timeout would.
fn assert_ends(broker: &TestBroker, raw: Raw) {
    let ended = broker.block_on(async { tokio::time::timeout(PATIENCE, raw.end()).await });
    assert!(ended.is_ok(), "the connection goes on");
}

#[test]
fn a_removed_operators_open_connections_end() {
    let broker = TestBroker::start();
    let gone = broker.enroll_identity("gone", pb::Role::Viewer);
    let held: Vec<_> = (0..3).map(|_| connect_admin(&broker, &gone)).collect();
    let paths = [HEALTH_WATCH, HEALTH_WATCH, REFLECTION];
    let streams = held.iter().zip(paths).map(|(raw, path)| watching(&broker, raw, path));
    let _streams: Vec<_> = streams.collect();
    broker.remove_operator("gone").unwrap();
    held.into_iter().for_each(|raw| assert_ends(&broker, raw));
    let refused = broker.connect(&broker.config.runtime.join("admin.sock"), gone).unwrap_err();
    assert!(refused.contains("removed"), "{refused}");
}

#[test]
fn a_connection_ends_with_its_certificate_at_both_doors() {
    let broker = TestBroker::start();
    let ttl = Some(prost_types::Duration { seconds: 100, nanos: 0 });
    let opened = broker.try_open(pb::OpenStepRequest { ttl, ..open_request("w", "s") }).unwrap();
    let step = connect_step(&broker, Path::new(&opened.directory), WINDOW);
    let operator = identity_in(&broker.config.state.join("operators/admin"));
    let admin = connect_admin(&broker, &operator);
    let _streams = [&step, &admin].map(|raw| watching(&broker, raw, HEALTH_WATCH));
    broker.advance(100);
    assert_ends(&broker, step);
    broker.advance(90 * 24 * 3600);
    assert_ends(&broker, admin);
}

#[test]
fn a_closed_steps_connections_end_whatever_is_open() {
    let broker = TestBroker::start();
    let step = broker.open("w", "s");
    let raw = connect_step(&broker, Path::new(&step.opened.directory), WINDOW);
    let _stream = watching(&broker, &raw, HEALTH_WATCH);
    broker.close(&step);
    assert_ends(&broker, raw);
}

#[test]
fn the_cli_explains_a_refusal_in_the_handshake() {
    let broker = TestBroker::start();
    let gone = broker.enroll_identity("gone", pb::Role::Viewer);
    let directory = broker.scratch().join("gone");
    std::fs::create_dir(&directory).unwrap();
    let env = format!("KEYHATCH_ADDR=unix://{}/admin.sock\n", broker.config.runtime.display());
    for (name, text) in [
        ("ca.crt", gone.ca_pem.as_str()),
        ("tls.crt", &gone.chain_pem),
        ("tls.key", &gone.key_pem),
        ("env", &env),
    ] {
        std::fs::write(directory.join(name), text).unwrap();
    }
    let status = || {
        let mut command = keyhatch(&["status"]);
        command.env("KEYHATCH_DIR", &directory).output().unwrap()
    };
    wait_until("the control: it is let in", || status().status.success());
    broker.remove_operator("gone").unwrap();
    let refused = status();
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("SVID_INVALID") && text.contains("was removed"), "{text}");
    assert!(!text.contains("--uid"), "{text}");
    assert_eq!(refused.status.code(), Some(1));
}

/// The most open streams of a connection.
const STREAMS: usize = 32;

/// Fills the connections with requests without messages.
fn heads(broker: &TestBroker, raws: &[Raw], path: &str) -> Vec<impl Sized + use<>> {
    let mut held = Vec::new();
    for raw in raws {
        for _ in 0..STREAMS {
            held.push(broker.block_on(raw.head(post(path).body(()).unwrap())));
        }
        // The daemon reads frames in order, so it has seen the others when this one is answered.
        if let Some(last) = held.pop() {
            drop(last);
        }
        let (request, message) = ask("/grpc.health.v1.Health/Check");
        broker.block_on(raw.ask(request, Some(message))).unwrap();
    }
    held
}

#[test]
fn heads_without_messages_hold_no_place_of_the_admin_door() {
    let limits = Limits { admin_requests_in_flight: 64, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s", &["workflow:*"]);
    let step = broker.open("w", "s");
    let viewer = broker.enroll_identity("viewer", pb::Role::Viewer);
    let raws: Vec<_> = (0..8).map(|_| connect_admin(&broker, &viewer)).collect();
    let _held = heads(&broker, &raws, "/keyhatch.v1.SystemService/GetStatus");
    broker.renew(&step).unwrap();
    broker.resolve(&step, "aws/prod").unwrap();
    broker.create_aws("other", "s", &[]);
    broker.open("w", "another");
    assert!(broker.close(&step).closed);
}

#[test]
fn unread_replies_of_one_identity_keep_nobody_from_closing() {
    let limits = Limits { admin_requests_in_flight: 16, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    let step = broker.open("w", "s");
    let viewer = broker.enroll_identity("viewer", pb::Role::Viewer);
    let socket = broker.config.runtime.join("admin.sock");
    let raws: Vec<_> = (0..2).map(|_| broker.block_on(Raw::connect(&socket, &viewer, 0))).collect();
    let (mut held, mut refused) = (Vec::new(), 0);
    for _ in 0..20 {
        for raw in &raws {
            let (request, message) = ask("/keyhatch.v1.SystemService/GetStatus");
            let head = broker.block_on(async { raw.send(request, Some(message)).await?.await });
            let head = head.unwrap();
            // A refusal is a response head with its status.
            refused += usize::from(head.headers().contains_key("grpc-status"));
            held.push(head);
        }
    }
    let taken = held.len() - refused;
    assert_eq!(taken, 8 + 4, "the viewer's own places, and a quarter");
    broker.renew(&step).unwrap();
    assert!(broker.close(&step).closed);
}

#[test]
fn steps_of_one_workflow_cannot_hold_the_step_door() {
    let limits = Limits {
        all_steps_requests_in_flight: 64,
        step_requests_in_flight: 32,
        ..Limits::default()
    };
    let broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s", &["workflow:*"]);
    let others = broker.open("others", "s");
    let resolve = || (post(RESOLVE).body(()).unwrap(), framed(&request("aws/prod")));
    let (mut held, mut refused) = (Vec::new(), 0);
    for number in 0..12 {
        let step = broker.try_open(open_request("flood", &format!("s{number}"))).unwrap();
        let raw = connect_step(&broker, Path::new(&step.directory), 0);
        for _ in 0..20 {
            let (request, message) = resolve();
            let head = broker.block_on(async { raw.send(request, Some(message)).await?.await });
            let head = head.unwrap();
            refused += usize::from(head.headers().contains_key("grpc-status"));
            held.push((head, None));
        }
        held.last_mut().unwrap().1 = Some(raw);
    }
    assert_eq!(held.len() - refused, 12 * 8 + 16, "each one's own, and a quarter for all");
    broker.resolve(&others, "aws/prod").unwrap();
    let neighbour = connect_step(&broker, Path::new(&others.opened.directory), WINDOW);
    for _ in 0..STREAMS {
        let (request, message) = resolve();
        let answer = broker.block_on(neighbour.ask(request, Some(message))).unwrap();
        assert_eq!(answer.reason(), "Ok");
    }
}

#[test]
fn heads_of_a_step_use_up_its_rate_and_nothing_else() {
    let limits = Limits { step_request_burst: 200, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s", &["workflow:*"]);
    let (flooding, others) = (broker.open("w", "flooding"), broker.open("w", "others"));
    let directory = Path::new(&flooding.opened.directory);
    let raws: Vec<_> = (0..8).map(|_| connect_step(&broker, directory, WINDOW)).collect();
    let mut held = Vec::new();
    for raw in &raws {
        for _ in 0..STREAMS {
            held.push(broker.block_on(raw.head(post(RESOLVE).body(()).unwrap())));
        }
    }
    wait_until("its rate is used up", || {
        let refused = broker.resolve(&flooding, "aws/prod");
        refused
            .is_err_and(|status| crate::harness::reason::<()>(Err(status)) == "TOO_MANY_REQUESTS")
    });
    broker.resolve(&others, "aws/prod").unwrap();
}

#[test]
fn streams_of_health_are_few_for_each_identity() {
    let broker = TestBroker::start();
    let viewer = broker.enroll_identity("viewer", pb::Role::Viewer);
    let raw = connect_admin(&broker, &viewer);
    let _streams: Vec<_> = (0..4).map(|_| watching(&broker, &raw, HEALTH_WATCH)).collect();
    let another = connect_admin(&broker, &viewer);
    for path in [HEALTH_WATCH, REFLECTION] {
        let (request, message) = ask(path);
        let answer = broker.block_on(another.ask(request, Some(message))).unwrap();
        assert_eq!(answer.reason(), "OVERLOADED");
    }
    let operator = identity_in(&broker.config.state.join("operators/admin"));
    watching(&broker, &connect_admin(&broker, &operator), HEALTH_WATCH);
}

#[test]
fn connections_of_one_identity_leave_room_for_others() {
    let limits = Limits { admin_connections: 32, admin_pending_handshakes: 8, ..Limits::default() };
    let broker = TestBroker::start_with(limits);
    let viewer = broker.enroll_identity("viewer", pb::Role::Viewer);
    let socket = broker.config.runtime.join("admin.sock");
    let connect = || {
        let identity = ClientIdentity {
            ca_pem: viewer.ca_pem.clone(),
            chain_pem: viewer.chain_pem.clone(),
            key_pem: viewer.key_pem.clone(),
        };
        broker.connect(&socket, identity).ok()
    };
    let held: Vec<_> = (0..40).filter_map(|_| connect()).collect();
    assert_eq!(held.len(), 2 + 4, "its own, and a quarter of what all share");
    broker.open("w", "s");
    drop(held);
    wait_until("it is let in again", || connect().is_some());
}

/// A command of another user in the admin group, with the identity and the program that it needs.
fn admin_of_group(directory: &Path, serving: &ServeProcess, name: &str, uid: u32) -> Command {
    let identity = directory.join(name);
    let add = ["operator", "add", name, "--role", "viewer", "--out", identity.to_str().unwrap()];
    succeeded(&serving.run(&add));
    let entries = std::fs::read_dir(&identity).unwrap().map(|entry| entry.unwrap().path());
    for path in entries.chain([identity.clone()]) {
        std::os::unix::fs::chown(path, Some(uid), Some(GROUP)).unwrap();
    }
    let binary = directory.join("keyhatch");
    if !binary.exists() {
        copy_binary(&binary);
    }
    let mut command = Command::new(binary);
    command.args(["connection", "list"]).env_clear().env("KEYHATCH_DIR", identity);
    command.uid(uid).gid(GROUP);
    command
}

#[test]
fn silent_guests_keep_no_other_guest_out() {
    let Some(daemon) = GroupDaemon::start("two users of the admin group", "") else { return };
    let GroupDaemon { directory, serving } = &daemon;
    let mut honest = admin_of_group(directory.path(), serving, "honest", 54_322);
    assert!(honest.output().unwrap().status.success(), "the control");
    let script = "import socket, sys, select\n\
                  held = []\n\
                  print('ready', flush=True)\n\
                  while not select.select([sys.stdin], [], [], 0.01)[0]:\n\
                  \x20   while len(held) < 40:\n\
                  \x20       one = socket.socket(socket.AF_UNIX)\n\
                  \x20       one.setblocking(False)\n\
                  \x20       try: one.connect(sys.argv[1])\n\
                  \x20       except OSError: break\n\
                  \x20       held.append(one)\n\
                  \x20   gone = select.select(held, [], [], 0)[0]\n\
                  \x20   held = [one for one in held if one not in gone]\n";
    let Some(mut silent) = daemon.ready_script(54_321, script) else { return };
    for _ in 0..20 {
        succeeded(&honest.output().unwrap());
        serving.must(&["status"]);
    }
    drop(silent.stdin.take());
    assert!(silent.wait().unwrap().success());
}

#[test]
fn silent_group_members_delay_nobody_and_fill_no_log() {
    let Some(daemon) = GroupDaemon::start("another user in the admin group", "") else { return };
    let script = "import socket, sys\n\
                  held = []\n\
                  for n in range(600):\n\
                  \x20   one = socket.socket(socket.AF_UNIX)\n\
                  \x20   one.connect(sys.argv[1])\n\
                  \x20   if n < 300: held.append(one)\n\
                  \x20   else: one.close()\n\
                  print('ready', flush=True)\n\
                  sys.stdin.read()\n";
    let Some(mut silent) = daemon.ready_script(54_321, script) else { return };
    let status = daemon.serving.run(&["status"]);
    drop(silent.stdin.take());
    assert!(silent.wait().unwrap().success());
    assert!(status.status.success());
    let log = daemon.serving.log();
    assert!(log.contains("too many handshakes"), "{log}");
    // The log has at most ten lines a second, and the test takes less than ten seconds.
    assert!(log.lines().count() < 200, "{}", log.lines().count());
}

#[test]
fn a_group_member_that_always_connects_harms_only_itself() {
    let limits = "admin_guest_connections_per_second = 1\nadmin_guest_connection_burst = 5\n";
    let Some(daemon) = GroupDaemon::start("another user in the admin group", limits) else {
        return;
    };
    // The connections come one at a time, so the socket never has more than one.
    let script = "import socket, sys\n\
                  for n in range(20):\n\
                  \x20   one = socket.socket(socket.AF_UNIX)\n\
                  \x20   one.connect(sys.argv[1])\n\
                  \x20   one.shutdown(socket.SHUT_WR)\n\
                  \x20   while one.recv(100): pass\n";
    let Some(mut busy) = daemon.script(54_321, script) else { return };
    assert!(busy.wait().unwrap().success());
    for _ in 0..10 {
        daemon.serving.must(&["status"]);
    }
    let log = daemon.serving.log();
    assert!(log.contains("connects too often") && !log.contains("too many handshakes"), "{log}");
}

/// Makes connections, each with the beginning of a handshake that never continues.
fn begin_handshakes(socket: &Path, is_over: &AtomicBool) {
    use std::io::Write as _;
    let mut held = std::collections::VecDeque::new();
    while !is_over.load(Ordering::SeqCst) {
        let Ok(mut stream) = UnixStream::connect(socket) else { continue };
        // The daemon may have refused the connection already.
        let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01");
        held.push_back(stream);
        if held.len() > 200 {
            held.pop_front();
        }
    }
}

#[test]
fn half_handshakes_of_the_daemons_user_keep_nobody_out() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let socket = directory.path().join("run/admin.sock");
    let is_over = AtomicBool::new(false);
    let told: Vec<_> = std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| begin_handshakes(&socket, &is_over));
        }
        let told = (0..20).map(|_| serving.run(&["status"])).collect();
        is_over.store(true, Ordering::SeqCst);
        told
    });
    for told in told {
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    }
}

/// A scraper waits no longer than Prometheus does.
fn scrape(address: SocketAddr) -> Result<String, std::io::Error> {
    use std::io::{Read as _, Write as _};
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut told = String::new();
    stream.read_to_string(&mut told)?;
    Ok(told.lines().next().unwrap_or_default().to_owned())
}

/// Holds a hundred connections that send `words`, and replaces each closed one.
fn hold_connections(address: SocketAddr, words: &[u8], is_over: &AtomicBool) {
    use std::io::Write as _;
    let mut held: Vec<TcpStream> = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        held.retain(|stream| {
            stream.set_nonblocking(true).unwrap();
            stream.peek(&mut [0]).is_err()
        });
        while held.len() < 100 {
            let mut stream = TcpStream::connect(address).unwrap();
            // The daemon may have closed the connection by now.
            let _ = stream.write_all(words);
            held.push(stream);
        }
    }
}

/// Asserts that a scraper is answered six times while four threads hold connections that send `words`.
fn scrape_beside(words: &[u8]) {
    let broker = TestBroker::start_with_metrics();
    let address = broker.metrics_address();
    let is_over = AtomicBool::new(false);
    let told: Vec<_> = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| hold_connections(address, words, &is_over));
        }
        let told = (0..6).map(|_| scrape(address)).collect();
        is_over.store(true, Ordering::SeqCst);
        told
    });
    Scrape::of(address);
    assert!(told.iter().flatten().eq(["HTTP/1.1 200 OK"; 6]), "{told:?}");
}

#[test]
fn silent_connections_keep_no_scraper_waiting() {
    scrape_beside(b"");
}

#[test]
fn callers_of_metrics_without_end_keep_no_scraper_waiting() {
    scrape_beside(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
}
