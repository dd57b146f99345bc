//! Each protocol, from a connection's fields to what a step gets.

use std::time::Duration;

use keyhatch::model::Timestamp;

use super::World;
use super::upstream::{Scripted, status};
use crate::harness::{Got, Internet, TestBroker, reason};

/// What a step gets of a connection, as pairs.
fn got(world: &World, reference: &str) -> Vec<(String, String)> {
    let step = world.broker.open("w", "s");
    world.broker.resolve(&step, reference).unwrap().fields.into_iter().collect()
}

fn has(got: &[(String, String)], name: &str, value: &str) -> bool {
    got.iter().any(|(found, text)| found == name && text == value)
}

/// The last request's path and body.
fn asked(world: &World) -> (String, String) {
    let last = world.upstream.asked().pop().unwrap();
    (last.path, String::from_utf8(last.body).unwrap())
}

/// The answer of STS with a session that ends then.
fn session(end: &str) -> Vec<u8> {
    let session = format!(
        "<AssumeRoleResponse><AssumeRoleResult><Credentials>\
         <AccessKeyId>ASIAEXAMPLEEXAMPLE12</AccessKeyId><SecretAccessKey>made</SecretAccessKey>\
         <SessionToken>token</SessionToken><Expiration>{end}</Expiration>\
         </Credentials></AssumeRoleResult></AssumeRoleResponse>"
    );
    session.into()
}

/// A time as in the header `Date`.
fn http_date(time: Timestamp) -> String {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const DAYS: &str = "ThuFriSatSunMonTueWed";
    let text = time.to_string();
    let part = |names: &'static str, number: usize| &names[number * 3..number * 3 + 3];
    let month = part(MONTHS, text[5..7].parse::<usize>().unwrap() - 1);
    let day = part(DAYS, usize::try_from(time.seconds() / 86_400 % 7).unwrap());
    format!("{day}, {} {month} {} {} GMT", &text[8..10], &text[..4], &text[11..19])
}

/// Creates aws/role, whose sessions last 900 seconds.
fn create_role(world: &World) {
    let url = world.upstream.url("/");
    let fields = [
        ("account_id", "123456789012"),
        ("role", "team/deploy"),
        ("source_access_key_id", "AKIAEXAMPLE"),
        ("source_secret_access_key", super::ROOT),
        ("mint_seconds", "900"),
        ("region", "eu-west-1"),
        ("sts_url", &url),
    ];
    world.create_minted("aws/role", &fields);
}

/// How long a credential lives, in seconds.
fn life(made: &Got) -> i64 {
    let end = made.lease.credential_expire_time.unwrap();
    end.seconds - made.lease.issue_time.unwrap().seconds
}

#[test]
fn a_request_that_is_refused_for_its_time_is_signed_once_more() {
    let world = World::start();
    // The upstream's clock is ten minutes from the broker's.
    let theirs = Timestamp::from_seconds(world.broker.clock.now().seconds() + 600);
    let stamp = theirs.to_string().replace(['-', ':'], "");
    let stamp = format!("{}Z", &stamp[..15]);
    let end = theirs.after(Duration::from_secs(600)).to_string();
    let date = move || vec![("date", http_date(theirs))];
    let refused =
        "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>";
    world.upstream.answers(move |n| match n {
        1 => (403, date(), refused.into()),
        _ => (200, date(), session(&end)),
    });
    create_role(&world);
    let step = world.broker.open("w", "s");
    let made = world.broker.resolve(&step, "aws/role").unwrap();
    assert_eq!(life(&made), 600, "by the broker's clock");
    let asked = world.upstream.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].header("x-amz-date"), stamp);
    // A wrong secret is refused at any time, and asked once more at most.
    let date = move || vec![("date", http_date(theirs))];
    world.upstream.answers(move |_| (403, date(), refused.into()));
    let other = world.broker.open("w", "t");
    assert_eq!(reason(world.broker.resolve(&other, "aws/role")), "UPSTREAM_REFUSED");
    assert_eq!(world.upstream.calls(), 4);
}

#[test]
fn nothing_is_signed_for_a_time_far_away() {
    let world = World::start();
    let date = || vec![("date", "Sat, 01 Jan 2033 00:00:00 GMT".to_owned())];
    let refused =
        "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>";
    world.upstream.answers(move |_| (403, date(), refused.into()));
    create_role(&world);
    let step = world.broker.open("w", "s");
    assert_eq!(reason(world.broker.resolve(&step, "aws/role")), "UPSTREAM_INVALID");
    assert_eq!(world.upstream.calls(), 1);
    let failed = world.broker.journaled("mint_failed").pop().unwrap().to_string();
    assert!(failed.contains("correct this machine's clock"), "{failed}");
}

#[test]
fn a_role_session_is_made_for_one_step_and_named_after_it() {
    let world = World::start();
    world.upstream.answers(|_| (200, Vec::new(), session("2099-01-01T00:00:00.5Z")));
    create_role(&world);
    let step = world.broker.open("w", "s");
    let made = world.broker.resolve(&step, "aws/role").unwrap();
    let names: Vec<_> = made.fields.keys().map(String::as_str).collect();
    let expected =
        ["access_key_id", "account_id", "region", "role", "secret_access_key", "session_token"];
    assert_eq!(names, expected);
    assert_eq!(made.fields["secret_access_key"], "made");
    assert_eq!(life(&made), 900, "no credential counts as longer than was asked");
    let (path, body) = asked(&world);
    assert!(path == "/" && body.contains("RoleSessionName=w."), "{body}");
    assert!(body.contains("&ExternalId=") && body.contains("&DurationSeconds=900"), "{body}");
    let other = world.broker.open("w", "t");
    world.broker.resolve(&other, "aws/role").unwrap();
    assert_eq!(world.upstream.calls(), 2, "each step has a session of its own");
}

#[test]
fn entra_makes_tokens_for_azure_and_for_graph() {
    let world = World::start();
    world.upstream.answers(|_| {
        status(200, r#"{"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 9, "access_token": "made"}"#)
    });
    let url = world.upstream.url("");
    let fields = [
        ("tenant_id", "contoso.example"),
        ("client_id", "me"),
        ("client_secret", super::ROOT),
        ("authority_url", &url),
    ];
    for (reference, scope) in
        [("azure/a", "management.azure.com"), ("microsoft-teams/t", "graph.microsoft.com")]
    {
        world.create_minted(reference, &fields);
        let got = got(&world, reference);
        assert!(has(&got, "access_token", "made"), "{reference}");
        assert!(!got.iter().any(|(_, value)| value == super::ROOT), "{reference}");
        let (path, body) = asked(&world);
        assert_eq!(path, "/contoso.example/oauth2/v2.0/token");
        assert!(body.ends_with(&format!("&scope=https%3A%2F%2F{scope}%2F.default")), "{body}");
    }
}

#[test]
fn a_two_step_connection_hands_out_its_second_request() {
    let world = World::start();
    world.upstream.answers(|_| status(200, r#"{"data": {"Token": "made"}}"#));
    let url = world.upstream.url("/login");
    let fields = [
        ("base_url", "https://api.example.com"),
        ("request_url", url.as_str()),
        ("request_method", "POST"),
        ("request_body", "{\"key\": \"{{ apiKey }}\"}"),
        ("tokens.apiKey", super::ROOT),
        ("access_token_path", "body.data.Token"),
        ("headers.Authorization", "Bearer {{ accessToken }}"),
    ];
    world.create_minted("http/two", &fields);
    let expected =
        [("base_url", "https://api.example.com"), ("headers.Authorization", "Bearer made")];
    assert_eq!(got(&world, "http/two"), expected.map(|(name, value)| (name.into(), value.into())));
    assert_eq!(asked(&world), ("/login".into(), format!("{{\"key\": \"{}\"}}", super::ROOT)));
}

#[test]
fn googles_tokens_are_made_at_its_own_addresses() {
    let google = Scripted::start();
    google.answers(|n| {
        let body = match n {
            1 | 2 => r#"{"access_token": "own", "token_type": "Bearer", "expires_in": 3599}"#,
            _ => r#"{"accessToken": "other", "expireTime": "2099-01-01T00:00:00Z"}"#,
        };
        (200, Vec::new(), body.into())
    });
    let [token, credentials] = ["oauth2.googleapis.com", "iamcredentials.googleapis.com"];
    let internet = Internet::start(&[token, credentials], google.port());
    let mut broker = TestBroker::start();
    broker.config.egress = internet.rules();
    broker.restart();
    let world = World { broker, upstream: Scripted::start() };
    let key = include_str!("../../fixtures/mint/key.pem");
    let email = "deploy@example.iam.gserviceaccount.com";
    let file = serde_json::json!({
        "client_email": email, "private_key": key, "token_uri": world.upstream.url("/thief"),
    });
    let file = file.to_string();
    let fields = [("service_account_key", file.as_str()), ("ca_certificate", &internet.ca_pem)];
    world.create_minted("gcp/own", &fields);
    assert_eq!(got(&world, "gcp/own"), [("access_token".to_owned(), "own".to_owned())]);
    let other = [
        ("service_account_email", email),
        ("private_key", key),
        ("ca_certificate", &internet.ca_pem),
        ("impersonate", "other@example.iam.gserviceaccount.com"),
        ("mint_seconds", "900"),
    ];
    world.create_minted("gcp/other", &other);
    assert!(has(&got(&world, "gcp/other"), "access_token", "other"));
    let asked = google.asked();
    let hosts: Vec<_> = asked.iter().map(|request| request.header("host")).collect();
    assert_eq!(hosts, [token, token, credentials]);
    assert_eq!(asked[2].header("authorization"), "Bearer own");
    assert_eq!(world.upstream.calls(), 0, "the address in a key file is not used");
}
