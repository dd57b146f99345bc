//! OAuth 2.0, client credentials (RFC 6749, 4.4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::Serializer;
use zeroize::Zeroizing;

use crate::egress::{Egress, Request};

use super::bearer::bearer;
use super::failure::Failure;
use super::reply::exchange;
use super::roots::{Roots, header};
use super::{Ask, Minted, asked_life};

/// Headers that may have the server's number of the request.
const NUMBERS: [&str; 2] = ["x-request-id", "x-correlation-id"];

/// Makes an access token. A repeated request makes another token and ends no token.
///
/// # Errors
/// See [`super::mint`].
pub async fn mint(egress: &Egress, roots: Roots<'_>, ask: &Ask) -> Result<Minted, Failure> {
    let reply = exchange(egress, request(roots)?).await?;
    bearer(&reply, ask.now, asked_life(roots.0), &NUMBERS)?.into_minted(true)
}

/// The request. `client_auth` alone says in which form the secret is sent: a server that does not know the client must not see
/// the secret in the other form, too.
fn request(roots: Roots<'_>) -> Result<Request, Failure> {
    let url = roots.text("token_url")?;
    let (id, secret) = (roots.text("client_id")?, roots.text("client_secret")?);
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    for (field, parameter) in [("scopes", "scope"), ("audience", "audience")] {
        if let Some(value) = roots.optional(field)? {
            form.append_pair(parameter, value);
        }
    }
    let mut headers = Vec::new();
    match roots.optional("client_auth")?.unwrap_or("basic") {
        "basic" => headers.push(header("authorization", &basic(id, secret))),
        "post" => {
            form.append_pair("client_id", id).append_pair("client_secret", secret);
        }
        _ => return Err(Failure::field("client_auth", "is neither basic nor post")),
    }
    Ok(roots.form(url, headers, form.finish()))
}

/// Basic authentication. OAuth wants ID and secret form-encoded first (RFC 6749, 2.3.1).
fn basic(id: &str, secret: &str) -> Zeroizing<String> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encoded(id), encoded(secret)));
    Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
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
    fn a_root_without_its_secret_sends_nothing() {
        let failure = sent_by(&[("client_secret", "")]).err().unwrap();
        assert!(failure.detail.contains("client_secret is missing"), "{failure:?}");
    }
}
