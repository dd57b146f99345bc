//! Who is let in: every way to be somebody else is refused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keyhatch::identity::{ClientIdentity, KeyAndCertificate};
use keyhatch::model::{
    ExecutorName, Id, OperatorName, RunName, SpiffeId, StepName, Timestamp, WorkflowName,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use zeroize::Zeroizing;

use crate::harness::{
    START, TestBroker, TestStep, identity_in, open_request, reason, request, resolve_on,
};

const HOUR: Duration = Duration::from_secs(3600);
/// How the handshake refuses a certificate of a step's issuer that is not the socket's.
const ELSEWHERE: &str = "handshake: the broker refuses the certificate: it is not for this socket";

fn now() -> Timestamp {
    Timestamp::from_millis(*START)
}

fn socket(step: &TestStep) -> PathBuf {
    Path::new(&step.opened.directory).join("keyhatch.sock")
}

/// Tries to resolve with this identity; what refuses it, as text.
fn refusal(broker: &TestBroker, socket: &Path, identity: ClientIdentity) -> String {
    match broker.connect(socket, identity) {
        Ok(channel) => reason(broker.block_on(resolve_on(channel, request("aws/prod")))),
        Err(error) => format!("handshake: {error}"),
    }
}

fn step_id(step: &str) -> SpiffeId {
    SpiffeId::Step {
        workflow: WorkflowName::parse("deploy").unwrap(),
        run: RunName::parse("1").unwrap(),
        step: StepName::parse(step).unwrap(),
    }
}

fn with_certificate(step: &TestStep, made: &KeyAndCertificate) -> ClientIdentity {
    ClientIdentity {
        chain_pem: made.issued.chain_pem.clone(),
        key_pem: made.key_pem.clone(),
        ..identity_in(Path::new(&step.opened.directory))
    }
}

/// A certificate of the test's own making, signed by the real issuer of steps or by a CA of the test's.
struct Forged<'a> {
    broker: &'a TestBroker,
    uris: Vec<String>,
    not_before: Timestamp,
    not_after: Timestamp,
    is_ca: bool,
    usage: ExtendedKeyUsagePurpose,
    other_ca: bool,
    serial: Option<Vec<u8>>,
}

impl<'a> Forged<'a> {
    fn new(broker: &'a TestBroker) -> Self {
        Self {
            broker,
            uris: vec!["spiffe://keyhatch.local/workflow/deploy/run/1/step/build".to_owned()],
            not_before: Timestamp::from_millis(*START - 3_600_000),
            not_after: now().after(HOUR),
            is_ca: false,
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            other_ca: false,
            serial: None,
        }
    }

    fn identity(self, step: &TestStep) -> ClientIdentity {
        let (certificate, key) = self.issue();
        ClientIdentity {
            chain_pem: certificate,
            key_pem: Zeroizing::new(key.serialize_pem()),
            ..identity_in(Path::new(&step.opened.directory))
        }
    }

    fn issue(self) -> (String, KeyPair) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "keyhatch step forged");
        params.not_before = self.not_before.to_offset();
        params.not_after = self.not_after.to_offset();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![self.usage];
        params.is_ca = match self.is_ca {
            true => IsCa::Ca(BasicConstraints::Unconstrained),
            false => IsCa::ExplicitNoCa,
        };
        if self.is_ca {
            params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        }
        params.serial_number = self.serial.map(SerialNumber::from);
        let uri = |uri: &String| SanType::URI(uri.as_str().try_into().unwrap());
        params.subject_alt_names = self.uris.iter().map(uri).collect();
        let key = KeyPair::generate().unwrap();
        let issuer = issuer(self.broker, self.other_ca);
        (params.signed_by(&key, &issuer).unwrap().pem(), key)
    }
}

/// The real issuer of steps, or one with its names and another key.
fn issuer(broker: &TestBroker, other: bool) -> Issuer<'static, KeyPair> {
    let authority = broker.authority();
    let stored: serde_json::Value = serde_json::from_slice(&authority.to_bytes().unwrap()).unwrap();
    let steps = &stored["steps"];
    let key = match other {
        true => KeyPair::generate().unwrap(),
        false => KeyPair::from_pem(steps["key"].as_str().unwrap()).unwrap(),
    };
    Issuer::from_ca_cert_pem(steps["certificate"].as_str().unwrap(), key).unwrap()
}

fn world() -> (TestBroker, TestStep) {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    // The control: the step's own certificate on its own socket is let in.
    broker.resolve(&step, "aws/prod").unwrap();
    (broker, step)
}

#[track_caller]
fn assert_refused_in_handshake(broker: &TestBroker, step: &TestStep, identity: ClientIdentity) {
    let refused = refusal(broker, &socket(step), identity);
    assert!(refused.starts_with("handshake:"), "refused, but not by TLS: {refused}");
    assert_eq!(broker.journaled("resolve").len(), 1, "nothing was even decided");
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let (broker, step) = world();
    let identity = ClientIdentity {
        chain_pem: String::new(),
        ..identity_in(Path::new(&step.opened.directory))
    };
    assert_refused_in_handshake(&broker, &step, identity);
}

#[test]
fn a_certificate_of_another_ca_is_refused_even_with_the_same_names_and_serial() {
    let (broker, step) = world();
    let forged = Forged { other_ca: true, ..Forged::new(&broker) };
    assert_refused_in_handshake(&broker, &step, forged.identity(&step));

    let another = TestBroker::start();
    another.create_aws("prod", "s3cret", &["workflow:deploy"]);
    let theirs = another.open("deploy", "build");
    let identity = ClientIdentity {
        ca_pem: identity_in(Path::new(&step.opened.directory)).ca_pem,
        ..identity_in(Path::new(&theirs.opened.directory))
    };
    assert_refused_in_handshake(&broker, &step, identity);
}

#[test]
fn a_certificate_outside_its_dates_is_refused() {
    let (broker, step) = world();
    let expired =
        Forged { not_after: Timestamp::from_millis(*START - 1000), ..Forged::new(&broker) };
    assert_refused_in_handshake(&broker, &step, expired.identity(&step));
    let future = Forged { not_before: now().after(HOUR / 2), ..Forged::new(&broker) };
    assert_refused_in_handshake(&broker, &step, future.identity(&step));
}

#[test]
fn a_ca_certificate_as_leaf_is_refused() {
    let (broker, step) = world();
    let ca = Forged { is_ca: true, ..Forged::new(&broker) };
    assert_refused_in_handshake(&broker, &step, ca.identity(&step));
}

#[test]
fn a_certificate_for_servers_is_refused() {
    let (broker, step) = world();
    let server = Forged { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Forged::new(&broker) };
    assert_refused_in_handshake(&broker, &step, server.identity(&step));
    let daemon = identity_in_broker(&broker, &step);
    assert_refused_in_handshake(&broker, &step, daemon);
}

fn identity_in_broker(broker: &TestBroker, step: &TestStep) -> ClientIdentity {
    let read = |name: &str| std::fs::read_to_string(broker.config.state.join("broker").join(name));
    ClientIdentity {
        chain_pem: read("tls.crt").unwrap(),
        key_pem: Zeroizing::new(read("tls.key").unwrap()),
        ..identity_in(Path::new(&step.opened.directory))
    }
}

#[test]
fn a_certificate_with_two_spiffe_ids_or_none_is_refused() {
    let (broker, step) = world();
    let mut two = Forged::new(&broker);
    two.uris.push("spiffe://keyhatch.local/workflow/deploy/run/1/step/test".to_owned());
    assert_refused_in_handshake(&broker, &step, two.identity(&step));
    let none = Forged { uris: Vec::new(), ..Forged::new(&broker) };
    assert_refused_in_handshake(&broker, &step, none.identity(&step));
}

#[test]
fn a_spiffe_id_of_a_foreign_trust_domain_or_in_another_writing_is_refused() {
    let (broker, step) = world();
    for uri in [
        "spiffe://elsewhere.example/workflow/deploy/run/1/step/build",
        "spiffe://keyhatch.local.elsewhere/workflow/deploy/run/1/step/build",
        "spiffe://keyhatch.local/workflow/deploy/run/1/step/bu_69ld",
        "spiffe://keyhatch.local/workflow/deploy/run/1/step/build/",
    ] {
        let foreign = Forged { uris: vec![uri.to_owned()], ..Forged::new(&broker) };
        assert_refused_in_handshake(&broker, &step, foreign.identity(&step));
    }
}

#[test]
fn an_operators_certificate_is_refused_on_a_steps_socket_and_a_steps_on_the_admin_socket() {
    let (broker, step) = world();
    let operator = identity_in(&broker.config.state.join("operators/admin"));
    assert_refused_in_handshake(&broker, &step, operator);

    let admin = broker.config.runtime.join("admin.sock");
    let as_step = identity_in(Path::new(&step.opened.directory));
    let refused = refusal(&broker, &admin, as_step);
    assert!(refused.starts_with("handshake:"), "{refused}");
}

#[test]
fn another_steps_certificate_is_refused() {
    let (broker, step) = world();
    let other = broker.open("deploy", "test");
    let identity = identity_in(Path::new(&other.opened.directory));
    assert_eq!(refusal(&broker, &socket(&step), identity), ELSEWHERE);
}

#[test]
fn an_older_attempts_certificate_is_refused_on_the_newer_attempts_socket() {
    let (broker, first) = world();
    let old = identity_in(Path::new(&first.opened.directory));
    let second = broker.open("deploy", "build");
    assert_eq!(second.opened.attempt, 2);
    assert_eq!(refusal(&broker, &socket(&second), old), ELSEWHERE);
    assert!(!Path::new(&first.opened.directory).exists(), "the older attempt was closed");
    assert!(broker.resolve(&first, "aws/prod").is_err());
    broker.resolve(&second, "aws/prod").unwrap();
}

/// CVE-2024-2048: a trusted leaf was matched by serial and key id, not by what it is.
#[test]
fn a_forged_certificate_with_the_same_names_and_serial_but_another_key_is_refused() {
    let (broker, step) = world();
    let real = identity_in(Path::new(&step.opened.directory)).chain_pem;
    let (_, pem) = x509_parser::pem::parse_x509_pem(real.as_bytes()).unwrap();
    let serial = pem.parse_x509().unwrap().raw_serial().to_vec();
    let forged = Forged { serial: Some(serial), ..Forged::new(&broker) };
    let identity = forged.identity(&step);
    assert_eq!(refusal(&broker, &socket(&step), identity), ELSEWHERE);
}

#[test]
fn a_certificate_that_the_ca_issued_for_nobody_in_the_registry_is_refused_on_the_admin_door() {
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
fn a_certificate_that_ends_while_its_connection_is_open_is_refused_at_the_next_request() {
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

/// What reflection lists, in each of its versions; none where it is not served.
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

/// Health is on both doors; reflection, which lists what there is, only where operators are.
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

#[test]
fn an_id_that_the_issuer_never_gave_out_is_no_identity() {
    let (broker, step) = world();
    let serial = Id::from_bytes([9; 16]);
    let made = broker.authority().issue_client_with_key(
        &step_id("build"),
        serial,
        now(),
        now().after(HOUR),
    );
    let identity = with_certificate(&step, &made.unwrap());
    assert_eq!(refusal(&broker, &socket(&step), identity), ELSEWHERE);
}
