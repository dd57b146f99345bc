//! A first HTTP request, whose reply has the access token that the step's own request needs.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::egress::{Egress, MAX_REPLY_BYTES, Reply, Request};
use crate::integration::FETCHED_TOKEN;
use crate::integration::template::{TextPart, parts};
use crate::model::limits::MAX_CONNECTION_BYTES;
use crate::model::{FieldName, Fields, Value};

use super::clock::CredentialEnd;
use super::failure::{Failure, FailureReason};
use super::reply::{check_accepted, exchange, handle_of, header as reply_header, is_token};
use super::roots::{Roots, header, text_value};
use super::{Ask, Minted, asked_life};

/// The name of the fetched token in the second request's texts.
const FETCHED: &str = "accessToken";
/// The next step if the first request is refused.
const ADVICE: &str = "compare the fields request_* and the tokens with what the server expects";

/// The fault and the next step if the first request gets too long.
const REQUEST_TOO_LONG: &str = "makes the first request longer than 256 KiB with the tokens in their places; nothing was sent, so refer to \
     tokens.* fewer times";
/// The fault and the next step if the second request gets too long.
const SECOND_REQUEST_TOO_LONG: &str = "makes what a step gets more than 64 KiB longer than all fields of the connection; refer to accessToken \
     fewer times";

/// Fetches the access token, and renders what the second request sends. Only a GET is repeated: a POST might do something
/// twice. The step sees a part of the reply, so private addresses are denied.
///
/// # Errors
/// See [`super::mint`].
pub async fn mint(egress: &Egress, roots: Roots<'_>, ask: &Ask) -> Result<Minted, Failure> {
    let path = TokenPath::parse(roots.text("access_token_path")?)?;
    let interval = interval(roots)?;
    let request = request(roots)?;
    let reply = match request.method {
        "GET" => exchange(egress, request).await?,
        _ => egress.exchange(request).await?,
    };
    check_accepted(&reply, &[], None, ADVICE)?;
    let token = path.find(&reply).ok_or_else(|| {
        let text = "the reply has no access token at access_token_path, or no text that a header can carry; correct the path";
        Failure::invalid(text)
    })?;
    let asked = [interval, asked_life(roots.0)].into_iter().flatten().min();
    let mut fields = second_request(roots, &token)?;
    // The broker masks it in what it sends for a step.
    let kept = FieldName::parse(FETCHED_TOKEN).ok();
    fields.extend(kept.map(|name| (name, Value::new(token.as_bytes().to_vec()))));
    Ok(Minted {
        fields,
        end: asked.map(|asked| CredentialEnd::assumed(ask.now, asked)),
        handle: handle_of(&token),
        upstream_request: None,
        ending: None,
    })
}

/// After how long the token is fetched again; `None` if never.
fn interval(roots: Roots<'_>) -> Result<Option<Duration>, Failure> {
    let name = "refresh_interval_seconds";
    let seconds = roots.checked(name, "a number of seconds", |text| text.parse::<u32>().is_ok())?;
    let seconds = seconds.and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
    Ok(seconds.map(Duration::from_secs))
}

/// The first request: all that is rendered for it has at most 256 KiB.
fn request(roots: Roots<'_>) -> Result<Request, Failure> {
    let mut room = Room { bytes: MAX_CONNECTION_BYTES, fault: REQUEST_TOO_LONG };
    let mut render = |name: &str, value: &Value| {
        let find = |token: &str| roots.value(&format!("tokens.{token}")).map(Value::expose);
        render(name, value, &mut room, find)
    };
    let mut url = Zeroizing::new(roots.text("request_url")?.to_owned());
    for (name, parameter, value) in roots.family("request_url_parameters.") {
        let joint = if url.contains('?') { '&' } else { '?' };
        url.push(joint);
        url.push_str(parameter);
        url.push('=');
        url.extend(form_urlencoded::byte_serialize(render(name.as_str(), value)?.expose()));
    }
    let mut headers = Vec::new();
    for (name, rest, value) in roots.family("request_headers.") {
        headers.push((
            rest.to_ascii_lowercase(),
            header_value(name.as_str(), render(name.as_str(), value)?)?,
        ));
    }
    let has =
        |headers: &[(String, Value)], name: &str| headers.iter().any(|(header, _)| header == name);
    if let Some(user) = roots.optional("username")?
        && !has(&headers, "authorization")
    {
        let password = roots.value("password").map(Value::expose).unwrap_or_default();
        let pair = Value::new([user.as_bytes(), b":", password].concat());
        let basic = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.expose())));
        headers.push(header("authorization", &basic));
    }
    if let Some(content_type) = roots.value("request_content_type")
        && !has(&headers, "content-type")
    {
        let value = Value::new(content_type.expose().to_vec());
        headers.push(("content-type".to_owned(), header_value("request_content_type", value)?));
    }
    let body = roots.value("request_body").map(|body| render("request_body", body)).transpose()?;
    let method = match roots.text("request_method")? {
        "GET" => "GET",
        "POST" => "POST",
        _ => return Err(Failure::field("request_method", "is neither GET nor POST")),
    };
    let request =
        roots.request(method, text_value(&url), headers, body.unwrap_or_else(|| text_value("")));
    Ok(Request { is_private_denied: true, ..request })
}

/// What the second request sends: the fields that may refer to the access token, rendered. They refer to no other token,
/// because tokens of the first request are never handed out. They are at most as long as all fields of the connection and
/// the longest reply together.
fn second_request(roots: Roots<'_>, token: &str) -> Result<Fields, Failure> {
    let own: usize = roots.0.values().map(Value::len).sum();
    let mut room =
        Room { bytes: own.saturating_add(MAX_REPLY_BYTES), fault: SECOND_REQUEST_TOO_LONG };
    let families = ["headers.", "url_parameters."].into_iter();
    let named =
        families.flat_map(|prefix| roots.family(prefix)).map(|(name, _, value)| (name, value));
    let body = roots.0.iter().filter(|(name, _)| name.as_str() == "body");
    let rendered = named.chain(body).map(|(name, value)| {
        let find = |found: &str| (found == FETCHED).then_some(token.as_bytes());
        Ok((name.clone(), render(name.as_str(), value, &mut room, find)?))
    });
    rendered.collect()
}

/// The bytes that several fields may still be rendered to, and what is wrong if they are not enough. A short text can refer
/// to a long token thousands of times.
struct Room {
    bytes: usize,
    fault: &'static str,
}

impl Room {
    /// Takes room for bytes of a field.
    fn take<'a>(&mut self, field: &str, bytes: &'a [u8]) -> Result<&'a [u8], Failure> {
        let text = || format!("the field {field} {}", self.fault);
        let left = self.bytes.checked_sub(bytes.len());
        self.bytes = left.ok_or_else(|| Failure::new(FailureReason::Refused, text()))?;
        Ok(bytes)
    }
}

/// A text with its references replaced. A field that is no text has no references.
fn render<'a>(
    field: &str,
    value: &Value,
    room: &mut Room,
    find: impl Fn(&str) -> Option<&'a [u8]>,
) -> Result<Value, Failure> {
    let Ok(text) = std::str::from_utf8(value.expose()) else {
        return Ok(Value::new(room.take(field, value.expose())?.to_vec()));
    };
    let mut rendered = Zeroizing::new(Vec::with_capacity(text.len() + 256));
    for part in parts(text) {
        let bytes = match part {
            TextPart::Text(text) => Some(text.as_bytes()),
            TextPart::Reference(name) => find(name.trim()),
            TextPart::Unclosed => None,
        };
        let fault = "refers to a token that it may not have: request_* to tokens.*, the others to accessToken alone";
        let bytes = bytes.ok_or_else(|| Failure::field(field, fault))?;
        rendered.extend_from_slice(room.take(field, bytes)?);
    }
    Ok(Value::new(std::mem::take(&mut *rendered)))
}

/// A value that a header can carry.
fn header_value(field: &str, value: Value) -> Result<Value, Failure> {
    let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    match value.expose().iter().any(is_control) {
        true => Err(Failure::field(field, "has a line break or another control character")),
        false => Ok(value),
    }
}

/// Where the reply holds the access token.
#[derive(Debug)]
enum TokenPath<'a> {
    /// In the JSON body, at these keys; the whole body if there are none.
    Body(Vec<&'a str>),
    /// In the header of this name, in lower case.
    Header(String),
}

impl<'a> TokenPath<'a> {
    /// `body`, `body.KEY.KEY…` or `headers.NAME`. A number as a key is also a place in a list, counted from 0.
    fn parse(text: &'a str) -> Result<Self, Failure> {
        match text.split_once('.') {
            None if text == "body" => Ok(Self::Body(Vec::new())),
            Some(("body", keys)) => Ok(Self::Body(keys.split('.').collect())),
            Some(("headers", name)) => Ok(Self::Header(name.to_ascii_lowercase())),
            _ => Err(Failure::field(
                "access_token_path",
                "is neither body, body.KEY nor headers.NAME",
            )),
        }
    }

    fn find(&self, reply: &Reply) -> Option<Zeroizing<String>> {
        let body = reply.body.expose();
        let found = match self {
            Self::Header(name) => reply_header(reply, name)?.to_owned(),
            Self::Body(keys) if keys.is_empty() => {
                std::str::from_utf8(body).ok()?.trim().to_owned()
            }
            Self::Body(keys) => {
                let whole: serde_json::Value = serde_json::from_slice(body).ok()?;
                let found = keys.iter().try_fold(&whole, |value, key| match value {
                    serde_json::Value::Array(list) => list.get(key.parse::<usize>().ok()?),
                    value => value.get(key),
                });
                found?.as_str()?.to_owned()
            }
        };
        let found = Zeroizing::new(found);
        is_token(found.as_bytes()).then_some(found)
    }
}

#[cfg(test)]
mod tests;
