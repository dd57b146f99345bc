//! `TestBroker`: a real daemon with its own sockets, its own CA and a clock that the test sets. The submodules hold the
//! program as a process, raw HTTP/2, a memory scanner and other tools.

mod bare_broker;
mod filesystem;
mod group_members;
mod http;
mod metrics;
mod nginx;
mod postgres;
mod process;
pub mod raw;
mod report;
mod scan;
mod sshd;
mod steps;
mod upstream;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use keyhatch::config::{AdminListen, Config};
use keyhatch::daemon::{Daemon, InitOptions, StateDirectory, init};
use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_service_client::ApplyServiceClient;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_registry_service_client::ExecutorRegistryServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::explain_request::Question;
use keyhatch::grpc::pb::operator_service_client::OperatorServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use keyhatch::identity::{
    Authority, BrokerAddress, CertificateRefusal, ClientIdentity, ConnectError, RemoteBroker,
};
use keyhatch::model::{Clock, HostName, Limits, Timestamp, TrustDomain};
use keyhatch::sys::Trust;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;
use zeroize::Zeroizing;

pub use bare_broker::{BareBroker, EndlessRoom};
pub use filesystem::SmallFilesystem;
pub use group_members::{GROUP, GroupDaemon};
pub use http::{
    HttpRequest, HttpResponse, HttpServer, read as read_http, respond as respond_http, tls_for,
};
pub use metrics::{Scrape, say};
pub use nginx::{Nginx, UPSTREAM_TOKEN};
pub use postgres::{ADMIN_PASSWORD, Postgres};
pub use process::{
    ServeProcess, assert_says, by_shell, copy_binary, init_dir, init_in, keyhatch, keyhatch_in,
    path_with_binary, restored, step_channel, succeeded, temp_dir, text, wait_until,
};
pub use report::{installed, not_set_up, report, scale, skipped};
pub use scan::{Found, Scanner};
pub use sshd::{SshKey, Sshd};
pub use steps::{Steps, connection, secret, source};
pub use upstream::{Internet, Upstream, allowing, node};

/// The time at which every test begins, in milliseconds: now, to the second, because clients check certificates by the
/// system's clock.
pub static START: LazyLock<i64> = LazyLock::new(|| Clock::system().now().seconds() * 1000);

/// A daemon in this process.
pub struct TestBroker {
    daemon: Option<Daemon>,
    pub config: Config,
    pub clock: Clock,
    runtime: Runtime,
    directory: TempDir,
}

/// An open step.
pub struct TestStep {
    pub opened: pb::OpenedStep,
    pub channel: Channel,
}

/// A credential that a step received.
#[derive(Clone, Debug, PartialEq)]
pub struct Got {
    pub name: String,
    pub version: i64,
    pub fields: BTreeMap<String, String>,
    pub lease: pb::Lease,
}

impl TestBroker {
    /// A new broker, serving.
    pub fn start() -> Self {
        Self::start_with(Limits::default())
    }

    /// A new broker with these limits, serving.
    pub fn start_with(limits: Limits) -> Self {
        Self::start_at(Clock::hand_set(Timestamp::from_millis(*START)), limits)
    }

    /// A new broker with this clock, serving.
    pub fn start_at(clock: Clock, limits: Limits) -> Self {
        let directory = temp_dir();
        let (state, run) = (directory.path().join("state"), directory.path().join("run"));
        let config = Config { limits, ..Config::in_directories(state, run) };
        init(&init_options(&config, &clock)).unwrap();
        let mut broker = Self::stopped(directory, config, clock);
        broker.serve();
        broker
    }

    /// A broker with a copy of a state directory below `tests/fixtures`. It does not serve yet.
    pub fn of_fixture(name: &str) -> Self {
        let directory = temp_dir();
        let (state, run) = (directory.path().join("state"), directory.path().join("run"));
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        copy_directory(&fixture, &state);
        std::fs::create_dir(state.join("broker")).unwrap();
        std::fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::set_permissions(state.join("kek"), PermissionsExt::from_mode(0o400)).unwrap();
        let clock = Clock::hand_set(Timestamp::from_millis(*START));
        Self::stopped(directory, Config::in_directories(state, run), clock)
    }

    fn stopped(directory: TempDir, config: Config, clock: Clock) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        Self { daemon: None, config, clock, runtime, directory }
    }

    /// A new broker with a metrics listener, serving.
    pub fn start_with_metrics() -> Self {
        let mut broker = Self::start();
        broker.config.metrics = Some((Ipv4Addr::LOCALHOST, 0).into());
        broker.restart();
        broker
    }

    /// A new broker that serves operators over TCP, as localhost and 127.0.0.1.
    pub fn start_with_tcp(limits: Limits) -> Self {
        let mut broker = Self::start_with(limits);
        let hosts = ["localhost", "127.0.0.1"].map(|name| HostName::parse(name).unwrap());
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        broker.config.admin_listen = Some(AdminListen { address, hosts: hosts.into() });
        broker.restart();
        broker
    }

    /// Where operators find this broker over TCP.
    pub fn tcp(&self) -> RemoteBroker {
        let door = self.daemon.as_ref().and_then(Daemon::tcp_door).unwrap();
        RemoteBroker { address: door.address.clone(), id: door.broker.clone() }
    }

    /// Connects over TCP with this identity.
    pub fn connect_tcp(&self, identity: ClientIdentity) -> Result<Channel, ConnectError> {
        self.block_on(channel(BrokerAddress::Remote(self.tcp()), identity))
    }

    /// Registers an operator who may connect over TCP. Returns its identity.
    pub fn enroll_remote(&self, name: &str, role: pb::Role) -> ClientIdentity {
        let name = format!("operators/{name}");
        self.register(pb::Operator { name, role: role.into(), remote: true, ..Default::default() })
    }

    /// Lets an operator connect over TCP, or no longer.
    pub fn set_remote(&self, name: &str, remote: bool) -> Result<pb::Operator, Status> {
        let operator =
            Some(pb::Operator { name: format!("operators/{name}"), remote, ..Default::default() });
        let update_mask = Some(prost_types::FieldMask { paths: vec!["remote".to_owned()] });
        let request = pb::UpdateOperatorRequest { operator, update_mask, validate_only: false };
        let mut client = OperatorServiceClient::new(self.operator());
        self.block_on(client.update_operator(request)).map(tonic::Response::into_inner)
    }

    /// The address of the metrics listener.
    pub fn metrics_address(&self) -> SocketAddr {
        self.daemon.as_ref().and_then(Daemon::metrics_address).unwrap()
    }

    pub fn scrape(&self) -> Scrape {
        Scrape::of(self.metrics_address())
    }

    pub fn serve(&mut self) {
        self.daemon = Some(self.try_serve().unwrap_or_else(|error| panic!("{error}")));
    }

    pub fn try_serve(&self) -> Result<Daemon, keyhatch::daemon::DaemonError> {
        Daemon::start(&self.config, None, self.clock.clone())
    }

    /// The reason why the broker does not start. Empty if it starts.
    pub fn refusal(&self) -> String {
        match self.try_serve() {
            Ok(daemon) => {
                daemon.stop();
                String::new()
            }
            Err(error) => error.to_string(),
        }
    }

    /// Drains and stops the daemon. The directories stay.
    pub fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }

    pub fn restart(&mut self) {
        self.stop();
        self.serve();
    }

    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Runs work beside the test.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(work)
    }

    /// A directory for the files of the test.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The CA with its private keys, with which a test can issue any certificate.
    pub fn authority(&self) -> Authority {
        authority_of(&self.config.state)
    }

    pub fn journal_path(&self) -> PathBuf {
        self.config.state.join("journal/000001.jsonl")
    }

    pub fn journal(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.journal_path()).unwrap();
        // The last line may be incomplete, because the daemon is writing it.
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn journaled(&self, event: &str) -> Vec<serde_json::Value> {
        self.journal().into_iter().filter(|line| line["event"] == event).collect()
    }

    /// The reason why the first operator is refused.
    pub fn operator_refusal(&self) -> String {
        let identity = identity_in(&self.config.state.join("operators/admin"));
        self.connect(&self.config.runtime.join("admin.sock"), identity).unwrap_err()
    }

    pub fn operator(&self) -> Channel {
        self.connect_directory(&self.config.state.join("operators/admin"))
    }

    pub fn executor(&self) -> Channel {
        self.connect_directory(&self.config.state.join("executors/local"))
    }

    /// Registers an operator, and connects as it.
    pub fn enroll(&self, name: &str, role: pb::Role) -> Channel {
        self.connect_admin(self.enroll_identity(name, role))
    }

    /// Registers an operator. Returns its identity.
    pub fn enroll_identity(&self, name: &str, role: pb::Role) -> ClientIdentity {
        let name = format!("operators/{name}");
        self.register(pb::Operator { name, role: role.into(), ..Default::default() })
    }

    fn register(&self, operator: pb::Operator) -> ClientIdentity {
        let (key_pem, csr) = keyhatch::identity::new_request().unwrap();
        let (operator, csr) = (Some(operator), csr.into_bytes());
        let request = pb::CreateOperatorRequest { operator, csr, ..Default::default() };
        let mut client = OperatorServiceClient::new(self.operator());
        let made = self.block_on(client.create_operator(request)).unwrap().into_inner();
        let (ca_pem, chain_pem) = (made.ca_certificate, made.certificate_chain);
        ClientIdentity { ca_pem, chain_pem, key_pem }
    }

    /// Registers an executor, and connects as it.
    pub fn enroll_executor(&self, name: &str, workflows: &[&str], run_as: &[&str]) -> Channel {
        let (key_pem, csr) = keyhatch::identity::new_request().unwrap();
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let executor = pb::Executor {
            name: format!("executors/{name}"),
            workflows: texts(workflows),
            run_as: texts(run_as),
            ..Default::default()
        };
        let (executor, csr) = (Some(executor), csr.into_bytes());
        let request = pb::CreateExecutorRequest { executor, csr, ..Default::default() };
        let mut client = ExecutorRegistryServiceClient::new(self.operator());
        let made = self.block_on(client.create_executor(request)).unwrap().into_inner();
        let (ca_pem, chain_pem) = (made.ca_certificate, made.certificate_chain);
        self.connect_admin(ClientIdentity { ca_pem, chain_pem, key_pem })
    }

    fn connect_admin(&self, identity: ClientIdentity) -> Channel {
        self.connect(&self.config.runtime.join("admin.sock"), identity).unwrap()
    }

    fn connect_directory(&self, directory: &Path) -> Channel {
        self.connect_admin(identity_in(directory))
    }

    /// Calls again if the connection fails, at most three times, as clients do.
    pub fn insist<T>(&self, mut once: impl FnMut() -> Result<T, Status>) -> Result<T, Status> {
        let mut outcome = once();
        for _ in 0..3 {
            match &outcome {
                Err(status) if status.get_error_details().error_info().is_none() => {
                    outcome = once();
                }
                _ => break,
            }
        }
        outcome
    }

    /// Connects with this identity.
    pub fn connect(&self, socket: &Path, identity: ClientIdentity) -> Result<Channel, String> {
        self.block_on(channel(socket, identity)).map_err(|error| error.to_string())
    }

    pub fn create_connection(
        &self,
        reference: &str,
        fields: &[(&str, &str)],
        resolvers: &[&str],
    ) -> Result<pb::Connection, Status> {
        let connection = pb::Connection {
            name: format!("connections/{reference}"),
            fields: bytes(fields),
            access: resolver(resolvers),
            ..Default::default()
        };
        let request =
            pb::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        let mut client = ConnectionServiceClient::new(self.operator());
        self.block_on(client.create_connection(request)).map(tonic::Response::into_inner)
    }

    /// Creates the connection aws/NAME with this secret.
    pub fn create_aws(&self, name: &str, secret: &str, resolvers: &[&str]) {
        let fields = [("access_key_id", "AKIAEXAMPLE"), ("secret_access_key", secret)];
        self.create_connection(&format!("aws/{name}"), &fields, resolvers).unwrap();
    }

    pub fn delete_connection(&self, reference: &str) -> Result<(), Status> {
        let name = format!("connections/{reference}");
        let request = pb::DeleteConnectionRequest { name, force: true, ..Default::default() };
        let mut client = ConnectionServiceClient::new(self.operator());
        self.block_on(client.delete_connection(request)).map(drop)
    }

    pub fn get_connection(&self, reference: &str) -> Result<pb::Connection, Status> {
        let request = pb::GetConnectionRequest { name: format!("connections/{reference}") };
        let mut client = ConnectionServiceClient::new(self.operator());
        self.block_on(client.get_connection(request)).map(tonic::Response::into_inner)
    }

    /// Lists connections over this channel.
    pub fn list_connections(&self, channel: &Channel) -> Result<(), Status> {
        let mut client = ConnectionServiceClient::new(channel.clone());
        let request = pb::ListConnectionsRequest::default;
        self.insist(|| self.block_on(client.list_connections(request()))).map(drop)
    }

    pub fn remove_operator(&self, name: &str) -> Result<(), Status> {
        let name = format!("operators/{name}");
        let request = pb::DeleteOperatorRequest { name, ..Default::default() };
        let mut client = OperatorServiceClient::new(self.operator());
        self.block_on(client.delete_operator(request)).map(drop)
    }

    pub fn remove_executor(&self, name: &str) -> Result<(), Status> {
        let name = format!("executors/{name}");
        let request = pb::DeleteExecutorRequest { name, ..Default::default() };
        let mut client = ExecutorRegistryServiceClient::new(self.operator());
        self.block_on(client.delete_executor(request)).map(drop)
    }

    pub fn explain(&self, question: Question) -> Result<pb::ExplainResponse, Status> {
        let request = pb::ExplainRequest { question: Some(question) };
        let mut client = SystemServiceClient::new(self.operator());
        self.block_on(client.explain(request)).map(tonic::Response::into_inner)
    }

    /// Explains the decision of this id.
    pub fn explain_decision(&self, id: &str) -> Result<pb::ExplainResponse, Status> {
        self.explain(Question::DecisionId(id.to_owned()))
    }

    pub fn apply(
        &self,
        documents: Vec<pb::apply_request::Document>,
    ) -> Result<Vec<pb::ApplyResult>, Status> {
        let requests: Vec<_> = documents
            .into_iter()
            .map(|document| pb::ApplyRequest { document: Some(document) })
            .collect();
        let mut client = ApplyServiceClient::new(self.operator());
        let applied = self.block_on(client.apply(tokio_stream::iter(requests)));
        applied.map(|response| response.into_inner().results)
    }

    pub fn try_open(&self, request: pb::OpenStepRequest) -> Result<pb::OpenedStep, Status> {
        let mut client = ExecutorServiceClient::new(self.executor());
        self.block_on(client.open_step(request)).map(tonic::Response::into_inner)
    }

    pub fn open(&self, workflow: &str, step: &str) -> TestStep {
        let opened = self.try_open(open_request(workflow, step)).unwrap();
        self.become_step(opened)
    }

    pub fn become_step(&self, opened: pb::OpenedStep) -> TestStep {
        let directory = PathBuf::from(&opened.directory);
        let channel =
            self.connect(&directory.join("keyhatch.sock"), identity_in(&directory)).unwrap();
        TestStep { opened, channel }
    }

    /// Another connection to the socket of a step. Called where the runtime runs.
    pub async fn connect_again(&self, step: &TestStep) -> Channel {
        let directory = PathBuf::from(&step.opened.directory);
        channel(&directory.join("keyhatch.sock"), identity_in(&directory)).await.unwrap()
    }

    pub fn close(&self, step: &TestStep) -> pb::CloseStepResponse {
        let request = pb::CloseStepRequest { name: step.opened.name.clone(), ..Default::default() };
        let mut client = ExecutorServiceClient::new(self.executor());
        self.block_on(client.close_step(request)).unwrap().into_inner()
    }

    pub fn renew(&self, step: &TestStep) -> Result<(), Status> {
        let request = pb::RenewStepRequest { name: step.opened.name.clone(), ..Default::default() };
        let mut client = ExecutorServiceClient::new(self.executor());
        self.block_on(client.renew_step(request)).map(drop)
    }

    pub fn resolve(&self, step: &TestStep, reference: &str) -> Result<Got, Status> {
        self.resolve_with(step, &request(reference))
    }

    /// Resolves. It connects again if the old connection has just ended, as clients do.
    pub fn resolve_with(
        &self,
        step: &TestStep,
        request: &pb::ResolveRequest,
    ) -> Result<Got, Status> {
        self.insist(|| self.block_on(resolve_on(step.channel.clone(), request.clone())))
    }

    /// Moves the clock forward.
    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Copies a directory with its content.
pub fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_directory(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

pub async fn resolve_on(channel: Channel, request: pb::ResolveRequest) -> Result<Got, Status> {
    let response = StepServiceClient::new(channel).resolve(request).await?.into_inner();
    let text = |(name, value)| (name, String::from_utf8(value).unwrap());
    Ok(Got {
        name: response.name,
        version: response.version,
        fields: response.fields.into_iter().map(text).collect(),
        lease: response.lease.unwrap(),
    })
}

pub fn init_options(config: &Config, clock: &Clock) -> InitOptions {
    InitOptions {
        state: config.state.clone(),
        shared_parents: config.shared_parents.clone(),
        runtime: config.runtime.clone(),
        kek: None,
        trust_domain: TrustDomain::parse(TrustDomain::DEFAULT).unwrap(),
        name: "test".to_owned(),
        clock: clock.clone(),
    }
}

/// Opens a state directory as a process of this user.
pub fn open_state(path: &Path) -> StateDirectory {
    StateDirectory::open(path, &Trust::of_process(&[])).unwrap_or_else(|error| panic!("{error}"))
}

/// The CA of a state directory, with its private keys.
pub fn authority_of(state: &Path) -> Authority {
    let state = open_state(state);
    let keyring = state.unlock(None).unwrap().keyring().unwrap();
    state.authority(&keyring).unwrap()
}

/// Creates connections/aws/prod, which the steps of workflow deploy may resolve.
pub async fn create_aws(operator: Channel) {
    let connection = pb::Connection {
        name: "connections/aws/prod".to_owned(),
        fields: bytes(&[("access_key_id", "AKIAEXAMPLE"), ("secret_access_key", "s3cret")]),
        access: resolver(&["workflow:deploy"]),
        ..Default::default()
    };
    let connection = Some(connection);
    let request = pb::CreateConnectionRequest { connection, ..Default::default() };
    let mut client = ConnectionServiceClient::new(operator);
    client.create_connection(request).await.unwrap();
}

/// A runtime of one thread.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs this to its end in a new runtime.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(work)
}

pub fn identity_in(directory: &Path) -> ClientIdentity {
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    ClientIdentity {
        ca_pem: read("ca.crt"),
        chain_pem: read("tls.crt"),
        key_pem: Zeroizing::new(read("tls.key")),
    }
}

pub fn open_request(workflow: &str, step: &str) -> pb::OpenStepRequest {
    pb::OpenStepRequest {
        workflow: workflow.to_owned(),
        run: "1".to_owned(),
        step: step.to_owned(),
        mount_path: "host".to_owned(),
        ..Default::default()
    }
}

/// `aws/prod`, `group:g:env=prod` or `secret:token`, and optionally fields: `aws/prod#access_key_id`.
pub fn request(reference: &str) -> pb::ResolveRequest {
    use pb::resolve_request::Target;
    let (reference, fields) = reference.split_once('#').unwrap_or((reference, ""));
    let target = match reference.strip_prefix("secret:") {
        Some(name) => Target::Secret(pb::SecretTarget { name: name.to_owned() }),
        None if reference.starts_with("group:") => Target::Group(group_target(reference)),
        None if reference.starts_with("default:") => {
            Target::DefaultFor(reference.trim_start_matches("default:").to_owned())
        }
        None => {
            let (integration, name) = reference.split_once('/').unwrap();
            let (integration, name) = (integration.to_owned(), name.to_owned());
            Target::Connection(pb::ConnectionTarget { integration, name })
        }
    };
    pb::ResolveRequest {
        target: Some(target),
        fields: fields.split(',').filter(|field| !field.is_empty()).map(str::to_owned).collect(),
        ttl: None,
    }
}

fn group_target(reference: &str) -> pb::GroupTarget {
    let mut parts = reference.splitn(3, ':').skip(1);
    let name = parts.next().unwrap().to_owned();
    let pairs = parts.next().unwrap().split(',').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap());
    let identifiers = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    pb::GroupTarget { name, identifiers }
}

pub fn resolver(principals: &[&str]) -> Vec<pb::AccessBinding> {
    vec![bound(pb::Relation::Resolver, principals)]
}

pub fn bound(relation: pb::Relation, principals: &[&str]) -> pb::AccessBinding {
    let principals = principals.iter().map(|principal| (*principal).to_owned()).collect();
    pb::AccessBinding { relation: relation.into(), principals }
}

pub fn bytes(fields: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect()
}

pub fn connection_document(
    reference: &str,
    fields: &[(&str, &str)],
    access: Vec<pb::AccessBinding>,
) -> pb::apply_request::Document {
    let (integration, name) = reference.split_once('/').unwrap();
    pb::apply_request::Document::Connection(pb::ConnectionDocument {
        integration: integration.to_owned(),
        name: name.to_owned(),
        fields: bytes(fields),
        access,
        ..Default::default()
    })
}

pub fn secret_document(workflow: &str, name: &str, value: &str) -> pb::apply_request::Document {
    pb::apply_request::Document::Secret(pb::SecretDocument {
        workflow: workflow.to_owned(),
        name: name.to_owned(),
        value: value.into(),
        ..Default::default()
    })
}

/// The stable reason of a refusal, also of a refused handshake.
pub fn reason<T: std::fmt::Debug>(outcome: Result<T, Status>) -> String {
    let status = outcome.unwrap_err();
    if let Some(ConnectError::Rejected(refusal)) = ConnectError::find_in(&status) {
        let is_elsewhere = *refusal == CertificateRefusal::WrongSocket;
        return if is_elsewhere { "SOCKET_MISMATCH" } else { "SVID_INVALID" }.to_owned();
    }
    let info = status.get_error_details().error_info().cloned();
    info.map_or_else(|| format!("{:?}: {}", status.code(), status.message()), |info| info.reason)
}
