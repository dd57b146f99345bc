//! Real identities in the wrong place or at the wrong time are refused. Forged ones are in `handshakes`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{
    START, TestBroker, TestStep, identity_in, open_request, reason, request, resolve_on,
};
use keyhatch::identity::{ClientIdentity, KeyAndCertificate};
use keyhatch::model::{
    ExecutorName, Id, OperatorName, RunName, SpiffeId, StepName, Timestamp, WorkflowName,
};

const HOUR: Duration = Duration::from_secs(3600);
/// The refusal of a step's certificate at another step's socket.
const ELSEWHERE: &str = "handshake: the broker refuses the certificate: it is not for this socket";

fn now() -> Timestamp {
    Timestamp::from_millis(*START)
}

fn socket(step: &TestStep) -> PathBuf {
    Path::new(&step.opened.directory).join("keyhatch.sock")
}

/// Tries to resolve with this identity. Returns the refusal as text.
fn refusal(broker: &TestBroker, socket: &Path, identity: ClientIdentity) -> String {
    match broker.connect(socket, identity) {
        Ok(channel) => reason(broker.block_on(resolve_on(channel, request("aws/prod")))),
        Err(error) => format!("handshake: {error}"),
    }
}

fn step_id() -> SpiffeId {
    SpiffeId::Step {
        workflow: WorkflowName::parse("deploy").unwrap(),
        run: RunName::parse("1").unwrap(),
        step: StepName::parse("build").unwrap(),
    }
}

fn with_certificate(step: &TestStep, made: &KeyAndCertificate) -> ClientIdentity {
    ClientIdentity {
        chain_pem: made.issued.chain_pem.clone(),
        key_pem: made.key_pem.clone(),
        ..identity_in(Path::new(&step.opened.directory))
    }
}

fn world() -> (TestBroker, TestStep) {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    // The control: the socket admits the step's own certificate.
    broker.resolve(&step, "aws/prod").unwrap();
    (broker, step)
}

#[test]
fn a_step_of_another_broker_with_the_same_names_is_refused() {
    let (broker, step) = world();
    let (_another, theirs) = world();
    let identity = ClientIdentity {
        ca_pem: identity_in(Path::new(&step.opened.directory)).ca_pem,
        ..identity_in(Path::new(&theirs.opened.directory))
    };
    let refused = refusal(&broker, &socket(&step), identity);
    assert!(refused.starts_with("handshake:"), "refused, but not by TLS: {refused}");
    assert_eq!(broker.journaled("resolve").len(), 1, "nothing was even decided");
}

#[test]
fn another_steps_certificate_is_refused() {
    let (broker, step) = world();
    let other = broker.open("deploy", "test");
    let identity = identity_in(Path::new(&other.opened.directory));
    assert_eq!(refusal(&broker, &socket(&step), identity), ELSEWHERE);
}

#[test]
fn an_older_attempts_certificate_is_refused() {
    let (broker, first) = world();
    let old = identity_in(Path::new(&first.opened.directory));
    let second = broker.open("deploy", "build");
    assert_eq!(second.opened.attempt, 2);
    assert_eq!(refusal(&broker, &socket(&second), old), ELSEWHERE);
    assert!(!Path::new(&first.opened.directory).exists(), "the older attempt was closed");
    assert!(broker.resolve(&first, "aws/prod").is_err());
    broker.resolve(&second, "aws/prod").unwrap();
}

/// CVE-2024-2048: a server matched a trusted leaf by serial and key id instead of by its content.
#[test]
fn a_real_id_and_serial_with_another_key_is_no_identity() {
    let (broker, step) = world();
    let real = identity_in(Path::new(&step.opened.directory));
    let serial = serial(&real.chain_pem);
    let mut id = [0; 16];
    id.iter_mut().rev().zip(serial.iter().rev()).for_each(|(id, serial)| *id = *serial);
    for (id, is_real) in [(id, true), ([9; 16], false)] {
        let (authority, id) = (broker.authority(), Id::from_bytes(id));
        let made = authority.issue_client_with_key(&step_id(), id, now(), now().after(HOUR));
        let identity = with_certificate(&step, &made.unwrap());
        assert_eq!(self::serial(&identity.chain_pem) == serial, is_real);
        assert_eq!(refusal(&broker, &socket(&step), identity), ELSEWHERE);
    }
}

fn serial(chain: &str) -> Vec<u8> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).unwrap();
    pem.parse_x509().unwrap().raw_serial().to_vec()
}

#[test]
fn an_unregistered_certificate_of_the_ca_is_refused() {
    let (broker, step) = world();
    let serial = Id::from_bytes([7; 16]);
    let admin = broker.config.runtime.join("admin.sock");
    for id in [
        SpiffeId::Operator(OperatorName::parse("mallory").unwrap()),
        SpiffeId::Operator(OperatorName::parse("admin").unwrap()),
        SpiffeId::Executor(ExecutorName::parse("local").unwrap()),
    ] {
        let made = broker.authority().issue_client_with_key(&id, serial, now(), now().after(HOUR));
        let identity = with_certificate(&step, &made.unwrap());
        let refused = refusal(&broker, &admin, identity);
        assert!(refused.contains("never given out"), "{refused}");
    }
}

#[test]
fn a_certificate_that_expires_is_refused_at_the_next_request() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let request = keyhatch::grpc::pb::OpenStepRequest {
        ttl: Some(prost_types::Duration { seconds: 100, nanos: 0 }),
        ..open_request("deploy", "build")
    };
    let step = broker.become_step(broker.try_open(request).unwrap());
    broker.advance(99);
    broker.resolve(&step, "aws/prod").unwrap();
    broker.advance(1);
    assert!(broker.resolve(&step, "aws/prod").is_err());
}

/// The services that reflection lists, in each of its versions. `None` if reflection is not served.
mod listed {
    use futures_util::future::BoxFuture;
    use tonic::transport::Channel;

    macro_rules! version {
        ($version:ident) => {
            pub fn $version(channel: Channel) -> BoxFuture<'static, Option<Vec<String>>> {
                use tonic_reflection::pb::$version as pb;
                let message =
                    pb::server_reflection_request::MessageRequest::ListServices(String::new());
                let request = pb::ServerReflectionRequest {
                    host: String::new(),
                    message_request: Some(message),
                };
                Box::pin(async move {
                    let mut client =
                        pb::server_reflection_client::ServerReflectionClient::new(channel);
                    let requests = tokio_stream::once(request);
                    let mut replies =
                        client.server_reflection_info(requests).await.ok()?.into_inner();
                    let reply = replies.message().await.unwrap().unwrap().message_response;
                    let Some(
                        pb::server_reflection_response::MessageResponse::ListServicesResponse(list),
                    ) = reply
                    else {
                        panic!("{reply:?}")
                    };
                    Some(list.service.into_iter().map(|service| service.name).collect())
                })
            }
        };
    }
    version!(v1);
    version!(v1alpha);
}

/// Both doors serve health. Only the admin door serves reflection.
#[test]
fn each_door_serves_its_own_services_only() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let (broker, step) = world();
    for (door, service) in [
        (step.channel.clone(), "keyhatch.v1.StepService"),
        (broker.operator(), "keyhatch.v1.SystemService"),
    ] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let health = broker.block_on(HealthClient::new(door).check(request)).unwrap().into_inner();
        assert_eq!(health.status(), ServingStatus::Serving);
    }
    for list in [listed::v1, listed::v1alpha] {
        let services = broker.block_on(list(broker.operator())).unwrap();
        assert!(services.iter().any(|name| name == "keyhatch.v1.StepService"), "{services:?}");
        assert!(broker.block_on(list(step.channel.clone())).is_none());
    }
    let list = keyhatch::grpc::pb::ListStepsRequest::default();
    let mut executor =
        keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient::new(step.channel);
    let code = broker.block_on(executor.list_steps(list)).unwrap_err().code();
    assert_eq!(code, tonic::Code::Unimplemented);
    let mut resolve =
        keyhatch::grpc::pb::step_service_client::StepServiceClient::new(broker.operator());
    let code = broker.block_on(resolve.resolve(request("aws/prod"))).err().unwrap().code();
    assert_eq!(code, tonic::Code::Unimplemented);
}
