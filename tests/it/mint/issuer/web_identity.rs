//! Roots that are no keys: a token of the broker, for which an upstream gives a credential. The upstreams verify the token.

use std::process::Stdio;

use keyhatch::grpc::pb;

use super::Hosted;
use crate::harness::{
    Internet, Upstream, allowing, installed, keyhatch, path_with_binary, reason, source, succeeded,
};

const ACCOUNT: (&str, &str) = ("account_id", "123456789012");
const ROLE: (&str, &str) = ("role", "open");
const AUDIENCE: (&str, &str) = ("web_identity_audience", "sts.amazonaws.com");

/// A broker that is an issuer, and AWS, whose roles take its tokens.
fn aws() -> Option<(Hosted, Upstream)> {
    let mut hosted = Hosted::start();
    let upstream = Upstream::aws_trusting(&hosted.documents())?;
    hosted.broker.config.egress = allowing(&[&upstream.origin()]);
    hosted.broker.restart();
    hosted.publish();
    Some((hosted, upstream))
}

#[test]
fn a_role_is_assumed_without_any_stored_key() {
    let Some((hosted, upstream)) = aws() else { return };
    let Some(tools) = installed("tools") else { return };
    let url = upstream.origin();
    let fields = [
        ACCOUNT,
        ROLE,
        AUDIENCE,
        ("region", "us-east-1"),
        ("mint_seconds", "900"),
        ("session_tags", "team=payments"),
        ("sts_url", url.as_str()),
    ];
    let made = hosted.broker.create_connection("aws/web", &fields, &["workflow:*"]).unwrap();
    assert_eq!(made.release(), pb::Release::Minted);
    assert!(made.findings.is_empty(), "{:?}", made.findings);
    let step = hosted.broker.open("w", "s");
    let got = hosted.broker.resolve(&step, "aws/web").unwrap();
    assert!(got.fields["access_key_id"].starts_with("ASIA"));
    assert!(!got.fields.contains_key("web_identity_audience"));
    let begun = hosted.broker.journaled("minting").pop().unwrap();
    assert_eq!(begun["source"], "aws_web_identity");
    // Each step has a session of its own.
    let other = hosted.broker.open("w", "other");
    let others = hosted.broker.resolve(&other, "aws/web").unwrap();
    assert_ne!(others.fields["access_key_id"], got.fields["access_key_id"]);
    // The role's trust policy takes tokens of workflow w only.
    let stranger = hosted.broker.open("x", "s");
    assert_eq!(reason(hosted.broker.resolve(&stranger, "aws/web")), "UPSTREAM_REFUSED");
    let failed = hosted.broker.journaled("mint_failed").pop().unwrap().to_string();
    assert!(failed.contains("AccessDenied"), "{failed}");
    let mut exec = keyhatch(&["exec", "--serve", "aws=aws/web", "--no-mask", "--"]);
    exec.arg(tools.join("venv/bin/python")).arg(source("tests/clients/tools/boto_buckets.py"));
    exec.arg(&url).envs(&step.opened.env).env("PATH", path_with_binary());
    let listed = listed_once(exec);
    assert_eq!(listed.trim(), got.fields["access_key_id"]);
}

/// Runs boto_buckets.py for one listing.
fn listed_once(mut exec: std::process::Command) -> String {
    use std::io::Write as _;
    let piped = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"] {
        piped.env_remove(name);
    }
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"list\n").unwrap();
    succeeded(&child.wait_with_output().unwrap())
}

#[test]
fn boto3_takes_the_token_file_that_exec_keeps() {
    let Some((hosted, upstream)) = aws() else { return };
    let Some(tools) = installed("tools") else { return };
    hosted.create("oidc/aws", &[("audience", "sts.amazonaws.com")]);
    let step = hosted.broker.open("w", "s");
    let file = hosted.documents().with_file_name("token");
    let argument = format!("{}=oidc/aws:token", file.display());
    let mut exec = keyhatch(&["exec", "--follow", "--file", &argument, "--no-mask", "--"]);
    exec.arg(tools.join("venv/bin/python")).arg(source("tests/clients/tools/boto_buckets.py"));
    exec.arg(upstream.origin()).envs(&step.opened.env).env("PATH", path_with_binary());
    exec.env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/open");
    exec.env("AWS_WEB_IDENTITY_TOKEN_FILE", &file);
    exec.env("AWS_ENDPOINT_URL_STS", upstream.origin()).env("AWS_REGION", "us-east-1");
    assert!(listed_once(exec).starts_with("ASIA"));
    assert!(!file.exists(), "the file ends with the command");
}

#[test]
fn a_role_has_a_key_or_a_token_and_without_both_is_stored() {
    let Some((hosted, _upstream)) = aws() else { return };
    let stored = hosted.broker.create_connection("aws/bare", &[ACCOUNT, ROLE], &[]).unwrap();
    assert_eq!(stored.release(), pb::Release::Stored);
    let key = [("source_access_key_id", "AKIAEXAMPLEEXAMPLE12"), ("source_secret_access_key", "s")];
    let both = [[ACCOUNT, ROLE, AUDIENCE].as_slice(), &key].concat();
    let refused = hosted.broker.create_connection("aws/both", &both, &[]).map(drop);
    assert_eq!(reason(refused), "FIELDS_INVALID");
}

#[test]
fn a_service_account_without_a_key_gives_access_tokens() {
    let mut hosted = Hosted::start();
    let Some(google) = Upstream::google_federation(&hosted.documents()) else { return };
    let hosts = ["sts.googleapis.com", "iamcredentials.googleapis.com"];
    let internet = Internet::start(&hosts, google.port());
    hosted.broker.config.egress = internet.rules();
    hosted.broker.restart();
    let (ca, provider) = (internet.ca_pem.as_str(), google.told("provider"));
    let fields = [
        ("service_account_email", "deploy@project.iam.gserviceaccount.com"),
        ("workload_identity_provider", provider),
        ("ca_certificate", ca),
    ];
    hosted.create("gcp/deploy", &fields);
    let made = hosted.broker.get_connection("gcp/deploy").unwrap();
    assert_eq!(made.release(), pb::Release::Minted);
    let step = hosted.broker.open("w", "s");
    assert_eq!(reason(hosted.broker.resolve(&step, "gcp/deploy")), "UPSTREAM_REFUSED");
    hosted.publish();
    // A refusal counts until the next version.
    let other = [("impersonate", "other@project.iam.gserviceaccount.com")];
    hosted.create("gcp/other", &[fields.as_slice(), &other].concat());
    let got = hosted.broker.resolve(&step, "gcp/other").unwrap();
    assert_eq!(
        got.fields["access_token"],
        "ya29.deploy@project.iam.gserviceaccount.com.other@project.iam.gserviceaccount.com"
    );
    let fresh = hosted.broker.open("w", "fresh");
    let got = hosted.broker.resolve(&fresh, "gcp/deploy").unwrap();
    assert_eq!(got.fields["access_token"], "ya29.deploy@project.iam.gserviceaccount.com");
    let names: Vec<_> = got.fields.keys().map(String::as_str).collect();
    assert_eq!(names, ["access_token", "service_account_email"]);
}

#[test]
fn a_service_account_has_a_key_or_a_provider() {
    let mut broker = crate::harness::TestBroker::start();
    let email = ("service_account_email", "deploy@project.iam.gserviceaccount.com");
    let provider = (
        "workload_identity_provider",
        "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
    );
    let refused = |fields: &[(&str, &str)]| {
        reason(broker.create_connection("gcp/deploy", fields, &[]).map(drop))
    };
    assert_eq!(refused(&[email]), "FIELDS_INVALID");
    assert_eq!(refused(&[email, provider, ("private_key", "k")]), "FIELDS_INVALID");
    broker.create_connection("gcp/deploy", &[email, provider], &[]).unwrap();
    broker.stop();
}
