//! AWS's Signature Version 4 of a POST request without query.

use aws_lc_rs::{digest, hmac};

use crate::egress::Headers;
use crate::model::{Timestamp, Value};

use super::super::roots::{header, text_value};

/// The name of the algorithm.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Who signs.
pub struct Signer<'a> {
    /// The access key's ID.
    pub access_key_id: &'a str,
    /// The access key's secret half.
    pub secret_access_key: &'a [u8],
    /// The session token, of temporary credentials.
    pub session_token: Option<&'a str>,
    /// The region.
    pub region: &'a str,
    /// The service, for example `sts`.
    pub service: &'a str,
}

/// What is signed.
pub struct Unsigned<'a> {
    /// The host, with its port unless that is the scheme's own.
    pub host: &'a str,
    /// The path, in its canonical form.
    pub path: &'a str,
    /// The body's content type.
    pub content_type: &'a str,
    /// The body.
    pub body: &'a [u8],
}

impl Signer<'_> {
    /// The headers of a request that is sent at `now`, signed. `Host` is signed and left to the client.
    pub fn sign(&self, request: &Unsigned<'_>, now: Timestamp) -> Headers {
        let time = basic_form(now);
        let day = time.get(..8).unwrap_or_default();
        let mut headers = vec![
            header("content-type", request.content_type),
            header("host", request.host),
            header("x-amz-date", &time),
        ];
        headers.extend(self.session_token.map(|token| header("x-amz-security-token", token)));
        let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let hash = canonical_hash(request, &headers, &names);
        let signed = format!("{ALGORITHM}\n{time}\n{scope}\n{hash}");
        let signature = hex::encode(hmac::sign(&self.key(day), signed.as_bytes()));
        let authorization = format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.access_key_id
        );
        headers.retain(|(name, _)| name != "host");
        headers.push(("authorization".to_owned(), text_value(&authorization)));
        headers
    }

    /// The key of one day, region and service.
    fn key(&self, day: &str) -> hmac::Key {
        let first = Value::new([b"AWS4", self.secret_access_key].concat());
        let first = hmac::Key::new(hmac::HMAC_SHA256, first.expose());
        let parts = [day, self.region, self.service, "aws4_request"];
        parts.into_iter().fold(first, |key, part| {
            hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref())
        })
    }
}

/// The hash of the canonical request, in hexadecimal digits.
fn canonical_hash(request: &Unsigned<'_>, headers: &Headers, names: &str) -> String {
    let hash = |bytes: &[u8]| hex::encode(digest::digest(&digest::SHA256, bytes));
    let mut canonical = format!("POST\n{}\n\n", request.path).into_bytes();
    for (name, value) in headers {
        canonical.extend([name.as_bytes(), b":", value.expose(), b"\n"].concat());
    }
    canonical.extend(format!("\n{names}\n{}", hash(request.body)).into_bytes());
    hash(Value::new(canonical).expose())
}

/// A time as `20261130T080102Z`.
fn basic_form(now: Timestamp) -> String {
    let text = now.to_string();
    let seconds = text.split(['.', 'Z']).next().unwrap_or_default();
    seconds.chars().filter(|c| !matches!(c, '-' | ':')).chain(['Z']).collect()
}
