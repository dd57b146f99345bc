//! psql logs in with a password file.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::channel;

use super::{program, stdout};
use crate::harness::{Steps, connection};

/// Reads a message: 4 bytes of length, which count themselves, and the content.
fn message(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() - 4];
    stream.read_exact(&mut body).unwrap();
    body
}

/// The part of PostgreSQL's protocol that a login needs ("Frontend/Backend Protocol"). The server asks for the password
/// in clear text, returns it to the test, and answers every query with nothing.
fn log_in(mut stream: TcpStream) -> (String, String) {
    const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();
    const GSS_REQUEST: [u8; 4] = 80_877_104_u32.to_be_bytes();
    let mut startup = message(&mut stream);
    while startup.starts_with(&SSL_REQUEST) || startup.starts_with(&GSS_REQUEST) {
        stream.write_all(b"N").unwrap();
        startup = message(&mut stream);
    }
    let words: Vec<_> =
        startup[4..].split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let user =
        words.iter().position(|word| word == "user").map(|at| words[at + 1].to_string()).unwrap();
    // AuthenticationCleartextPassword
    stream.write_all(b"R\0\0\0\x08\0\0\0\x03").unwrap();
    let mut kind = [0];
    stream.read_exact(&mut kind).unwrap();
    let password = message(&mut stream);
    let password = String::from_utf8(password).unwrap().trim_end_matches('\0').to_owned();
    // AuthenticationOk, ReadyForQuery
    stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").unwrap();
    while stream.read_exact(&mut kind).is_ok() {
        message(&mut stream);
        if kind == *b"X" {
            break;
        }
        // EmptyQueryResponse, ReadyForQuery
        stream.write_all(b"I\0\0\0\x04Z\0\0\0\x05I").unwrap();
    }
    (user, password)
}

#[test]
fn psql_logs_in_by_a_password_file_and_by_the_environment() {
    let Some(psql) = program("psql") else { return };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let (sender, logins) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if sender.send(log_in(stream)).is_err() {
                return;
            }
        }
    });
    let password = "colon:back\\slash 'quote";
    let fields = [
        ("host", "127.0.0.1"),
        ("port", port.as_str()),
        ("user", "deploy"),
        ("password", password),
    ];
    let steps = Steps::seeded(&connection("postgres", "main", &fields));
    let by_file = format!(
        "keyhatch get postgres/main --format pgpass --out pgpass; \
         PGPASSFILE=$PWD/pgpass {} -w -h 127.0.0.1 -p {port} -U deploy -c '' any",
        psql.display()
    );
    stdout(&steps, "sh", &["-ec", &by_file]);
    let login = ("deploy".to_owned(), password.to_owned());
    assert_eq!(logins.recv().unwrap(), login);
    let exec =
        ["exec", "--env", "postgres/main", "--", psql.to_str().unwrap(), "-w", "-c", "", "any"];
    stdout(&steps, "keyhatch", &exec);
    assert_eq!(logins.recv().unwrap(), login);
}
