//! A real server: nginx, with TLS, basic authentication and client certificates.

use keyhatch::grpc::pb;

use super::{World, head};
use crate::harness::{Nginx, UPSTREAM_TOKEN, allowing};

/// The size of a large file, in bytes.
const LARGE: usize = 64 * 1024 * 1024;

/// A world whose broker may ask nginx.
fn world() -> World {
    let mut world = World::start();
    world.broker.config.egress = allowing(&["127.0.0.1"]);
    world.broker.restart();
    world.step = world.broker.open("w", "other");
    world
}

#[test]
fn nginx_lets_the_broker_in_and_the_step_sees_no_secret() {
    let Some(nginx) = Nginx::start() else { return };
    let world = world();
    std::fs::write(nginx.files().join("report"), "all is well").unwrap();
    let origin = nginx.origin();
    let common = [("base_url", origin.as_str()), ("ca_certificate", nginx.ca_pem.as_str())];
    let basic =
        |password| [common.as_slice(), &[("username", "bot"), ("password", password)]].concat();
    world.create("http/basic", "basic", &basic(UPSTREAM_TOKEN));
    world.create("http/wrong", "basic", &basic("another-password"));
    let (certificate, key) = &nginx.client;
    let certified = [("certificate", certificate.as_str()), ("private_key", key.as_str())];
    world.create("http/mtls", "mtls", &[common.as_slice(), &certified].concat());
    world.create("http/none", "none", &common);

    for (reference, path, status) in [
        ("http/basic", "/basic/report", 200),
        ("http/wrong", "/basic/report", 401),
        ("http/none", "/basic/report", 401),
        ("http/mtls", "/certified/report", 200),
        ("http/none", "/certified/report", 403),
    ] {
        let sent = world.send(head(reference, "GET", path), &[]).unwrap();
        assert_eq!(sent.status, status, "{reference} {path}");
        assert_eq!(sent.text() == "all is well", status == 200, "{reference} {path}");
        let login = (reference == "http/basic").then_some("Basic ***");
        assert_eq!(sent.header("x-login"), login, "{reference} {path}");
    }
}

#[test]
fn the_length_is_told_unless_the_answer_is_masked() {
    let Some(nginx) = Nginx::start() else { return };
    let world = world();
    let file = std::fs::File::create(nginx.files().join("large")).unwrap();
    file.set_len(u64::try_from(LARGE).unwrap()).unwrap();
    let base_url = format!("{}/open", nginx.origin());
    let common = [("base_url", base_url.as_str()), ("ca_certificate", nginx.ca_pem.as_str())];
    let basic = [("username", "bot"), ("password", UPSTREAM_TOKEN)];
    world.create("http/basic", "basic", &[common.as_slice(), &basic].concat());
    world.create("http/none", "none", &common);
    let length = LARGE.to_string();
    for (reference, told) in [("http/none", Some(length.as_str())), ("http/basic", None)] {
        let sent = world.send(head(reference, "GET", "/large"), &[]).unwrap();
        assert_eq!((sent.body.len(), sent.header("content-length")), (LARGE, told), "{reference}");
    }
    let head = pb::SendHead { content_length: Some(0), ..head("http/basic", "HEAD", "/large") };
    let sent = world.send(head, &[]).unwrap();
    assert_eq!((sent.body.len(), sent.header("content-length")), (0, None));
}
