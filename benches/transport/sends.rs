//! `StepService.Send`, beside the same requests made directly: to a TLS server in this process, over connections that are
//! kept.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http1::SendRequest as Connection;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::send_head::Target;
use keyhatch::grpc::pb::send_request::Part as RequestPart;
use keyhatch::grpc::pb::send_response::Part;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::Channel;

use crate::common::measure::{Load, Sample, drive};
use crate::common::results::{Figure, middle};
use crate::common::{CONFIG, Daemon, Process};
use crate::{rows, seed};

/// Rounds of each side, in turns, and the requests of a round.
const ROUNDS: usize = 21;
const REQUESTS: usize = 200;
/// The most that a Send may add to the median of a request, in milliseconds.
const MOST_MORE: f64 = 0.3;
/// A large body, in bytes, and the longest time for it: 300 MB/s.
const LARGE: u64 = 1 << 30;
const LONGEST: f64 = LARGE as f64 / 300e6;
/// The most memory that it may take, in MB.
const MOST_MEMORY: f64 = 20.0;
const PIECE: usize = 64 * 1024;
/// Exchanges that go on beside steps that resolve, and the most that the p99 may grow.
const STREAMS: usize = 2;
const MOST_SLOWER: f64 = 1.5;
/// Rounds of each side beside streams, and the calls of a round.
const BESIDE: (usize, usize) = (7, 2_000);

pub async fn sends() -> Vec<Figure> {
    let upstream = Upstream::start();
    let daemon =
        Daemon::start_with(&format!("{CONFIG}\n[egress]\nallow = [\"127.0.0.1\"]\n"), None);
    let admin = daemon.operator().await;
    let document = seed::of_kind("http", "token", upstream.fields(), pb::Release::Stored);
    seed::apply(&admin, vec![document("api".to_owned())]).await;
    seed::create(admin, "prod", "x".repeat(40)).await;
    let step = daemon.steps(1).await;
    let others = daemon.step_each(&["a", "b", "c", "d"]).await;
    let mut figures = vec![small(&daemon.process, &step[0], &upstream).await];
    figures.extend(large(&daemon.process, &step[0]).await);
    figures.push(beside(&daemon.process, &step[0], &others, &upstream).await);
    figures
}

/// The same small request by both ways, in turns.
async fn small(server: &Process, step: &Channel, upstream: &Upstream) -> Figure {
    let direct = Arc::new(tokio::sync::Mutex::new(upstream.connect().await));
    let load = Load { calls: REQUESTS, in_flight: 1 };
    let mut more = Vec::new();
    for round in 0..=ROUNDS {
        let step = step.clone();
        let ours = drive(server, load, move |_| {
            let step = step.clone();
            async move { assert_eq!(send(step, "/small").await, 2) }
        });
        let ours = ours.await;
        let direct = Arc::clone(&direct);
        let bar = drive(server, load, move |_| {
            let direct = Arc::clone(&direct);
            async move { assert_eq!(ask(&mut *direct.lock().await, "/small").await, 2) }
        });
        let bar = bar.await;
        if round > 0 {
            more.push((ours.p50 - bar.p50) / 1000.0);
        }
    }
    let what = "p50 of a Send, more than the same request made directly";
    Figure::new(what, middle(&more), " ms", Some(MOST_MORE))
}

/// A large body, and the memory that the daemon takes for it.
async fn large(server: &Process, step: &Channel) -> [Figure; 2] {
    // The first one warms up.
    send(step.clone(), "/large").await;
    let before = server.own_memory();
    let (begin, sending) = (Instant::now(), tokio::spawn(send(step.clone(), "/large")));
    let mut most = before;
    while !sending.is_finished() {
        most = most.max(server.own_memory());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sending.await.unwrap(), LARGE);
    let time = begin.elapsed().as_secs_f64();
    [
        Figure::new("1 GiB through a Send", time, " s", Some(LONGEST)),
        Figure::new(
            "own pages that 1 GiB through a Send adds",
            (most - before) / 1024.0,
            " MB",
            Some(MOST_MEMORY),
        ),
    ]
}

/// Resolves of other steps beside exchanges that go on, and beside the same ones made directly.
async fn beside(
    server: &Process,
    step: &Channel,
    others: &[Channel],
    upstream: &Upstream,
) -> Figure {
    let mut slower = Vec::new();
    for round in 0..=BESIDE.0 {
        let step = step.clone();
        let streams = Streams::start(move |runtime| {
            let step = step.clone();
            runtime.spawn(async move { send(step, "/large").await })
        });
        let ours = resolve(server, others).await;
        streams.stop();
        let upstream = upstream.clone();
        let streams = Streams::start(move |runtime| {
            let upstream = upstream.clone();
            runtime.spawn(async move { ask(&mut upstream.connect().await, "/large").await })
        });
        let bar = resolve(server, others).await;
        streams.stop();
        if round > 0 {
            slower.push(ours.p99 / bar.p99);
        }
    }
    let what =
        "p99 of Resolve beside 2 Sends of large bodies, of that beside the same made directly";
    Figure::new(what, middle(&slower), " ×", Some(MOST_SLOWER))
}

async fn resolve(server: &Process, steps: &[Channel]) -> Sample {
    let steps = steps.to_vec();
    let load = Load { calls: BESIDE.1, in_flight: 1 };
    drive(server, load, move |n| rows::resolve_one(steps[n % steps.len()].clone())).await
}

/// Exchanges in a thread of their own, each begun again when it is over.
struct Streams {
    is_over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Streams {
    fn start(begin: impl Fn(&Runtime) -> tokio::task::JoinHandle<u64> + Send + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let mut running: Vec<_> = (0..STREAMS).map(|_| begin(&runtime)).collect();
            while !over.load(Ordering::Relaxed) {
                runtime.block_on(async { tokio::time::sleep(Duration::from_millis(10)).await });
                for one in running.iter_mut().filter(|one| one.is_finished()) {
                    assert_eq!(runtime.block_on(&mut *one).unwrap(), LARGE);
                    *one = begin(&runtime);
                }
            }
            drop(running);
        });
        Self { is_over, thread }
    }

    fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// A GET by the broker. Returns the length of the answer's body.
async fn send(step: Channel, path: &'static str) -> u64 {
    let target = pb::ConnectionTarget { integration: "http".to_owned(), name: "api".to_owned() };
    let head = pb::SendHead {
        target: Some(Target::Connection(target)),
        method: "GET".to_owned(),
        path: path.to_owned(),
        content_length: Some(0),
        ..Default::default()
    };
    let head = pb::SendRequest { part: Some(RequestPart::Head(head)) };
    let sent = StepServiceClient::new(step).send(stream::iter([head])).await;
    let mut answer = sent.unwrap_or_else(|status| panic!("{status:?}")).into_inner();
    let (mut length, mut is_whole) = (0, false);
    // To the end of the stream: a client that leaves before resets it.
    while let Some(next) = answer.message().await.unwrap() {
        match next.part.unwrap() {
            Part::Answer(answer) => assert_eq!(answer.status, 200),
            Part::Body(piece) => length += piece.len() as u64,
            Part::End(_) => is_whole = true,
        }
    }
    assert!(is_whole, "the answer has no end");
    length
}

/// The same GET without the broker.
async fn ask(connection: &mut Connection<Empty<Bytes>>, path: &str) -> u64 {
    connection.ready().await.unwrap();
    let request = Request::get(path).header(HOST, "127.0.0.1").header(AUTHORIZATION, bearer());
    let request = request.body(Empty::new()).unwrap();
    let answer = connection.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let (mut body, mut length) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        length += frame.unwrap().data_ref().map_or(0, Bytes::len) as u64;
    }
    length
}

fn bearer() -> String {
    format!("Bearer {}", "x".repeat(40))
}

/// A TLS server in a thread of this process: `/small` has two bytes, `/large` has [`LARGE`].
#[derive(Clone)]
struct Upstream {
    address: SocketAddr,
    ca_pem: String,
    certificate: CertificateDer<'static>,
}

impl Upstream {
    fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let certificate = made.cert.der().clone();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, acceptor));
        });
        Self { address, ca_pem: made.cert.pem(), certificate }
    }

    /// The fields of a connection of http/token to it.
    fn fields(&self) -> seed::KindFields {
        vec![
            ("base_url", format!("https://{}", self.address)),
            ("tokens.key", "x".repeat(40)),
            ("headers.Authorization", "Bearer {{ key }}".to_owned()),
            ("ca_certificate", self.ca_pem.clone()),
        ]
    }

    async fn connect(&self) -> Connection<Empty<Bytes>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (connection, driving) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driving);
        connection
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

async fn serve(listener: std::net::TcpListener, acceptor: TlsAcceptor) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            stream.set_nodelay(true).unwrap();
            // A client that goes away is no fault.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let served = hyper::server::conn::http1::Builder::new().serve_connection(
                TokioIo::new(stream),
                service_fn(async |one| Ok::<_, Infallible>(answer(&one))),
            );
            let _ = served.await;
        });
    }
}

type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>>;

fn answer(request: &Request<Incoming>) -> Answer {
    assert_eq!(request.headers()[AUTHORIZATION], bearer());
    let length = if request.uri().path() == "/large" { LARGE } else { 2 };
    let piece = Bytes::from(vec![b'.'; PIECE]);
    let pieces = stream::unfold(length, move |left| {
        let next = piece.slice(..PIECE.min(usize::try_from(left).unwrap()));
        async move { (left > 0).then(|| (Ok(Frame::data(next.clone())), left - next.len() as u64)) }
    });
    let response = Response::builder().header(CONTENT_LENGTH, length);
    response.body(StreamBody::new(pieces.boxed()).boxed_unsync()).unwrap()
}
