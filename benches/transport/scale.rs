//! Rows by size: connections, members of a group, memory, the time to the first answer.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use tokio::sync::mpsc;

use crate::common::measure::{Load, Rounds, drive};
use crate::common::results::{Figure, Goal, Row, middle};
use crate::common::{self, Daemon, in_flight};
use crate::instructions::Counter;
use crate::rows::{CONNECTIONS, ROUNDS, is_ready, resolve_one, resolve_this};
use crate::seed;

/// The numbers of connections.
const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
/// The numbers of members of a group.
const MEMBERS: [usize; 2] = [10, 100_000];
/// The calls over which instructions are counted.
const COUNTED: usize = 2_000;
const STARTS: usize = 5;
/// The steps of the load whose memory goes back, each with 64 connections and 20 thousand requests.
const LOADS: usize = 4;

/// Measures members selected by tag, beside the same connections by name.
pub async fn groups() -> Vec<Row> {
    let mut rows = Vec::new();
    for members in MEMBERS {
        let daemon = Daemon::start();
        let admin = daemon.operator().await;
        seed::fill(&admin, members).await;
        seed::group(&admin, members).await;
        let steps = daemon.steps(CONNECTIONS).await;
        let ask = async |request: fn(usize, usize) -> pb::ResolveRequest| {
            let steps = steps.clone();
            let ask_one =
                move |n: usize| resolve_this(steps[n % steps.len()].clone(), request(members, n));
            let load = Load { calls: 6_000, in_flight: 64 };
            drive(&daemon.process, load, ask_one).await
        };
        let rounds = Rounds::measure(
            ROUNDS,
            async || ask(seed::any_member_of).await,
            async || ask(seed::any_of).await,
        );
        let what = format!("by a group of {}, beside direct, 64 in flight", words(members));
        rows.push(Row::new(&what, rounds.await, Some(Goal::AtMost(1.1))));
    }
    rows
}

/// Measures memory and the time from start to first answer, of an empty daemon and of each number of connections.
pub async fn sizes() -> Vec<Figure> {
    let mut all = Vec::new();
    let mut daemon = Daemon::start();
    all.extend(start_and_memory(&mut daemon, 0).await);
    drop(daemon);
    let mut by_size = Vec::new();
    for size in SIZES {
        let mut daemon = Daemon::start();
        seed::fill(&daemon.operator().await, size).await;
        let mut figures = start_and_memory(&mut daemon, size).await;
        if let Some(counter) = Counter::new() {
            let counted = count_any_of(&mut daemon, &counter, size).await;
            let what = format!("instructions of a Resolve, {} connections", words(size));
            figures.push(Figure::new(&what, counted / 1000.0, " thousand", None));
            by_size.push(counted);
        }
        all.extend(figures);
    }
    if let [few, .., many] = by_size.as_slice() {
        let what = "instructions at 1 million connections, of those at 1 thousand";
        all.push(Figure::new(what, many / few, " ×", Some(1.3)));
    }
    all
}

/// The memory of an empty daemon before the first request; then its own pages after a load, and what of them is left when
/// they had time to go back.
pub async fn idle() -> Vec<Figure> {
    let mut daemon = Daemon::start();
    let (mut all, mut own) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        daemon.stop();
        daemon.serve(&[]);
        while !daemon.says_that_it_serves() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        all.push(daemon.process.memory() * 1024.0 / 1e6);
        own.push(daemon.process.own_memory() * 1024.0 / 1e6);
    }
    let (all, own) = (middle(&all), middle(&own));
    let mut figures = vec![
        Figure::new("VmRSS of an idle daemon", all, " MB", Some(20.0)),
        Figure::new("of it its own pages (RssAnon)", own, " MB", None),
        Figure::new(
            "of it pages of files, which the kernel shares (RssFile)",
            all - own,
            " MB",
            None,
        ),
    ];
    seed::fill(&daemon.operator().await, 1_000).await;
    let own = || daemon.process.own_memory() * 1024.0 / 1e6;
    figures.push(Figure::new("own pages with 1 thousand connections", own(), " MB", None));
    for round in 0..LOADS {
        let executor = ExecutorServiceClient::new(daemon.executor().await);
        let opened = common::open(executor, &format!("load-{round}")).await;
        let directory = PathBuf::from(opened.directory);
        let mut clients = Vec::new();
        for _ in 0..64 {
            clients.push(daemon.connect(&directory).await);
        }
        let ask_one =
            |n: usize| resolve_this(clients[n % clients.len()].clone(), seed::any_of(1_000, n));
        in_flight(20_000, 64, ask_one).await;
    }
    figures.push(Figure::new("own pages right after a load", own(), " MB", None));
    tokio::time::sleep(Duration::from_secs(60)).await;
    figures.push(Figure::new("own pages a minute after it", own(), " MB", None));
    figures
}

async fn start_and_memory(daemon: &mut Daemon, size: usize) -> Vec<Figure> {
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        daemon.stop();
        let begin = Instant::now();
        daemon.serve(&[]);
        wait_until_ready(daemon).await;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        memory.push(daemon.process.memory() * 1024.0 / 1e6);
    }
    let (time_goal, memory_goal) = match size {
        100_000 => (Some(1500.0), Some(250.0)),
        _ => (None, None),
    };
    let size = words(size);
    vec![
        Figure::new(
            &format!("start to first answer, {size} connections"),
            middle(&times),
            " ms",
            time_goal,
        ),
        Figure::new(
            &format!("VmRSS after it, {size} connections"),
            middle(&memory),
            " MB",
            memory_goal,
        ),
    ]
}

async fn wait_until_ready(daemon: &Daemon) {
    while !is_ready(daemon).await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The daemon's instructions for a Resolve of one of `size` connections.
async fn count_any_of(daemon: &mut Daemon, counter: &Counter, size: usize) -> f64 {
    daemon.stop();
    daemon.serve(&counter.instrument());
    wait_until_ready(daemon).await;
    let steps = daemon.steps(CONNECTIONS).await;
    let ask = |from: usize| {
        let steps = steps.clone();
        in_flight(COUNTED, 64, move |n| {
            resolve_this(steps[n % steps.len()].clone(), seed::any_of(size, from + n))
        })
    };
    ask(COUNTED).await;
    counter.count(&daemon.process, ask(0)).await.all / COUNTED as f64
}

fn words(size: usize) -> String {
    match size {
        1_000_000 => "1 million".to_owned(),
        thousands if thousands >= 1_000 => format!("{} thousand", thousands / 1_000),
        few => few.to_string(),
    }
}

/// Measures the memory of an open step, before and after it resolves.
pub async fn open_steps() -> Vec<Figure> {
    const STEPS: usize = 5_000;
    let daemon = Daemon::start();
    seed::create(daemon.operator().await, "prod", "x".repeat(40)).await;
    let executor = ExecutorServiceClient::new(daemon.executor().await);
    // The first step allocates memory that all steps share.
    common::open(executor.clone(), "first").await;
    let before = daemon.process.memory();
    let (sender, mut directories) = mpsc::unbounded_channel();
    in_flight(STEPS, 64, |n| {
        let (executor, sender) = (executor.clone(), sender.clone());
        async move {
            let opened = common::open(executor, &format!("s{n}")).await;
            sender.send(PathBuf::from(opened.directory)).unwrap();
        }
    })
    .await;
    drop(sender);
    let each = || (daemon.process.memory() - before) / STEPS as f64;
    let opened = each();
    while let Some(directory) = directories.recv().await {
        resolve_one(daemon.connect(&directory).await).await;
    }
    vec![
        Figure::new("memory of an open step, of 5 thousand", opened, " KiB", None),
        Figure::new("the same after one Resolve of each", each(), " KiB", None),
    ]
}
