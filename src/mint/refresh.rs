//! OAuth 2.0, refresh token (RFC 6749, 6). The server may give another refresh token: the one before is used up then, and a
//! server that sees it again ends all tokens of its family (RFC 9700, 4.14.2). So no request is ever repeated.

use std::borrow::Cow;

use form_urlencoded::Serializer;
use serde::Deserialize;

use super::bearer::{bearer, refusal};
use super::client::of_client;
use super::failure::{Failure, FailureReason};
use super::roots::{Roots, text_value};
use super::{Ask, Minted, asked_life};
use crate::egress::{Egress, Reply, Request};
use crate::model::Value;

/// Headers that may have the server's number of the request.
const NUMBERS: [&str; 2] = ["x-request-id", "x-correlation-id"];
/// The code of a refresh token that is of no use any more.
const USED_UP: &str = "invalid_grant";

/// Makes an access token. `next` becomes the refresh token that replaces the used one: also if the rest of the reply is of no
/// use.
///
/// # Errors
/// See [`super::mint`]; the reason is [`FailureReason::Reauthorize`] if the server refuses the refresh token for good.
pub async fn mint(
    egress: &Egress,
    roots: Roots<'_>,
    ask: &Ask,
    next: &mut Option<Value>,
) -> Result<Minted, Failure> {
    let request = request(roots)?;
    let made = match egress.exchange(request).await {
        Ok(reply) => {
            *next = rotated(&reply, roots);
            read(&reply, roots, ask)
        }
        Err(error) => Err(error.into()),
    };
    made.map_err(|failure| Failure { is_uncertain: may_be_used(&failure, next), ..failure })
}

/// True if the server may have used the refresh token up, and nobody knows what replaces it.
fn may_be_used(failure: &Failure, next: &Option<Value>) -> bool {
    let is_unknown = matches!(failure.reason, FailureReason::Unavailable | FailureReason::Invalid);
    is_unknown && next.is_none()
}

fn request(roots: Roots<'_>) -> Result<Request, Failure> {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token");
    form.append_pair("refresh_token", roots.text("refresh_token")?);
    if let Some(scopes) = roots.optional("scopes")? {
        form.append_pair("scope", scopes);
    }
    of_client(roots, roots.text("token_url")?, form)
}

fn read(reply: &Reply, roots: Roots<'_>, ask: &Ask) -> Result<Minted, Failure> {
    let made = bearer(reply, ask.now, asked_life(roots.0), &NUMBERS);
    made.and_then(|made| made.into_minted(true)).map_err(|failure| {
        let is_client_error = (400..500).contains(&reply.status);
        let is_used_up = || refusal(reply).is_some_and(|refusal| refusal.code == USED_UP);
        match is_client_error && is_used_up() {
            true => used_up(reply.status, failure),
            false => failure,
        }
    })
}

fn used_up(status: u16, failure: Failure) -> Failure {
    let detail = format!(
        "the upstream answered HTTP {status} ({USED_UP}): the refresh token is used up, revoked or expired, or another client's; sign in at the upstream again, and write the new refresh_token"
    );
    Failure { reason: FailureReason::Reauthorize, detail, ..failure }
}

/// The refresh token that replaces the used one; `None` if the used one stays.
fn rotated(reply: &Reply, roots: Roots<'_>) -> Option<Value> {
    #[derive(Deserialize)]
    struct Rotated<'a> {
        #[serde(borrow)]
        refresh_token: Cow<'a, str>,
    }
    if !(200..300).contains(&reply.status) {
        return None;
    }
    let parsed: Rotated<'_> = serde_json::from_slice(reply.body.expose()).ok()?;
    let token = parsed.refresh_token;
    let is_used = roots.bytes("refresh_token").is_ok_and(|used| used == token.as_bytes());
    (!token.is_empty() && !is_used).then(|| text_value(&token))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{ask, fields, reply, sent, text, texts};
    use super::*;

    const ROOTS: [(&str, &str); 3] = [
        ("token_url", "https://auth.example.com/token"),
        ("client_id", "id:1"),
        ("refresh_token", "r/1 +"),
    ];

    fn sent_by(more: &[(&str, &str)]) -> Result<Request, Failure> {
        request(Roots(&fields(&[ROOTS.as_slice(), more].concat())))
    }

    fn answered(status: u16, body: &str) -> (Result<Minted, Failure>, Option<String>) {
        let (fields, reply) = (fields(&ROOTS), reply(status, &[], body));
        let rotated = rotated(&reply, Roots(&fields));
        (read(&reply, Roots(&fields), &ask()), rotated.as_ref().map(text))
    }

    #[test]
    fn a_client_says_who_it_is_in_one_form() {
        let form = "grant_type=refresh_token&refresh_token=r%2F1+%2B";
        let secret = ("client_secret", "p w");
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, Option<&'a str>);
        let cases: [Case<'_>; 6] = [
            (&[], "&client_id=id%3A1", None),
            (&[("client_auth", "none")], "&client_id=id%3A1", None),
            (&[secret, ("client_auth", "none")], "&client_id=id%3A1", None),
            // printf 'id%%3A1:p+w' | base64
            (&[secret], "", Some("Basic aWQlM0ExOnArdw==")),
            (&[secret, ("client_auth", "post")], "&client_id=id%3A1&client_secret=p+w", None),
            (&[("scopes", "a b")], "&scope=a+b&client_id=id%3A1", None),
        ];
        for (more, end, header) in cases {
            let request = sent_by(more).unwrap();
            assert_eq!(text(&request.body), format!("{form}{end}"));
            assert_eq!(sent(&request, "authorization").as_deref(), header);
        }
        for missing in [[("client_auth", "basic")], [("refresh_token", "")]] {
            let failure = sent_by(&missing).err().unwrap();
            assert_eq!(failure.reason, FailureReason::Refused, "{failure:?}");
        }
    }

    #[test]
    fn a_reply_says_which_refresh_token_comes_next() {
        let token = r#""access_token":"a","token_type":"Bearer","expires_in":60"#;
        for (more, next) in [
            ("", None),
            (r#","refresh_token":"r/2""#, Some("r/2")),
            (r#","refresh_token":"r\/2""#, Some("r/2")),
            (r#","refresh_token":"r/1 +""#, None),
            (r#","refresh_token":"""#, None),
            (r#","refresh_token":null"#, None),
        ] {
            let (made, rotated) = answered(200, &format!("{{{token}{more}}}"));
            let expected = [("access_token", "a"), ("token_type", "Bearer")];
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(texts(&made.unwrap().fields), expected);
            assert_eq!(rotated.as_deref(), next, "{more}");
        }
    }

    #[test]
    fn the_next_refresh_token_outlives_a_reply_of_no_use() {
        for body in [
            r#"{"refresh_token":"r2"}"#,
            r#"{"refresh_token":"r2","access_token":"a","token_type":"Bearer","expires_in":0}"#,
            r#"{"refresh_token":"r2","access_token":"a b","token_type":"Bearer"}"#,
        ] {
            let (made, rotated) = answered(200, body);
            assert_eq!(made.err().unwrap().reason, FailureReason::Invalid);
            assert_eq!(rotated.as_deref(), Some("r2"));
        }
    }

    #[test]
    fn only_a_refused_refresh_token_needs_another() {
        let error = |code: &str| format!(r#"{{"error":"{code}","refresh_token":"r2"}}"#);
        for (status, code, reason) in [
            (400, "invalid_grant", FailureReason::Reauthorize),
            (401, "invalid_grant", FailureReason::Reauthorize),
            (500, "invalid_grant", FailureReason::Unavailable),
            (401, "invalid_client", FailureReason::Refused),
            (400, "temporarily_unavailable", FailureReason::Unavailable),
        ] {
            let (made, rotated) = answered(status, &error(code));
            let failure = made.err().unwrap();
            assert_eq!((failure.reason, rotated), (reason, None), "{status} {code}");
            assert!(failure.detail.contains(code), "{failure:?}");
        }
    }
}
