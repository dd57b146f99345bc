//! The reply of an OAuth 2.0 token endpoint (RFC 6749, 5.1 and 5.2).

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;

use crate::egress::Reply;
use crate::model::Timestamp;

use super::clock::{self, CredentialEnd};
use super::failure::Failure;
use super::reply::{Refusal, check_accepted, handle_of, is_token, request_number};
use super::roots::{is_of, text_value};
use super::{Minted, fields};

/// The longest `token_type`, in bytes.
const MAX_TYPE_BYTES: usize = 32;
/// The next step if a token endpoint's refusal has no code.
const ADVICE: &str = "check that the URL is the server's token endpoint";

/// The codes of errors, with their next steps. A code that is not here is not shown: it could be anything.
const CODES: [(&str, &str); 12] = [
    ("access_denied", "the server does not allow this client; ask its operator"),
    ("invalid_client", "the client ID or secret is wrong or has expired; write the valid secret"),
    ("invalid_grant", "the key is wrong, removed or disabled, or a clock is wrong; check both"),
    ("invalid_request", "the server wants other parameters; compare the fields with its manual"),
    ("invalid_resource", "the server does not know the audience or scope; correct it"),
    ("invalid_scope", "the server does not know a scope, or does not allow it; correct the scopes"),
    ("invalid_target", "the server does not know the audience; correct it"),
    ("server_error", "the broker asks again later"),
    ("temporarily_unavailable", "the broker asks again later"),
    ("unauthorized_client", "allow the client to use this grant, at the server"),
    ("unsupported_grant_type", "the token endpoint does not offer this grant; check the URL"),
    ("unsupported_token_type", "the server revokes no access tokens; remove revocation_url"),
];

#[derive(Deserialize)]
struct TokenReply<'a> {
    #[serde(borrow)]
    access_token: Cow<'a, str>,
    #[serde(borrow)]
    token_type: Cow<'a, str>,
    #[serde(default)]
    expires_in: Option<Seconds>,
}

/// Seconds; some servers write them as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

/// An access token.
pub struct Bearer {
    /// The token.
    pub token: String,
    /// Its type.
    pub token_type: String,
    /// Its end, if the server or the connection tells one.
    pub end: Option<CredentialEnd>,
    /// The server's number of the request.
    pub upstream_request: Option<String>,
}

impl Bearer {
    /// The token as it is handed out, with its type if `has_type`.
    ///
    /// # Errors
    /// As [`fields`].
    pub fn into_minted(self, has_type: bool) -> Result<Minted, Failure> {
        let handle = handle_of(&self.token);
        let token_type = has_type.then(|| ("token_type", text_value(&self.token_type)));
        let token = ("access_token", text_value(&self.token));
        Ok(Minted {
            fields: fields(std::iter::once(token).chain(token_type))?,
            end: self.end,
            handle,
            upstream_request: self.upstream_request,
            ending: None,
        })
    }
}

/// The access token of a reply. `asked` limits its end.
///
/// # Errors
/// If the server refuses, or answers something else.
pub fn bearer(
    reply: &Reply,
    now: Timestamp,
    asked: Option<Duration>,
    numbers: &[&str],
) -> Result<Bearer, Failure> {
    check_accepted(reply, numbers, refusal(reply), ADVICE)?;
    let parsed: TokenReply<'_> = serde_json::from_slice(reply.body.expose()).map_err(|_| {
        Failure::invalid(
            "the reply is no JSON object with access_token and token_type; check that the URL is the server's token endpoint",
        )
    })?;
    let is_type = parsed.token_type.len() <= MAX_TYPE_BYTES && is_of(&parsed.token_type, "_-");
    if !is_token(parsed.access_token.as_bytes()) || !is_type {
        return Err(Failure::invalid(
            "the access token or its type has characters that no header can carry; ask the server's operator",
        ));
    }
    let end = match parsed.expires_in.map(Seconds::read).transpose()? {
        Some(lives) => Some(clock::end(now.after(lives), None, now, asked)?),
        None => asked.map(|asked| CredentialEnd::assumed(now, asked)),
    };
    Ok(Bearer {
        token: parsed.access_token.into_owned(),
        token_type: parsed.token_type.into_owned(),
        end,
        upstream_request: request_number(reply, numbers),
    })
}

impl Seconds {
    fn read(self) -> Result<Duration, Failure> {
        let seconds = match self {
            Self::Number(seconds) => Some(seconds),
            Self::Text(text) => text.parse().ok(),
        };
        let text = "expires_in is no number of seconds; ask the server's operator";
        seconds.map(Duration::from_secs).ok_or_else(|| Failure::invalid(text))
    }
}

/// What the error reply says.
pub fn refusal(reply: &Reply) -> Option<Refusal> {
    #[derive(Deserialize)]
    struct ErrorReply<'a> {
        #[serde(borrow)]
        error: Cow<'a, str>,
    }
    let parsed: ErrorReply<'_> = serde_json::from_slice(reply.body.expose()).ok()?;
    let (code, advice) = CODES.iter().find(|(code, _)| *code == parsed.error)?;
    let is_passing = ["server_error", "temporarily_unavailable"].contains(code);
    Some(Refusal { code: (*code).to_owned(), advice, is_passing })
}

#[cfg(test)]
mod tests {
    use super::super::FailureReason;
    use super::super::samples::{now, reply, texts};
    use super::*;

    fn read(status: u16, body: &str) -> Result<Bearer, Failure> {
        bearer(
            &reply(status, &[("x-request-id", "canary-number")], body),
            now(),
            None,
            &["x-request-id"],
        )
    }

    #[test]
    fn a_token_is_read_with_its_end() {
        for (expires, seconds) in [
            (r#","expires_in":60"#, Some(60)),
            (r#","expires_in":"3599""#, Some(3599)),
            ("", None),
            (r#","expires_in":null"#, None),
        ] {
            let body = format!(
                r#"{{"access_token":"a/b.c","token_type":"Bearer","scope":"less","ext_expires_in":9{expires}}}"#
            );
            let made = read(200, &body).unwrap();
            assert_eq!(
                made.end,
                seconds.map(|life| CredentialEnd::told(now().after(Duration::from_secs(life))))
            );
            assert_eq!(made.upstream_request, None);
            let made = made.into_minted(true).unwrap();
            assert_eq!(
                texts(&made.fields),
                [("access_token", "a/b.c"), ("token_type", "Bearer")]
                    .map(|(name, value)| (name.into(), value.into()))
            );
            assert_eq!(made.handle, None, "a short token's hash might reveal it");
        }
        let escaped = r#"{"access_token":"abcdefghij\/klmnopqrst","token_type":"bearer"}"#;
        let made = read(200, escaped).unwrap().into_minted(false).unwrap();
        assert_eq!(
            texts(&made.fields),
            [("access_token".to_owned(), "abcdefghij/klmnopqrst".to_owned())]
        );
        // printf abcdefghij/klmnopqrst | openssl dgst -sha256 -binary | basenc --base64url
        assert_eq!(made.handle.unwrap(), "SGUxiYau-vsAdWPGdYpeE4hUwIX53_OSJK5jROqr77o");
    }

    #[test]
    fn no_token_counts_as_longer_than_was_asked() {
        for expires in [r#","expires_in":3600"#, ""] {
            let body = format!(r#"{{"access_token":"t","token_type":"Bearer"{expires}}}"#);
            let (reply, asked) = (reply(200, &[], &body), Duration::from_secs(600));
            let made = bearer(&reply, now(), Some(asked), &[]).ok().unwrap();
            assert_eq!(made.end, Some(CredentialEnd::assumed(now(), asked)), "{body}");
        }
    }

    #[test]
    fn a_reply_that_is_no_token_is_invalid() {
        for body in [
            "",
            "<html>canary</html>",
            "[]",
            r#"{"access_token":"canary"}"#,
            r#"{"access_token":"","token_type":"Bearer"}"#,
            r#"{"access_token":"canary\r\nx","token_type":"Bearer"}"#,
            r#"{"access_token":"canary","token_type":"two words"}"#,
            r#"{"access_token":"canary","token_type":"Bearer","expires_in":0}"#,
            r#"{"access_token":"canary","token_type":"Bearer","expires_in":-1}"#,
            r#"{"access_token":"canary","token_type":"Bearer","expires_in":"soon"}"#,
            r#"{"access_token":"canary","access_token":"b","token_type":"Bearer"}"#,
        ] {
            let failure = read(200, body).err().unwrap();
            assert_eq!(failure.reason, FailureReason::Invalid, "{body}");
            assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
        }
    }

    #[test]
    fn a_refusal_shows_its_code_and_the_next_step_alone() {
        for (status, body, reason, word) in [
            (
                401,
                r#"{"error":"invalid_client","error_description":"canary"}"#,
                FailureReason::Refused,
                "(invalid_client)",
            ),
            (400, r#"{"error":"canary"}"#, FailureReason::Refused, "HTTP 400; check"),
            (
                400,
                r#"{"error":"temporarily_unavailable"}"#,
                FailureReason::Unavailable,
                "again later",
            ),
            (404, "canary", FailureReason::Refused, "token endpoint"),
            (429, "canary", FailureReason::Unavailable, "HTTP 429"),
            (503, r#"{"error":"server_error"}"#, FailureReason::Unavailable, "HTTP 503"),
            (302, "", FailureReason::Invalid, "redirects"),
        ] {
            let failure = read(status, body).err().unwrap();
            assert_eq!(failure.reason, reason, "{body}");
            assert!(failure.detail.contains(word), "{failure:?}");
            assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        for (given, seconds) in
            [("120", Some(120)), ("Mon, 30 Nov 2026 08:03:02 GMT", Some(120)), ("soon", None)]
        {
            let failure =
                bearer(&reply(429, &[("retry-after", given)], ""), now(), None, &[]).err().unwrap();
            assert_eq!(failure.retry_after, seconds.map(Duration::from_secs), "{given}");
        }
    }
}
