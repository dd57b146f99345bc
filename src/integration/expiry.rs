//! The expiry that a token names itself.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::model::Timestamp;

/// The expiry of a JSON Web Token by its claim `exp` (RFC 7519, 4.1.4); `None` for any other value. The signature is not
/// checked: nothing is decided by the expiry.
pub fn token_end(value: &[u8]) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Header {
        alg: String,
    }
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let text = std::str::from_utf8(value).ok()?.trim();
    let mut parts = text.split('.');
    let (header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).ok().map(Zeroizing::new);
    let header: Header = serde_json::from_slice(&decoded(header)?).ok()?;
    let claims: Claims = serde_json::from_slice(&decoded(claims)?).ok()?;
    let is_token = parts.next().is_none() && !header.alg.is_empty();
    // NumericDate may have a fraction. A number beyond the calendar is no expiry.
    let seconds = time::Duration::checked_seconds_f64(claims.exp)?.whole_seconds();
    is_token.then(|| Timestamp::from_millis(seconds.saturating_mul(1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2lnbmF0dXJl", part(header), part(claims))
    }

    #[test]
    fn a_token_says_when_it_ends_and_nothing_else_does() {
        let good = token(r#"{"alg":"RS256"}"#, r#"{"sub":"x","exp":1795298123}"#);
        let end = Some(Timestamp::from_millis(1_795_298_123_000));
        assert_eq!(token_end(good.as_bytes()), end);
        assert_eq!(token_end(format!("{good}\n").as_bytes()), end);
        let with_fraction = token(r#"{"alg":"none"}"#, r#"{"exp":1795298123.5}"#);
        assert_eq!(token_end(with_fraction.as_bytes()), end);
        for other in [
            String::new(),
            "a.b.c".to_owned(),
            token("{}", r#"{"exp":1}"#),
            token(r#"{"alg":"x"}"#, r#"{"sub":"x"}"#),
            token(r#"{"alg":"x"}"#, r#"{"exp":"soon"}"#),
            token(r#"{"alg":"x"}"#, r#"{"exp":1e300}"#),
            format!("{good}.more"),
        ] {
            assert_eq!(token_end(other.as_bytes()), None, "{other}");
        }
        assert_eq!(token_end(&[0xff, b'.', b'.']), None);
    }
}
