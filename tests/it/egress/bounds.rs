//! What is sent and taken.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc::channel;

use keyhatch::egress::Request;
use keyhatch::model::Value;

use super::{allowing, answered, exchange, get, read_head, serve, told};
use crate::harness::HttpServer;

const OK: &str = "HTTP/1.1 200 OK\r\n";

fn body_of(length: usize) -> Vec<u8> {
    let head = format!("{OK}content-length: {length}\r\n\r\n");
    [head.into_bytes(), vec![b'x'; length]].concat()
}

#[test]
fn a_reply_comes_with_its_status_headers_and_clock() {
    let reply = answered(
        "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nX-Two: a\r\nX-Two: b\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Transfer-Encoding: chunked\r\n\r\n4\r\nslow\r\n0\r\n\r\n",
    );
    let reply = reply.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((reply.status, reply.body.expose()), (429, &b"slow"[..]));
    assert_eq!(reply.date.unwrap().to_string(), "1994-11-06T08:49:37Z");
    let of = |name: &str| {
        let found = reply.headers.iter().filter(|(found, _)| found == name);
        found.map(|(_, value)| value.expose().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(of("retry-after"), [b"7"]);
    assert_eq!(of("x-two"), [b"a", b"b"]);
    let undated = answered(format!("{OK}Date: yesterday\r\ncontent-length: 0\r\n\r\n"));
    assert!(undated.is_ok_and(|reply| reply.date.is_none() && reply.body.is_empty()));
}

#[test]
fn a_request_arrives_as_it_was_made() {
    let server = HttpServer::start(|_| (200, Vec::new(), Vec::new()));
    let origin = format!("http://127.0.0.1:{}", server.port);
    let header = |name: &str, value: &str| (name.to_owned(), Value::new(value.into()));
    let request = Request {
        method: "POST",
        headers: vec![header("Authorization", "Bearer hush"), header("User-Agent", "mine")],
        body: Value::new(b"grant_type=x".to_vec()),
        ..get(&format!("{origin}/t?a=%20b"))
    };
    let reply = exchange(allowing(&[&origin]), request).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(reply.status, 200);
    let asked = &server.asked()[0];
    assert_eq!((asked.path.as_str(), asked.body.as_slice()), ("/t?a=%20b", &b"grant_type=x"[..]));
    for (name, value) in [
        ("host", origin.trim_start_matches("http://")),
        ("authorization", "Bearer hush"),
        ("user-agent", "mine"),
        ("accept-encoding", "identity"),
        ("content-length", "12"),
        ("cookie", ""),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
}

#[test]
fn a_redirect_is_returned_and_never_followed() {
    let (sender, followed) = channel();
    let elsewhere = serve(move |stream| {
        let _ = sender.send(read_head(stream));
    });
    for status in [301, 302, 303, 307, 308] {
        let location = format!("http://127.0.0.1:{elsewhere}/hush");
        let reply = answered(format!(
            "HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nSet-Cookie: a=b\r\ncontent-length: 0\r\n\r\n"
        ));
        let reply = reply.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(reply.status, status);
        assert!(reply.headers.iter().any(|(name, _)| name == "location"));
    }
    assert!(followed.try_recv().is_err());
}

#[test]
fn a_reply_has_at_most_64_kib() {
    assert!(answered(body_of(60 * 1024)).is_ok_and(|reply| reply.body.len() == 60 * 1024));
    let chunks = b"8000\r\n".iter().copied().chain(vec![b'x'; 0x8000]).chain(*b"\r\n");
    let chunks: Vec<u8> = chunks.collect();
    let head = format!("{OK}transfer-encoding: chunked\r\n\r\n").into_bytes();
    let chunked = [head, chunks.repeat(320)].concat();
    let endless =
        [format!("{OK}connection: close\r\n\r\n").into_bytes(), vec![b'x'; 10 << 20]].concat();
    for large in [body_of(64 * 1024), body_of(10 << 20), chunked, endless] {
        let told = told(answered(large));
        assert!(told.starts_with("invalid: ") && told.ends_with("is larger than 64 KiB"), "{told}");
    }
    let header = format!("{OK}x: {}\r\ncontent-length: 0\r\n\r\n", "y".repeat(70_000));
    let many = format!("{OK}{}content-length: 0\r\n\r\n", "a: b\r\n".repeat(200));
    for heads in [header, many, format!("{OK}x: {}", "y".repeat(10 << 20))] {
        let told = told(answered(heads));
        assert!(told.starts_with("invalid: "), "{told}");
    }
}

#[test]
fn what_is_not_http_is_told_from_silence() {
    for garbage in [
        "hush hush\r\n\r\n".as_bytes(),
        b"\x16\x03\x01\x00\x05hush",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhush!",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nhush\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nhush",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: hush\r\nconnection: upgrade\r\n\r\n",
    ] {
        let told = told(answered(garbage));
        assert!(told.starts_with("invalid: "), "{}: {told}", String::from_utf8_lossy(garbage));
    }
    for broken in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhush"] {
        let told = told(answered(broken));
        assert!(told.starts_with("unavailable: "), "{broken}: {told}");
    }
}

#[test]
fn a_slow_upstream_is_given_up() {
    // It sends a byte of an endless header now and then.
    let port = serve(|stream| {
        read_head(stream);
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ");
        while sent.is_ok() {
            std::thread::park_timeout(std::time::Duration::from_millis(200));
            sent = stream.write_all(b"y");
        }
    });
    let origin = format!("http://127.0.0.1:{port}");
    let told = told(exchange(allowing(&[&origin]), get(&origin)));
    assert_eq!(told, format!("unavailable: 127.0.0.1:{port}: no reply within 7 seconds"));
    // It takes the connection, and never speaks TLS.
    let port = serve(|stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let told =
        super::told(exchange(allowing(&["127.0.0.1"]), get(&format!("https://127.0.0.1:{port}"))));
    assert_eq!(told, format!("unavailable: 127.0.0.1:{port}: no connection within 2 seconds"));
}

#[test]
fn a_header_cannot_end_its_line_or_frame_the_request() {
    let (sender, asked) = channel();
    let port = serve(move |stream| {
        let _ = sender.send(read_head(stream));
    });
    let origin = format!("http://127.0.0.1:{port}");
    for (name, value) in [
        ("x", "a\r\nhost: evil"),
        ("x", "a\nb"),
        ("x", "a\rb"),
        ("x", "a\0b"),
        ("x\r\ny", "a"),
        ("x y", "a"),
        ("", "a"),
        ("Host", "evil"),
        ("Content-Length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("Accept-Encoding", "gzip"),
        ("Connection", "keep-alive"),
        ("Proxy-Authorization", "hush"),
    ] {
        let headers = vec![(name.to_owned(), Value::new(value.into()))];
        let told = told(exchange(allowing(&[&origin]), Request { headers, ..get(&origin) }));
        assert!(told.starts_with("malformed: the header "), "{name:?}: {told}");
    }
    let trace = told(exchange(allowing(&[&origin]), Request { method: "TRACE", ..get(&origin) }));
    assert!(trace.starts_with("malformed: "), "{trace}");
    assert!(asked.try_recv().is_err(), "nothing was sent");
}

#[test]
fn no_rule_means_no_loopback_no_own_address_no_plain_http() {
    let (sender, asked) = channel();
    let port = serve(move |stream| {
        let _ = sender.send(read_head(stream));
    });
    for (url, why) in [
        (format!("http://127.0.0.1:{port}"), "plain HTTP is denied"),
        (
            format!("https://127.0.0.1:{port}"),
            "a loopback, link-local, metadata or multicast address",
        ),
        (
            format!("https://localhost:{port}"),
            "a loopback, link-local, metadata or multicast address",
        ),
        (
            format!("https://[::ffff:7f00:1]:{port}"),
            "a loopback, link-local, metadata or multicast address",
        ),
        ("https://169.254.169.254/latest".to_owned(), "a loopback, link-local, metadata"),
    ] {
        let told = told(exchange(allowing(&[]), get(&url)));
        assert!(told.starts_with("denied: ") && told.contains(why), "{url}: {told}");
    }
    // The address from which this host would reach the Internet, if it has a way there.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    if socket.connect("198.51.100.1:9").is_ok() {
        let own = socket.local_addr().unwrap().ip();
        let told = told(exchange(allowing(&[]), get(&format!("https://{own}:{port}"))));
        assert!(told.contains("it is an address of this host"), "{told}");
    }
    assert!(asked.try_recv().is_err(), "nobody was asked");
}
