//! What can be seen to be wrong with values without asking anybody. A finding never shows a value.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::check::find_field;
use super::schema::{CredentialKind, Form};
use crate::model::{Fields, Value};

/// Shorter texts decode to something printable by chance.
const LEAST_ENCODED_BYTES: usize = 16;

/// One thing that is wrong with one field, or with several together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which field; empty if it is about several.
    pub field: String,
    /// What is wrong, and what to do.
    pub description: String,
}

impl Finding {
    /// A finding.
    pub fn new(field: &str, description: impl Into<String>) -> Self {
        Self { field: field.to_owned(), description: description.into() }
    }
}

/// What is wrong with these values as texts: the forms that need a certificate library are the caller's.
pub fn findings(kind: &CredentialKind, fields: &Fields) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, value) in fields {
        let form = find_field(kind, name.as_str()).and_then(|rule| rule.form);
        let texts =
            text_of(value, form).into_iter().chain(form.and_then(|form| shape(value, form)));
        found.extend(texts.map(|text| Finding::new(name.as_str(), text)));
    }
    found
}

/// What is odd about a value of any kind.
fn text_of(value: &Value, form: Option<Form>) -> Option<&'static str> {
    let bytes = value.expose();
    if bytes.is_empty() {
        return Some("the value is empty");
    }
    let is_block = matches!(form, Some(Form::Certificate | Form::PrivateKey | Form::Json));
    if !is_block && bytes.iter().any(|byte| b"\r\n".contains(byte)) && !is_several_lines(bytes) {
        return Some("the value ends in a newline, as echo adds one; write it again without");
    }
    if !is_block && bytes.trim_ascii().len() != bytes.len() {
        return Some("the value begins or ends with white space; write it again without");
    }
    if is_encoded(bytes, form) {
        return Some("the value looks like the Base64 of the real one; write what it decodes to");
    }
    None
}

/// Whether there is a line break anywhere but at the end.
fn is_several_lines(bytes: &[u8]) -> bool {
    bytes.trim_ascii().iter().any(|byte| b"\r\n".contains(byte))
}

/// Whether a text is the Base64 of a text. Random bytes hardly ever decode to what can be printed.
fn is_encoded(bytes: &[u8], form: Option<Form>) -> bool {
    let trimmed = bytes.trim_ascii();
    if trimmed.len() < LEAST_ENCODED_BYTES || form == Some(Form::Certificate) {
        return false;
    }
    let decoded = STANDARD.decode(trimmed).or_else(|_| STANDARD_NO_PAD.decode(trimmed));
    let decoded = decoded.map(zeroize::Zeroizing::new);
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    decoded.is_ok_and(|decoded| decoded.iter().all(is_text))
}

/// Whether JSON and addresses are what they should be.
fn shape(value: &Value, form: Form) -> Option<&'static str> {
    match form {
        Form::Json => {
            let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(value.expose());
            parsed.is_err().then_some("the value is no JSON")
        }
        Form::Url => {
            let is_url = std::str::from_utf8(value.expose()).is_ok_and(is_url);
            let text = "the value is no absolute URL, such as https://api.example.com/v1";
            (!is_url).then_some(text)
        }
        Form::Certificate | Form::PrivateKey => None,
    }
}

/// A scheme, a host, perhaps a port and a path (RFC 3986, without user information).
fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.trim_ascii().split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && !host.is_empty()
        && host.bytes().all(host_byte)
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
        && !text.trim_ascii().contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::super::built_in;
    use super::*;
    use crate::model::{FieldName, IntegrationName};

    fn found(field: &str, value: &str) -> Vec<String> {
        let integration = &built_in()[&IntegrationName::parse("http").unwrap()];
        let kind = integration.kind("token").unwrap();
        let name = FieldName::parse(field).unwrap();
        let fields = Fields::from([(name, Value::new(value.into()))]);
        findings(kind, &fields).into_iter().map(|finding| finding.description).collect()
    }

    #[test]
    fn what_is_odd_about_a_value_is_found_and_what_is_not_is_left_alone() {
        for (value, expected) in [
            ("", "empty"),
            ("token\n", "newline"),
            (" token", "white space"),
            ("QUtJQUlPU0ZPRE5ON0VYQU1QTEU=", "Base64"),
        ] {
            let found = found("tokens.key", value);
            assert!(found.len() == 1 && found[0].contains(expected), "{value:?}: {found:?}");
            assert!(value.is_empty() || !found[0].contains(value.trim()));
        }
        for fine in ["token", "two\nlines", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "abcd1234"]
        {
            assert!(found("tokens.key", fine).is_empty(), "{fine:?}");
        }
    }

    #[test]
    fn addresses_have_a_scheme_and_a_host() {
        for good in ["https://a.example", "http://[::1]:8080/x?y#z", "https://a:443", "s3+x://b/c"]
        {
            assert!(found("base_url", good).is_empty(), "{good}");
        }
        for bad in ["a.example", "https://", "https://a b", "https:///x", "https://a:99999", "://a"]
        {
            assert!(!found("base_url", bad).is_empty(), "{bad}");
        }
    }
}
