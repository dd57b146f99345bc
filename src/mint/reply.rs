//! What is read from any upstream's reply.

use std::time::Duration;

use aws_lc_rs::digest::{self, Digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::egress::{Egress, EgressError, Reply, Request};
use crate::model::{Timestamp, Value};

use super::clock;
use super::failure::{Failure, FailureReason};

/// The pause before a request is repeated.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Tokens that are shorter might be guessed from their hash.
const LEAST_HASHED_BYTES: usize = 20;

/// An upstream's refusal, as far as its protocol tells.
pub struct Refusal {
    /// Its code, of a strict form.
    pub code: String,
    /// The next step.
    pub advice: &'static str,
    /// True if the same request may succeed later.
    pub is_passing: bool,
}

/// Sends a request that may be repeated: once more if the upstream cannot be reached or fails, and does not say when to
/// come again.
///
/// # Errors
/// As [`Egress::exchange`].
pub async fn exchange(egress: &Egress, request: Request) -> Result<Reply, Failure> {
    let again = copy(&request);
    let first = egress.exchange(request).await;
    let is_passing = match &first {
        Ok(reply) => reply.status >= 500 && header(reply, "retry-after").is_none(),
        Err(error) => matches!(error, EgressError::Unavailable(_)),
    };
    if !is_passing {
        return Ok(first?);
    }
    tokio::time::sleep(PAUSE).await;
    Ok(egress.exchange(again).await?)
}

/// Sends a request that `request` makes for a moment: for `now`, and once more for the reply's `Date` if the upstream refuses the
/// request for its time, as `is_skewed` tells, and the clocks differ.
///
/// # Errors
/// As [`exchange`] and `request`; if the clocks differ by more than [`clock::corrected`] follows.
pub async fn exchange_at(
    egress: &Egress,
    now: Timestamp,
    is_skewed: impl Fn(&Reply) -> bool,
    request: impl Fn(Timestamp) -> Result<Request, Failure>,
) -> Result<Reply, Failure> {
    let reply = exchange(egress, request(now)?).await?;
    if !is_skewed(&reply) {
        return Ok(reply);
    }
    match clock::corrected(reply.date, now)? {
        Some(theirs) => exchange(egress, request(theirs)?).await,
        None => Ok(reply),
    }
}

fn copy(request: &Request) -> Request {
    let value = |value: &Value| Value::new(value.expose().to_vec());
    let headers = request.headers.iter();
    Request {
        method: request.method,
        url: value(&request.url),
        headers: headers.map(|(name, header)| (name.clone(), value(header))).collect(),
        body: value(&request.body),
        ca_certificate: request.ca_certificate.clone(),
        is_private_denied: request.is_private_denied,
        max_reply_bytes: request.max_reply_bytes,
    }
}

/// Checks that the upstream did what it was asked for. `refusal` reads the error reply of its protocol, `advice` is the
/// next step if that tells nothing, and `numbers` are the headers that may have the upstream's number of the request.
///
/// # Errors
/// If the status is not 2xx.
pub fn check_accepted(
    reply: &Reply,
    numbers: &[&str],
    refusal: Option<Refusal>,
    advice: &'static str,
) -> Result<(), Failure> {
    let status = reply.status;
    let is_passing = refusal.as_ref().is_some_and(|refusal| refusal.is_passing);
    let (reason, next) = match status {
        200..=299 => return Ok(()),
        300..=399 => (FailureReason::Invalid, "redirects are not followed, so write the final URL"),
        408 | 425 | 429 | 500.. => (FailureReason::Unavailable, "the broker asks again later"),
        _ if is_passing => (FailureReason::Unavailable, "the broker asks again later"),
        _ => (FailureReason::Refused, refusal.as_ref().map_or(advice, |refusal| refusal.advice)),
    };
    let code = refusal.map(|refusal| format!(" ({})", refusal.code)).unwrap_or_default();
    let retry_after = retry_after(reply);
    // Other answers, such as 500, may be about this credential alone.
    let is_left_alone = retry_after.is_some() || matches!(status, 429 | 502..=504);
    Err(Failure {
        retry_after,
        upstream_request: request_number(reply, numbers),
        concerns_all: reason == FailureReason::Unavailable && is_left_alone,
        ..Failure::new(reason, format!("the upstream answered HTTP {status}{code}; {next}"))
    })
}

/// The value of a header, as text.
pub fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let (_, value) = reply.headers.iter().find(|(header, _)| header == name)?;
    std::str::from_utf8(value.expose()).ok()
}

/// How long the upstream wants to be left alone: seconds, or a date by its own clock, which it must then tell.
fn retry_after(reply: &Reply) -> Option<Duration> {
    let text = header(reply, "retry-after")?;
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let until = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Some(Timestamp::from_seconds(until.unix_timestamp()).since(reply.date?))
}

/// The upstream's number of the request, of the first of these headers that has one: a UUID, or GitHub's form. Other texts are
/// left out: an upstream may echo what it was sent.
pub fn request_number(reply: &Reply, headers: &[&str]) -> Option<String> {
    let numbers = headers.iter().filter_map(|name| header(reply, name));
    numbers.into_iter().find(|text| is_uuid(text) || is_of_github(text)).map(str::to_owned)
}

/// True for a UUID, as 8-4-4-4-12 hexadecimal digits.
pub fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

/// True for a number of GitHub's: five groups of hexadecimal digits.
fn is_of_github(text: &str) -> bool {
    let is_group = |group: &str| {
        (1..=12).contains(&group.len()) && group.chars().all(|c| c.is_ascii_hexdigit())
    };
    text.split(':').count() == 5 && text.split(':').all(is_group)
}

/// True for a token that fits into a header: visible ASCII.
pub fn is_token(text: &[u8]) -> bool {
    (1..=MAX_TOKEN_BYTES).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic)
}

/// The public name of a token: its SHA-256, base64url. `None` if the token is so short that its hash might reveal it.
pub fn handle_of(token: &str) -> Option<String> {
    hash(token).map(|hash| URL_SAFE_NO_PAD.encode(hash))
}

/// The same in base64 with its padding: `hashed_token` of GitHub's audit log.
pub fn padded_handle_of(token: &str) -> Option<String> {
    hash(token).map(|hash| STANDARD.encode(hash))
}

fn hash(token: &str) -> Option<Digest> {
    let hash = || digest::digest(&digest::SHA256, token.as_bytes());
    (token.len() >= LEAST_HASHED_BYTES).then(hash)
}
