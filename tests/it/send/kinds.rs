//! Kinds of connections, with upstreams that know them.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;

use super::{TOKEN, World, head, with_headers};
use crate::harness::{bytes, reason, resolver};

#[test]
fn parameters_and_bodies_of_the_connection_are_sent() {
    let world = World::start();
    let base_url = world.upstream.origin();
    let fields = [
        ("base_url", base_url.as_str()),
        ("tokens.key", TOKEN),
        ("url_parameters.apikey", "{{ key }}"),
        ("body", "{\"key\": \"{{ key }}\"}"),
        ("content_type", "application/json"),
    ];
    world.create("http/own", "token", &fields);
    let ask = pb::SendHead { content_length: Some(0), ..head("http/own", "POST", "/a?x=1") };
    let sent = world.send(ask, &[]).unwrap();
    let asked = world.upstream.asked();
    assert_eq!(asked.line(), format!("POST /a?x=1&apikey={TOKEN} HTTP/1.1"));
    assert_eq!(asked.all("content-type"), ["application/json"]);
    assert_eq!(asked.body, format!("{{\"key\": \"{TOKEN}\"}}").as_bytes());
    assert!(!sent.text().contains(TOKEN) && sent.text().contains("apikey=***"));
    // The step can set neither again.
    let own = world.send(head("http/own", "POST", "/a?%61pikey=own"), &[]);
    assert_eq!(reason(own), "SEND_UNSUPPORTED");
    assert!(world.upstream.is_quiet());
}

#[test]
fn a_body_of_the_step_is_joined_with_the_connections() {
    let world = World::start();
    let base_url = world.upstream.origin();
    let create = |name: &str, content_type: &str, body: &str| {
        let fields = [
            ("base_url", base_url.as_str()),
            ("tokens.key", TOKEN),
            ("body", body),
            ("content_type", content_type),
        ];
        world.create(name, "token", &fields);
    };
    create("http/json", "application/json", "{\"key\": \"{{ key }}\"}");
    create("http/text", "text/plain", "key: {{ key }}");
    create("http/form", "application/x-www-form-urlencoded", "key={{ key }}");
    let post = |name: &str, length: Option<i64>, pieces: &[&[u8]]| {
        let ask = pb::SendHead { content_length: length, ..head(name, "POST", "/a") };
        world.send(ask, pieces)
    };
    let merged = format!(r#"{{"a":1,"key":"{TOKEN}"}}"#);
    let lines = format!("key: {TOKEN}\r\none\r\ntwo");
    let json: &[&[u8]] = &[b"{\"a\":1,", b"\"Key\":\"own\"}"];
    for (name, length, pieces, expected) in [
        ("http/json", None, json, &merged),
        ("http/json", Some(19), json, &merged),
        ("http/text", None, &[b"one\r\n", b"two"], &lines),
        ("http/text", Some(8), &[b"one\r\ntwo"], &lines),
    ] {
        let sent = post(name, length, pieces).unwrap();
        let asked = world.upstream.asked();
        assert_eq!(String::from_utf8_lossy(&asked.body), *expected, "{name} {length:?}");
        assert!(!sent.text().contains(TOKEN) && sent.text().contains("***"), "{}", sent.text());
    }
    // Without a body of the step, the connection's goes alone.
    post("http/text", None, &[]).unwrap();
    assert_eq!(world.upstream.asked().body, format!("key: {TOKEN}").as_bytes());
    let large = vec![b' '; 33 * 1024];
    for (name, length, pieces) in [
        ("http/json", None, &[b"own".as_slice()][..]),
        ("http/json", None, &[&large, &large]),
        ("http/json", Some(9), &[b"{}"]),
        ("http/form", None, &[b"a=b"]),
    ] {
        assert_eq!(reason(post(name, length, pieces)), "SEND_INVALID", "{name}");
    }
    let other = with_headers(head("http/json", "POST", "/a"), &[("Content-Type", "text/plain")]);
    assert_eq!(reason(world.send(other, &[b"own"])), "SEND_INVALID");
    assert!(world.upstream.is_quiet());
}

#[test]
fn basic_authentication_is_masked_in_both_forms() {
    let world = World::start();
    let base_url = world.upstream.origin();
    let fields =
        [("base_url", base_url.as_str()), ("username", "deploy"), ("password", "hunter22-x")];
    world.create("http/basic", "basic", &fields);
    let sent = world.send(head("http/basic", "GET", "/"), &[]).unwrap();
    let pair = "ZGVwbG95Omh1bnRlcjIyLXg=";
    assert_eq!(world.upstream.asked().all("authorization"), [format!("Basic {pair}")]);
    assert_eq!(sent.header("x-echo-authorization"), Some("Basic ***"));
    assert!(!sent.text().contains("ZGVwbG95Omh1"), "{}", sent.text());
}

#[test]
fn a_short_password_is_masked_and_a_shorter_not_sent() {
    let world = World::start();
    let base_url = world.upstream.origin();
    let create = |name: &str, password: &str| {
        let fields =
            [("base_url", base_url.as_str()), ("username", "deploy"), ("password", password)];
        world.create(name, "basic", &fields);
        world.send(head(name, "GET", "/?secret=hunter"), &[])
    };
    let sent = create("http/word", "hunter").unwrap();
    assert!(sent.text().starts_with("GET /?secret=*** HTTP/1.1"), "{}", sent.text());
    world.upstream.asked();
    assert_eq!(reason(create("http/short", "ab")), "SEND_UNSUPPORTED");
    assert!(world.upstream.is_quiet());
}

/// http/two, whose token an upstream makes.
pub(super) fn two_step(origin: &str) -> pb::Connection {
    let login = format!("{origin}/login");
    let fields = [
        ("base_url", origin),
        ("request_url", &login),
        ("request_method", "POST"),
        ("tokens.apiKey", TOKEN),
        ("access_token_path", "body.token"),
        ("headers.Authorization", "Bearer {{ accessToken }}"),
        ("headers.Accept", "text/plain"),
    ];
    pb::Connection {
        name: "connections/http/two".to_owned(),
        fields: bytes(&fields),
        access: super::user("workflow:w"),
        release: pb::Release::Minted.into(),
        ..Default::default()
    }
}

#[test]
fn what_is_minted_is_sent_and_never_shown() {
    let world = World::start();
    world.upstream.answers(|request, stream| {
        let body = match request.line().contains("/login") {
            true => r#"{"token": "minted-by-the-upstream"}"#.to_owned(),
            // An upstream may show the token without what stands before it.
            false => format!("{} minted-by-the-upstream", request.head),
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        super::upstream::write(stream, (head + &body).as_bytes());
    });
    let mut connection = two_step(&world.upstream.origin());
    let create =
        pb::CreateConnectionRequest { connection: Some(connection.clone()), ..Default::default() };
    let mut client = ConnectionServiceClient::new(world.broker.operator());
    world.broker.block_on(client.create_connection(create)).unwrap();
    for n in 0..2 {
        let sent = world.send(head("http/two", "GET", "/me"), &[]).unwrap();
        // The token is masked, and not what stands beside it.
        assert!(sent.text().contains("authorization: Bearer ***\r\n"), "{}", sent.text());
        assert!(sent.text().contains("accept: text/plain\r\n"), "{}", sent.text());
        if n == 0 {
            assert!(world.upstream.asked().line().contains("/login"));
        }
        let asked = world.upstream.asked();
        assert_eq!(asked.all("authorization"), ["Bearer minted-by-the-upstream"]);
    }
    assert_eq!(reason(world.broker.resolve(&world.step, "http/two")), "RESOLVE_DENIED");
    // A resolver gets what is sent, and not the token alone.
    connection.access = resolver(&["workflow:w"]);
    let update_mask = Some(prost_types::FieldMask { paths: vec!["access".to_owned()] });
    let update = pb::UpdateConnectionRequest {
        connection: Some(connection),
        update_mask,
        ..Default::default()
    };
    world.broker.block_on(client.update_connection(update)).unwrap();
    let got = world.broker.resolve(&world.step, "http/two").unwrap();
    assert!(got.fields.iter().any(|(name, _)| name == "headers.Authorization"));
    assert!(got.fields.iter().all(|(name, _)| name != "access_token"));
    let all = format!("{:?}", world.broker.journal());
    assert!(!all.contains("minted-by-the-upstream") && !all.contains(TOKEN));
}

#[test]
fn an_access_token_goes_to_the_api_that_it_is_for() {
    let world = World::start();
    let token = r#"{"access_token": "minted-by-oauth", "token_type": "bearer", "expires_in": 600}"#;
    world.upstream.says(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{token}",
        token.len()
    ));
    let [token_url, base_url] =
        ["token", "api"].map(|path| format!("{}/{path}", world.upstream.origin()));
    let own = [("token_url", token_url.as_str()), ("client_id", "c"), ("client_secret", TOKEN)];
    world.create("oauth2/nowhere", "client_credentials", &own);
    let refused = world.send(head("oauth2/nowhere", "GET", "/me"), &[]).unwrap_err();
    assert!(refused.message().contains("base_url"), "{}", refused.message());
    assert_eq!(reason(Err::<(), _>(refused)), "SEND_UNSUPPORTED");
    assert!(world.upstream.is_quiet(), "no token is made for nothing");
    let all = [own.as_slice(), &[("base_url", base_url.as_str())]].concat();
    world.create("oauth2/api", "client_credentials", &all);
    let sent = world.send(head("oauth2/api", "GET", "/me"), &[]).unwrap();
    assert!(world.upstream.asked().line().starts_with("POST /token "));
    let asked = world.upstream.asked();
    assert_eq!(asked.line(), "GET /api/me HTTP/1.1");
    assert_eq!(asked.all("authorization"), ["Bearer minted-by-oauth"]);
    assert!(sent.text().contains(r#""access_token": "***""#), "{}", sent.text());
}

#[test]
fn a_kind_without_requests_says_so() {
    let world = World::start();
    world.create(
        "aws/key",
        "access_key",
        &[("access_key_id", "AKIAEXAMPLE"), ("secret_access_key", TOKEN)],
    );
    let sent = world.send(head("aws/key", "GET", "/"), &[]);
    assert_eq!(reason(sent), "SEND_UNSUPPORTED");
    assert_eq!(world.broker.journaled("send")[0]["reason"], "SEND_UNSUPPORTED");
}
