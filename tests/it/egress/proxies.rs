//! Upstreams behind a proxy.

use std::io::Write as _;

use keyhatch::egress::{EgressTable, Request};

use super::{exchange, get, read_head, serve, told};
use crate::harness::{HttpServer, Internet};

#[test]
fn an_allowed_name_is_reached_through_the_proxy() {
    let server = HttpServer::start(|_| (200, Vec::new(), b"token".to_vec()));
    let internet = Internet::start(&["sts.example"], server.port);
    let ca_certificate = || Some(internet.ca_pem.clone().into_bytes());
    let request = |url: &str| Request {
        ca_certificate: ca_certificate(),
        // The proxy resolves by itself; the configuration answers for the name.
        is_private_denied: true,
        ..get(url)
    };
    let reply = exchange(internet.rules(), request("https://sts.example/t"));
    assert!(reply.is_ok_and(|reply| reply.body.expose() == b"token"));
    assert_eq!(server.asked()[0].header("host"), "sts.example");
    assert_eq!(internet.asked(), ["sts.example:443"]);
    // Everything else is dialled directly, and decided by its address.
    for url in ["https://localhost/t", "https://127.0.0.1/t", "https://[::1]:8443/t"] {
        let told = told(exchange(internet.rules(), request(url)));
        assert!(told.starts_with("denied: "), "{url}: {told}");
    }
    assert_eq!(internet.asked(), [""; 0]);
}

#[test]
fn a_proxy_that_refuses_is_named_and_its_words_are_not() {
    for (answer, expected) in [
        (
            "HTTP/1.1 403 hush\r\n\r\nhush",
            "the proxy does not connect to up.example:443: status 403",
        ),
        ("HTTP/1.0 200 OK\r\n\r\n", "up.example:443"),
        ("hush\r\n\r\n", "it is no HTTP proxy"),
        ("HTTP/1.1 2x0 OK\r\n\r\n", "it is no HTTP proxy"),
        ("", "it is no HTTP proxy"),
    ] {
        let port = serve(move |stream| {
            let head = read_head(stream);
            assert!(
                head.starts_with("CONNECT up.example:443 HTTP/1.1\r\nHost: up.example:443\r\n"),
                "{head}"
            );
            let _ = stream.write_all(answer.as_bytes());
        });
        let table = EgressTable {
            allow: vec!["up.example".to_owned()],
            deny: Vec::new(),
            proxy: Some(format!("http://127.0.0.1:{port}")),
        };
        let told = told(exchange(table.rules().unwrap(), get("https://up.example/hush")));
        assert!(told.starts_with("unavailable: ") && told.contains(expected), "{answer}: {told}");
    }
}
