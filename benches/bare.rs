//! A server with the doors' own TLS, HTTP/2 settings and messages, and no broker behind it: what the
//! transport costs by itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::step_service_server::{StepService, StepServiceServer};
use keyhatch::identity::{Acceptor, Authority, Door, DoorConfig, Gate, Patience};
use keyhatch::model::{Clock, Id, Limits, RunName, SpiffeId, StepName, TrustDomain, WorkflowName};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::load::Process;

/// The server as a process of its own.
pub struct Bare {
    pub process: Process,
    directory: tempfile::TempDir,
}

impl Bare {
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let process = Process::spawn(command.arg("bare").arg(directory.path()));
        let bare = Self { process, directory };
        let begin = Instant::now();
        while !bare.socket().exists() {
            assert!(begin.elapsed() < Duration::from_secs(20), "the bare server does not come up");
            std::thread::yield_now();
        }
        bare
    }

    /// Where its clients find their identity.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("keyhatch.sock")
    }
}

/// Serves in this process until it is killed.
pub fn serve(directory: &Path) {
    let clock = Clock::system();
    let now = clock.now();
    let life = Duration::from_secs(3600);
    let domain = TrustDomain::parse(TrustDomain::DEFAULT).unwrap();
    let serial = |n| Id::from_bytes([n; 16]);
    let serials = [serial(1), serial(2), serial(3)];
    let authority = Authority::create(domain.clone(), serials, now).unwrap();
    let own = authority.issue_daemon("bare", serial(4), now, life).unwrap();
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
    let config = DoorConfig {
        chain_pem: &own.issued.chain_pem,
        key_pem: &own.key_pem,
        root: authority.root_certificate(),
        trusted: authority.steps_certificate(),
        domain: &domain,
        clock: &clock,
    };
    let door = Arc::new(Door::new(&config).unwrap());
    // As many threads as the daemon's step door has.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(accept(directory, door, domain));
}

async fn accept(directory: &Path, door: Arc<Door>, domain: TrustDomain) {
    let (connections, accepted) = mpsc::channel(64);
    let stop = CancellationToken::new();
    let acceptor = Acceptor {
        door,
        domain,
        connections,
        handshakes: None,
        draining: stop.clone(),
        refused: Arc::default(),
    };
    let gate = Gate {
        tag: (),
        uid: None,
        connections: 1024,
        pending_handshakes: 64,
        files: None,
        requests: 1024,
        guests: None,
        patience: Patience {
            preface: Duration::from_secs(5),
            idle: Duration::from_secs(300),
            stall: Duration::from_secs(30),
        },
        pace: None,
        reading: None,
        stop,
    };
    let staged = directory.join("staged");
    let listener = UnixListener::bind(&staged).unwrap();
    std::fs::rename(staged, directory.join("keyhatch.sock")).unwrap();
    tokio::spawn(acceptor.run(listener, gate));
    let incoming = ReceiverStream::new(accepted).map(Ok::<_, std::io::Error>);
    let service = StepServiceServer::new(Transport { version: watch::Sender::new(1) });
    keyhatch::grpc::server(&Limits::default())
        .add_service(service)
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}

/// Fields as an aws connection has them.
pub fn fields(secret: String) -> BTreeMap<String, Vec<u8>> {
    let id = b"AKIAIOSFODNN7EXAMPLE".to_vec();
    let secret = secret.into_bytes();
    [("access_key_id".to_owned(), id), ("secret_access_key".to_owned(), secret)].into()
}

struct Transport {
    version: watch::Sender<i64>,
}

/// As much as the broker pads such a reply with, to 2 KiB.
static PADDING: [u8; 1830] = [0; 1830];

fn credential(version: i64) -> pb::ResolveResponse {
    let time = prost_types::Timestamp { seconds: 1_800_000_000, nanos: 1_000_000 };
    pb::ResolveResponse {
        name: "connections/aws/prod".to_owned(),
        integration: "aws".to_owned(),
        kind: "access_key".to_owned(),
        version,
        fields: fields(format!("{version:040}")),
        lease: Some(pb::Lease {
            name: format!("leases/{version:032}"),
            issue_time: Some(time),
            expire_time: Some(time),
            renewable: true,
            ..Default::default()
        }),
        padding: prost::bytes::Bytes::from_static(&PADDING),
    }
}

#[tonic::async_trait]
impl StepService for Transport {
    async fn resolve(
        &self,
        _: Request<pb::ResolveRequest>,
    ) -> Result<Response<pb::ResolveResponse>, Status> {
        self.version.send_modify(|version| *version += 1);
        Ok(Response::new(credential(*self.version.borrow())))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let versions = WatchStream::new(self.version.subscribe());
        let deliveries = versions.map(|version| {
            Ok(pb::WatchResponse { credential: Some(credential(version)), ..Default::default() })
        });
        Ok(Response::new(Box::pin(deliveries)))
    }

    async fn batch_resolve(
        &self,
        _: Request<pb::BatchResolveRequest>,
    ) -> Result<Response<pb::BatchResolveResponse>, Status> {
        Err(Status::unimplemented("only what is measured"))
    }

    async fn renew_lease(
        &self,
        _: Request<pb::RenewLeaseRequest>,
    ) -> Result<Response<pb::Lease>, Status> {
        Err(Status::unimplemented("only what is measured"))
    }

    async fn revoke_lease(
        &self,
        _: Request<pb::RevokeLeaseRequest>,
    ) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("only what is measured"))
    }

    async fn who_am_i(
        &self,
        _: Request<pb::WhoAmIRequest>,
    ) -> Result<Response<pb::WhoAmIResponse>, Status> {
        Err(Status::unimplemented("only what is measured"))
    }
}
