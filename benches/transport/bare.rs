//! The bar: tonic over mutual TLS on a Unix socket, with the daemon's TLS and HTTP/2 settings, messages and allocator,
//! but no broker behind it. It accepts every connection that has a certificate and checks nothing else.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, future};
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_server::ConnectionServiceServer;
use keyhatch::grpc::pb::executor_service_server::ExecutorServiceServer;
use keyhatch::grpc::pb::step_service_server::StepServiceServer;
use keyhatch::identity::Authority;
use keyhatch::model::{Clock, Id, Limits, RunName, SpiffeId, StepName, TrustDomain, WorkflowName};
use prost::Message;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService};
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use crate::common::{Committer, Process};
use crate::seed;

/// The bare server as a process.
pub struct Bare {
    pub process: Process,
    directory: tempfile::TempDir,
}

impl Bare {
    pub fn start() -> Self {
        Self::start_under(&[])
    }

    /// Starts the server under an instrument, given by its words.
    pub fn start_under(instrument: &[String]) -> Self {
        let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
        let own = std::env::current_exe().unwrap().into_os_string();
        let mut words = instrument.iter().map(Into::into).chain([own]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg("bare").arg(directory.path());
        let bare = Self { process: Process::spawn(&mut command), directory };
        let begin = Instant::now();
        while !bare.socket().exists() {
            assert!(begin.elapsed() < Duration::from_secs(60), "the bare server does not come up");
            std::thread::sleep(Duration::from_millis(1));
        }
        bare
    }

    /// The directory of its clients' identity.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("keyhatch.sock")
    }
}

/// Serves in this process until it is killed.
pub fn serve(directory: &Path) {
    // A bench that is killed takes its servers with it.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let clock = Clock::system();
    let now = clock.now();
    let life = Duration::from_secs(3600);
    let serial = |n| Id::from_bytes([n; 16]);
    let serials = [serial(1), serial(2), serial(3)];
    let domain = TrustDomain::parse(TrustDomain::DEFAULT).unwrap();
    let authority = Authority::create(domain, serials, now).unwrap();
    let own = authority.issue_daemon("bare", &[], serial(4), now, life).unwrap();
    let step = SpiffeId::Step {
        workflow: WorkflowName::parse("bench").unwrap(),
        run: RunName::parse("1").unwrap(),
        step: StepName::parse("s").unwrap(),
    };
    let client = authority.issue_client_with_key(&step, serial(5), now, now.after(life)).unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    write("ca.crt", authority.root_pem());
    write("tls.crt", &client.issued.chain_pem);
    write("tls.key", &client.key_pem);
    let tls = tls(authority.steps_certificate(), &own.issued.chain_pem, &own.key_pem);
    // The daemon's step door has this many threads too.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(accept(directory, TlsAcceptor::from(Arc::new(tls))));
}

/// The TLS settings of the daemon's doors: TLS 1.3, client certificates, no resumption.
fn tls(trusted: &CertificateDer<'static>, chain_pem: &str, key_pem: &str) -> ServerConfig {
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(chain.unwrap(), key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

async fn accept(directory: &Path, acceptor: TlsAcceptor) {
    let staged = directory.join("staged");
    let listener = UnixListener::bind(&staged).unwrap();
    std::fs::rename(staged, directory.join("keyhatch.sock")).unwrap();
    let (sender, connections) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = sender.send(Plain(stream)).await;
                }
            });
        }
    });
    let incoming = ReceiverStream::new(connections).map(Ok::<_, io::Error>);
    let state = Arc::new(State {
        version: watch::Sender::new(1),
        committer: Committer::start(&directory.join("engine")),
    });
    keyhatch::grpc::server(&Limits::default())
        .add_service(Echo::<StepServiceServer<()>>::new(&state))
        .add_service(Echo::<ExecutorServiceServer<()>>::new(&state))
        .add_service(Echo::<ConnectionServiceServer<()>>::new(&state))
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}

/// A connection without any checks.
struct Plain(TlsStream<UnixStream>);

impl Connected for Plain {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

struct State {
    version: watch::Sender<i64>,
    committer: Committer,
}

/// Answers as a service does, with parts of the request or a constant.
struct Echo<S> {
    state: Arc<State>,
    service: PhantomData<fn() -> S>,
}

impl<S> Echo<S> {
    fn new(state: &Arc<State>) -> Self {
        Self { state: Arc::clone(state), service: PhantomData }
    }
}

impl<S> Clone for Echo<S> {
    fn clone(&self) -> Self {
        Self::new(&self.state)
    }
}

impl<S: NamedService> NamedService for Echo<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Echo<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let state = Arc::clone(&self.state);
        match request.uri().path() {
            "/keyhatch.v1.StepService/Resolve" => unary(request, move |_: pb::ResolveRequest| {
                state.version.send_modify(|version| *version += 1);
                future::ready(credential(*state.version.borrow()))
            }),
            "/keyhatch.v1.StepService/BatchResolve" => {
                unary(request, |asked: pb::BatchResolveRequest| future::ready(batch(&asked)))
            }
            "/keyhatch.v1.StepService/Watch" => watch(request, &state),
            "/keyhatch.v1.ExecutorService/OpenStep" => {
                unary(request, |asked: pb::OpenStepRequest| future::ready(opened(&asked)))
            }
            "/keyhatch.v1.ExecutorService/CloseStep" => {
                unary(request, |_: pb::CloseStepRequest| future::ready(()))
            }
            "/keyhatch.v1.ConnectionService/CreateConnection" => {
                unary(request, move |asked: pb::CreateConnectionRequest| {
                    created(asked, Arc::clone(&state))
                })
            }
            path => panic!("{path} is not measured"),
        }
    }
}

/// Serves a method as tonic's generated code does.
fn unary<M, R, F>(
    request: http::Request<Body>,
    reply: impl Fn(M) -> F + Send + Sync + 'static,
) -> BoxFuture<'static, Result<http::Response<Body>, Infallible>>
where
    M: Message + Default + 'static,
    R: Message + Default + 'static,
    F: Future<Output = R> + Send + 'static,
{
    Box::pin(async move {
        let method = service_fn(move |request: Request<M>| {
            let reply = reply(request.into_inner());
            async move { Ok::<_, Status>(Response::new(reply.await)) }
        });
        Ok(Grpc::new(ProstCodec::<R, M>::default()).unary(method, request).await)
    })
}

fn watch(
    request: http::Request<Body>,
    state: &Arc<State>,
) -> BoxFuture<'static, Result<http::Response<Body>, Infallible>> {
    let versions = WatchStream::new(state.version.subscribe());
    let deliveries = versions.map(|version| {
        Ok(pb::WatchResponse { credential: Some(credential(version)), ..Default::default() })
    });
    Box::pin(async move {
        let mut deliveries = Some(deliveries);
        let method = service_fn(move |_: Request<pb::WatchRequest>| {
            future::ready(Ok::<_, Status>(Response::new(deliveries.take().unwrap())))
        });
        let codec = ProstCodec::<pb::WatchResponse, pb::WatchRequest>::default();
        Ok(Grpc::new(codec).server_streaming(method, request).await)
    })
}

static ZEROS: [u8; 4096] = [0; 4096];

/// The broker's padding of such a reply.
fn padding(message: &impl Message) -> prost::bytes::Bytes {
    let size = message.encoded_len();
    let padded = size.next_power_of_two().max(2048);
    prost::bytes::Bytes::from_static(&ZEROS[..padded - size - 3])
}

fn credential(version: i64) -> pb::ResolveResponse {
    let mut reply = unpadded(version);
    reply.padding = padding(&reply);
    reply
}

fn unpadded(version: i64) -> pb::ResolveResponse {
    let time = prost_types::Timestamp { seconds: 1_800_000_000, nanos: 1_000_000 };
    pb::ResolveResponse {
        name: "connections/aws/prod".to_owned(),
        integration: "aws".to_owned(),
        kind: "access_key".to_owned(),
        version,
        fields: seed::fields(format!("{version:040}")),
        lease: Some(pb::Lease {
            name: format!("leases/{version:032}"),
            issue_time: Some(time),
            expire_time: Some(time),
            renewable: true,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn batch(asked: &pb::BatchResolveRequest) -> pb::BatchResolveResponse {
    let results = (0..).take(asked.requests.len()).map(|n| {
        let response = pb::batch_resolve_result::Result::Response(unpadded(n));
        pb::BatchResolveResult { result: Some(response) }
    });
    let mut reply = pb::BatchResolveResponse { results: results.collect(), ..Default::default() };
    reply.padding = padding(&reply);
    reply
}

async fn created(asked: pb::CreateConnectionRequest, state: Arc<State>) -> pb::Connection {
    state.committer.commit().await;
    let mut connection = asked.connection.unwrap_or_default();
    connection.fields.clear();
    connection
}

fn opened(asked: &pb::OpenStepRequest) -> pb::OpenedStep {
    let time = Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 1_000_000 });
    pb::OpenedStep {
        name: "steps/00000000000000000000000000000000".to_owned(),
        spiffe_id: format!("spiffe://keyhatch/workflow/{}/step/{}", asked.workflow, asked.step),
        attempt: 1,
        directory: "/run/keyhatch-broker/steps/00000000000000000000000000000000".to_owned(),
        mount_path: asked.mount_path.clone(),
        env: BTreeMap::from([("KEYHATCH_IDENTITY".to_owned(), asked.mount_path.clone())]),
        expire_time: time,
        certificate_expire_time: time,
    }
}
