//! The way out: where the daemon connects to, and what it takes from there. The upstreams are servers on loopback that
//! misbehave; the way out itself is the daemon's.

mod bounds;
mod certificates;
mod proxies;
mod upstreams;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use keyhatch::egress::{Egress, EgressError, MAX_REPLY_BYTES, Reply, Request, Rules};
use keyhatch::model::Value;

use crate::harness::{allowing, block_on};

/// A `GET` of a URL.
fn get(url: &str) -> Request {
    Request {
        method: "GET",
        url: Value::new(url.into()),
        headers: Vec::new(),
        body: Value::new(Vec::new()),
        ca_certificate: None,
        is_private_denied: false,
        max_reply_bytes: MAX_REPLY_BYTES,
    }
}

/// A request by these rules.
fn exchange(rules: Rules, request: Request) -> Result<Reply, EgressError> {
    block_on(Egress::new(rules).exchange(request))
}

/// The message of a failure. It contains nothing of the URL's path.
#[track_caller]
fn told(outcome: Result<Reply, EgressError>) -> String {
    let Err(error) = outcome else { panic!("the exchange succeeded") };
    let told = error.to_string();
    assert!(!told.contains("hush"), "{told}");
    let kind = match error {
        EgressError::Closed(_) => "closed",
        EgressError::Denied(_) => "denied",
        EgressError::Body(_) => "body",
        EgressError::Malformed(_) => "malformed",
        EgressError::Invalid(_) => "invalid",
        EgressError::Unavailable(_) => "unavailable",
    };
    format!("{kind}: {told}")
}

/// A server that gives each connection to a function, in a thread that ends with the test's process. Returns its port.
fn serve(answer: impl Fn(&mut TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            answer(&mut stream);
        }
    });
    port
}

/// Reads the head of a request.
fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

/// The reply to a request that a server answers with these bytes.
fn answered(bytes: impl Into<Vec<u8>>) -> Result<Reply, EgressError> {
    let bytes = bytes.into();
    let port = serve(move |stream| {
        read_head(stream);
        // The client hangs up when it has seen enough.
        let _ = stream.write_all(&bytes);
    });
    let origin = format!("http://127.0.0.1:{port}");
    exchange(allowing(&[&origin]), get(&format!("{origin}/hush?hush=1")))
}
