//! Whether verifiers know a key of the broker's issuer.

use serde::Deserialize;

use crate::egress::{Egress, MAX_REPLY_BYTES, Request};
use crate::identity::{IssuerUrl, KEY_SET};
use crate::model::Value;

use super::failure::Failure;
use super::roots::{header, text_value};

/// Whether a key is among those that are hosted for an issuer.
///
/// # Errors
/// If that cannot be told, because the hosted keys cannot be read.
pub async fn is_hosted(egress: &Egress, issuer: &IssuerUrl, key: &str) -> Result<bool, Failure> {
    #[derive(Deserialize)]
    struct KeySet {
        keys: Vec<Key>,
    }
    #[derive(Deserialize)]
    struct Key {
        kid: Option<String>,
    }
    let request = Request {
        method: "GET",
        url: text_value(&format!("{issuer}/{KEY_SET}")),
        headers: vec![header("accept", "application/json")],
        body: Value::new(Vec::new()),
        ca_certificate: None,
        is_private_denied: false,
        max_reply_bytes: MAX_REPLY_BYTES,
    };
    let reply = egress.exchange(request).await?;
    if reply.status != 200 {
        return Err(Failure::invalid(&format!("the host answered HTTP {}", reply.status)));
    }
    let hosted: KeySet = serde_json::from_slice(reply.body.expose())
        .map_err(|_| Failure::invalid("what is hosted is no set of keys"))?;
    Ok(hosted.keys.iter().any(|hosted| hosted.kid.as_deref() == Some(key)))
}
