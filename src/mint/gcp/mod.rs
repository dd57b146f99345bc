//! A Google service account's access token: a signed assertion (RFC 7523) is exchanged for the token, and that for a token of
//! another account if the connection names one. Instead of the assertion, a token of the broker's own issuer may do.

mod federation;

use std::borrow::Cow;
use std::time::Duration;

use aws_lc_rs::rsa::KeyPair;
use form_urlencoded::Serializer;
use serde::{Deserialize, Serialize};

use crate::egress::{Egress, Reply, Request};
use crate::model::{Timestamp, Value};

use super::bearer::{Bearer, bearer};
use super::failure::Failure;
use super::jwt::{key_pair, signed};
use super::reply::{Refusal, check_accepted, exchange, handle_of, is_token};
use super::roots::{Roots, header, is_of, text_value};
use super::{Ask, Minted, asked_life, clock, fields};

pub use federation::mint_by_token;

/// The token endpoint, which is also the assertion's audience. A key file names one, too; that is not used, because the file is
/// write-only and nobody would see where the assertion goes.
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
/// Where tokens of other service accounts are made.
const CREDENTIALS_URL: &str =
    "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/";
/// The scope if the connection names none: all of Google Cloud, within the account's roles.
const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The grant of RFC 7523.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// How long an assertion is valid, in seconds: the longest that Google accepts.
const ASSERTION_SECONDS: i64 = 3600;
/// The lifetime of an impersonated token unless the connection says otherwise, in seconds.
const DEFAULT_LIFE: Duration = Duration::from_secs(3600);
/// The next step if a refusal to impersonate has no code.
const ADVICE: &str = "check impersonate";

/// Makes an access token. If Google refuses the assertion for its time, it is signed once more by the reply's `Date`. A
/// repeated request makes another token.
///
/// # Errors
/// See [`super::mint`].
pub async fn mint(egress: &Egress, roots: Roots<'_>, ask: &Ask) -> Result<Minted, Failure> {
    let account = Account::of(roots)?;
    let scopes = roots.optional("scopes")?.unwrap_or(CLOUD_PLATFORM);
    let target = target(roots)?;
    let first_scopes = if target.is_some() { CLOUD_PLATFORM } else { scopes };
    let mut reply = exchange(egress, account.request(roots, first_scopes, ask.now)?).await?;
    if reply.status == 400
        && let Some(theirs) = clock::differing(reply.date, ask.now)
    {
        reply = exchange(egress, account.request(roots, first_scopes, theirs)?).await?;
    }
    let asked = asked_life(roots.0);
    let Some(target) = target else {
        return bearer(&reply, ask.now, asked, &[])?.into_minted(false);
    };
    let own = bearer(&reply, ask.now, None, &[])?;
    let asked = asked.unwrap_or(DEFAULT_LIFE);
    let reply =
        exchange(egress, impersonation(roots, (target, None), &own, scopes, asked)?).await?;
    impersonated(&reply, ask.now, asked)
}

/// A service account that can sign.
struct Account<'a> {
    email: Cow<'a, str>,
    key_id: Option<Cow<'a, str>>,
    key: KeyPair,
}

/// The key file, as far as it is needed.
#[derive(Deserialize)]
struct KeyFile<'a> {
    #[serde(borrow)]
    client_email: Cow<'a, str>,
    #[serde(borrow)]
    private_key: Cow<'a, str>,
    #[serde(borrow)]
    private_key_id: Option<Cow<'a, str>>,
}

impl<'a> Account<'a> {
    /// The account of a key file, or of email address and private key.
    fn of(roots: Roots<'a>) -> Result<Self, Failure> {
        let file = "service_account_key";
        if roots.value(file).is_none() {
            let email = roots.text("service_account_email")?.into();
            let key = key_pair("private_key", roots.bytes("private_key")?)?;
            return Ok(Self { email, key_id: None, key });
        }
        let parsed: KeyFile<'a> = serde_json::from_slice(roots.bytes(file)?).map_err(|_| {
            Failure::field(file, "is no JSON key file with client_email and private_key")
        })?;
        let key = key_pair(file, parsed.private_key.as_bytes())?;
        Ok(Self { email: parsed.client_email, key_id: parsed.private_key_id, key })
    }

    fn request(&self, roots: Roots<'_>, scopes: &str, now: Timestamp) -> Result<Request, Failure> {
        let assertion = self.assertion(scopes, now)?;
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", GRANT).append_pair("assertion", &assertion);
        Ok(roots.form(TOKEN_URL, Vec::new(), form.finish()))
    }

    /// The signed assertion.
    fn assertion(&self, scopes: &str, now: Timestamp) -> Result<String, Failure> {
        #[derive(Serialize)]
        struct Claims<'a> {
            iss: &'a str,
            scope: &'a str,
            aud: &'static str,
            iat: i64,
            exp: i64,
        }
        let iat = now.seconds();
        let exp = iat.saturating_add(ASSERTION_SECONDS);
        let claims = Claims { iss: &self.email, scope: scopes, aud: TOKEN_URL, iat, exp };
        signed(&self.key, self.key_id.as_deref(), &claims)
    }
}

/// The account to impersonate, by its email address.
fn target(roots: Roots<'_>) -> Result<Option<&str>, Failure> {
    email(roots, "impersonate")
}

fn email<'a>(roots: Roots<'a>, field: &str) -> Result<Option<&'a str>, Failure> {
    let is_email = |text: &str| is_of(text, "@.-_") && text.contains('@');
    roots.checked(field, "the email address of a service account", is_email)
}

/// The request for a token of another account, made with the own account's token, on behalf of `delegate` if there is one.
fn impersonation(
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
fn impersonated(reply: &Reply, now: Timestamp, asked: Duration) -> Result<Minted, Failure> {
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
        expire_time: Some(clock::end(parsed.expire_time, reply.date, now, Some(asked))?),
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

#[cfg(test)]
mod tests;
