use super::super::FailureReason;
use super::super::samples::{fields, now, reply, sent, text, texts, vectors};
use super::*;
use crate::egress::Reply;
use crate::model::Fields;

const PKCS8: &str = include_str!("../../../tests/fixtures/mint/key.pem");
const PKCS1: &str = include_str!("../../../tests/fixtures/mint/key.pkcs1.pem");
const MADE: &str = r#"{"token":"ghs_16C7e42F292c6912E7710c838347Ae178B4a","expires_at":"2026-11-30T09:01:02Z","permissions":{"contents":"read"}}"#;

/// An installation with these further fields.
fn installation(more: &[(&str, &str)]) -> Fields {
    let own = [("app_id", "123456"), ("installation_id", "42"), ("private_key", PKCS1)];
    fields(&[own.as_slice(), more].concat())
}

fn request(more: &[(&str, &str)]) -> Result<Request, Failure> {
    App::of(Roots(&installation(more)))?.request(now())
}

fn refused(reply: &Reply) -> Failure {
    reply::minted(reply, Roots(&installation(&[])), now()).err().unwrap()
}

#[test]
fn an_app_proves_itself_as_pyjwt_signs() {
    for key in [PKCS1, PKCS8] {
        let request = request(&[("private_key", key)]).unwrap();
        let token = vectors()["app_token"].as_str().unwrap().to_owned();
        assert_eq!(sent(&request, "authorization").unwrap(), format!("Bearer {token}"));
        assert_eq!(text(&request.url), "https://api.github.com/app/installations/42/access_tokens");
        assert_eq!((request.method, text(&request.body).as_str()), ("POST", "{}"));
    }
}

#[test]
fn a_token_is_narrowed_as_the_connection_says() {
    let more = [
        ("api_url", "https://github.example.com/api/v3/"),
        ("permissions", "issues=write,contents=read"),
        ("repositories", "website, hand.book"),
    ];
    let request = request(&more).unwrap();
    assert_eq!(
        text(&request.url),
        "https://github.example.com/api/v3/app/installations/42/access_tokens"
    );
    let narrowed = r#"{"permissions":{"contents":"read","issues":"write"},"repositories":["website","hand.book"]}"#;
    assert_eq!(text(&request.body), narrowed);
    assert_eq!(request.max_reply_bytes, MAX_REPLY_BYTES + 2 * REPOSITORY_BYTES);
}

#[test]
fn a_field_that_makes_no_request_is_named() {
    let many = vec!["r"; 501].join(",");
    for (name, value) in [
        ("app_id", ""),
        ("installation_id", ""),
        ("installation_id", "42/../43"),
        ("private_key", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"),
        ("permissions", "contents"),
        ("permissions", "contents=read,contents=write"),
        ("repositories", "octo/website"),
        ("repositories", "website,"),
        ("repositories", &many),
    ] {
        let failure = request(&[(name, value)]).err().unwrap();
        assert!(failure.detail.contains(&format!("the field {name} ")), "{failure:?}");
        assert_eq!(failure.reason, FailureReason::Refused);
    }
}

#[test]
fn a_token_comes_with_its_end_and_what_ends_it() {
    let roots = installation(&[("api_url", "https://github.example.com/api/v3")]);
    let number = [("x-github-request-id", "8F2C:2E5F:1B6E3A5:1C0B7F3:5C6F2B0A")];
    let made = reply::minted(&reply(201, &number, MADE), Roots(&roots), now()).unwrap();
    let token = "ghs_16C7e42F292c6912E7710c838347Ae178B4a".to_owned();
    assert_eq!(texts(&made.fields), [("access_token".to_owned(), token.clone())]);
    assert_eq!(made.end.unwrap().time.since(now()).as_secs(), 3600);
    // printf TOKEN | openssl dgst -sha256 -binary | base64
    assert_eq!(made.handle.unwrap(), "eXwM5BRYbMjraSmv6UfHIOPk01HdBwpv459jC+qrMFQ=");
    assert_eq!(made.upstream_request.unwrap(), number[0].1);
    let ending = made.ending.unwrap();
    let kept = [
        ("api_url".to_owned(), "https://github.example.com/api/v3".to_owned()),
        ("token".into(), token),
    ];
    assert_eq!(texts(&ending), kept);
}

#[test]
fn a_reply_without_a_token_is_invalid() {
    for body in [
        "",
        "<html>canary</html>",
        r#"{"token":"canary"}"#,
        r#"{"token":"","expires_at":"2026-11-30T09:01:02Z"}"#,
        r#"{"token":"canary\r\nx","expires_at":"2026-11-30T09:01:02Z"}"#,
        r#"{"token":"canary","expires_at":"soon"}"#,
        r#"{"token":"canary","expires_at":"2026-11-30T08:01:02Z"}"#,
    ] {
        let failure = refused(&reply(201, &[], body));
        assert_eq!(failure.reason, FailureReason::Invalid, "{body}");
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
}

#[test]
fn a_refusal_shows_a_known_text_and_the_next_step_alone() {
    for (status, message, shown, next) in [
        (401, "A JSON web token could not be decoded", true, "write a private_key"),
        (401, "canary", false, "write a private_key"),
        (403, "This installation has been suspended", true, "unsuspend"),
        (403, "canary", false, "check the App"),
        (404, "Integration not found", true, "correct app_id"),
        (404, "Not Found", true, "correct installation_id"),
        (422, "The permissions requested are not granted to this installation.", true, "grant"),
        (422, "canary", false, "check permissions and repositories"),
    ] {
        let body = format!(r#"{{"message":"{message}","documentation_url":"https://canary"}}"#);
        let failure = refused(&reply(status, &[], &body));
        assert_eq!(failure.reason, FailureReason::Refused, "{message}");
        let text = message.trim_end_matches('.');
        assert_eq!(failure.detail.contains(text), shown, "{failure:?}");
        assert!(failure.detail.contains(next), "{failure:?}");
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
}

#[test]
fn a_used_up_quota_passes() {
    let reset = (now().seconds() + 90).to_string();
    let body = r#"{"message":"API rate limit exceeded for canary"}"#;
    for (status, headers, seconds) in [
        (403, [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &reset)], 90),
        (429, [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &reset)], 90),
        (403, [("retry-after", "60"), ("x-ratelimit-remaining", "9")], 60),
    ] {
        let failure = refused(&reply(status, &headers, body));
        assert_eq!(failure.reason, FailureReason::Unavailable, "{failure:?}");
        assert_eq!(failure.retry_after.unwrap().as_secs(), seconds);
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
}

#[test]
fn a_token_that_github_does_not_know_has_ended() {
    let body = r#"{"message":"Bad credentials"}"#;
    let number = [("x-github-request-id", "0FBD:2F1A:3C0D8E1:3D0A1B2:6565F2C4")];
    for (status, body) in [(204, ""), (401, body)] {
        assert!(matches!(reply::ended(&reply(status, &number, body)), Ok(End::Ended)), "{status}");
    }
    for (status, reason) in [
        // Without a number it is no answer of GitHub's.
        (401, FailureReason::Refused),
        (404, FailureReason::Refused),
        (503, FailureReason::Unavailable),
        (302, FailureReason::Invalid),
    ] {
        let failure = reply::ended(&reply(status, &[("retry-after", "7")], "")).err().unwrap();
        assert_eq!(failure.retry_after.unwrap().as_secs(), 7);
        assert_eq!(failure.reason, reason, "{status}");
    }
}
