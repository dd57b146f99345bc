//! Sessions of AWS by STS, of moto, which checks signatures and policies.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use futures_util::future::join_all;

use crate::harness::{
    TestBroker, TestStep, Upstream, allowing, installed, keyhatch, path_with_binary, reason,
    request, resolve_on, source, wait_until,
};

/// A broker with aws/NAME connections of moto's roles.
struct Aws {
    broker: TestBroker,
    upstream: Upstream,
}

impl Aws {
    fn start() -> Option<Self> {
        let upstream = Upstream::aws()?;
        let mut broker = TestBroker::start();
        broker.config.egress = allowing(&[&upstream.origin()]);
        broker.restart();
        Some(Self { broker, upstream })
    }

    /// Creates a connection for the role of this name, for sessions of 15 minutes.
    fn create(&self, name: &str, role: &str, secret: &str) {
        let fields = [
            ("account_id", "123456789012"),
            ("role", role),
            ("region", "us-east-1"),
            ("source_access_key_id", self.upstream.told("access_key_id")),
            ("source_secret_access_key", secret),
            ("mint_seconds", "900"),
            ("sts_url", &self.upstream.origin()),
        ];
        self.broker.create_connection(&format!("aws/{name}"), &fields, &["workflow:w"]).unwrap();
    }

    fn create_open(&self) {
        self.create("prod", "open", self.upstream.told("secret_access_key"));
    }

    fn key_id(&self, step: &TestStep) -> String {
        self.broker.resolve(step, "aws/prod").unwrap().fields["access_key_id"].clone()
    }
}

#[test]
fn each_step_has_a_session_that_its_processes_share() {
    let Some(aws) = Aws::start() else { return };
    aws.create_open();
    let (one, other) = (aws.broker.open("w", "one"), aws.broker.open("w", "other"));
    // Two processes of one step ask at the same time.
    let again = aws.broker.become_step(one.opened.clone());
    let both = [&one, &again].map(|step| resolve_on(step.channel.clone(), request("aws/prod")));
    let got: Vec<_> = aws.broker.block_on(join_all(both)).into_iter().map(Result::unwrap).collect();
    assert_eq!(got[0].fields, got[1].fields);
    let names: Vec<_> = got[0].fields.keys().map(String::as_str).collect();
    let expected = [
        "access_key_id",
        "account_id",
        "external_id",
        "region",
        "role",
        "secret_access_key",
        "session_token",
    ];
    assert!(names.iter().all(|name| expected.contains(name)), "{names:?}");
    assert!(got[0].fields["access_key_id"].starts_with("ASIA"));
    assert_ne!(aws.key_id(&other), got[0].fields["access_key_id"]);
    let minted = aws.broker.journaled("minted");
    assert_eq!(minted.len(), 2);
    assert_eq!(minted[0]["handle"], got[0].fields["access_key_id"].as_str());
}

#[test]
fn a_refusal_of_sts_is_told_to_operators_by_its_code() {
    let Some(aws) = Aws::start() else { return };
    let secret = aws.upstream.told("secret_access_key");
    aws.create("wrong-secret", "open", "not-a-real-secret");
    // This role expects an external ID of its own.
    aws.create("wrong-id", "deploy", secret);
    let step = aws.broker.open("w", "s");
    for (name, code) in [("wrong-secret", "SignatureDoesNotMatch"), ("wrong-id", "AccessDenied")] {
        let refused = aws.broker.resolve(&step, &format!("aws/{name}"));
        assert_eq!(reason(refused), "UPSTREAM_REFUSED");
        let failed = aws.broker.journaled("mint_failed");
        let failed = failed.last().unwrap().to_string();
        assert!(failed.contains(code), "{failed}");
    }
}

#[test]
fn boto3_lists_buckets_and_follows_to_the_next_session() {
    let Some(aws) = Aws::start() else { return };
    let Some(tools) = installed("tools") else { return };
    aws.create_open();
    let step = aws.broker.open("w", "s");
    let python = tools.join("venv/bin/python");
    let script = source("tests/clients/tools/boto_buckets.py");
    let mut exec = keyhatch(&["exec", "--serve", "aws=aws/prod", "--no-mask", "--"]);
    exec.arg(python).arg(script).arg(aws.upstream.origin());
    exec.envs(&step.opened.env).env("PATH", path_with_binary());
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"] {
        exec.env_remove(name);
    }
    let mut child = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut list = || {
        stdin.write_all(b"list\n").unwrap();
        lines.next().unwrap().unwrap()
    };
    let first = list();
    assert!(first.starts_with("ASIA"), "{first}");
    // boto3 asks again for each request, because the session ends within a quarter of an hour.
    assert_eq!(list(), first);
    assert_eq!(aws.broker.journaled("minting").len(), 1);
    aws.broker.advance(601);
    // boto3 may ask more than once for one request, and then meets the next session already.
    list();
    wait_until("the next session is made", || aws.broker.journaled("minted").len() == 2);
    wait_until("boto3 uses it", || list() != first);
    drop(stdin);
    assert!(child.wait().unwrap().success());
}
