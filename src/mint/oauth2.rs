//! OAuth 2.0, client credentials (RFC 6749, 4.4), and the revocation of their access tokens (RFC 7009).

use form_urlencoded::Serializer;

use crate::egress::{Egress, Request};

use super::bearer::{bearer, refusal};
use super::client::of_client;
use super::failure::Failure;
use super::reply::{check_accepted, exchange};
use super::roots::Roots;
use super::{Ask, End, Minted, TOKEN, asked_life, ending};

const REVOCATION_URL: &str = "revocation_url";
/// The fields that a revocation needs beside the token: its own URL, and those of the client.
const ENDING: [&str; 5] =
    [REVOCATION_URL, "client_id", "client_secret", "client_auth", "ca_certificate"];
/// The next step if the refusal to revoke a token has no code.
const ADVICE: &str = "check that revocation_url is the server's revocation endpoint";
/// Headers that may have the server's number of the request.
const NUMBERS: [&str; 2] = ["x-request-id", "x-correlation-id"];

/// Makes an access token. A repeated request makes another token and ends no token.
///
/// # Errors
/// See [`super::mint`].
pub async fn mint(egress: &Egress, roots: Roots<'_>, ask: &Ask) -> Result<Minted, Failure> {
    let reply = exchange(egress, request(roots)?).await?;
    let made = bearer(&reply, ask.now, asked_life(roots.0), &NUMBERS)?;
    let is_revoked = roots.value(REVOCATION_URL).is_some();
    let ending = is_revoked.then(|| ending(roots, &ENDING, &made.token)).transpose()?;
    Ok(Minted { ending, ..made.into_minted(true)? })
}

/// Revokes an access token (RFC 7009). Servers accept a token that they do not know, or that has ended.
///
/// # Errors
/// See [`super::end`].
pub async fn end(egress: &Egress, ending: Roots<'_>) -> Result<End, Failure> {
    let reply = exchange(egress, revocation(ending)?).await?;
    check_accepted(&reply, &NUMBERS, refusal(&reply), ADVICE)?;
    Ok(End::Ended)
}

fn revocation(ending: Roots<'_>) -> Result<Request, Failure> {
    let mut form = Serializer::new(String::new());
    form.append_pair("token", ending.text(TOKEN)?).append_pair("token_type_hint", "access_token");
    of_client(ending, ending.text(REVOCATION_URL)?, form)
}

fn request(roots: Roots<'_>) -> Result<Request, Failure> {
    // No client without a secret has this grant.
    roots.bytes("client_secret")?;
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    for (field, parameter) in [("scopes", "scope"), ("audience", "audience")] {
        if let Some(value) = roots.optional(field)? {
            form.append_pair(parameter, value);
        }
    }
    of_client(roots, roots.text("token_url")?, form)
}

#[cfg(test)]
mod tests {
    use super::super::samples::{fields, sent, text};
    use super::*;

    const ROOTS: [(&str, &str); 5] = [
        ("token_url", "https://auth.example.com/token"),
        ("client_id", "id:1"),
        ("client_secret", "p w/\u{e9}"),
        ("scopes", "read write"),
        ("audience", "https://api.example.com"),
    ];

    fn sent_by(more: &[(&str, &str)]) -> Result<Request, Failure> {
        request(Roots(&fields(&[ROOTS.as_slice(), more].concat())))
    }

    #[test]
    fn the_secret_is_sent_in_the_one_form_that_is_asked_for() {
        let form =
            "grant_type=client_credentials&scope=read+write&audience=https%3A%2F%2Fapi.example.com";
        for more in [&[][..], &[("client_auth", "basic")]] {
            let request = sent_by(more).unwrap();
            assert_eq!(text(&request.body), form);
            // printf 'id%%3A1:p+w%%2F%%C3%%A9' | base64
            assert_eq!(
                sent(&request, "authorization").unwrap(),
                "Basic aWQlM0ExOnArdyUyRiVDMyVBOQ=="
            );
        }
        let request = sent_by(&[("client_auth", "post")]).unwrap();
        assert_eq!(
            text(&request.body),
            format!("{form}&client_id=id%3A1&client_secret=p+w%2F%C3%A9")
        );
        assert_eq!(sent(&request, "authorization"), None);
        assert_eq!(text(&request.url), "https://auth.example.com/token");
        assert!(sent_by(&[("client_auth", "both")]).is_err());
    }

    #[test]
    fn a_token_is_revoked_by_the_client_that_it_was_made_for() {
        let more = [("revocation_url", "https://auth.example.com/revoke"), ("client_auth", "post")];
        let roots = fields(&[ROOTS.as_slice(), &more].concat());
        let ending = ending(Roots(&roots), &ENDING, "to/ken").unwrap();
        let names: Vec<_> = ending.keys().map(ToString::to_string).collect();
        let expected = ["client_auth", "client_id", "client_secret", "revocation_url", "token"];
        assert_eq!(names, expected);
        let request = revocation(Roots(&ending)).unwrap();
        assert_eq!(text(&request.url), "https://auth.example.com/revoke");
        assert_eq!(
            text(&request.body),
            "token=to%2Fken&token_type_hint=access_token&client_id=id%3A1&client_secret=p+w%2F%C3%A9"
        );
        assert_eq!(sent(&request, "authorization"), None);
    }

    #[test]
    fn a_root_without_its_secret_sends_nothing() {
        let failure = sent_by(&[("client_secret", "")]).err().unwrap();
        assert!(failure.detail.contains("client_secret is missing"), "{failure:?}");
    }
}
