//! `StepService.Sign` and `GetSigningKey` themselves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::model::Limits;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::harness::{SshKey, TestBroker, TestStep, bytes, reason};

/// A step that may use `ssh/deploy`.
pub struct World {
    pub broker: TestBroker,
    pub step: TestStep,
    pub key: SshKey,
}

impl World {
    /// `None` if ssh-keygen is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with(Limits::default())
    }

    pub fn start_with(limits: Limits) -> Option<Self> {
        std::process::Command::new("ssh-keygen").arg("-?").output().ok()?;
        let broker = TestBroker::start_with(limits);
        let key = SshKey::make(broker.scratch(), "ed25519");
        let step = broker.open("deploy", "build");
        let world = Self { broker, step, key };
        let private = world.key.private.clone();
        world.create("deploy", &[("private_key", &private), ("user", "git")], pb::Relation::User);
        Some(world)
    }

    pub fn create(&self, name: &str, fields: &[(&str, &str)], relation: pb::Relation) {
        self.try_create(name, fields, relation).unwrap();
    }

    fn try_create(
        &self,
        name: &str,
        fields: &[(&str, &str)],
        relation: pb::Relation,
    ) -> Result<(), Status> {
        let principals = vec!["workflow:deploy".to_owned()];
        let document = pb::ConnectionDocument {
            integration: "ssh".to_owned(),
            name: name.to_owned(),
            fields: bytes(fields),
            access: vec![pb::AccessBinding { relation: relation.into(), principals }],
            ..Default::default()
        };
        let document = pb::apply_request::Document::Connection(document);
        self.broker.apply(vec![document]).map(drop)
    }

    /// Another key, in a directory of this name.
    pub fn new_key(&self, name: &str, key_type: &str) -> SshKey {
        let directory = self.broker.scratch().join(name);
        std::fs::create_dir(&directory).unwrap();
        SshKey::make(&directory, key_type)
    }

    pub fn target(reference: &str) -> Option<pb::SigningTarget> {
        use pb::signing_target::Target;
        let (integration, name) = reference.split_once('/').unwrap();
        let (integration, name) = (integration.to_owned(), name.to_owned());
        let target = Some(Target::Connection(pb::ConnectionTarget { integration, name }));
        Some(pb::SigningTarget { target })
    }

    pub fn key(&self, reference: &str) -> Result<pb::SigningKey, Status> {
        let mut client = StepServiceClient::new(self.step.channel.clone());
        let request = pb::GetSigningKeyRequest { target: Self::target(reference) };
        self.broker.block_on(client.get_signing_key(request)).map(tonic::Response::into_inner)
    }

    pub fn sign(&self, reference: &str, data: Vec<u8>) -> Result<Vec<u8>, Status> {
        let mut client = StepServiceClient::new(self.step.channel.clone());
        let request = pb::SignRequest { target: Self::target(reference), data };
        self.broker.block_on(client.sign(request)).map(|answer| answer.into_inner().signature)
    }

    pub fn refusal(&self, reference: &str, data: Vec<u8>) -> String {
        reason(self.sign(reference, data))
    }

    fn update(
        &self,
        reference: &str,
        connection: pb::Connection,
        paths: &[String],
    ) -> Result<(), Status> {
        self.update_once(reference, connection, paths, "")
    }

    /// Updates a connection, once for a request id.
    pub fn update_once(
        &self,
        reference: &str,
        connection: pb::Connection,
        paths: &[String],
        request_id: &str,
    ) -> Result<(), Status> {
        let name = format!("connections/{reference}");
        let change = pb::UpdateConnectionRequest {
            connection: Some(pb::Connection { name, ..connection }),
            update_mask: Some(prost_types::FieldMask { paths: paths.to_vec() }),
            request_id: request_id.to_owned(),
            ..Default::default()
        };
        let mut operator = ConnectionServiceClient::new(self.broker.operator());
        self.broker.block_on(operator.update_connection(change)).map(drop)
    }

    /// Writes these fields of a connection.
    pub fn write(&self, reference: &str, fields: &[(&str, &str)]) -> Result<(), Status> {
        let paths: Vec<_> = fields.iter().map(|(name, _)| format!("fields.{name}")).collect();
        let fields = bytes(fields);
        self.update(reference, pb::Connection { fields, ..Default::default() }, &paths)
    }

    fn remove(&self, reference: &str, field: &str) -> Result<(), Status> {
        self.update(reference, pb::Connection::default(), &[format!("fields.{field}")])
    }

    pub fn disable(&self, reference: &str, disabled: bool) {
        let connection = pb::Connection { disabled, ..Default::default() };
        self.update(reference, connection, &["disabled".to_owned()]).unwrap();
    }
}

/// What a client signs to log in as `user` with this ed25519 key.
pub fn login(user: &str, public_key: &[u8]) -> Vec<u8> {
    login_by("ssh-ed25519", user, public_key)
}

/// What a client signs to log in by this algorithm.
pub fn login_by(algorithm: &str, user: &str, public_key: &[u8]) -> Vec<u8> {
    request("publickey", algorithm, user, &[public_key])
}

/// What a client signs to log in as `user` with this ed25519 key, at the host of this key alone.
fn login_at(host: &SshKey, user: &str, public_key: &[u8]) -> Vec<u8> {
    let host_key = STANDARD.decode(host.public.split(' ').nth(1).unwrap()).unwrap();
    let method = "publickey-hostbound-v00@openssh.com";
    request(method, "ssh-ed25519", user, &[public_key, &host_key])
}

fn request(method: &str, algorithm: &str, user: &str, keys: &[&[u8]]) -> Vec<u8> {
    let mut data = Vec::new();
    let string = |data: &mut Vec<u8>, string: &[u8]| {
        data.extend(u32::try_from(string.len()).unwrap().to_be_bytes());
        data.extend(string);
    };
    string(&mut data, &[7; 32]);
    data.push(50);
    for part in [user, "ssh-connection", method] {
        string(&mut data, part.as_bytes());
    }
    data.push(1);
    string(&mut data, algorithm.as_bytes());
    keys.iter().for_each(|key| string(&mut data, key));
    data
}

#[test]
fn a_signature_is_of_the_login_and_verified_by_the_key() {
    let Some(world) = World::start() else { return };
    let key = world.key("ssh/deploy").unwrap();
    assert_eq!(
        (key.name.as_str(), key.version, key.user.as_str()),
        ("connections/ssh/deploy", 1, "git")
    );
    let request = login("git", &key.public_key);
    let signature = world.sign("ssh/deploy", request.clone()).unwrap();
    let verifier = aws_lc_rs::signature::UnparsedPublicKey::new(
        &aws_lc_rs::signature::ED25519,
        &key.public_key[key.public_key.len() - 32..],
    );
    verifier.verify(&request, &signature[signature.len() - 64..]).unwrap();
    // Both are in the journal, before their effect.
    let lines = world.broker.journaled("sign");
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line["decision"] == "allow" && line["version"] == 1));
    assert_eq!(lines[1]["login"]["user"], "git");
    assert_eq!(lines[1]["login"]["key"], world.key.fingerprint());
    assert!(lines[0].get("login").is_none() && lines[1]["login"].get("host_key").is_none());
}

#[test]
fn what_a_step_may_not_sign_with_is_refused_as_if_absent() {
    let Some(world) = World::start() else { return };
    let key = world.key("ssh/deploy").unwrap().public_key;
    let request = login("git", &key);
    let private = world.key.private.clone();
    world.create("seen", &[("private_key", &private)], pb::Relation::Viewer);
    for name in ["ssh/absent", "ssh/seen"] {
        let refused = world.sign(name, request.clone()).unwrap_err();
        assert_eq!(reason(Err::<(), _>(refused)), "RESOLVE_DENIED", "{name}");
        assert_eq!(reason(world.key(name)), "RESOLVE_DENIED", "{name}");
    }
    // Resolve refuses in the same words, but for the id of the decision.
    let words = |status: Status| {
        let details = status.get_error_details();
        let id = details.error_info().unwrap().metadata["decision_id"].clone();
        (status.message().replace(&id, "ID"), status.code(), id)
    };
    let [absent, seen] = ["ssh/absent", "ssh/seen"]
        .map(|name| words(world.sign(name, request.clone()).unwrap_err()));
    let resolved = words(world.broker.resolve(&world.step, "ssh/seen").unwrap_err());
    assert_eq!((&absent.0, absent.1), (&seen.0, seen.1));
    assert_eq!((&resolved.0, resolved.1), (&seen.0, seen.1));
    // The operator learns which relation was too low.
    let explained = world.broker.explain_decision(&seen.2).unwrap();
    let examined = &explained.resources[0];
    assert_eq!((examined.needed(), examined.held()), (pb::Relation::User, pb::Relation::Viewer));
    assert_eq!(explained.past.unwrap().refused_by, "viewer workflow:deploy");
}

#[test]
fn arbitrary_bytes_are_not_signed_and_have_no_line() {
    let Some(world) = World::start() else { return };
    let request = login("git", &world.key("ssh/deploy").unwrap().public_key);
    let before = world.broker.journal().len();
    let mut longer = request.clone();
    longer.push(0);
    let cut = request[..request.len() - 1].to_vec();
    for data in
        [vec![], b"x".to_vec(), b"SSHSIG\0\0\0\x03git".to_vec(), longer, cut, vec![0; 20_000]]
    {
        assert_eq!(world.refusal("ssh/deploy", data), "LOGIN_INVALID");
    }
    assert_eq!(world.broker.journal().len(), before);
}

#[test]
fn a_login_must_fit_the_connection() {
    let Some(world) = World::start() else { return };
    let key = world.key("ssh/deploy").unwrap().public_key;
    assert_eq!(world.refusal("ssh/deploy", login("root", &key)), "SSH_USER_MISMATCH");
    let mut other = key.clone();
    *other.last_mut().unwrap() ^= 1;
    assert_eq!(world.refusal("ssh/deploy", login("git", &other)), "SSH_KEY_MISMATCH");
    // Nothing else signs, and an encrypted key does not.
    world.broker.create_aws("prod", "hush", &["workflow:deploy"]);
    assert_eq!(world.refusal("aws/prod", login("git", &key)), "SSH_KEY_MISSING");
    assert_eq!(reason(world.key("aws/prod")), "SSH_KEY_MISSING");
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    world.create("encrypted", &[("private_key", encrypted)], pb::Relation::User);
    let refused = world.key("ssh/encrypted").unwrap_err();
    assert!(refused.message().contains("ssh-keygen -p"), "{}", refused.message());
    assert_eq!(reason(Err::<(), _>(refused)), "SSH_KEY_UNUSABLE");
}

#[test]
fn nothing_is_signed_for_a_closed_step_or_a_disabled_connection() {
    let Some(world) = World::start() else { return };
    let request = login("git", &world.key("ssh/deploy").unwrap().public_key);
    world.disable("ssh/deploy", true);
    assert_eq!(world.refusal("ssh/deploy", request.clone()), "CONNECTION_DISABLED");
    world.broker.close(&world.step);
    assert_eq!(world.refusal("ssh/deploy", request), "STEP_NOT_OPEN");
}

#[test]
fn a_login_without_a_host_is_refused_where_one_is_required() {
    let Some(world) = World::start() else { return };
    let [host, other] = ["host", "other"].map(|name| world.new_key(name, "ed25519"));
    let (private, known_hosts) = (world.key.private.clone(), format!("h {}\n", host.public));
    let fields = |binding| {
        [("private_key", &*private), ("known_hosts", &*known_hosts), ("host_binding", binding)]
    };
    world.create("offered", &fields("offered"), pb::Relation::User);
    world.create("required", &fields("required"), pb::Relation::User);
    let key = world.key("ssh/required").unwrap().public_key;
    world.sign("ssh/offered", login("git", &key)).unwrap();
    assert_eq!(world.refusal("ssh/required", login("git", &key)), "SSH_HOST_UNNAMED");
    world.sign("ssh/required", login_at(&host, "git", &key)).unwrap();
    assert_eq!(world.refusal("ssh/required", login_at(&other, "git", &key)), "SSH_HOST_UNKNOWN");
    let last = world.broker.journaled("sign").pop().unwrap();
    assert_eq!(last["login"]["host_key"], other.fingerprint());
    // Without known_hosts it would be no restriction.
    for fields in [&[("private_key", &*private), ("host_binding", "required")][..], &fields("yes")]
    {
        let refused = world.try_create("bad", fields, pb::Relation::User);
        assert_eq!(reason(refused), "DOCUMENTS_INVALID");
    }
    let no_hosts = [("known_hosts", ""), ("private_key", &*private)];
    world.write("ssh/required", &no_hosts).unwrap();
    assert_eq!(world.refusal("ssh/required", login_at(&host, "git", &key)), "SSH_HOST_UNKNOWN");
}

#[test]
fn what_restricts_logins_changes_only_with_the_key() {
    let Some(world) = World::start() else { return };
    let host = format!("h {}\n", world.new_key("host", "ed25519").public);
    let restrictions =
        [("user", "git"), ("known_hosts", host.as_str()), ("host_binding", "required")];
    let key = ("private_key", world.key.private.as_str());
    world.create("all", &[&restrictions[..], &[key]].concat(), pb::Relation::User);
    let changed = [("user", "root"), ("known_hosts", ""), ("host_binding", "offered")];
    for (nth, (name, value)) in changed.into_iter().enumerate() {
        assert_eq!(reason(world.write("ssh/all", &[(name, value)])), "SECRETS_REQUIRED", "{name}");
        // A host_binding needs its hosts.
        let refusal = if name == "known_hosts" { "FIELDS_INVALID" } else { "SECRETS_REQUIRED" };
        assert_eq!(reason(world.remove("ssh/all", name)), refusal, "{name}");
        world.write("ssh/all", &[(name, value), key]).unwrap();
        world.write("ssh/all", &[restrictions[nth], key]).unwrap();
    }
    // Nor may they be added.
    world.create("none", &[key], pb::Relation::User);
    let known = [("known_hosts", host.as_str())];
    assert_eq!(reason(world.write("ssh/none", &known)), "SECRETS_REQUIRED");
}
