//! A Google service account's access token: a signed assertion (RFC 7523) is exchanged for the token, and that for a token of
//! another account if the connection names one. Instead of the assertion, a token of the broker's own issuer may do.

mod federation;
mod impersonation;

use std::borrow::Cow;

use aws_lc_rs::rsa::KeyPair;
use form_urlencoded::Serializer;
use serde::{Deserialize, Serialize};

use crate::egress::{Egress, Reply, Request};
use crate::model::Timestamp;

use super::bearer::bearer;
use super::failure::Failure;
use super::jwt::{key_pair, signed};
use super::reply::{exchange, exchange_at};
use super::roots::Roots;
use super::{Ask, Minted, asked_life};

pub use federation::mint_by_token;
use impersonation::{CLOUD_PLATFORM, DEFAULT_LIFE, email, impersonated, impersonation};

/// The token endpoint, which is also the assertion's audience. A key file names one, too; that is not used, because the file is
/// write-only and nobody would see where the assertion goes.
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
/// The grant of RFC 7523.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// How long an assertion is valid, in seconds: the longest that Google accepts.
const ASSERTION_SECONDS: i64 = 3600;

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
    let request = |now| account.request(roots, first_scopes, now);
    let reply = exchange_at(egress, ask.now, is_skewed, request).await?;
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

/// Whether Google may have refused an assertion or a token for its time: its error does not tell.
fn is_skewed(reply: &Reply) -> bool {
    reply.status == 400
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

#[cfg(test)]
mod tests;
