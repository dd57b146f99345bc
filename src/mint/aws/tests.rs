use std::time::Duration;

use proptest::prelude::*;

use super::super::FailureReason;
use super::super::samples::{ask, fields, now, reply, sent, text, texts, vectors};
use super::*;
use crate::egress::Reply;
use crate::model::{Fields, RunName, StepName, WorkflowName};

const ROOTS: [(&str, &str); 4] = [
    ("account_id", "123456789012"),
    ("role", "team/deploy"),
    ("source_access_key_id", "AKIDEXAMPLE"),
    ("source_secret_access_key", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
];

/// A connection with these fields, too.
fn with(more: &[(&str, &str)]) -> Fields {
    fields(&[ROOTS.as_slice(), more].concat())
}

fn request(roots: &Fields) -> Result<Request, Failure> {
    let roots = Roots(roots);
    Call::of(roots, &ask()).map(|call| call.request(roots, now()))
}

/// The connection that makes botocore's request of this vector.
fn connection(case: &serde_json::Value) -> Fields {
    let mut roots = with(&[]);
    let mut put = |name, value: &str| roots.extend(fields(&[(name, value)]));
    for (field, member) in
        [("region", "region"), ("source_session_token", "token"), ("sts_url", "url")]
    {
        case[member].as_str().into_iter().for_each(|value| put(field, value));
    }
    let more = &case["more"];
    if more.is_object() {
        put("mint_seconds", &more["DurationSeconds"].to_string());
        put("external_id", more["ExternalId"].as_str().unwrap());
        put("policy", more["Policy"].as_str().unwrap());
        let arns = more["PolicyArns"].as_array().unwrap().iter();
        put(
            "policy_arns",
            &arns.map(|one| one["arn"].as_str().unwrap()).collect::<Vec<_>>().join(","),
        );
        put("session_tags", "env=prod west, team=payments");
    }
    roots
}

#[test]
fn assume_role_is_sent_as_botocore_sends_it() {
    for case in vectors()["sts"].as_array().unwrap() {
        let request = request(&connection(case)).unwrap();
        assert_eq!(text(&request.url), case["url_sent"]);
        assert_eq!(text(&request.body), case["body"]);
        for name in ["authorization", "content-type", "x-amz-date", "x-amz-security-token"] {
            assert_eq!(sent(&request, name).as_deref(), case["headers"][name].as_str(), "{name}");
        }
        assert_eq!((request.method, sent(&request, "host")), ("POST", None));
    }
}

#[test]
fn an_sts_url_is_taken_only_in_its_canonical_form() {
    for (given, sent) in [
        ("https://STS.example.com:443", "https://sts.example.com/"),
        ("http://[::1]:5912/a/b/", "http://[::1]:5912/a/b/"),
    ] {
        assert_eq!(text(&request(&with(&[("sts_url", given)])).unwrap().url), sent);
    }
    for bad in [
        "sts.example.com",
        "https://u@h/",
        "https://h/?a",
        "https://h/a//b",
        "https://h/../a",
        "https://h/%41",
        "https:///",
    ] {
        let failure = request(&with(&[("sts_url", bad)])).err().unwrap();
        assert_eq!(failure.reason, FailureReason::Refused, "{bad}");
        assert!(failure.detail.contains("sts_url") && !failure.detail.contains(bad), "{failure:?}");
    }
}

#[test]
fn a_field_of_a_wrong_form_sends_nothing_and_is_named() {
    for (name, value) in [
        ("account_id", "12345"),
        ("role", "a role"),
        ("region", "eu.west"),
        ("mint_seconds", "899"),
        ("session_tags", "team"),
        ("source_access_key_id", "a b"),
        ("source_secret_access_key", ""),
        ("source_session_token", "a\nb"),
    ] {
        let failure = request(&with(&[(name, value)])).err().unwrap();
        assert!(failure.detail.contains(name) && failure.detail.contains("nothing was sent"));
    }
}

#[test]
fn a_session_is_named_after_workflow_run_and_step() {
    assert_eq!(session::session_name(&ask()), "deploy.42.build-01020304");
    let long = |text: &str| text.repeat(40);
    let asked = Ask {
        workflow: WorkflowName::parse(&format!("Größe/{}", long("w"))).unwrap(),
        run: Some(RunName::parse("run:1 (a)").unwrap()),
        step: Some(StepName::parse(&long("s")).unwrap()),
        ..ask()
    };
    let name = session::session_name(&asked);
    assert_eq!(name, format!("Gr__e_{}.run_1__a_.{}-01020304", "w".repeat(16), "s".repeat(22)));
    assert_eq!(name.len(), 64);
    let shared = Ask { run: None, step: None, ..ask() };
    assert_eq!(session::session_name(&shared), "deploy-01020304");
}

const SESSION: &str = r#"<?xml version="1.0"?>
<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleResult>
    <AssumedRoleUser><Arn>arn:x</Arn></AssumedRoleUser>
    <Credentials>
      <AccessKeyId>ASIAEXAMPLEEXAMPLE12</AccessKeyId>
      <SecretAccessKey>sec/ret+key</SecretAccessKey>
      <SessionToken>to//ken==</SessionToken>
      <Expiration>2026-11-30T09:01:02.595037Z</Expiration>
    </Credentials>
  </AssumeRoleResult>
  <ResponseMetadata><RequestId>c6104cbe-af31-11e0-8154-cbc7ccf896c7</RequestId></ResponseMetadata>
</AssumeRoleResponse>"#;

fn read(reply: &Reply, roots: &Fields) -> Result<Minted, Failure> {
    super::reply::minted(reply, ACTION, Roots(roots), now())
}

#[test]
fn a_session_is_read_with_its_end_and_its_names() {
    let made = read(&reply(200, &[], SESSION), &with(&[])).unwrap();
    let expected = [
        ("access_key_id", "ASIAEXAMPLEEXAMPLE12"),
        ("secret_access_key", "sec/ret+key"),
        ("session_token", "to//ken=="),
    ];
    assert_eq!(texts(&made.fields), expected.map(|(name, value)| (name.into(), value.into())));
    assert_eq!(made.end.unwrap().time, now().after(Duration::from_millis(3_600_595)));
    assert_eq!(made.handle.as_deref(), Some("ASIAEXAMPLEEXAMPLE12"));
    assert_eq!(made.upstream_request.as_deref(), Some("c6104cbe-af31-11e0-8154-cbc7ccf896c7"));
    let shorter = read(&reply(200, &[], SESSION), &with(&[("mint_seconds", "900")])).unwrap();
    assert_eq!(shorter.end.unwrap().time, now().after(Duration::from_secs(900)));
}

#[test]
fn a_reply_that_is_no_session_is_invalid() {
    for (from, to) in [
        ("ASIAEXAMPLEEXAMPLE12", "short"),
        ("sec/ret+key", "sec&amp;ret"),
        ("sec/ret+key", "<b>secret</b>"),
        ("to//ken==", "two words"),
        ("to//ken==", ""),
        ("2026-11-30T09:01:02.595037Z", "tomorrow"),
        ("2026-11-30T09:01:02.595037Z", "2026-11-30T08:01:02Z"),
        ("<?xml version=\"1.0\"?>", "<!DOCTYPE a [<!ENTITY b \"c\">]>"),
        ("AssumeRoleResponse", "Other"),
        ("</AccessKeyId>", "</Other>"),
    ] {
        let failure = read(&reply(200, &[], &SESSION.replace(from, to)), &with(&[])).err().unwrap();
        assert_eq!(failure.reason, FailureReason::Invalid, "{to}");
    }
    let redirect = read(&reply(302, &[("location", "http://169.254.169.254/")], ""), &with(&[]));
    assert_eq!(redirect.err().unwrap().reason, FailureReason::Invalid);
}

fn error(status: u16, code: &str) -> Reply {
    let body = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>canary-message</Message></Error>\
         <RequestId>c6104cbe-af31-11e0-8154-cbc7ccf896c7</RequestId></ErrorResponse>"
    );
    reply(status, &[("retry-after", "7"), ("x-amzn-requestid", "canary-request")], &body)
}

#[test]
fn an_error_shows_its_code_and_the_next_step_alone() {
    for (status, code, reason, word) in [
        (403, "AccessDenied", FailureReason::Refused, "trust policy"),
        (403, "InvalidClientTokenId", FailureReason::Refused, "valid key"),
        (403, "SignatureDoesNotMatch", FailureReason::Refused, "secret half"),
        (400, "ValidationError", FailureReason::Refused, "mint_seconds"),
        (400, "NewCode", FailureReason::Refused, "NewCode"),
        (400, "Throttling", FailureReason::Unavailable, "Throttling"),
        (500, "InternalFailure", FailureReason::Unavailable, "HTTP 500"),
        (403, "canary code", FailureReason::Refused, "sts_url"),
    ] {
        let failure = read(&error(status, code), &with(&[])).err().unwrap();
        assert_eq!(failure.reason, reason, "{code}");
        assert!(failure.detail.contains(word), "{failure:?}");
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
        assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(failure.upstream_request.unwrap(), "c6104cbe-af31-11e0-8154-cbc7ccf896c7");
    }
}

#[test]
fn only_refusals_for_the_time_are_signed_anew() {
    for (code, expected) in
        [("SignatureDoesNotMatch", true), ("RequestExpired", true), ("AccessDenied", false)]
    {
        assert_eq!(super::reply::is_skewed(&error(403, code)), expected, "{code}");
    }
    assert!(!super::reply::is_skewed(&reply(200, &[], SESSION)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_reply_is_a_session_or_a_failure(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), "[<>/&;!?A-Za-z\"= -]{0,4}"), 0..6),
        status in prop::sample::select(vec![200, 302, 400, 403, 500]),
    ) {
        let mut body: Vec<char> = SESSION.chars().collect();
        for (place, text) in cuts {
            let place = place.index(body.len());
            body.splice(place..(place + 1).min(body.len()), text.chars());
        }
        let body: String = body.into_iter().collect();
        if let Ok(made) = read(&reply(status, &[], &body), &with(&[])) {
            let is_plain = |value: &str| !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic());
            prop_assert!(status == 200 && texts(&made.fields).iter().all(|(_, value)| is_plain(value)));
        }
    }
}
