//! What goes out, what comes back, and what is told of it.

use super::upstream::write;
use super::{TOKEN, World, head, with_headers};
use crate::harness::{reason, wait_until};
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;

#[test]
fn a_step_uses_a_token_that_it_never_sees() {
    let world = World::start();
    let ask = with_headers(
        head("http/api", "POST", "/orders?page=2"),
        &[("Authorization", "Bearer own"), ("Content-Type", "text/plain")],
    );
    let sent = world.send(pb::SendHead { content_length: Some(8), ..ask }, &[b"half", b"half"]);
    let sent = sent.unwrap();
    let asked = world.upstream.asked();
    assert_eq!(asked.line(), "POST /v1/orders?page=2 HTTP/1.1");
    assert_eq!(asked.all("authorization"), [format!("Bearer {TOKEN}")]);
    assert_eq!(asked.all("host"), [format!("127.0.0.1:{}", world.upstream.port)]);
    assert_eq!(asked.all("content-length"), ["8"]);
    assert_eq!((asked.all("content-type"), &*asked.body), (vec!["text/plain"], &b"halfhalf"[..]));
    // All that comes back repeats the token, and the step sees nothing of it.
    assert_eq!((sent.status, sent.version), (200, 1));
    assert_eq!(sent.header("x-echo-authorization"), Some("Bearer ***"));
    assert_eq!(sent.header("content-length"), None, "the masked body has another length");
    assert!(sent.text().contains("authorization: Bearer ***\r\n"), "{}", sent.text());
    assert!(sent.text().ends_with("halfhalf"));
    let decided = world.broker.journaled("send").pop().unwrap();
    let action = &decided["action"]["send"];
    assert_eq!((&action["method"], &action["path"]), (&"POST".into(), &"/v1/orders".into()));
    assert_eq!(action["host"], format!("127.0.0.1:{}", world.upstream.port));
    wait_until("the end is journaled", || world.broker.journaled("sent").len() == 1);
    let ended = world.broker.journaled("sent").pop().unwrap();
    assert_eq!((&ended["status"], &ended["sent_bytes"]), (&200.into(), &8.into()));
    assert_eq!(ended["lease"], decided["lease"]);
    assert!(ended.get("fault").is_none(), "{ended}");
    let all = format!("{:?}", world.broker.journal());
    assert!(!all.contains(TOKEN) && !all.contains("page=2"));
}

#[test]
fn a_user_gets_no_value_and_others_send_nothing() {
    let world = World::start();
    assert_eq!(reason(world.broker.resolve(&world.step, "http/api")), "RESOLVE_DENIED");
    let other = world.broker.open("other", "s");
    let refused = |path: &str, reference: &str| {
        let sent =
            world.broker.block_on(super::begin(&other.channel, head(reference, "GET", path), &[]));
        let status = sent.err().unwrap();
        (status.code(), status.message().split("explain").next().unwrap().to_owned())
    };
    assert_eq!(refused("/", "http/api"), refused("/", "http/none"));
    assert!(world.upstream.is_quiet());
    assert_eq!(world.broker.journaled("send").len(), 2);
    assert!(world.broker.journaled("sent").is_empty());
}

#[test]
fn nothing_malformed_goes_out() {
    let world = World::start();
    for (method, path) in [
        ("GET", "/../admin"),
        ("GET", "/%2e%2e/admin"),
        ("GET", "//evil.example/"),
        ("GET", "https://evil.example/"),
        ("GET", "/\\evil.example"),
        ("GET", "/a\r\nX: y"),
        ("CONNECT", "/"),
        ("TRACE", "/"),
        ("get", "/"),
        ("GET /x HTTP/1.1\r\n", "/"),
    ] {
        let sent = world.send(head("http/api", method, path), &[]);
        assert_eq!(reason(sent), "SEND_INVALID", "{method} {path}");
    }
    for (name, value) in
        [("Host", "x"), ("Transfer-Encoding", "chunked"), ("A", "x\r\nB: y"), ("Upgrade", "h2c")]
    {
        let ask = with_headers(head("http/api", "GET", "/"), &[(name, value)]);
        assert_eq!(reason(world.send(ask, &[])), "SEND_INVALID", "{name}");
    }
    let length =
        |length| pb::SendHead { content_length: Some(length), ..head("http/api", "POST", "/") };
    assert_eq!(reason(world.send(length(-1), &[])), "SEND_INVALID");
    assert_eq!(reason(world.send(pb::SendHead::default(), &[])), "TARGET_INVALID");
    assert!(world.upstream.is_quiet());
    // A body that is too short reaches the upstream only in part, and its rest never.
    assert_eq!(reason(world.send(length(9), &[b"short"])), "SEND_INVALID");
}

#[test]
fn a_body_without_length_is_sent_in_chunks() {
    let world = World::start();
    world.send(head("http/api", "PUT", ""), &[b"one", b"two"]).unwrap();
    let asked = world.upstream.asked();
    assert_eq!(asked.line(), "PUT /v1 HTTP/1.1");
    assert_eq!(asked.all("transfer-encoding"), ["chunked"]);
    assert_eq!((asked.all("content-length").len(), &*asked.body), (0, &b"onetwo"[..]));
    // Without a body there is no framing of one.
    world.get("/").unwrap();
    let asked = world.upstream.asked();
    assert_eq!((asked.all("transfer-encoding").len(), asked.body.len()), (0, 0));
    // Bytes beyond the announced length are not sent.
    let ask = pb::SendHead { content_length: Some(3), ..head("http/api", "PUT", "/") };
    world.send(ask, &[b"one and more", b"GET / HTTP/1.1\r\n\r\n"]).unwrap();
    assert_eq!(world.upstream.asked().body, b"one");
    assert!(world.upstream.is_quiet());
}

#[test]
fn a_redirect_is_an_answer_like_any_other() {
    let world = World::start();
    world
        .upstream
        .says("HTTP/1.1 307 Moved\r\nlocation: https://evil.example/\r\ncontent-length: 0\r\n\r\n");
    let sent = world.get("/").unwrap();
    assert_eq!((sent.status, sent.header("location")), (307, Some("https://evil.example/")));
    world.upstream.asked();
    assert!(world.upstream.is_quiet());
}

#[test]
fn a_value_is_masked_wherever_the_pieces_end() {
    let world = World::start();
    let encoded = base64(TOKEN);
    world.upstream.answers(move |_, stream| {
        write(stream, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-last\r\n\r\n");
        let text = format!("a {TOKEN} b {encoded} c");
        for byte in text.bytes() {
            write(stream, format!("1\r\n{}\r\n", char::from(byte)).as_bytes());
        }
        write(stream, format!("0\r\nx-last: {TOKEN}\r\n\r\n").as_bytes());
    });
    let sent = world.get("/").unwrap();
    assert!(!sent.text().contains(TOKEN) && !sent.text().contains(&base64(TOKEN)[..16]));
    assert!(
        sent.text().starts_with("a *** b ***") && sent.text().ends_with(" c"),
        "{}",
        sent.text()
    );
    assert_eq!(sent.trailers, [("x-last".to_owned(), "***".to_owned())]);
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn connections_to_an_upstream_are_kept_and_shared() {
    let world = World::start();
    for _ in 0..3 {
        world.get("/").unwrap();
        assert_eq!(world.upstream.asked().connection, 0);
    }
    // Another version of the connection shares nothing with it.
    let fields = crate::harness::bytes(&[("tokens.key", "another-token-1")]);
    world.update(pb::Connection { fields, ..Default::default() }, &["fields.`tokens.key`"]);
    world.get("/").unwrap();
    let asked = world.upstream.asked();
    assert_eq!((asked.connection, asked.all("authorization")), (1, vec!["Bearer another-token-1"]));
    // Another step shares nothing with either.
    let other = world.broker.open("w", "other");
    let sent = world.broker.block_on(async {
        super::whole(super::begin(&other.channel, head("http/api", "GET", "/"), &[]).await?).await
    });
    assert_eq!((sent.unwrap().status, world.upstream.asked().connection), (200, 2));
}

#[test]
fn a_body_that_may_stay_unread_ends_its_connection() {
    let world = World::start();
    // Whether the connection is closed after a request with a body.
    let closes = |method: &str| {
        let ask = pb::SendHead { content_length: Some(3), ..head("http/api", method, "/") };
        world.send(ask, &[b"GET"]).unwrap();
        let asked = world.upstream.asked();
        world.get("/").unwrap();
        let is_other = world.upstream.asked().connection != asked.connection;
        assert_eq!(asked.all("connection").contains(&"close"), is_other, "{method}");
        is_other
    };
    assert!(!["POST", "PUT", "PATCH"].into_iter().any(closes));
    // An upstream that leaves such a body unread would answer it as the next request.
    assert!(["GET", "DELETE", "OPTIONS", "REPORT"].into_iter().all(closes));
}

#[test]
fn a_body_of_a_get_needs_its_length() {
    let world = World::start();
    for method in ["GET", "HEAD"] {
        let sent = world.send(head("http/api", method, "/"), &[b"body"]);
        assert!(sent.as_ref().unwrap_err().message().contains("content_length"), "{sent:?}");
        assert_eq!(reason(sent), "SEND_INVALID", "{method}");
    }
    assert!(world.upstream.is_quiet());
}

#[test]
fn an_answer_gives_no_session_and_no_sum_over_a_value() {
    let world = World::start();
    world.upstream.says(
        "HTTP/1.1 200 OK\r\nset-cookie: session=1\r\netag: \"2\"\r\ncontent-digest: sha-256=:3:\r\n\
         x-S3CRET-token-of-the-API: 4\r\ntransfer-encoding: chunked\r\n\r\n\
         0\r\nset-cookie: session=5\r\nrepr-digest: sha-256=:6:\r\nx-last: 7\r\n\r\n",
    );
    let sent = world.get("/").unwrap();
    assert_eq!(sent.headers, [("etag".to_owned(), "\"2\"".to_owned())]);
    assert_eq!(sent.trailers, [("x-last".to_owned(), "7".to_owned())]);
    // The length of a body that does not come tells as much.
    world.upstream.says("HTTP/1.1 200 OK\r\ncontent-length: 123\r\n\r\n");
    let ask = pb::SendHead { content_length: Some(0), ..head("http/api", "HEAD", "/") };
    assert!(world.send(ask, &[]).unwrap().headers.is_empty());
}

#[test]
fn a_connection_admits_the_methods_and_paths_it_says() {
    let world = World::start();
    let limited = |methods: &[&str], paths: &[&str]| {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        let send = Some(pb::SendLimits { methods: owned(methods), paths: owned(paths) });
        world.try_update(pb::Connection { send, ..Default::default() }, &["send"])
    };
    limited(&["GET"], &["/orders"]).unwrap();
    world.get("/orders/1?page=2").unwrap();
    for (method, path) in
        [("POST", "/orders"), ("GET", "/ordersx"), ("GET", "/"), ("GET", "/orders%2F1")]
    {
        let sent = world.send(head("http/api", method, path), &[]);
        assert_eq!(reason(sent), "SEND_NOT_ALLOWED", "{method} {path}");
    }
    let ask =
        with_headers(head("http/api", "GET", "/orders"), &[("X-HTTP-Method-Override", "PUT")]);
    assert_eq!(reason(world.send(ask, &[])), "SEND_NOT_ALLOWED");
    assert_eq!(reason(world.get("/orders?a=1&%5Fmethod=PUT")), "SEND_NOT_ALLOWED");
    assert_eq!(world.upstream.asked().line(), "GET /v1/orders/1?page=2 HTTP/1.1");
    assert!(world.upstream.is_quiet());
    // To admit less is an edit, and to admit more sends the credential elsewhere.
    limited(&["GET"], &["/orders/1"]).unwrap();
    assert_eq!(reason(limited(&["GET"], &["/orders"])), "SECRETS_REQUIRED");
    assert_eq!(reason(limited(&[], &["/orders/1"])), "SECRETS_REQUIRED");
    assert_eq!(reason(limited(&["get"], &[])), "NAME_INVALID");
}

#[test]
fn a_run_tells_what_was_sent_for_it() {
    let world = World::start();
    world.get("/orders?page=2").unwrap();
    world.get("/orders").unwrap();
    wait_until("the ends are journaled", || world.broker.journaled("sent").len() == 2);
    let request = pb::GetRunRequest { workflow: "w".to_owned(), run: "1".to_owned() };
    let mut client = ExecutorServiceClient::new(world.broker.executor());
    let run = world.broker.block_on(client.get_run(request)).unwrap().into_inner();
    let used = run.steps.into_iter().find(|step| !step.used.is_empty()).unwrap().used;
    let [used] = used.as_slice() else { panic!("{used:?}") };
    let request = used.http_request.as_ref().unwrap();
    assert_eq!((used.times, &*used.name), (2, "connections/http/api"));
    assert_eq!((&*request.method, &*request.path, request.last_status), ("GET", "/v1/orders", 200));
    assert!(request.last_fault.is_empty() && request.received_bytes > 0);
}
