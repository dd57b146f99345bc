use std::time::Duration;

use super::super::FailureReason;
use super::super::samples::{ask, fields, now, reply, sent, text, texts, vectors};
use super::*;
use crate::model::Fields;

const EMAIL: &str = "deploy@example.iam.gserviceaccount.com";
const PKCS8: &str = include_str!("../../../tests/fixtures/mint/key.pem");
const PKCS1: &str = include_str!("../../../tests/fixtures/mint/key.pkcs1.pem");

/// A connection with a key file, whose own token_uri leads elsewhere.
fn key_file(key: &str) -> Fields {
    let file = serde_json::json!({
        "type": "service_account",
        "client_email": EMAIL,
        "private_key": key,
        "private_key_id": "0123abcd",
        "token_uri": "https://thief.example.com/token",
    });
    fields(&[("service_account_key", &file.to_string())])
}

#[test]
fn an_assertion_is_signed_as_pyjwt_signs_it() {
    for key in [PKCS8, PKCS1] {
        let roots = key_file(key);
        let account = Account::of(Roots(&roots)).ok().unwrap();
        let request = account.request(Roots(&roots), CLOUD_PLATFORM, now()).unwrap();
        let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
        let assertion = vectors()["assertion"].as_str().unwrap().to_owned();
        assert_eq!(text(&request.body), format!("{grant}&assertion={assertion}"));
        assert_eq!(text(&request.url), TOKEN_URL);
    }
}

#[test]
fn an_email_address_and_a_key_make_the_same_claims() {
    let roots = fields(&[("service_account_email", EMAIL), ("private_key", PKCS8)]);
    let signed = Account::of(Roots(&roots)).ok().unwrap().assertion(CLOUD_PLATFORM, now()).unwrap();
    let claims = |assertion: &str| assertion.split('.').nth(1).map(str::to_owned);
    assert_eq!(claims(&signed), claims(vectors()["assertion"].as_str().unwrap()));
}

#[test]
fn a_key_that_cannot_sign_is_named() {
    let ec = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    for (roots, name) in [
        (fields(&[("service_account_key", "{}")]), "service_account_key"),
        (key_file(ec), "service_account_key"),
        (key_file(""), "service_account_key"),
        (fields(&[("service_account_email", EMAIL), ("private_key", ec)]), "private_key"),
        (fields(&[("service_account_email", EMAIL)]), "private_key"),
    ] {
        let failure = Account::of(Roots(&roots)).err().unwrap();
        assert!(failure.detail.contains(name) && failure.reason == FailureReason::Refused);
    }
    assert!(target(Roots(&fields(&[("impersonate", "a@b/../c")]))).is_err());
}

#[test]
fn another_account_s_token_is_asked_with_the_own_token() {
    let token = r#"{"access_token":"own-token","token_type":"Bearer","expires_in":3599}"#;
    let own = bearer(&reply(200, &[], token), now(), None, &[]).ok().unwrap();
    let roots = fields(&[("impersonate", "other@example.iam.gserviceaccount.com")]);
    let target = target(Roots(&roots)).unwrap().unwrap();
    let asked = Duration::from_secs(900);
    let request = impersonation(Roots(&roots), (target, None), &own, "a b", asked).unwrap();
    assert_eq!(
        text(&request.url),
        "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/other@example.iam.gserviceaccount.com:generateAccessToken"
    );
    assert_eq!(text(&request.body), r#"{"scope":["a","b"],"lifetime":"900s"}"#);
    assert_eq!(sent(&request, "authorization").unwrap(), "Bearer own-token");
    let made = r#"{"accessToken":"ya29.c.other-token-of-some-length","expireTime":"2026-11-30T08:16:02Z"}"#;
    let made = impersonated(&reply(200, &[], made), ask().now, asked).unwrap();
    assert_eq!(
        texts(&made.fields),
        [("access_token".to_owned(), "ya29.c.other-token-of-some-length".to_owned())]
    );
    assert_eq!(made.end.unwrap().time, now().after(asked));
}

#[test]
fn a_refusal_to_impersonate_shows_its_code_alone() {
    let body = r#"{"error":{"code":403,"message":"canary","status":"PERMISSION_DENIED"}}"#;
    let failure = impersonated(&reply(403, &[], body), now(), DEFAULT_LIFE).err().unwrap();
    assert!(
        failure.detail.contains("PERMISSION_DENIED") && failure.detail.contains("TokenCreator")
    );
    assert!(!format!("{failure:?}").contains("canary"));
    for body in ["{}", r#"{"accessToken":"a b","expireTime":"2026-11-30T08:16:02Z"}"#] {
        let failure = impersonated(&reply(200, &[], body), now(), DEFAULT_LIFE).err().unwrap();
        assert_eq!(failure.reason, FailureReason::Invalid);
    }
}
