//! What is sent with a credential: its values in their places (pure).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::super::released::FETCHED_TOKEN;
use super::super::schema::CredentialKind;
use super::super::template::{TextPart, parts};
use super::SendRule;
use crate::model::{Fields, Value};

/// The most bytes that one text is rendered to. A short text can refer to a long value many times.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// What is sent with a credential.
#[derive(Default)]
pub struct Rendered {
    /// Headers by name.
    pub headers: Vec<(String, Value)>,
    /// URL parameters by name, in the clear.
    pub parameters: Vec<(String, Value)>,
    /// The connection's own body, and its content type.
    pub body: Option<(Value, Option<Value>)>,
    /// The client certificate and its private key, PEM.
    pub identity: Option<(Value, Value)>,
    /// The values that an answer must not reveal.
    pub secrets: Vec<Value>,
}

/// Renders what is sent with a credential. `fields` are what the permit has opened: the stored values, or the minted
/// credential.
///
/// # Errors
/// Which field is missing or refers to nothing. It shows no value.
pub fn render(rule: &SendRule, kind: &CredentialKind, fields: &Fields) -> Result<Rendered, String> {
    let mut rendered = Rendered::default();
    let find = |name: &str| value(fields, name).map(Value::expose);
    for (name, text) in &rule.headers {
        rendered.add_header(name, &filled(text, name, find)?);
    }
    let is_complete = kind.source.is_some();
    if rule.own_parts && is_complete {
        // Masks find the complete parts by the token in them.
        find(FETCHED_TOKEN).ok_or_else(|| missing(FETCHED_TOKEN))?;
    }
    if rule.own_parts {
        own_parts(&mut rendered, fields, is_complete)?;
    }
    if let Some(login) = &rule.basic {
        let user = filled(&login.username, "username", find)?;
        let password = filled(&login.password, "password", find)?;
        let pair = Zeroizing::new([&user, b":".as_slice(), &password].concat());
        let encoded = STANDARD.encode(&*pair);
        let basic = Zeroizing::new(format!("Basic {encoded}").into_bytes());
        rendered.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        rendered.secrets.push(Value::new(encoded.into_bytes()));
        rendered.add_header("Authorization", &basic);
    }
    if rule.client_certificate {
        let of = |name: &str| value(fields, name).map(copy).ok_or_else(|| missing(name));
        rendered.identity = Some((of("certificate")?, of("private_key")?));
    }
    // A private key signs, and is not sent. Complete parts need not be secret beside their token.
    let is_sent = |name: &str| !(rule.client_certificate && name == "private_key");
    let is_whole = |name: &str| !(rule.own_parts && is_complete && is_own_part(name));
    let secrets = fields.iter().filter(|(name, _)| {
        let name = name.as_str();
        let is_sensitive = kind.sent_field(name).is_none_or(|rule| rule.sensitive);
        is_sensitive && is_sent(name) && is_whole(name)
    });
    rendered.secrets.extend(secrets.map(|(_, value)| copy(value)));
    Ok(rendered)
}

impl Rendered {
    /// The type of the body, by the headers; `None` if they have none that is text.
    pub fn content_type(&self) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-type"))?;
        std::str::from_utf8(value.expose()).ok()
    }

    fn add_header(&mut self, name: &str, value: &[u8]) {
        self.headers.push((name.to_owned(), Value::new(value.to_vec())));
    }
}

/// Renders the parts that the connection itself has. Those of a minted credential are complete.
fn own_parts(rendered: &mut Rendered, fields: &Fields, is_complete: bool) -> Result<(), String> {
    let text = |name: &str, value: &Value| match is_complete {
        true => Ok(Zeroizing::new(value.expose().to_vec())),
        false => {
            let text = std::str::from_utf8(value.expose());
            let text = text.map_err(|_| format!("the field {name} is no UTF-8 text"))?;
            let token = |token: &str| value_of(fields, &format!("tokens.{token}"));
            filled(text, name, token)
        }
    };
    for (name, value) in fields {
        let name = name.as_str();
        if let Some(header) = name.strip_prefix("headers.") {
            rendered.add_header(header, &text(name, value)?);
        } else if let Some(parameter) = name.strip_prefix("url_parameters.") {
            let value = Value::new(text(name, value)?.to_vec());
            rendered.parameters.push((parameter.to_owned(), value));
        } else if name == "body" {
            let content_type = self::value(fields, "content_type").map(copy);
            rendered.body = Some((Value::new(text(name, value)?.to_vec()), content_type));
        }
    }
    Ok(())
}

/// True for a field that [`own_parts`] sends.
fn is_own_part(name: &str) -> bool {
    name == "body" || name.starts_with("headers.") || name.starts_with("url_parameters.")
}

/// A text with the values of its references in their places. `place` names the text.
fn filled<'a>(
    text: &str,
    place: &str,
    find: impl Fn(&str) -> Option<&'a [u8]>,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut filled = Zeroizing::new(Vec::with_capacity(text.len() + 1024));
    for part in parts(text) {
        let bytes = match part {
            TextPart::Text(text) => text.as_bytes(),
            TextPart::Reference(name) => find(name.trim()).ok_or_else(|| missing(name.trim()))?,
            TextPart::Unclosed => return Err(format!("{place} has a {{{{ without its }}}}")),
        };
        if filled.len() + bytes.len() > MAX_TEXT_BYTES {
            return Err(format!("{place} is longer than 64 KiB with its values"));
        }
        filled.extend_from_slice(bytes);
    }
    Ok(filled)
}

fn missing(name: &str) -> String {
    format!("the field {name} is missing")
}

fn value<'a>(fields: &'a Fields, name: &str) -> Option<&'a Value> {
    fields.iter().find(|(field, _)| field.as_str() == name).map(|(_, value)| value)
}

fn value_of<'a>(fields: &'a Fields, name: &str) -> Option<&'a [u8]> {
    value(fields, name).map(Value::expose)
}

fn copy(value: &Value) -> Value {
    Value::new(value.expose().to_vec())
}

#[cfg(test)]
mod tests {
    use super::super::super::built_in;
    use super::*;
    use crate::model::{FieldName, IntegrationName};

    fn rendered(kind: &str, pairs: &[(&str, &str)]) -> Result<Rendered, String> {
        let (integration, kind) = kind.split_once('/').unwrap();
        let integration = &built_in()[&IntegrationName::parse(integration).unwrap()];
        let kind = integration.kind(kind).unwrap();
        let field = |(name, value): &(&str, &str)| {
            (FieldName::parse(name).unwrap(), Value::new((*value).into()))
        };
        render(kind.send("").unwrap(), kind, &pairs.iter().map(field).collect())
    }

    fn texts(pairs: &[(String, Value)]) -> Vec<(&str, &str)> {
        let text = |value: &'_ Value| std::str::from_utf8(value.expose()).unwrap().to_owned();
        let all = pairs.iter().map(|(name, value)| (name.as_str(), text(value).leak() as &str));
        all.collect()
    }

    fn is_masked(rendered: &Rendered, text: &str) -> bool {
        rendered.secrets.iter().any(|secret| secret.expose() == text.as_bytes())
    }

    #[test]
    fn a_credential_is_rendered_where_its_upstream_expects_it() {
        for (kind, fields, header, value) in [
            ("github/token", [("access_token", "s3cret-t")], "Authorization", "Bearer s3cret-t"),
            ("pagerduty/access_token", [("access_token", "k")], "Authorization", "Token token=k"),
            ("gitlab/api_token", [("api_token", "k")], "PRIVATE-TOKEN", "k"),
            ("okta/api_token", [("api_token", "k")], "Authorization", "SSWS k"),
            ("sysdig/token", [("token", "k")], "Authorization", "Bearer k"),
            ("gcp/service_account", [("access_token", "k")], "Authorization", "Bearer k"),
            ("oauth2/refresh_token", [("access_token", "k")], "Authorization", "Bearer k"),
        ] {
            let found = rendered(kind, &fields).unwrap();
            assert_eq!(texts(&found.headers), [(header, value)], "{kind}");
        }
        let basic = rendered("jira/basic", &[("username", "u"), ("password", "p:w")]).unwrap();
        assert_eq!(texts(&basic.headers), [("Authorization", "Basic dTpwOnc=")]);
        assert!(
            is_masked(&basic, "dTpwOnc=") && is_masked(&basic, "p:w") && !is_masked(&basic, "u")
        );
        let two = rendered("datadog/api_key", &[("api_key", "a"), ("app_key", "b")]).unwrap();
        assert_eq!(texts(&two.headers), [("DD-API-KEY", "a"), ("DD-APPLICATION-KEY", "b")]);
        assert!(rendered("datadog/api_key", &[("api_key", "a")]).is_err());
    }

    #[test]
    fn own_parts_get_their_tokens_and_nothing_else() {
        let fields = [
            ("base_url", "https://a.example"),
            ("tokens.key", "s3cret"),
            ("headers.Authorization", "Bearer {{ key }}"),
            ("headers.Accept", "text/plain"),
            ("url_parameters.k", "{{key}}!"),
            ("body", "{\"k\": \"{{ key }}\"}"),
            ("content_type", "application/json"),
        ];
        let found = rendered("http/token", &fields).unwrap();
        let headers = [("Accept", "text/plain"), ("Authorization", "Bearer s3cret")];
        assert_eq!(texts(&found.headers), headers);
        assert_eq!(texts(&found.parameters), [("k", "s3cret!")]);
        let (body, content_type) = found.body.as_ref().unwrap();
        assert_eq!(body.expose(), b"{\"k\": \"s3cret\"}");
        assert_eq!(content_type.as_ref().unwrap().expose(), b"application/json");
        assert!(is_masked(&found, "s3cret") && !is_masked(&found, "text/plain"));
        let unknown = [("tokens.key", "s3cret"), ("headers.A", "{{ other }}")];
        let fault = rendered("http/token", &unknown).err().unwrap();
        assert!(fault.contains("tokens.other") || fault.contains("other"), "{fault}");
        assert!(!fault.contains("s3cret"));
    }

    #[test]
    fn a_minted_part_is_complete_and_is_rendered_once() {
        let fields = [
            ("base_url", "https://a.example"),
            ("access_token", "a{{ key }}"),
            ("headers.Authorization", "Bearer a{{ key }}"),
            ("headers.Accept", "text/plain"),
        ];
        let found = rendered("http/two_step", &fields).unwrap();
        let headers = [("Accept", "text/plain"), ("Authorization", "Bearer a{{ key }}")];
        assert_eq!(texts(&found.headers), headers);
        assert!(is_masked(&found, "a{{ key }}") && !is_masked(&found, "text/plain"));
        let [base_url, _, header, _] = fields;
        assert!(rendered("http/two_step", &[base_url, header]).is_err());
    }

    #[test]
    fn a_client_certificate_is_no_part_of_the_message() {
        let fields = [("certificate", "PUBLIC"), ("private_key", "PRIVATE")];
        let found = rendered("http/mtls", &fields).unwrap();
        assert!(found.headers.is_empty() && found.secrets.is_empty());
        let (certificate, key) = found.identity.unwrap();
        assert_eq!((certificate.expose(), key.expose()), (&b"PUBLIC"[..], &b"PRIVATE"[..]));
    }
}
