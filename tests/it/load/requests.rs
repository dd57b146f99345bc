//! Requests that are not gRPC, too many, or endless are refused, shed or cut off. Good clients are served as before.

use std::path::PathBuf;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::identity::connect;
use keyhatch::model::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::codegen::Bytes;
use tonic::codegen::http::{Method, Request, Version};
use tonic_types::StatusExt as _;

use crate::harness::raw::{
    Answer, Half, PREFACE, RESOLVE, Raw, frame, framed, header_list, post, say_to_the_end,
};
use crate::harness::{TestBroker, TestStep, identity_in, request, resolve_on, wait_until};

const WATCH: &str = "/keyhatch.v1.StepService/Watch";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const STATUS: &str = "/keyhatch.v1.SystemService/GetStatus";
/// The default flow-control window of a client.
const WINDOW: u32 = 65_535;

/// A broker with a step that may resolve aws/prod.
struct World {
    broker: TestBroker,
    step: TestStep,
}

impl World {
    fn start(limits: Limits) -> Self {
        let broker = TestBroker::start_with(limits);
        broker.create_aws("prod", "s", &["workflow:*"]);
        let step = broker.open("w", "s");
        Self { broker, step }
    }

    fn connect_with(&self, step: &TestStep, window: u32) -> Raw {
        let directory = PathBuf::from(&step.opened.directory);
        let (socket, identity) = (directory.join("keyhatch.sock"), identity_in(&directory));
        self.broker.block_on(Raw::connect(&socket, &identity, window))
    }

    fn connect(&self) -> Raw {
        self.connect_with(&self.step, WINDOW)
    }

    fn connect_admin(&self) -> Raw {
        let identity = identity_in(&self.broker.config.state.join("operators/admin"));
        let socket = self.broker.config.runtime.join("admin.sock");
        self.broker.block_on(Raw::connect(&socket, &identity, WINDOW))
    }

    /// Sends these bytes to the step's socket. Returns all bytes that arrive until it ends the connection.
    fn say(&self, bytes: &[u8]) -> Vec<u8> {
        let directory = PathBuf::from(&self.step.opened.directory);
        let (socket, identity) = (directory.join("keyhatch.sock"), identity_in(&directory));
        self.broker.block_on(async {
            say_to_the_end(connect(&socket, &identity).await.unwrap(), bytes).await
        })
    }

    fn ask(&self, raw: &Raw, request: Request<()>, message: Option<Bytes>) -> Answer {
        self.broker.block_on(raw.ask(request, message)).unwrap()
    }

    fn ask_well(&self, raw: &Raw) -> String {
        self.ask(raw, good(), Some(message())).reason()
    }

    fn begin(&self, raw: &Raw) -> Half {
        let half = self.broker.block_on(raw.begin(good(), &message()));
        // The daemon reads frames in order, so the first request has begun when this one is answered.
        assert_eq!(self.ask(raw, wrong_method(), None).reason(), "HTTP_INVALID");
        half
    }

    /// A good request whose reply is never read.
    fn leave_untaken(&self, deaf: &Raw) -> tonic::codegen::http::Response<h2::RecvStream> {
        let asked = deaf.send(good(), Some(message()));
        self.broker.block_on(async { asked.await.unwrap().await.unwrap() })
    }

    fn is_well(&self) {
        self.broker.resolve(&self.step, "aws/prod").unwrap();
    }

    /// Waits for the end of a connection that only pings.
    fn wait_idly(&self) {
        let raw = self.connect();
        self.broker.block_on(raw.ping_to_the_end());
    }
}

fn good() -> Request<()> {
    post(RESOLVE).body(()).unwrap()
}

fn wrong_method() -> Request<()> {
    post(RESOLVE).method(Method::GET).body(()).unwrap()
}

fn message() -> Bytes {
    framed(&request("aws/prod"))
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of what is refused, and how")]
fn requests_in_another_form_than_grpcs_are_refused() {
    let world = World::start(Limits::default());
    let path = |path: &str| post(path).body(()).unwrap();
    let bare = |uri: &str| Request::post(uri).header("te", "trailers");
    let with = |name: &str, value: &str| post(RESOLVE).header(name, value).body(()).unwrap();
    let to = |authority: &str| {
        let uri = format!("https://{authority}{RESOLVE}");
        bare(&uri).header("content-type", "application/grpc").body(()).unwrap()
    };
    let to_scheme = |scheme: &str| {
        let uri = format!("{scheme}://localhost{RESOLVE}");
        bare(&uri).header("content-type", "application/grpc").body(()).unwrap()
    };
    let of_type = |content_type: &str| {
        let uri = format!("https://localhost{RESOLVE}");
        bare(&uri).header("content-type", content_type).body(()).unwrap()
    };
    // The only form in which h2 sends no :authority.
    let nobody = bare(RESOLVE).version(Version::HTTP_11).header("content-type", "application/grpc");
    let no_te = Request::post(format!("https://localhost{RESOLVE}"));
    let no_te = no_te.header("content-type", "application/grpc").body(()).unwrap();
    let cases = [
        ("GET", wrong_method(), 405, "HTTP_INVALID"),
        (
            "GET of a browser",
            { Request::get(format!("https://localhost{RESOLVE}")).body(()).unwrap() },
            405,
            "405",
        ),
        ("PUT", post(RESOLVE).method(Method::PUT).body(()).unwrap(), 405, "HTTP_INVALID"),
        (
            "no content-type",
            bare(&format!("https://localhost{RESOLVE}")).body(()).unwrap(),
            415,
            "415",
        ),
        ("gRPC-Web", of_type("application/grpc-web"), 415, "415"),
        ("gRPC-Web, text", of_type("application/grpc-web-text+proto"), 415, "415"),
        ("JSON", of_type("application/grpc+json"), 415, "415"),
        ("two content types", with("content-type", "application/grpc"), 415, "415"),
        ("no te", no_te, 400, "HTTP_INVALID"),
        ("another scheme", to_scheme("ftp"), 400, "HTTP_INVALID"),
        ("no authority", nobody.body(()).unwrap(), 400, "HTTP_INVALID"),
        ("another's authority", to("example.com"), 400, "HTTP_INVALID"),
        ("somebody at localhost", to("root@localhost"), 400, "HTTP_INVALID"),
        ("a name that begins alike", to("localhost.example.com"), 400, "HTTP_INVALID"),
        ("a query", path(&format!("{RESOLVE}?a=b")), 400, "HTTP_INVALID"),
        ("an empty query", path(&format!("{RESOLVE}?")), 400, "HTTP_INVALID"),
        ("an escape", path("/keyhatch.v1.StepService/%52esolve"), 200, "Unimplemented"),
        ("two slashes", path("//keyhatch.v1.StepService/Resolve"), 200, "Unimplemented"),
        ("a slash at the end", path(&format!("{RESOLVE}/")), 200, "Unimplemented"),
        (
            "dots",
            path("/keyhatch.v1.StepService/../keyhatch.v1.StepService/Resolve"),
            200,
            "Unimplemented",
        ),
        ("another case", path("/keyhatch.v1.stepservice/resolve"), 200, "Unimplemented"),
        ("an unknown method", path("/keyhatch.v1.StepService/Guess"), 200, "Unimplemented"),
        ("another door's method", path(STATUS), 200, "Unimplemented"),
    ];
    let raw = world.connect();
    for (what, request, http, reason) in cases {
        let body = (request.method() != Method::GET).then(message);
        let answer = world.ask(&raw, request, body);
        assert_eq!((answer.http, answer.reason().as_str()), (http, reason), "{what}: {answer:?}");
        assert_eq!(answer.headers.contains_key("allow"), http == 405, "{what}");
    }
    for name in ["gzip", "deflate", "zstd", "snappy"] {
        let answer = world.ask(&raw, with("grpc-encoding", name), Some(message()));
        assert_eq!((answer.http, answer.reason().as_str()), (200, "Unimplemented"), "{name}");
        let accepted = answer.status.unwrap().metadata().get("grpc-accept-encoding").cloned();
        assert_eq!(accepted.unwrap().to_str().unwrap(), "identity");
    }
    // Good requests are served on the same connection.
    let good_ones = [
        good(),
        of_type("application/grpc+proto"),
        to("localhost:443"),
        with("grpc-encoding", "identity"),
    ];
    for request in good_ones {
        let what = format!("{request:?}");
        assert_eq!(world.ask(&raw, request, Some(message())).reason(), "Ok", "{what}");
    }
    assert_eq!(world.ask(&raw, post(HEALTH).body(()).unwrap(), Some(framed(&()))).reason(), "Ok");
    let admin = world.connect_admin();
    assert_eq!(world.ask(&admin, wrong_method(), None).reason(), "HTTP_INVALID");
    assert_eq!(world.ask(&admin, post(STATUS).body(()).unwrap(), Some(framed(&()))).reason(), "Ok");
}

#[test]
fn a_step_at_its_request_limit_is_refused_at_once() {
    let world = World::start(Limits { step_requests_in_flight: 2, ..Limits::default() });
    let deaf = world.connect_with(&world.step, 0);
    // An incomplete message takes no place.
    let half = world.begin(&deaf);
    let untaken = [world.leave_untaken(&deaf), world.leave_untaken(&deaf)];
    for raw in [world.connect(), world.connect()] {
        let shed = world.ask(&raw, good(), Some(message()));
        assert_eq!(shed.reason(), "OVERLOADED");
        let status = shed.status.unwrap();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert!(status.get_error_details().retry_info().unwrap().retry_delay.is_some());
    }
    let neighbour = world.broker.open("w", "neighbour");
    world.broker.resolve(&neighbour, "aws/prod").unwrap();
    let raw = world.connect();
    assert_eq!(world.ask(&raw, post(HEALTH).body(()).unwrap(), Some(framed(&()))).reason(), "Ok");
    assert_eq!(world.broker.block_on(half.finish()).unwrap().reason(), "OVERLOADED");
    drop((untaken, deaf));
    wait_until("a place is free", || world.ask_well(&raw) == "Ok");
}

#[test]
fn a_full_door_has_places_for_each_still() {
    let limits = Limits {
        own_requests_in_flight: 1,
        all_steps_requests_in_flight: 1,
        admin_requests_in_flight: 1,
        ..Limits::default()
    };
    let world = World::start(limits);
    let deaf = world.connect_with(&world.step, 0);
    let untaken = [world.leave_untaken(&deaf), world.leave_untaken(&deaf)];
    let raw = world.connect();
    assert_eq!(world.ask_well(&raw), "OVERLOADED", "its own place and the pool's are taken");
    let neighbour = world.broker.open("w", "neighbour");
    let neighbours = world.connect_with(&neighbour, WINDOW);
    assert_eq!(world.ask_well(&neighbours), "Ok");
    let others = world.connect_with(&neighbour, 0);
    let others_untaken = world.leave_untaken(&others);
    assert_eq!(world.ask_well(&neighbours), "OVERLOADED");
    let admin = world.connect_admin();
    assert_eq!(world.ask(&admin, post(STATUS).body(()).unwrap(), Some(framed(&()))).reason(), "Ok");
    assert_eq!(world.ask(&raw, post(HEALTH).body(()).unwrap(), Some(framed(&()))).reason(), "Ok");
    drop((untaken, deaf, others_untaken, others));
    wait_until("the place is free", || world.ask_well(&neighbours) == "Ok");
}

#[test]
fn a_place_is_free_before_the_reply_and_watches_need_no_place() {
    let limits =
        Limits { step_requests_in_flight: 1, all_steps_requests_in_flight: 1, ..Limits::default() };
    let world = World::start(limits);
    let raw = world.connect();
    let watch = framed(&pb::WatchRequest { request: Some(request("aws/prod")) });
    let mut watches = Vec::new();
    for _ in 0..8 {
        let asked = raw.send(post(WATCH).body(()).unwrap(), Some(watch.clone()));
        let response = world.broker.block_on(async { asked.await.unwrap().await.unwrap() });
        assert_eq!(
            Answer { http: 200, headers: response.headers().clone(), status: None }.http,
            200
        );
        watches.push(response);
    }
    for number in 0..100 {
        assert_eq!(world.ask_well(&raw), "Ok", "{number}");
    }
}

#[test]
fn unread_replies_count_until_their_reader_is_cut_off() {
    let limits = Limits { step_requests_in_flight: 1, stall_seconds: 1, ..Limits::default() };
    let world = World::start(limits);
    for window in [0, 1] {
        let deaf = world.connect_with(&world.step, window);
        let response = world.leave_untaken(&deaf);
        assert_eq!(world.ask_well(&world.connect()), "OVERLOADED");
        world.broker.block_on(deaf.end());
        drop(response);
        wait_until("the place is free", || world.ask_well(&world.connect()) == "Ok");
    }
}

#[test]
fn an_unfinished_message_is_given_up_and_frees_its_place() {
    let limits =
        Limits { step_requests_in_flight: 1, step_request_seconds: 1, ..Limits::default() };
    let world = World::start(limits);
    let raw = world.connect();
    let half = world.begin(&raw);
    let answer = world.broker.block_on(half.answer()).unwrap();
    assert_eq!(answer.reason(), "REQUEST_TOO_SLOW");
    assert_eq!(answer.status.unwrap().code(), tonic::Code::DeadlineExceeded);
    assert_eq!(world.ask_well(&raw), "Ok");
}

#[test]
fn a_client_that_sends_nothing_or_half_a_frame_is_cut_off() {
    let seconds = Limits { preface_seconds: 1, keepalive_seconds: 1, ..Limits::default() };
    let world = World::start(seconds);
    world.say(b"");
    world.say(&PREFACE[..20]);
    // The client stops within a frame: in its head, in a header list, and before its continuation.
    let settings = [PREFACE, &frame(4, 0, 0, b"")].concat();
    let list = header_list(&[(":method", "POST"), (":path", RESOLVE)]);
    let headers = frame(1, 0, 1, &list);
    for part in [&headers[..5], &headers[..20], &headers] {
        world.say(&[&settings, part].concat());
    }
    world.is_well();
}

#[test]
fn an_idle_connection_ends_and_a_silent_watch_lives_on() {
    let world = World::start(Limits { idle_seconds: 1, ..Limits::default() });
    let mut client = StepServiceClient::new(world.step.channel.clone());
    let ask = pb::WatchRequest { request: Some(request("aws/prod")) };
    let mut watch = world.broker.block_on(client.watch(ask)).unwrap().into_inner();
    let version = |delivery: pb::WatchResponse| delivery.credential.unwrap().version;
    let first = world.broker.block_on(watch.message()).unwrap().unwrap();
    assert_eq!(version(first), 1);
    // Another client of the step keeps an idle connection.
    let directory = PathBuf::from(&world.step.opened.directory);
    let socket = directory.join("keyhatch.sock");
    let pooled = world.broker.connect(&socket, identity_in(&directory)).unwrap();
    let resolve = || world.broker.block_on(resolve_on(pooled.clone(), request("aws/prod")));
    resolve().unwrap();
    for _ in 0..3 {
        world.wait_idly();
    }
    // The daemon has ended that connection, and its client does not notice.
    resolve().unwrap();
    world
        .broker
        .apply(vec![crate::harness::connection_document(
            "aws/prod",
            &[("secret_access_key", "t")],
            vec![],
        )])
        .unwrap();
    let second = world.broker.block_on(watch.message()).unwrap().unwrap();
    assert_eq!(version(second), 2);
}

/// The bytes of one flood: the start of the connection, then its frames.
fn flood(frames: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let beginning = [PREFACE.to_vec(), frame(4, 0, 0, b"")].concat();
    frames.fold(beginning, |mut all, one| {
        all.extend(one);
        all
    })
}

fn open_request(stream: u32) -> Vec<u8> {
    let list = header_list(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":path", RESOLVE),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]);
    frame(1, 4, stream, &list)
}

#[test]
fn known_http2_floods_end_only_their_own_connection() {
    let limits = Limits { stall_seconds: 1, keepalive_seconds: 1, ..Limits::default() };
    let world = World::start(limits);
    let bystander = world.connect();
    let odd = |count: u32| (0..count).map(|number| 2 * number + 1);
    let endless = std::iter::repeat_n(frame(9, 0, 1, &header_list(&[("a", "b")])), 10_000);
    let endless = [frame(1, 0, 1, &header_list(&[(":method", "POST")]))].into_iter().chain(endless);
    let empty = std::iter::repeat_n(frame(0, 0, 1, b""), 10_000);
    let empty = [open_request(1)].into_iter().chain(empty);
    let resets = odd(20_000)
        .map(|stream| [open_request(stream), frame(3, 0, stream, &8_u32.to_be_bytes())].concat());
    let faults = odd(20_000)
        .map(|stream| [open_request(stream), frame(8, 0, stream, &0_u32.to_be_bytes())].concat());
    let bomb = header_list(&[("x-padding", "a".repeat(100).as_str()); 140]);
    let bombs = odd(2_000).map(|stream| frame(1, 4, stream, &bomb));
    let cases = [
        ("CONTINUATION without end", flood(endless)),
        ("empty DATA", flood(empty)),
        ("rapid reset", flood(resets)),
        ("faults of streams", flood(faults)),
        ("too long lists of headers", flood(bombs)),
        ("a frame that is too large", flood([frame(0, 0, 1, &[0; 20_000])].into_iter())),
        ("DATA on no stream", flood([frame(0, 0, 0, b"x")].into_iter())),
        ("PING that is none", flood([frame(6, 0, 0, b"x")].into_iter())),
        ("a window that overflows", {
            flood([frame(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes())].into_iter())
        }),
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in cases {
        // This returns when the daemon has ended the connection.
        let heard = world.say(&bytes);
        assert!(!heard.windows(4).any(|part| part == b"AKIA"), "{what}");
        assert_eq!(world.ask_well(&bystander), "Ok", "{what}");
    }
}

#[test]
fn endless_pings_do_not_keep_an_idle_connection() {
    let world = World::start(Limits { idle_seconds: 1, ..Limits::default() });
    let directory = PathBuf::from(&world.step.opened.directory);
    let socket = directory.join("keyhatch.sock");
    let many = frame(6, 0, 0, &[0; 8]).repeat(100);
    world.broker.block_on(async {
        let stream = connect(&socket, &identity_in(&directory)).await.unwrap();
        let (mut hears, mut says) = tokio::io::split(stream);
        let listening = tokio::spawn(async move {
            let mut heard = [0; 4096];
            while hears.read(&mut heard).await.is_ok_and(|bytes| bytes > 0) {}
        });
        says.write_all(&flood(std::iter::empty())).await.unwrap();
        while says.write_all(&many).await.is_ok() {}
        listening.await.unwrap();
    });
    world.is_well();
}

#[test]
fn a_client_that_pings_and_never_reads_is_cut_off() {
    let world = World::start(Limits { stall_seconds: 1, ..Limits::default() });
    let directory = PathBuf::from(&world.step.opened.directory);
    let socket = directory.join("keyhatch.sock");
    for one in [frame(6, 0, 0, &[0; 8]), frame(4, 0, 0, b"")] {
        let many = one.repeat(1000);
        world.broker.block_on(async {
            let mut stream = connect(&socket, &identity_in(&directory)).await.unwrap();
            stream.write_all(&flood(std::iter::empty())).await.unwrap();
            // The answers fill the socket, then the daemon stops reading, then writing fails.
            while stream.write_all(&many).await.is_ok() {}
        });
        world.is_well();
    }
}
