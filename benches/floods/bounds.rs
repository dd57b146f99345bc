//! The disk and the memory that a flood may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_request::Document;
use keyhatch::grpc::pb::apply_service_client::ApplyServiceClient;
use tokio_stream::StreamExt as _;

use crate::children::Flood;
use crate::common::Daemon;
use crate::doors;
use crate::flood::Kind;
use crate::{full, record};

pub const JOURNAL: &str = "journal of a viewer who is refused";
pub const APPLIES: &str = "Applies that stop midway";

/// The number of Applies at once, and the documents of 60 KiB that each sends before it is silent.
const AT_ONCE: usize = 40;
const DOCUMENTS: usize = 1000;
const CONNECTIONS: usize = 10;
/// The longest acceptable wait.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures the journal's growth from a viewer whose flood of calls is refused.
pub async fn journal() {
    let daemon = Daemon::start_with("", None);
    let viewer = doors::viewer(&daemon);
    let lines = daemon.state().join("journal");
    let before = doors::bytes_in(&lines);
    let how_long = Duration::from_secs(if full() { 60 } else { 2 });
    let socket = daemon.admin_socket();
    let target = (socket.as_path(), viewer.as_path());
    let tally = Flood::start(Kind::Refusals, how_long, std::iter::once(target)).tally();
    // Refusals without a line are counted once a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = doors::bytes_in(&lines) - before;
    let count = format!("{} calls in {} s", tally.sent, how_long.as_secs());
    record(JOURNAL, &count, &format!("{grown} bytes of journal"), "less than 1,048,576");
}

/// Measures the memory for many Applies that stop midway.
pub async fn applies() {
    let daemon = Daemon::start_with("", None);
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(daemon.operator().await);
    }
    let before = daemon.process.memory();
    daemon.process.forget_most_memory();
    let sent = Arc::new(AtomicUsize::new(0));
    for channel in channels.iter().cycle().take(AT_ONCE) {
        let mut client = ApplyServiceClient::new(channel.clone());
        let sent = Arc::clone(&sent);
        let documents = tokio_stream::iter(0..DOCUMENTS).map(move |number| {
            sent.fetch_add(1, Ordering::SeqCst);
            let secret = pb::SecretDocument {
                workflow: "bench".to_owned(),
                name: format!("s{number}"),
                value: "x".repeat(60 * 1024).into(),
                ..Default::default()
            };
            pb::ApplyRequest { document: Some(Document::Secret(secret)) }
        });
        let documents = documents.chain(tokio_stream::pending());
        tokio::spawn(async move { client.apply(documents).await.map(drop) });
    }
    let begin = Instant::now();
    // The daemon gives up the silent first Apply, and the next gets its turn.
    while sent.load(Ordering::SeqCst) < 2 * DOCUMENTS {
        assert!(begin.elapsed() < PATIENCE, "no second Apply has its turn");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let more = (daemon.process.most_memory() - before) / 1024.0;
    let count = format!("{AT_ONCE} Applies of 60 MiB");
    record(APPLIES, &count, &format!("{more:.1} MiB more memory"), "less than 150 MiB");
}
