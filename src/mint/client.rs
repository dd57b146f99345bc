//! How an OAuth 2.0 client proves itself to its server (RFC 6749, 2.3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::Serializer;
use zeroize::Zeroizing;

use crate::egress::Request;

use super::failure::Failure;
use super::roots::{Roots, header};

/// The request with this form, from the client `client_id`. `client_auth` alone says in which form the secret is sent: a server
/// that does not know the client must not see the secret in the other form, too. A client without a secret sends its ID alone.
///
/// # Errors
/// If a field is missing or makes no request.
pub fn of_client(
    roots: Roots<'_>,
    url: &str,
    mut form: Serializer<'_, String>,
) -> Result<Request, Failure> {
    let id = roots.text("client_id")?;
    let (form_of_secret, secret) =
        (roots.optional("client_auth")?, roots.optional("client_secret")?);
    let mut headers = Vec::new();
    match (form_of_secret, secret) {
        (None | Some("basic"), Some(secret)) => {
            headers.push(header("authorization", &basic(id, secret)));
        }
        (Some("post"), Some(secret)) => {
            form.append_pair("client_id", id).append_pair("client_secret", secret);
        }
        (Some("none"), _) | (None, None) => {
            form.append_pair("client_id", id);
        }
        (Some("basic" | "post"), None) => {
            return Err(Failure::field("client_secret", "is missing"));
        }
        (Some(_), _) => {
            return Err(Failure::field("client_auth", "is neither basic, post nor none"));
        }
    }
    Ok(roots.form(url, headers, form.finish()))
}

/// Basic authentication. OAuth wants ID and secret form-encoded first (RFC 6749, 2.3.1).
fn basic(id: &str, secret: &str) -> Zeroizing<String> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encoded(id), encoded(secret)));
    Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
}
