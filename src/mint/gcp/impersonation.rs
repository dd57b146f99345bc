//! A token of another service account, made with a token that one has.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::egress::{Reply, Request};
use crate::model::{Timestamp, Value};

use super::super::bearer::Bearer;
use super::super::failure::Failure;
use super::super::reply::{Refusal, check_accepted, handle_of, is_token};
use super::super::roots::{Roots, header, is_of, text_value};
use super::super::{Minted, clock, fields};

/// Where tokens of other service accounts are made.
const CREDENTIALS_URL: &str =
    "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/";
/// The scope if the connection names none: all of Google Cloud, within the account's roles.
pub const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The lifetime of an impersonated token unless the connection says otherwise, in seconds.
pub const DEFAULT_LIFE: Duration = Duration::from_secs(3600);
/// The next step if a refusal to impersonate has no code.
const ADVICE: &str = "check impersonate";

/// The email address of a service account; `None` if the field is missing.
///
/// # Errors
/// If it is none.
pub fn email<'a>(roots: Roots<'a>, field: &str) -> Result<Option<&'a str>, Failure> {
    let is_email = |text: &str| is_of(text, "@.-_") && text.contains('@');
    roots.checked(field, "the email address of a service account", is_email)
}

/// The request for a token of another account, made with the own account's token, on behalf of `delegate` if there is one.
pub fn impersonation(
    roots: Roots<'_>,
    (target, delegate): (&str, Option<&str>),
    own: &Bearer,
    scopes: &str,
    asked: Duration,
) -> Result<Request, Failure> {
    #[derive(Serialize)]
    struct Body<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        delegates: Option<[String; 1]>,
        scope: Vec<&'a str>,
        lifetime: String,
    }
    let lifetime = format!("{}s", asked.as_secs());
    let delegates = delegate.map(|account| [format!("projects/-/serviceAccounts/{account}")]);
    let body = Body { delegates, scope: scopes.split_whitespace().collect(), lifetime };
    let body = serde_json::to_vec(&body).map_err(|error| Failure::invalid(&error.to_string()))?;
    let headers = vec![
        header("accept", "application/json"),
        header("authorization", &format!("Bearer {}", own.token)),
        header("content-type", "application/json"),
    ];
    let url = text_value(&format!("{CREDENTIALS_URL}{target}:generateAccessToken"));
    Ok(roots.request("POST", url, headers, Value::new(body)))
}

/// The token of another account.
pub fn impersonated(reply: &Reply, now: Timestamp, asked: Duration) -> Result<Minted, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct TokenReply<'a> {
        #[serde(borrow)]
        access_token: Cow<'a, str>,
        expire_time: Timestamp,
    }
    check_accepted(reply, &[], refusal(reply), ADVICE)?;
    let parsed: Option<TokenReply<'_>> = serde_json::from_slice(reply.body.expose()).ok();
    let parsed = parsed.filter(|parsed| is_token(parsed.access_token.as_bytes()));
    let parsed = parsed.ok_or_else(|| {
        Failure::invalid("the reply has no accessToken with an expireTime; check impersonate")
    })?;
    Ok(Minted {
        fields: fields([("access_token", text_value(&parsed.access_token))])?,
        end: Some(clock::end(parsed.expire_time, reply.date, now, Some(asked))?),
        handle: handle_of(&parsed.access_token),
        upstream_request: None,
        ending: None,
    })
}

/// What a Google API's error reply says: one of the codes of gRPC.
fn refusal(reply: &Reply) -> Option<Refusal> {
    #[derive(Deserialize)]
    struct ErrorReply<'a> {
        #[serde(borrow)]
        error: Status<'a>,
    }
    #[derive(Deserialize)]
    struct Status<'a> {
        #[serde(borrow)]
        status: Cow<'a, str>,
    }
    let parsed: ErrorReply<'_> = serde_json::from_slice(reply.body.expose()).ok()?;
    let advices = [
        (
            "INVALID_ARGUMENT",
            "check scopes, and mint_seconds: at most 3600 unless the organisation allows more",
        ),
        ("NOT_FOUND", "the account to impersonate does not exist; correct impersonate"),
        (
            "PERMISSION_DENIED",
            "allow the key's account to make tokens of impersonate (roles/iam.serviceAccountTokenCreator)",
        ),
        ("RESOURCE_EXHAUSTED", "the broker asks again later"),
        ("UNAUTHENTICATED", "Google does not accept the key's own token; check the key's account"),
        ("UNAVAILABLE", "the broker asks again later"),
    ];
    let (code, advice) = advices.into_iter().find(|(code, _)| *code == parsed.error.status)?;
    let is_passing = ["RESOURCE_EXHAUSTED", "UNAVAILABLE"].contains(&code);
    Some(Refusal { code: code.to_owned(), advice, is_passing })
}
