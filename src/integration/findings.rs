//! Faults of values that are visible without asking a service. A finding never shows a value.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::misplaced::{password, user_information};
use super::pem;
use super::placeholder::{placeholder_fault, reference_fault};
use super::schema::{CredentialKind, FieldRule, ValueForm, find_field};
use crate::model::{FieldName, Value};

/// The shortest text, in bytes, that counts as encoded: shorter texts decode to printable text by chance.
const LEAST_ENCODED_BYTES: usize = 16;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The broker changed the value.
    Note,
    /// The value is most likely a mistake.
    Warning,
    /// The value cannot work for its purpose.
    Error,
}

/// A fault of one field, or of several together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The field; empty if it concerns several.
    pub field: String,
    /// The severity.
    pub severity: Severity,
    /// The fault and the remedy.
    pub description: String,
}

impl Finding {
    /// A value that cannot work.
    pub fn error(field: &str, description: impl Into<String>) -> Self {
        Self::new(field, Severity::Error, description)
    }

    /// A value that is most likely a mistake.
    pub fn warning(field: &str, description: impl Into<String>) -> Self {
        Self::new(field, Severity::Warning, description)
    }

    fn new(field: &str, severity: Severity, description: impl Into<String>) -> Self {
        Self { field: field.to_owned(), severity, description: description.into() }
    }

    /// A value that was given without a newline and is stored with it.
    pub fn mended(field: &str) -> Self {
        let text = "a newline was added at its end when it was written, as its format needs";
        Self::new(field, Severity::Note, text)
    }
}

/// The findings about values as texts. The caller checks the forms that need a certificate library.
pub fn findings(kind: &CredentialKind, fields: &BTreeMap<FieldName, &Value>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, value) in fields {
        let rule = find_field(kind, name.as_str());
        found.extend(of_value(name.as_str(), value, rule));
    }
    found.extend(of_access_key(fields));
    found.extend(of_key_file(fields));
    found
}

/// A doubt that example values raise, too: shown when a connection is tested, and not when it is written.
pub fn doubts(fields: &BTreeMap<FieldName, &Value>) -> Option<Finding> {
    let secret = field(fields, "secret_access_key").filter(|secret| secret.len() != 40)?;
    let begins = |start: &[u8]| begins(fields, "access_key_id", start);
    let is_of_aws = begins(b"AKIA") || begins(b"ASIA");
    let text = "secret keys of AWS have 40 characters and this value has not; is it whole?";
    (is_of_aws && !secret.is_empty()).then(|| Finding::warning("secret_access_key", text))
}

fn field<'a>(fields: &BTreeMap<FieldName, &'a Value>, name: &str) -> Option<&'a [u8]> {
    let found = fields.iter().find(|(field, _)| field.as_str() == name);
    found.map(|(_, value)| value.expose())
}

/// True if there is the ID of an access key of AWS with this beginning. Keys of other S3 services look different.
fn begins(fields: &BTreeMap<FieldName, &Value>, id: &str, start: &[u8]) -> bool {
    field(fields, id).is_some_and(|id| {
        id.len() == 20 && id.iter().all(u8::is_ascii_alphanumeric) && id.starts_with(start)
    })
}

/// Parts of an AWS access key that do not fit. A long-lived key begins with AKIA and has no session token; a temporary key
/// begins with ASIA and has one.
fn of_access_key(fields: &BTreeMap<FieldName, &Value>) -> Vec<Finding> {
    let of_key = |id: &str, token: &str| {
        let has_token = field(fields, token).is_some();
        let text = match (begins(fields, id, b"AKIA"), begins(fields, id, b"ASIA")) {
            (true, _) if has_token => {
                "a key that begins with AKIA has no session token, so this one is another key's; remove it"
            }
            (_, true) if !has_token => {
                "a key that begins with ASIA is temporary and works with its session token alone; add it"
            }
            _ => return None,
        };
        Some(Finding::error(token, text))
    };
    let keys =
        [("access_key_id", "session_token"), ("source_access_key_id", "source_session_token")];
    keys.into_iter().filter_map(|(id, token)| of_key(id, token)).collect()
}

/// A file of Google Cloud that is a person's login instead of a service account's key.
fn of_key_file(fields: &BTreeMap<FieldName, &Value>) -> Option<Finding> {
    #[derive(serde::Deserialize)]
    struct File {
        #[serde(rename = "type")]
        of: String,
    }
    let file: File = serde_json::from_slice(field(fields, "service_account_key")?).ok()?;
    let text = "the file is a person's login, as gcloud keeps it; write a service account's key";
    (file.of == "authorized_user").then(|| Finding::error("service_account_key", text))
}

/// The findings about a text that belongs to no kind.
pub fn text_findings(name: &str, value: &Value) -> Vec<Finding> {
    of_value(name, value, None)
}

/// The findings about one value. A value without a rule is a secret.
fn of_value(name: &str, value: &Value, rule: Option<&FieldRule>) -> Vec<Finding> {
    let form = rule.and_then(|rule| rule.form);
    let bytes = value.expose();
    let text = std::str::from_utf8(bytes).ok();
    let is_sensitive = rule.is_none_or(|rule| rule.sensitive);
    let is_template = rule.is_some_and(|rule| rule.template);
    // Documents may hold keys in their own forms, too.
    let is_of_pem = matches!(form, Some(ValueForm::PrivateKey | ValueForm::Certificate));
    let of_pem = text.filter(|text| is_of_pem || pem::begins(text)).and_then(pem::fault);
    let of_pem = of_pem.map(|fault| format!("the value is PEM, and {fault}"));
    let of_pem = of_pem.map(|text| match is_of_pem {
        true => Finding::error(name, text),
        false => Finding::warning(name, text),
    });
    // At most one finding about the text: the first explains the others.
    let of_text = of_pem.or_else(|| odd(bytes, form).map(|text| Finding::warning(name, text)));
    let another = text.filter(|_| !is_template).and_then(|text| {
        reference_fault(text).or_else(|| placeholder_fault(text).filter(|_| is_sensitive))
    });
    let of_form = form.and_then(|form| shape(value, form));
    let warnings = another.map(|text| Finding::warning(name, text));
    let errors = of_form.map(|text| Finding::error(name, text));
    let of_user = text.filter(|_| !is_sensitive).and_then(|text| of_user(name, text));
    of_text.into_iter().chain(warnings).chain(errors).chain(of_user).collect()
}

/// A login in an address that can be read. Steps expect the login in other fields.
fn of_user(name: &str, address: &str) -> Option<Finding> {
    let user = user_information(address).filter(|user| !user.contains("{{"))?;
    if password(address).is_some() {
        let text = "the address holds a password, and this field can be read; put it into a sensitive field";
        return Some(Finding::error(name, text));
    }
    let text = "the address names a user; write it without, and the user into a field of its own";
    (!user.is_empty()).then(|| Finding::warning(name, text))
}

/// An odd property of the bytes of a value.
fn odd(bytes: &[u8], form: Option<ValueForm>) -> Option<&'static str> {
    if bytes.is_empty() {
        return Some("the value is empty");
    }
    let is_block = !matches!(form, None | Some(ValueForm::Url));
    let is_several = is_several_lines(bytes);
    if !is_block && bytes.iter().any(|byte| b"\r\n".contains(byte)) && !is_several {
        return Some("the value ends in a newline, as echo adds one; write it again without");
    }
    if !is_block && !is_several && bytes.trim_ascii().len() != bytes.len() {
        return Some("the value begins or ends with white space; write it again without");
    }
    if is_encoded(bytes, form) {
        return Some("the value looks like the Base64 of the real one; write what it decodes to");
    }
    None
}

/// True if there is a line break before the end.
fn is_several_lines(bytes: &[u8]) -> bool {
    bytes.trim_ascii().iter().any(|byte| b"\r\n".contains(byte))
}

/// True if a text is the Base64 of a printable text. Random bytes hardly ever decode to one.
fn is_encoded(bytes: &[u8], form: Option<ValueForm>) -> bool {
    let trimmed = bytes.trim_ascii();
    if trimmed.len() < LEAST_ENCODED_BYTES || form == Some(ValueForm::Certificate) {
        return false;
    }
    let decoded = STANDARD.decode(trimmed).or_else(|_| STANDARD_NO_PAD.decode(trimmed));
    let decoded = decoded.map(zeroize::Zeroizing::new);
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    decoded.is_ok_and(|decoded| decoded.iter().all(is_text))
}

/// A fault of JSON or a URL.
fn shape(value: &Value, form: ValueForm) -> Option<&'static str> {
    match form {
        ValueForm::Json => {
            let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(value.expose());
            parsed.is_err().then_some("the value is not JSON")
        }
        ValueForm::Url => {
            let is_url = std::str::from_utf8(value.expose()).is_ok_and(is_url);
            let text = "the value is not an absolute URL, such as https://api.example.com/v1";
            (!is_url).then_some(text)
        }
        // Claims are checked when they are written.
        ValueForm::Certificate | ValueForm::Claims | ValueForm::PrivateKey => None,
    }
}

/// A scheme, a host, perhaps a user, a port and a path (RFC 3986).
fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.trim_ascii().split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
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
    use crate::model::IntegrationName;

    fn found(field: &str, value: &str) -> Vec<String> {
        let integration = &built_in()[&IntegrationName::parse("http").unwrap()];
        let kind = integration.kind("token").unwrap();
        let name = FieldName::parse(field).unwrap();
        let value = Value::new(value.into());
        findings(kind, &BTreeMap::from([(name, &value)]))
            .into_iter()
            .map(|finding| finding.description)
            .collect()
    }

    #[test]
    fn findings_name_odd_values_and_no_others() {
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
        let key_file =
            r#"{"private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}"#;
        assert!(found("tokens.key", key_file).is_empty());
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
