//! GitHub: the installation token of a GitHub App, which lives for an hour unless it is revoked.

mod reply;

use std::collections::BTreeMap;

use aws_lc_rs::rsa::KeyPair;
use serde::Serialize;

use crate::egress::{Egress, Headers, MAX_REPLY_BYTES, Reply, Request};
use crate::model::{Timestamp, Value};

use super::failure::Failure;
use super::jwt::{key_pair, signed};
use super::reply::{exchange, exchange_at};
use super::roots::{Roots, header, is_of, text_value};
use super::{Ask, End, Minted, TOKEN};

/// Where the API is unless the connection says otherwise.
const API_URL: &str = "https://api.github.com";
/// The version of the API that is spoken here.
const API_VERSION: &str = "2022-11-28";
/// How long before the time now a token of the App begins, in seconds: GitHub's clock may be late.
const BEFORE_SECONDS: i64 = 60;
/// How long after the time now a token of the App ends, in seconds. GitHub accepts 600, by its own clock.
const AFTER_SECONDS: i64 = 540;
/// The most repositories that GitHub lets a token be narrowed to.
const MAX_REPOSITORIES: usize = 500;
/// What GitHub tells about one repository on average, at most, in bytes. The reply describes each that the request names.
const REPOSITORY_BYTES: usize = 8 * 1024;

/// Makes an installation token. If GitHub refuses the App's own token, and the clocks differ, that is signed once more by the
/// reply's `Date`. A repeated request makes another token, which nobody gets.
///
/// # Errors
/// See [`super::mint`].
pub async fn mint(egress: &Egress, roots: Roots<'_>, ask: &Ask) -> Result<Minted, Failure> {
    let app = App::of(roots)?;
    let is_refused = |answer: &Reply| answer.status == 401;
    let answer = exchange_at(egress, ask.now, is_refused, |now| app.request(now)).await?;
    reply::minted(&answer, roots, ask.now)
}

/// Revokes an installation token, with the token itself. GitHub no longer knows a token that has ended.
///
/// # Errors
/// See [`super::end`].
pub async fn end(egress: &Egress, ending: Roots<'_>) -> Result<End, Failure> {
    let url = format!("{}/installation/token", api_url(ending)?);
    let headers = headers(ending.text(TOKEN)?);
    let request = ending.request("DELETE", text_value(&url), headers, Value::new(Vec::new()));
    reply::ended(&exchange(egress, request).await?)
}

/// An installation of an App that can sign.
struct App<'a> {
    roots: Roots<'a>,
    id: &'a str,
    installation: &'a str,
    key: KeyPair,
    narrowing: Narrowing<'a>,
}

/// The part of the installation's access that a token has; all of it if the connection does not say.
#[derive(Serialize)]
struct Narrowing<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    permissions: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    repositories: Vec<&'a str>,
}

impl<'a> App<'a> {
    fn of(roots: Roots<'a>) -> Result<Self, Failure> {
        let missing = |name| Failure::field(name, "is missing");
        let [id, installation] = ["app_id", "installation_id"];
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        Ok(Self {
            id: roots.text(id)?,
            installation: roots
                .checked(installation, "an installation's number", is_number)?
                .ok_or_else(|| missing(installation))?,
            key: key_pair("private_key", roots.bytes("private_key")?)?,
            narrowing: Narrowing::of(roots)?,
            roots,
        })
    }

    /// The request for a token, which the App signs.
    fn request(&self, now: Timestamp) -> Result<Request, Failure> {
        #[derive(Serialize)]
        struct Claims<'a> {
            iat: i64,
            exp: i64,
            iss: &'a str,
        }
        let iat = now.seconds().saturating_sub(BEFORE_SECONDS);
        let exp = now.seconds().saturating_add(AFTER_SECONDS);
        let own = signed(&self.key, None, &Claims { iat, exp, iss: self.id })?;
        let body = serde_json::to_vec(&self.narrowing);
        let body = body.map_err(|error| Failure::invalid(&error.to_string()))?;
        let Self { roots, installation, .. } = self;
        let url = format!("{}/app/installations/{installation}/access_tokens", api_url(*roots)?);
        let mut headers = headers(&own);
        headers.push(header("content-type", "application/json"));
        let request = roots.request("POST", text_value(&url), headers, Value::new(body));
        let described = self.narrowing.repositories.len() * REPOSITORY_BYTES;
        Ok(Request { max_reply_bytes: MAX_REPLY_BYTES + described, ..request })
    }
}

impl<'a> Narrowing<'a> {
    fn of(roots: Roots<'a>) -> Result<Self, Failure> {
        let (mut permissions, name) = (BTreeMap::new(), "permissions");
        for permission in listed(roots, name)? {
            let pair = permission.split_once('=');
            let pair = pair.filter(|(name, level)| is_of(name, "_") && is_of(level, ""));
            let wrong =
                || Failure::field(name, "is not PERMISSION=LEVEL with commas between, each once");
            let (permission, level) = pair.ok_or_else(wrong)?;
            if permissions.insert(permission, level).is_some() {
                return Err(wrong());
            }
        }
        let name = "repositories";
        let repositories = listed(roots, name)?;
        if !repositories.iter().all(|repository| is_of(repository, "._-")) {
            return Err(Failure::field(name, "has a name with other signs than . _ -"));
        }
        if repositories.len() > MAX_REPOSITORIES {
            return Err(Failure::field(name, "has more than 500 names"));
        }
        Ok(Self { permissions, repositories })
    }
}

/// The parts of a field that is a list with commas.
fn listed<'a>(roots: Roots<'a>, name: &str) -> Result<Vec<&'a str>, Failure> {
    let text = roots.optional(name)?.into_iter();
    Ok(text.flat_map(|text| text.split(',')).map(str::trim).collect())
}

/// The API's address, without a slash at its end.
fn api_url<'a>(roots: Roots<'a>) -> Result<&'a str, Failure> {
    Ok(roots.optional("api_url")?.unwrap_or(API_URL).trim_end_matches('/'))
}

/// The headers of each request.
fn headers(token: &str) -> Headers {
    vec![
        header("accept", "application/vnd.github+json"),
        header("authorization", &format!("Bearer {token}")),
        header("x-github-api-version", API_VERSION),
    ]
}

#[cfg(test)]
mod tests;
