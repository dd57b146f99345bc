//! Tokens that prove a key: JSON Web Tokens (RFC 7519), signed with RS256 (RFC 7518, 3.3).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::identity::private_key_der;

use super::failure::Failure;

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    typ: &'static str,
}

/// An RSA key, PEM: PKCS#8 or PKCS#1. `field` names its field in errors.
///
/// # Errors
/// If there is no such key of 2048 to 8192 bits.
pub fn key_pair(field: &str, pem: &[u8]) -> Result<KeyPair, Failure> {
    let der = private_key_der(pem).ok();
    let key =
        der.and_then(|der| KeyPair::from_pkcs8(&der).or_else(|_| KeyPair::from_der(&der)).ok());
    key.ok_or_else(|| Failure::field(field, "has no RSA private key of 2048 to 8192 bits in PEM"))
}

/// The signed token of these claims. `key_id` is the key's name, if who verifies needs it.
///
/// # Errors
/// If the key cannot sign.
pub fn signed(
    key: &KeyPair,
    key_id: Option<&str>,
    claims: &impl Serialize,
) -> Result<String, Failure> {
    let header = Header { alg: "RS256", kid: key_id, typ: "JWT" };
    let text = format!("{}.{}", encoded(&header)?, encoded(claims)?);
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
        .map_err(|_| Failure::field("private_key", "cannot sign"))?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// A part of a token.
fn encoded(part: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_vec(part).map_err(|error| Failure::invalid(&error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}
