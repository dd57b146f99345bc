//! The URL that names the issuer.

use std::fmt;

/// The longest URL, in bytes: AWS takes no longer one.
const MAX_BYTES: usize = 255;

/// The URL of an issuer: `https://HOST[:PORT][/PATH]`, without a slash at its end. Verifiers compare it letter by letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerUrl(String);

impl IssuerUrl {
    /// The form, for errors.
    pub const FORM: &'static str = "an issuer's URL is https://HOST[:PORT][/PATH]: lower-case host, no user, query, \
        fragment or escape, no slash at its end, at most 255 bytes";

    /// Parses a URL. `None` if it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let (authority, path) = {
            let rest = text.strip_prefix("https://")?;
            rest.split_at(rest.find('/').unwrap_or(rest.len()))
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        let is_port = port.is_none_or(|port| !port.starts_with('0') && port.parse::<u16>().is_ok());
        let is_of_host = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        let is_label = |label: &str| {
            !label.is_empty() && !label.starts_with('-') && label.chars().all(is_of_host)
        };
        let is_of_path = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        let is_segment = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment.chars().all(is_of_path)
        };
        let is_right = text.len() <= MAX_BYTES
            && is_port
            && host.split('.').all(is_label)
            && path.split('/').skip(1).all(is_segment);
        is_right.then(|| Self(text.to_owned()))
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuers_url_has_one_form() {
        for right in [
            "https://keyhatch.example.com",
            "https://127.0.0.1:8443",
            "https://storage.example.com/bucket/keyhatch-1",
        ] {
            assert_eq!(IssuerUrl::parse(right).unwrap().as_str(), right);
        }
        let long = format!("https://{}.example", "a".repeat(255));
        for wrong in [
            "",
            "http://keyhatch.example.com",
            "https://",
            "https://keyhatch.example.com/",
            "https://Keyhatch.example.com",
            "https://keyhatch..example.com",
            "https://a@keyhatch.example.com",
            "https://keyhatch.example.com:0",
            "https://keyhatch.example.com:70000",
            "https://keyhatch.example.com:",
            "https://keyhatch.example.com/a//b",
            "https://keyhatch.example.com/../b",
            "https://keyhatch.example.com/a?b",
            "https://keyhatch.example.com/a#b",
            "https://keyhatch.example.com/%41",
            "https://keyhatch.example.com /a",
            &long,
        ] {
            assert_eq!(IssuerUrl::parse(wrong), None, "{wrong}");
        }
    }
}
