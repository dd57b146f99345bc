//! The claims that a connection adds to the tokens of the broker's issuer.

use serde_json::{Map, Value as Json};

/// The claims that the broker sets itself. `azp` is among them, because some verifiers read it in place of `aud`.
const OWN: [&str; 13] = [
    "attempt", "aud", "azp", "executor", "exp", "iat", "iss", "jti", "nbf", "run", "step", "sub",
    "workflow",
];
/// The most bytes of all claims: a token is sent in a header.
const MAX_BYTES: usize = 2048;

/// Reads claims: the members of a JSON object.
///
/// # Errors
/// What is wrong with them, without a value.
pub fn read_claims(text: &str) -> Result<Map<String, Json>, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("claims have at most {MAX_BYTES} bytes together"));
    }
    let claims: Map<String, Json> = serde_json::from_str(text)
        .map_err(|_| "claims are one JSON object, such as {\"team\": \"payments\"}".to_owned())?;
    match OWN.iter().find(|own| claims.contains_key(**own)) {
        Some(own) => Err(format!("the broker sets the claim {own} itself; leave it out")),
        None => Ok(claims),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_claim_takes_the_place_of_the_brokers_own() {
        let claims = read_claims(r#"{"team": "payments", "level": 3, "Sub": "x"}"#).unwrap();
        assert_eq!(claims.len(), 3);
        for own in OWN {
            // The last of two members of one name counts; an escape is the same name.
            let escaped = format!("\\u{:04x}{}", u32::from(own.as_bytes()[0]), &own[1..]);
            for name in [own, &escaped] {
                let text = format!(r#"{{"team": "payments", "{name}": null}}"#);
                assert!(read_claims(&text).unwrap_err().contains(own), "{text}");
            }
        }
        for bad in ["", "[]", "\"a\"", "{", r#"{"a": 1} {}"#] {
            assert!(read_claims(bad).unwrap_err().contains("one JSON object"), "{bad}");
        }
        assert!(read_claims(&format!(r#"{{"a": "{}"}}"#, "x".repeat(MAX_BYTES))).is_err());
    }
}
