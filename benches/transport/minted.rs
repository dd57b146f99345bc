//! Minted credentials: from the cache, and made anew.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::resolve_request::Target;
use tonic::transport::Channel;

use crate::common::measure::{Load, Rounds, drive};
use crate::common::results::{Figure, Goal, Row};
use crate::common::{CONFIG, Daemon, Process};
use crate::postgres;
use crate::rows::{CONNECTIONS, ROUNDS, resolve_this};
use crate::seed::{self, KindFields};

/// The mints of each source that are measured, after a fifth as many that warm up.
const MINTS: usize = 500;
/// The most CPU of the daemon for a mint, in milliseconds.
const MOST: f64 = 2.0;

/// Measures a minted credential that is in memory beside a stored one of the same size, at the same daemon.
pub async fn cached() -> Vec<Row> {
    let upstream = start_upstream();
    let daemon = Daemon::start_with(&configuration([upstream]), None);
    let admin = daemon.operator().await;
    let client = |release| seed::of_kind("oauth2", "client_credentials", client(upstream), release);
    seed::apply(&admin, vec![client(pb::Release::Minted)("minted".to_owned())]).await;
    seed::apply(&admin, vec![client(pb::Release::Stored)("stored".to_owned())]).await;
    let steps = daemon.steps(CONNECTIONS).await;
    let mut rows = Vec::new();
    for (in_flight, calls) in [(1, 1_200), (64, 6_000)] {
        let load = Load { calls, in_flight };
        let rounds = Rounds::measure(
            ROUNDS,
            async || ask(&daemon.process, &steps, load, "minted", "access_token").await,
            async || ask(&daemon.process, &steps, load, "stored", "client_secret").await,
        );
        let what = format!("minted and in memory, beside stored, {in_flight} in flight");
        rows.push(Row::new(&what, rounds.await, Some(Goal::AtMost(1.1))));
    }
    rows
}

/// Measures mints of each protocol, with all of their Resolve: no credential is in memory, and each has a connection of
/// its own to the upstream, without TLS.
pub async fn cold() -> Vec<Figure> {
    let (upstream, database) = (start_upstream(), postgres::start());
    let ports = [Some(upstream), database.as_ref().map(|server| server.port)];
    let daemon = Daemon::start_with(&configuration(ports.into_iter().flatten()), None);
    let admin = daemon.operator().await;
    let steps = daemon.steps(CONNECTIONS).await;
    let mut kinds = vec![
        ("oauth2", "client_credentials", client(upstream)),
        ("aws", "assume_role", role(upstream)),
    ];
    kinds.extend(database.as_ref().map(|server| ("postgres", "dynamic_user", server.fields())));
    let mut figures = Vec::new();
    for (integration, kind, fields) in kinds {
        let document = seed::of_kind(integration, kind, fields, pb::Release::Minted);
        let all = MINTS + MINTS / 5;
        seed::apply(&admin, (0..all).map(|n| document(format!("c{n}"))).collect()).await;
        let mint = async |first: usize, calls: usize| {
            let steps = steps.clone();
            let mint_one = move |n: usize| {
                let request = named(integration, &format!("c{}", first + n), &[]);
                resolve_this(steps[n % steps.len()].clone(), request)
            };
            drive(&daemon.process, Load { calls, in_flight: 1 }, mint_one).await
        };
        mint(MINTS, all - MINTS).await;
        let milliseconds = mint(0, MINTS).await.cpu / 1000.0;
        let what = format!("CPU of a mint and its Resolve, {integration}/{kind}");
        figures.push(Figure::new(&what, milliseconds, " ms", Some(MOST)));
    }
    figures
}

/// A configuration that allows these ports of this machine.
fn configuration(ports: impl IntoIterator<Item = u16>) -> String {
    let allowed = ports.into_iter().map(|port| format!("\"http://127.0.0.1:{port}\""));
    format!("{CONFIG}\n[egress]\nallow = [{}]\n", allowed.collect::<Vec<_>>().join(", "))
}

fn client(upstream: u16) -> KindFields {
    let url = format!("http://127.0.0.1:{upstream}/token");
    vec![("token_url", url), ("client_id", "bench".to_owned()), ("client_secret", secret())]
}

fn role(upstream: u16) -> KindFields {
    vec![
        ("account_id", "123456789012".to_owned()),
        ("role", "bench".to_owned()),
        ("source_access_key_id", "AKIAIOSFODNN7EXAMPLE".to_owned()),
        ("source_secret_access_key", secret()),
        ("sts_url", format!("http://127.0.0.1:{upstream}/")),
    ]
}

/// A value of forty bytes.
fn secret() -> String {
    "x".repeat(40)
}

fn named(integration: &str, name: &str, fields: &[&str]) -> pb::ResolveRequest {
    let (integration, name) = (integration.to_owned(), name.to_owned());
    let fields = fields.iter().map(|&field| field.to_owned()).collect();
    let target = Some(Target::Connection(pb::ConnectionTarget { integration, name }));
    pb::ResolveRequest { target, fields, ..Default::default() }
}

async fn ask(
    server: &Process,
    steps: &[Channel],
    load: Load,
    name: &'static str,
    field: &'static str,
) -> crate::common::measure::Sample {
    let steps = steps.to_vec();
    let ask_one = move |n: usize| {
        resolve_this(steps[n % steps.len()].clone(), named("oauth2", name, &[field]))
    };
    drive(server, load, ask_one).await
}

/// An upstream in this process: it makes tokens and role sessions for a day. Returns its port.
fn start_upstream() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    port
}

/// Answers one request and closes. A client that goes away is no fault.
fn answer(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut length, mut is_sts) = (String::new(), 0, false);
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        let lower = line.to_ascii_lowercase();
        is_sts |= lower.starts_with("x-amz-date:");
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let (form, body) = if is_sts { ("text/xml", session()) } else { ("application/json", token()) };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {form}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

fn token() -> String {
    format!(
        "{{\"access_token\": \"{}\", \"token_type\": \"Bearer\", \"expires_in\": 86400}}",
        secret()
    )
}

fn session() -> String {
    let end = keyhatch::model::Clock::system().now().after(std::time::Duration::from_secs(3600));
    format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
         <AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
         <SessionToken>{}</SessionToken><Expiration>{end}</Expiration></Credentials></AssumeRoleResult>\
         </AssumeRoleResponse>",
        secret(),
        "t".repeat(400)
    )
}
