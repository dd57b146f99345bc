//! Counted floods against one door: nobody else notices, and nothing stays behind. `cargo bench --bench floods`
//! measures their cost in time.

#[path = "../../../benches/floods/flood/mod.rs"]
mod flood;

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::identity::{TlsClientStream, connect};
use rustix::io::ioctl_fionread;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};

use self::flood::{KINDS, Kind, Next, Tally, Target};
use crate::harness::{
    ServeProcess, by_shell, bytes, create_aws, identity_in, init_in, keyhatch_in, report, request,
    resolve_on, scale, step_channel, temp_dir, wait_until,
};

/// The most memory that a flood may leave behind in the daemon, in KiB.
const MOST_GROWTH: u64 = 32 * 1024;
/// A door that makes a client wait longer counts as hanging.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time between two requests of the good step. It keeps below its limit of 100 a second.
const GOOD_PACE: Duration = Duration::from_millis(12);

struct Field {
    serving: ServeProcess,
    good: Channel,
    good_directory: PathBuf,
    bad: Vec<PathBuf>,
    runtime: Runtime,
    directory: tempfile::TempDir,
}

/// The memory and files of the daemon, from proc(5).
#[derive(Clone, Copy, Debug)]
struct Holding {
    memory: u64,
    files: usize,
}

impl Field {
    fn start(bad_steps: usize) -> Self {
        Self::start_by(bad_steps, |directory| keyhatch_in(directory, &["serve"]))
    }

    fn start_by(bad_steps: usize, serve: impl FnOnce(&Path) -> Command) -> Self {
        let directory = temp_dir();
        init_in(directory.path());
        let serving = ServeProcess::spawn(directory.path(), serve(directory.path()));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async { create_aws(serving.admin("operators/admin").await).await });
        let open = |step: String| {
            let opened = runtime.block_on(serving.open("deploy", &step));
            PathBuf::from(opened.unwrap().directory)
        };
        let good_directory = open("good".to_owned());
        let bad = (0..bad_steps).map(|n| open(format!("bad{n}"))).collect();
        let good = runtime.block_on(step_channel(&good_directory));
        runtime.block_on(resolve_on(good.clone(), request("aws/prod"))).unwrap();
        Self { serving, good, good_directory, bad, runtime, directory }
    }

    fn step_targets(&self) -> Vec<Target> {
        let target = |step: &PathBuf| Target::new(&step.join("keyhatch.sock"), step);
        self.bad.iter().map(target).collect()
    }

    fn admin_target(&self) -> Target {
        let operator = self.directory.path().join("state/operators/admin");
        Target::new(&self.directory.path().join("run/admin.sock"), &operator)
    }

    async fn replace_secret(&self, secret: &str) {
        let connection = pb::Connection {
            name: "connections/aws/prod".to_owned(),
            fields: bytes(&[("secret_access_key", secret)]),
            ..Default::default()
        };
        let request =
            pb::UpdateConnectionRequest { connection: Some(connection), ..Default::default() };
        let operator = self.serving.admin("operators/admin").await;
        ConnectionServiceClient::new(operator).update_connection(request).await.unwrap();
    }

    fn holding(&self) -> Holding {
        let process = format!("/proc/{}", self.serving.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let memory = memory.trim().trim_end_matches(" kB").parse().unwrap();
        let files = std::fs::read_dir(format!("{process}/fd")).unwrap().count();
        Holding { memory, files }
    }

    /// True if a new client is served at every door: the flooded step's, the good step's, the admin door.
    fn serves(&self) -> bool {
        let status = self.serving.run(&["status"]);
        let is_served = |step: &PathBuf| {
            let asked = async {
                let socket = step.join("keyhatch.sock");
                let channel = channel(&socket, identity_in(step)).await.ok()?;
                resolve_on(channel, request("aws/prod")).await.ok()
            };
            let asked = async { tokio::time::timeout(PATIENCE, asked).await };
            self.runtime.block_on(asked).ok().flatten().is_some()
        };
        status.status.success() && is_served(&self.good_directory) && is_served(&self.bad[0])
    }

    /// Runs a flood while the good step keeps asking. Returns the number of its answers too.
    fn endures(&self, flood: impl FnOnce() -> Tally + Send) -> (Tally, usize) {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let good = scope.spawn(|| {
                let mut answered = 0;
                while !is_over.load(Ordering::SeqCst) {
                    let asked = resolve_on(self.good.clone(), request("aws/prod"));
                    self.runtime.block_on(asked).unwrap();
                    answered += 1;
                    std::thread::park_timeout(GOOD_PACE);
                }
                answered
            });
            let tally = scope.spawn(flood).join();
            is_over.store(true, Ordering::SeqCst);
            (tally.unwrap(), good.join().unwrap())
        })
    }

    /// Runs one flood, and checks that nothing stays behind.
    fn floods(&self, what: &str, flood: impl FnOnce() -> Tally + Send) -> Tally {
        wait_until("somebody new is served before it", || self.serves());
        let before = self.holding();
        let (tally, answered) = self.endures(flood);
        wait_until("somebody new is served after it", || self.serves());
        // The check's own files are closed a moment later.
        wait_until("the files are given back", || self.holding().files <= before.files);
        let after = self.holding();
        let grown = after.memory.saturating_sub(before.memory);
        assert!(grown < MOST_GROWTH, "{what}: {before:?} {after:?}");
        let log = self.serving.log();
        assert!(!log.contains("panicked"), "{what}: {log}");
        let Tally { sent, connected, ended, turned_away, .. } = tally;
        let outcome = format!(
            "{connected} connections, {ended} ended by the server, {turned_away} turned away by the \
             kernel; the other step was answered {answered} of {answered} times; memory grew {grown} KiB"
        );
        report(&format!("flood: {what}"), sent, outcome, "-");
        tally
    }
}

fn name_of(kind: Kind) -> &'static str {
    KINDS.iter().find(|(_, found)| *found == kind).unwrap().0
}

/// Continues until this much was sent, or until the server has ended or delayed this many connections. The rest would
/// show nothing new.
fn until(sent: usize, connections: usize) -> impl FnMut(&Tally) -> Next {
    let mut looks = 0;
    move |tally| {
        looks += 1;
        let is_over = tally.sent >= sent || tally.connected >= connections || looks > sent + 2000;
        if is_over { Next::End } else { Next::GoOn }
    }
}

#[test]
fn endless_frames_of_one_step_reach_nobody_else() {
    let field = Field::start(1);
    let targets = field.step_targets();
    for (kind, sent) in [
        (Kind::RapidReset, scale(20_000, 2_000_000)),
        (Kind::HeaderLists, scale(60, 1000)),
        (Kind::Continuations, scale(20_000, 1_000_000)),
        (Kind::EmptyData, scale(100_000, 1_000_000)),
        (Kind::Pings, scale(100_000, 2_000_000)),
        (Kind::Settings, scale(100_000, 2_000_000)),
    ] {
        let mut pace = until(sent, scale(50, 1000));
        let tally = field.floods(name_of(kind), || flood::run(kind, &targets, 1, &mut pace));
        assert!(tally.sent >= sent || tally.connected > 0, "the control: it was sent: {tally:?}");
    }
}

#[test]
fn connections_dropped_at_any_moment_reach_nobody_else() {
    let field = Field::start(1);
    let (step, admin) = (field.step_targets(), vec![field.admin_target()]);
    let many = scale(3000, 100_000);
    // A step's socket accepts 20 new connections a second. Clients that left before their turn do not count.
    for (kind, at_step) in
        [(Kind::Connections, many), (Kind::HalfHellos, many), (Kind::Handshakes, scale(100, 1000))]
    {
        for (targets, door, sent) in
            [(&step, "step", at_step), (&admin, "admin", scale(1000, 100_000))]
        {
            let mut pace = until(sent, sent);
            let what = format!("{} at the {door} door", name_of(kind));
            let tally = field.floods(&what, || flood::run(kind, targets, 1, &mut pace));
            assert!(tally.connected >= sent.min(50), "the control: it came in: {tally:?}");
        }
    }
}

#[test]
fn clients_that_say_a_byte_at_a_time_reach_nobody_else() {
    let field = Field::start(scale(10, 100));
    let mut targets = field.step_targets();
    targets.push(field.admin_target());
    let count = scale(300, 5000);
    // The flood does a hundred rounds over all clients, and sends a byte in every tenth.
    let a_round = count.div_ceil(64) + 1;
    let come = || {
        let mut looks = 0;
        flood::run(Kind::SlowClients, &targets, count, &mut |_| {
            looks += 1;
            match looks {
                looks if looks > 100 * a_round => Next::End,
                looks if looks % (10 * a_round) == 1 => Next::Beat,
                _ => Next::GoOn,
            }
        })
    };
    // All clients come at once, and the allocator keeps that memory for later clients. So only the second time shows
    // whether anything stays behind.
    let (first, _) = field.endures(come);
    let tally = field.floods("slow-clients, come again", come);
    for tally in [first, tally] {
        assert!(tally.connected >= count, "the control: they all came: {tally:?}");
    }
}

#[test]
fn more_clients_than_descriptors_keep_nobody_out_for_long() {
    const FILES: usize = 128;
    let field = Field::start_by(1, |directory| {
        let line = format!("ulimit -n {FILES} && exec \"$0\" \"$@\"");
        by_shell(&line, &keyhatch_in(directory, &["serve"]))
    });
    let targets = [field.admin_target()];
    let mut looks = 0;
    let tally = field.floods("more clients than file descriptors", || {
        flood::run(Kind::IdleClients, &targets, FILES * 2, &mut |_| {
            looks += 1;
            if looks > scale(400, 4000) { Next::End } else { Next::GoOn }
        })
    });
    // A client that has made the handshake has sent a byte.
    assert!(tally.connected >= FILES * 2, "the control: they all came: {tally:?}");
    assert!(tally.sent < tally.connected, "the control: not all of them came in: {tally:?}");
}

/// A stream that stops reading once the flag is set.
struct Unread {
    stream: TlsClientStream,
    is_left: Arc<AtomicBool>,
}

impl AsyncRead for Unread {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.is_left.load(Ordering::SeqCst) {
            true => Poll::Pending,
            false => Pin::new(&mut self.stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Unread {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A channel over one connection that stops reading once the flag is set, and its socket.
async fn unread(step: &Path, is_left: &Arc<AtomicBool>) -> (Channel, OwnedFd) {
    // The window is larger than the socket's buffer.
    const WINDOW: u32 = 16 << 20;
    let stream = connect(&step.join("keyhatch.sock"), &identity_in(step)).await.unwrap();
    let socket = stream.get_ref().0.as_fd().try_clone_to_owned().unwrap();
    let mut stream = Some(Unread { stream, is_left: Arc::clone(is_left) });
    let connector = tower::service_fn(move |_: Uri| {
        let again = || std::io::Error::from(std::io::ErrorKind::NotConnected);
        std::future::ready(stream.take().map(TokioIo::new).ok_or_else(again))
    });
    let endpoint = Endpoint::from_static("https://localhost")
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    (endpoint.connect_with_connector(connector).await.unwrap(), socket)
}

/// With two open requests, replies are collected and sent together. They must not spin while the socket has no room.
#[test]
fn a_client_that_reads_no_more_costs_no_processor_time() {
    let field = Field::start(1);
    // The unread replies that a step may have fill its socket, and one more fits into a TLS record.
    field.runtime.block_on(field.replace_secret(&"x".repeat(6_000)));
    let is_left = Arc::new(AtomicBool::new(false));
    let (channel, socket) = field.runtime.block_on(unread(&field.bad[0], &is_left));
    let _watches = [(); 2].map(|()| {
        let mut client = StepServiceClient::new(channel.clone());
        let request = pb::WatchRequest { request: Some(request("aws/prod")) };
        field.runtime.block_on(async {
            let mut watch = client.watch(request).await.unwrap().into_inner();
            watch.message().await.unwrap().unwrap();
            watch
        })
    });
    is_left.store(true, Ordering::SeqCst);
    let mut replies = 0;
    loop {
        let before = ioctl_fionread(&socket).unwrap();
        field.runtime.spawn(resolve_on(channel.clone(), request("aws/prod")));
        let has_come = || ioctl_fionread(&socket).unwrap() > before;
        // A reply that does not arrive within a second has no room.
        if !(0..100).any(|_| {
            std::thread::park_timeout(Duration::from_millis(10));
            has_come()
        }) {
            break;
        }
        replies += 1;
        assert!(replies < 1000, "the socket is never full");
    }
    assert!((5..30).contains(&replies), "the control: it was full before that: {replies}");
    let before = field.serving.ticks();
    std::thread::park_timeout(Duration::from_secs(1));
    let burnt = field.serving.ticks() - before;
    // A spinning loop uses a whole processor.
    assert!(burnt < 20, "{burnt} hundredths of a processor, after {replies} replies");
    assert!(field.serves());
}
