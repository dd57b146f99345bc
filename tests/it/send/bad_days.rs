//! Upstreams that fail, lie, or never end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::upstream::write;
use super::{World, head};
use crate::harness::{reason, wait_until};
use keyhatch::grpc::pb;

#[test]
fn an_answer_that_could_hide_a_value_is_refused() {
    let world = World::start();
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "nonsense\r\n\r\n",
    ] {
        world.upstream.says(answer);
        assert_eq!(reason(world.get("/")), "UPSTREAM_INVALID", "{answer}");
        world.upstream.asked();
    }
    let many: String = (0..200).map(|n| format!("a{n}: x\r\n")).collect();
    world.upstream.says(format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n"));
    assert_eq!(reason(world.get("/")), "UPSTREAM_INVALID");
    wait_until("all ends are journaled", || world.broker.journaled("sent").len() == 5);
    let ended = world.broker.journaled("sent").pop().unwrap();
    assert_eq!(ended["fault"], "UPSTREAM_INVALID");
}

#[test]
fn a_broken_answer_never_looks_complete() {
    let world = World::start();
    world.upstream.answers(|_, stream| {
        write(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    assert_eq!(reason(world.get("/")), "UPSTREAM_UNAVAILABLE");
}

#[test]
fn only_what_may_be_repeated_is_sent_again() {
    let world = World::start();
    // The upstream answers one request of each connection, and dies at the next.
    let before = Arc::new(AtomicUsize::new(usize::MAX));
    world.upstream.answers(move |request, stream| {
        if before.swap(request.connection, Ordering::SeqCst) == request.connection {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
        write(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    world.get("/1").unwrap();
    world.get("/2").unwrap();
    let lines: Vec<_> = (0..3).map(|_| world.upstream.asked().line().to_owned()).collect();
    assert!(lines[1] == lines[2] && lines[1].contains("/v1/2"), "{lines:?}");
    // A POST on the dead connection may have been done, and is not sent again.
    let post = pb::SendHead { content_length: Some(0), ..head("http/api", "POST", "/3") };
    assert_eq!(reason(world.send(post, &[])), "UPSTREAM_UNAVAILABLE");
    world.upstream.asked();
    assert!(world.upstream.is_quiet());
}

#[test]
fn an_address_that_is_not_allowed_is_not_asked() {
    let world = World::start();
    let denied =
        ["http://127.0.0.1:9/", "https://127.0.0.1:9", "https://10.0.0.1", "https://[::1]"];
    for (n, base_url) in denied.into_iter().enumerate() {
        let name = format!("http/{n}");
        let fields = [("base_url", base_url), ("tokens.key", "x-token-x")];
        world.create(&name, "token", &fields);
        assert_eq!(reason(world.send(head(&name, "GET", "/"), &[])), "EGRESS_DENIED", "{base_url}");
    }
}

#[test]
fn a_large_body_is_streamed_both_ways() {
    let world = World::start();
    let pieces = vec![vec![b'x'; 32 * 1024]; 256];
    let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let sent = world.send(head("http/api", "PUT", "/"), &pieces).unwrap();
    let asked = world.upstream.asked();
    assert_eq!(asked.body.len(), 256 * 32 * 1024);
    assert!(sent.body.ends_with(&asked.body));
}
