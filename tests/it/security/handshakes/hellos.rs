//! Tables of all that can be wrong in the first message of a handshake.

use super::hello::{
    ALPN, EARLY_DATA, Hello, KEY_SHARE, PRE_SHARED_KEY, SERVER_NAME, SIGNATURE_ALGORITHMS,
    SUPPORTED_VERSIONS, record,
};

/// A changed hello, by name. Each is refused with an alert.
type Change = (&'static str, fn(&mut Hello));

pub const REFUSED: [Change; 49] = [
    // Old versions, in the extension and without it.
    ("TLS 1.2 in the extension", |hello| hello.set_versions(&[0x0303])),
    ("TLS 1.1 in the extension", |hello| hello.set_versions(&[0x0302])),
    ("TLS 1.0 in the extension", |hello| hello.set_versions(&[0x0301])),
    ("SSL 3.0 in the extension", |hello| hello.set_versions(&[0x0300])),
    ("every old version", |hello| hello.set_versions(&[0x0303, 0x0302, 0x0301, 0x0300, 0x0200])),
    ("a version to come", |hello| hello.set_versions(&[0x0305])),
    ("a draft of TLS 1.3", |hello| hello.set_versions(&[0x7f1c])),
    ("made-up versions", |hello| hello.set_versions(&[0x0a0a, 0x1a1a, 0xffff])),
    ("TLS 1.2", |hello| hello.remove(SUPPORTED_VERSIONS)),
    ("TLS 1.1", |hello| old(hello, 0x0302)),
    ("TLS 1.0", |hello| old(hello, 0x0301)),
    ("SSL 3.0", |hello| old(hello, 0x0300)),
    ("SSL 2.0", |hello| old(hello, 0x0200)),
    ("DTLS 1.2", |hello| old(hello, 0xfefd)),
    ("no version", |hello| old(hello, 0)),
    // Application protocols.
    ("HTTP/1.1", |hello| hello.set_protocols(&[b"http/1.1"])),
    ("HTTP/1.0 and 1.1", |hello| hello.set_protocols(&[b"http/1.0", b"http/1.1"])),
    ("HTTP/3", |hello| hello.set_protocols(&[b"h3"])),
    ("HTTP/2 in clear", |hello| hello.set_protocols(&[b"h2c"])),
    ("H2 in capitals", |hello| hello.set_protocols(&[b"H2"])),
    ("h2 with a space", |hello| hello.set_protocols(&[b"h2 "])),
    ("an old gRPC protocol", |hello| hello.set_protocols(&[b"grpc-exp"])),
    ("255 bytes of protocol", |hello| hello.set_protocols(&[&[b'h'; 255]])),
    ("no protocol in the list", |hello| hello.set_protocols(&[])),
    ("an empty protocol", |hello| hello.set_protocols(&[b""])),
    ("no list of protocols", |hello| hello.remove(ALPN)),
    // Server names.
    ("a socket's path, as grpcio sends it", |hello| hello.set_server_name(b"tmp%2Fx.sock")),
    ("an empty server name", |hello| hello.set_server_name(b"")),
    ("a server name with a space", |hello| hello.set_server_name(b"local host")),
    ("a server name with a zero", |hello| hello.set_server_name(b"localhost\0")),
    ("a server name that is no text", |hello| hello.set_server_name(&[0xff, 0xfe, 0xfd])),
    ("a server name with a path", |hello| hello.set_server_name(b"localhost/..")),
    ("a server name of 4 KiB", |hello| hello.set_server_name(&[b'a'; 4096])),
    ("a server name that is cut off", |hello| hello.set(SERVER_NAME, &[0, 9, 0, 0, 9, b'l'])),
    // Cryptography.
    ("no cipher suite", |hello| hello.suites.clear()),
    ("old cipher suites", |hello| hello.suites = vec![0xc02f, 0xc030, 0x009c, 0x002f, 0x000a]),
    ("no cipher", |hello| hello.suites = vec![0x0000, 0x0001, 0x0002, 0x00ff]),
    ("made-up cipher suites", |hello| hello.suites = vec![0x1aff, 0xffff]),
    ("no signatures", |hello| hello.remove(SIGNATURE_ALGORITHMS)),
    ("no key share", |hello| hello.remove(KEY_SHARE)),
    ("an X25519 share of 31 bytes", |hello| hello.set_key_shares(&[(29, &[7; 31])])),
    ("an X25519 share of zeros", |hello| hello.set_key_shares(&[(29, &[0; 32])])),
    ("the same group twice", |hello| hello.set_key_shares(&[(29, &[7; 32]), (29, &[8; 32])])),
    // Structure.
    ("a session id of 33 bytes", |hello| hello.session = vec![7; 33]),
    ("compression", |hello| hello.compressions = vec![1]),
    ("no compression, not even none", |hello| hello.compressions.clear()),
    ("a session that is not the last extension", |hello| {
        hello.set_resumption(b"made up");
        hello.set(0xfe00, b"behind it");
    }),
    ("a session without a binder", |hello| {
        hello.set(PRE_SHARED_KEY, &[0, 7, 0, 1, 7, 0, 0, 0, 0, 0, 0]);
    }),
    ("another message", |hello| hello.kind = 2),
];

fn old(hello: &mut Hello, version: u16) {
    hello.remove(SUPPORTED_VERSIONS);
    hello.version = version;
}

/// Changes that a server may ignore at first, or answer before it refuses. The client continues with a good
/// certificate.
pub const PASSED_OVER: [Change; 15] = [
    ("signatures with SHA-1", |hello| hello.set(SIGNATURE_ALGORITHMS, &[0, 4, 2, 1, 2, 3])),
    ("a P-256 share off the curve", |hello| hello.set_key_shares(&[(23, &[4; 65])])),
    ("a session that never was", |hello| hello.set_resumption(b"made up")),
    ("a session of 200 zeros", |hello| hello.set_resumption(&[0; 200])),
    ("a session with the other door's name", |hello| hello.set_resumption(b"operators/admin")),
    ("a session of 16 KiB", |hello| hello.set_resumption(&[7; 16 * 1024])),
    ("a session and 0-RTT data", |hello| early(hello, 100)),
    ("a session and 16 KiB of 0-RTT data", |hello| early(hello, 16 * 1024)),
    ("a session and ten records of 0-RTT data", |hello| {
        early(hello, 1000);
        hello.behind = hello.behind.repeat(10);
    }),
    ("0-RTT data without a session", |hello| {
        early(hello, 100);
        hello.remove(PRE_SHARED_KEY);
    }),
    ("another random", |hello| hello.random = vec![0; 32]),
    ("another session id", |hello| hello.session = vec![7; 32]),
    ("no session id", |hello| hello.session.clear()),
    ("a hundred unknown extensions", |hello| {
        hello.extensions.extend((0..100).map(|n| (0xf000 + n, vec![7; 100])));
    }),
    ("another message behind it", |hello| hello.behind = record(&[1, 0, 0, 0])),
];

/// Adds early data under a key that never existed.
fn early(hello: &mut Hello, length: usize) {
    hello.set(EARLY_DATA, &[]);
    hello.set_resumption(b"made up");
    let length_bytes = u16::try_from(length).unwrap().to_be_bytes();
    hello.behind = [&[23, 3, 3], &length_bytes[..], &vec![7; length]].concat();
}

/// Each extension left out, doubled, emptied, cut off and lengthened.
pub fn extensions_changed(hello: &Hello) -> Vec<(String, Hello)> {
    let mut changed = Vec::new();
    for (number, content) in &hello.extensions {
        let mut add = |what: &str, change: &dyn Fn(&mut Hello)| {
            let mut hello = hello.clone();
            change(&mut hello);
            changed.push((format!("extension {number} {what}"), hello));
        };
        add("left out", &|hello| hello.remove(*number));
        add("twice", &|hello| hello.extensions.push((*number, content.clone())));
        add("empty", &|hello| hello.set(*number, &[]));
        add("cut off", &|hello| hello.set(*number, &content[..content.len().saturating_sub(1)]));
        add("lengthened", &|hello| hello.set(*number, &[content.as_slice(), &[7; 3]].concat()));
    }
    changed
}

/// Bytes that are no handshake, or that claim a wrong length.
pub fn no_hellos(hello: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let with_start = |start: &[u8]| [start, &hello[start.len()..]].concat();
    let message = &hello[5..];
    let long = [&[1, 0xff, 0xff, 0xff], &message[4..]].concat();
    vec![
        ("nothing", Vec::new()),
        ("HTTP/2 in clear", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
        (
            "HTTP/1.1",
            b"POST /keyhatch.v1.StepService/Resolve HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        ),
        ("an upgrade", b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("a PROXY header", b"PROXY UNIX /run/a.sock /run/b.sock\r\n".to_vec()),
        ("SSL 2.0", [&[0x80, 46, 1, 3, 1, 0, 3, 0, 0, 0, 32, 0, 0, 0x2f], &[7; 32][..]].concat()),
        ("zeros", vec![0; 4096]),
        ("ones", vec![0xff; 4096]),
        ("a record of 64 KiB", with_start(&[22, 3, 1, 0xff, 0xff])),
        ("a record one byte too long", [&[22, 3, 1, 0x48, 0x01][..], &vec![7; 0x4801]].concat()),
        ("an empty record", [&[22, 3, 1, 0, 0][..], hello].concat()),
        ("ten thousand empty records", [22, 3, 1, 0, 0].repeat(10_000)),
        ("a message of 16 MiB", record(&long)),
        (
            "a message of 16 MiB that begins",
            [record(&long), record(&[7; 16_000]).repeat(20)].concat(),
        ),
        ("application data first", [&[23, 3, 3, 0, 32][..], &[7; 32]].concat()),
        ("an alert first", vec![21, 3, 3, 0, 2, 2, 40]),
        ("a warning a thousand times", [21, 3, 3, 0, 2, 1, 90].repeat(1000)),
        ("change cipher spec first", [&[20, 3, 3, 0, 1, 1][..], hello].concat()),
        ("change cipher spec ten thousand times", [20, 3, 3, 0, 1, 1].repeat(10_000)),
        ("a heartbeat", vec![24, 3, 3, 0, 3, 1, 0x40, 0]),
        ("an unknown kind of record", with_start(&[99])),
        ("the hello twice", hello.repeat(2)),
        ("the hello and plaintext HTTP/2", [hello, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].concat()),
        (
            "the hello and a plaintext Finished",
            [hello, &record(&[20, 0, 0, 4, 7, 7, 7, 7])].concat(),
        ),
    ]
}
