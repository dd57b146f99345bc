//! What GitHub answers.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;

use crate::egress::Reply;
use crate::model::Timestamp;

use super::super::failure::{Failure, FailureReason};
use super::super::reply::{
    Refusal, check_accepted, header, is_token, padded_handle_of, request_number,
};
use super::super::roots::{Roots, text_value};
use super::super::{End, Minted, clock, ending, fields};

/// The header with GitHub's number of the request.
const NUMBERS: [&str; 1] = ["x-github-request-id"];
/// The texts of refusals, with their next steps. A text that is not here is not shown: it could be anything.
const TEXTS: [(&str, &str); 7] = [
    ("A JSON web token could not be decoded", WRONG_KEY),
    ("Bad credentials", WRONG_KEY),
    ("Integration not found", "GitHub knows no App with app_id; correct app_id"),
    ("Not Found", NO_INSTALLATION),
    (
        "There is at least one repository that does not exist or is not accessible to the parent installation",
        "let the installation have the repositories, at GitHub, or correct repositories",
    ),
    (
        "The permissions requested are not granted to this installation",
        "grant the App the permissions and accept them for the installation, at GitHub, or correct permissions",
    ),
    ("This installation has been suspended", "unsuspend the installation, at GitHub"),
];
const WRONG_KEY: &str = "GitHub does not accept the App's signature; write a private_key of the App in app_id, and check this \
     machine's clock";
const NO_INSTALLATION: &str =
    "the App has no such installation; correct installation_id, app_id or api_url";
/// Stands for the text of a refusal for too many requests, which names who asks.
const RATE_LIMIT: &str = "rate limit exceeded";

/// The token of a reply, which alone can end itself.
///
/// # Errors
/// If GitHub refuses, or answers something else.
pub fn minted(reply: &Reply, roots: Roots<'_>, now: Timestamp) -> Result<Minted, Failure> {
    #[derive(Deserialize)]
    struct TokenReply<'a> {
        #[serde(borrow)]
        token: Cow<'a, str>,
        expires_at: Timestamp,
    }
    let advice = match reply.status {
        401 => WRONG_KEY,
        404 => NO_INSTALLATION,
        422 => "check permissions and repositories",
        _ => "check the App and its installation at GitHub, and api_url",
    };
    check(reply, refusal(reply), advice)?;
    let parsed: Option<TokenReply<'_>> = serde_json::from_slice(reply.body.expose()).ok();
    let parsed = parsed.filter(|parsed| is_token(parsed.token.as_bytes())).ok_or_else(|| {
        Failure::invalid("the reply has no token with the time expires_at; check api_url")
    })?;
    Ok(Minted {
        fields: fields([("access_token", text_value(&parsed.token))])?,
        end: Some(clock::end(parsed.expires_at, reply.date, now, None)?),
        handle: padded_handle_of(&parsed.token),
        upstream_request: request_number(reply, &NUMBERS),
        ending: Some(ending(roots, &["api_url", "ca_certificate"], &parsed.token)?),
    })
}

/// Whether the token of a reply's request has ended. GitHub answers 401 to a token that it does not know. A 401 without
/// GitHub's number of the request is of something between.
///
/// # Errors
/// If GitHub refuses or fails.
pub fn ended(reply: &Reply) -> Result<End, Failure> {
    match reply.status {
        401 if header(reply, NUMBERS[0]).is_some() => Ok(End::Ended),
        _ => {
            let passing = refusal(reply).filter(|refusal| refusal.is_passing);
            check(reply, passing, "check api_url").map(|()| End::Ended)
        }
    }
}

fn check(reply: &Reply, refusal: Option<Refusal>, advice: &'static str) -> Result<(), Failure> {
    check_accepted(reply, &NUMBERS, refusal, advice).map_err(|failure| {
        let retry_after = failure.retry_after.or_else(|| next_quota(reply));
        // A quota is of the App's installation.
        let is_passing = failure.reason == FailureReason::Unavailable;
        let concerns_all = failure.concerns_all || is_passing && retry_after.is_some();
        Failure { retry_after, concerns_all, ..failure }
    })
}

/// What the error reply says.
fn refusal(reply: &Reply) -> Option<Refusal> {
    #[derive(Deserialize)]
    struct ErrorReply<'a> {
        #[serde(borrow)]
        message: Cow<'a, str>,
    }
    if reply.status == 403 && (header(reply, "retry-after").is_some() || is_used_up(reply)) {
        let code = RATE_LIMIT.to_owned();
        return Some(Refusal { code, advice: "the broker asks again later", is_passing: true });
    }
    let parsed: ErrorReply<'_> = serde_json::from_slice(reply.body.expose()).ok()?;
    let said = parsed.message.trim_end_matches('.');
    let (text, advice) = TEXTS.iter().find(|(text, _)| *text == said)?;
    Some(Refusal { code: (*text).to_owned(), advice, is_passing: false })
}

/// True if no request is left of the hour's quota.
fn is_used_up(reply: &Reply) -> bool {
    header(reply, "x-ratelimit-remaining") == Some("0")
}

/// How long until the next quota, if this one is used up.
fn next_quota(reply: &Reply) -> Option<Duration> {
    let reset = header(reply, "x-ratelimit-reset").filter(|_| is_used_up(reply))?;
    let reset = Timestamp::from_seconds(reset.parse::<u32>().ok()?.into());
    Some(reset.since(reply.date?))
}
