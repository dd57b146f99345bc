//! Operators who work from another machine: requests, bundles and contexts.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use keyhatch::model::{Clock, Id, OperatorName, SpiffeId, Timestamp};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::harness::{
    ServeProcess, assert_says, authority_of, init_in, keyhatch, keyhatch_in, succeeded, temp_dir,
    text,
};

/// A broker that serves operators over TCP, and the home directory of an operator elsewhere.
pub(super) struct World {
    pub(super) serving: ServeProcess,
    pub(super) directory: TempDir,
}

impl World {
    pub(super) fn start() -> Self {
        let directory = temp_dir();
        init_in(directory.path());
        let names = ["--admin-name", "localhost", "--admin-name", "127.0.0.1"];
        let serve = [&["serve", "--admin-listen", "127.0.0.1:0"][..], &names].concat();
        let serving = ServeProcess::spawn(directory.path(), keyhatch_in(directory.path(), &serve));
        std::fs::create_dir(directory.path().join("home")).unwrap();
        Self { serving, directory }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn own(&self, name: &str) -> PathBuf {
        self.path("home/.config/keyhatch").join(name)
    }

    /// A command of the operator, whose machine has nothing of the broker.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = keyhatch(arguments);
        command.env_remove("XDG_CONFIG_HOME").env("HOME", self.path("home"));
        command.env("XDG_STATE_HOME", self.path("nothing"));
        command
    }

    fn at_home(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The stdout of a command of the operator that must succeed.
    #[track_caller]
    pub(super) fn must(&self, arguments: &[&str]) -> String {
        succeeded(&self.at_home(arguments))
    }

    /// The stderr of a command of the operator that must fail.
    #[track_caller]
    pub(super) fn refused(&self, arguments: &[&str]) -> String {
        let output = self.at_home(arguments);
        assert!(!output.status.success(), "{arguments:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }

    /// Requests a certificate on the operator's machine and answers on the broker's. Returns the bundle's file.
    pub(super) fn bundle(&self, operator: &str) -> PathBuf {
        self.must(&["operator", "request", "--name", operator]);
        self.answer(operator)
    }

    /// Answers the request that waits.
    pub(super) fn answer(&self, operator: &str) -> PathBuf {
        let request = self.path("request.csr");
        std::fs::copy(self.own("tls.csr"), &request).unwrap();
        let request = request.to_str().unwrap();
        let add = ["operator", "add", operator, "--role", "operator", "--csr", request, "--remote"];
        let bundle = self.path(&format!("{operator}.bundle"));
        std::fs::write(&bundle, self.serving.must(&add)).unwrap();
        bundle
    }
}

pub(super) fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(super) fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_operator_works_from_another_machine() {
    let world = World::start();
    let bundle = world.bundle("bob");
    let content = std::fs::read_to_string(&bundle).unwrap();
    assert!(!content.contains("PRIVATE KEY"), "{content}");
    let told = json(&content);
    assert_eq!(told["operator"], "bob");
    assert_eq!(told["broker"], "spiffe://keyhatch.local/broker/main", "{told}");
    let added = world.must(&["context", "add", word(&bundle)]);
    assert_says(&added, &["context localhost", "operator bob at localhost:", "current"]);
    // The key has moved into the context, and nobody else can read it.
    assert!(!world.own("tls.key").exists() && !world.own("tls.csr").exists());
    let key = world.own("contexts/localhost/tls.key");
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    let me = world.must(&["whoami"]);
    assert_says(&me, &["operator/bob", "localhost:", "certificate until"]);
    let create = ["connection", "create", "slack/team", "--field", "api_token=-"];
    let mut create = world.command(&create);
    let created = create.stdin(std::fs::File::open(world.own("context")).unwrap());
    succeeded(&created.output().unwrap());
    assert_says(&world.must(&["connection", "list"]), &["slack/team"]);
    assert_says(&world.must(&["status"]), &["1 operator(s) at 127.0.0.1:", "localhost, 127.0.0.1"]);
    // The certificate is too young to be renewed, which the broker says.
    let young = world.refused(&["--context", "localhost", "operator", "renew"]);
    assert_says(&young, &["TOO_MANY_REQUESTS"]);
    world.must(&["healthcheck"]);
    assert_says(&world.must(&["doctor"]), &["certificate", "answers, and serves"]);
    let of_host = world.serving.run(&["doctor"]);
    assert_says(&text(&of_host.stdout), &["operators over TCP", "as localhost, 127.0.0.1, for 1"]);
    // The context is an identity's directory as any other.
    let mut named = world.command(&["connection", "list"]);
    named.env("KEYHATCH_DIR", world.own("contexts/localhost"));
    succeeded(&named.output().unwrap());
    // Steps and executors have nothing to do with contexts.
    assert_says(&world.refused(&["step", "list", "--state", "/nowhere"]), &["/nowhere"]);
    assert!(!world.refused(&["get", "slack/team"]).contains("localhost:"));
}

#[test]
fn contexts_are_listed_chosen_and_removed() {
    let world = World::start();
    let (one, other) = (world.bundle("one"), "--name");
    world.must(&["context", "add", word(&one), other, "first"]);
    let two = world.bundle("two");
    let added = world.must(&["context", "add", word(&two), other, "second"]);
    assert_says(&added, &["context second", "keyhatch context use second"]);
    let who = |arguments: &[&str]| json(&world.must(arguments))["operator"].clone();
    assert_eq!(who(&["whoami", "-o", "json"]), "one");
    assert_eq!(who(&["whoami", "-o", "json", "--context", "second"]), "two");
    world.must(&["context", "use", "second"]);
    assert_eq!(who(&["whoami", "-o", "json"]), "two");
    let listed = json(&world.must(&["context", "list", "-o", "json"]));
    let of = |number: usize, key: &str| listed[number][key].clone();
    assert_eq!((of(0, "context"), of(0, "current")), ("first".into(), false.into()));
    assert_eq!((of(1, "operator"), of(1, "current")), ("two".into(), true.into()));
    assert_eq!(of(1, "broker"), "spiffe://keyhatch.local/broker/main");
    assert_says(&world.refused(&["context", "remove", "second"]), &["--yes"]);
    world.must(&["context", "remove", "second", "--yes"]);
    assert!(!world.own("contexts/second").exists());
    // Without a current context nothing stands for one.
    assert_says(&world.refused(&["connection", "list"]), &["keyhatch context use"]);
    world.must(&["connection", "list", "--context", "first"]);
    for arguments in [["context", "use", "third"], ["whoami", "--context", "third"]] {
        assert_says(&world.refused(&arguments), &["no context third", "keyhatch context list"]);
    }
}

#[test]
fn a_bundle_that_does_not_fit_is_refused_with_the_next_step() {
    let world = World::start();
    let bundle = world.bundle("bob");
    let add = |content: &str| {
        let file = world.path("other.bundle");
        std::fs::write(&file, content).unwrap();
        world.refused(&["context", "add", word(&file)])
    };
    let whole = std::fs::read_to_string(&bundle).unwrap();
    let with = |key: &str, value: Json| {
        let mut changed = json(&whole);
        changed[key] = value;
        changed.to_string()
    };
    for (content, told) in [
        (String::new(), "is no bundle"),
        ("{}".to_owned(), "is no bundle"),
        (with("keyhatch_bundle", 2.into()), "of a newer keyhatch"),
        (with("more", 2.into()), "damaged"),
        (with("broker", "spiffe://keyhatch.local/operator/bob".into()), "damaged"),
        (with("broker", "spiffe://elsewhere/broker/main".into()), "trust domain"),
        (with("operator", "eve".into()), "another operator's"),
        (with("ca_certificate", "".into()), "0 CA certificates instead of one"),
        (
            with("ca_certificate", with_another_root(&whole).into()),
            "2 CA certificates instead of one",
        ),
        (with("certificate_chain", "".into()), "no certificate"),
        (with("certificate_chain", expired(&world).into()), "BUNDLE_TOO_OLD"),
    ] {
        assert_says(&add(&content), &["error: BUNDLE_", told, "keyhatch operator add"]);
    }
    // The key is elsewhere: of another request, or of no request.
    let key = std::fs::read(world.own("tls.key")).unwrap();
    for other in [None, Some(keyhatch::identity::new_request().unwrap().0)] {
        std::fs::remove_file(world.own("tls.key")).unwrap_or_default();
        other.inspect(|key| std::fs::write(world.own("tls.key"), key.as_bytes()).unwrap());
        let told = add(&whole);
        assert_says(&told, &["KEY_MISSING", "keyhatch operator request", "--request DIR"]);
    }
    std::fs::write(world.own("tls.key"), key).unwrap();
    world.must(&["context", "add", word(&bundle)]);
    // A renewed certificate is not replaced by the first one.
    world.must(&["context", "add", word(&bundle)]);
    let path = world.own("contexts/localhost/tls.crt");
    let newer = later(&world);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, newer).unwrap();
    let old = world.refused(&["context", "add", word(&bundle)]);
    assert_says(&old, &["BUNDLE_TOO_OLD", "has a newer certificate", "context use localhost"]);
    let next = world.bundle("eve");
    let taken = world.refused(&["context", "add", word(&next)]);
    assert_says(&taken, &["CONTEXT_EXISTS", "--name", "keyhatch context remove localhost"]);
}

/// The root of a bundle, and behind it that of somebody else.
fn with_another_root(bundle: &str) -> String {
    json(bundle)["ca_certificate"].as_str().unwrap().to_owned() + &another_root()
}

fn another_root() -> String {
    let directory = temp_dir();
    init_in(directory.path());
    std::fs::read_to_string(directory.path().join("state/ca.crt")).unwrap()
}

/// A certificate for the request that waits, with this validity in days from now.
fn certificate(world: &World, key: &Path, from: i64, to: i64) -> String {
    let now = Clock::system().now().seconds();
    let day = |days: i64| Timestamp::from_seconds(now + days * 24 * 3600);
    let key = std::fs::read_to_string(key).unwrap();
    let csr = keyhatch::identity::request_for(&key).unwrap();
    let key = keyhatch::identity::requested_key(csr.as_bytes()).unwrap();
    let id = SpiffeId::Operator(OperatorName::parse("bob").unwrap());
    let serial = Id::from_bytes([7; 16]);
    let authority = authority_of(&world.path("state"));
    authority.issue_client(&id, &key, serial, day(from), day(to)).unwrap().chain_pem
}

fn expired(world: &World) -> String {
    certificate(world, &world.own("tls.key"), -90, -1)
}

fn later(world: &World) -> String {
    certificate(world, &world.own("contexts/localhost/tls.key"), 0, 120)
}

#[test]
fn an_operator_who_is_no_longer_let_in_is_told_why() {
    let world = World::start();
    let bundle = world.bundle("bob");
    world.must(&["context", "add", word(&bundle)]);
    world.must(&["connection", "list"]);
    world.serving.must(&["operator", "update", "bob", "--no-remote"]);
    let told = world.refused(&["connection", "list"]);
    assert_says(&told, &["REMOTE_DENIED", "keyhatch operator update NAME --remote"]);
    let listed = world.serving.must(&["operator", "list", "-o", "json"]);
    let bob =
        json(&listed).as_array().unwrap().iter().find(|one| one["operator"] == "bob").cloned();
    assert_eq!(bob.unwrap()["remote"], false);
    world.serving.must(&["operator", "update", "bob", "--remote"]);
    world.must(&["connection", "list"]);
    world.serving.must(&["operator", "remove", "bob", "--yes"]);
    assert_says(&world.refused(&["connection", "list"]), &["SVID_INVALID", "administrator"]);
}

#[test]
fn a_broker_elsewhere_that_cannot_be_reached_is_explained() {
    let world = World::start();
    let bundle = world.bundle("bob");
    world.must(&["context", "add", word(&bundle)]);
    let env = world.own("contexts/localhost/env");
    let first = std::fs::read_to_string(&env).unwrap();
    let with = |from: &str, to: &str| {
        std::fs::remove_file(&env).unwrap();
        std::fs::write(&env, first.replace(from, to)).unwrap();
        world.refused(&["status"])
    };
    let other = with("broker/main", "broker/other");
    assert_says(&other, &["BROKER_UNKNOWN", "broker/other", "keyhatch context add FILE"]);
    let no_broker = with("KEYHATCH_BROKER", "KEYHATCH_OTHER");
    assert_says(&no_broker, &["CONTEXT_INVALID", "KEYHATCH_BROKER=ID"]);
    let port = first.lines().next().unwrap().rsplit(':').next().unwrap().to_owned();
    let away = with(&format!("localhost:{port}"), "localhost:1");
    assert_says(&away, &["UNREACHABLE", "nobody listens at localhost:1", "--admin-listen"]);
}
