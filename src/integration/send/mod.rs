//! How the broker sends HTTP requests with a kind's credentials.

pub mod render;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::template::{TextPart, parts};

/// How requests to one service of an upstream are made. `{{ FIELD }}` in a text stands for the value of that field: of the
/// minted credential, if the kind is minted.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SendRule {
    /// The name by which a step asks for the service; empty for the upstream's API.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// The address that paths are below: the first of these whose fields the connection has. None of the fields is sensitive.
    pub base_url: Vec<String>,
    /// The headers with the credential.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<Login>,
    /// True if the connection's fields `headers.*`, `url_parameters.*` and `body` are sent. `{{ NAME }}` in them stands for
    /// the field `tokens.NAME`; those of a minted credential are complete.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_parts: bool,
    /// True if the fields `certificate` and `private_key` are the client certificate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub client_certificate: bool,
    /// The field with the certificates, PEM, that replace the system's roots.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ca_certificate: String,
    /// The fields with which the address would be another, so that nothing is sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// The environment variable from which programs of this service read the address; empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variable: String,
}

/// A user and a password, as texts with fields in them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
}

impl SendRule {
    /// The address of a connection, whose fields that are not sensitive are `public`.
    ///
    /// # Errors
    /// Which field is missing, or is there although nothing can be sent with it.
    pub fn address(&self, public: impl Fn(&str) -> Option<String>) -> Result<String, String> {
        if let Some(field) = self.without.iter().find(|field| public(field).is_some()) {
            return Err(format!("with the field {field} its address is not known"));
        }
        let addresses = self.base_url.iter().map(|text| filled(text, &public));
        let found = addresses.reduce(|found, next| found.or(next));
        found
            .unwrap_or_else(|| Err(String::new()))
            .map_err(|field| format!("the field {field} is missing"))
    }

    /// The names of the fields that its texts name.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        let login = self.basic.iter().flat_map(|login| [&login.username, &login.password]);
        let texts = self.base_url.iter().chain(self.headers.values()).chain(login);
        let named = texts.flat_map(|text| parts(text)).filter_map(|part| match part {
            TextPart::Reference(name) => Some(name.trim()),
            TextPart::Text(_) | TextPart::Unclosed => None,
        });
        let certificate =
            ["certificate", "private_key"].into_iter().filter(|_| self.client_certificate);
        let others = self.without.iter().chain(Some(&self.ca_certificate)).map(String::as_str);
        named.chain(certificate).chain(others.filter(|name| !name.is_empty()))
    }
}

/// A text with its fields filled in. The error is the first field that is missing.
fn filled(text: &str, find: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let filled = parts(text).into_iter().map(|part| match part {
        TextPart::Text(text) => Ok(text.to_owned()),
        TextPart::Reference(name) => find(name.trim()).ok_or_else(|| name.trim().to_owned()),
        TextPart::Unclosed => Err("{{".to_owned()),
    });
    filled.collect()
}

#[cfg(test)]
mod tests {
    use super::super::{built_in, find_field};

    #[test]
    fn what_is_sent_is_made_of_known_fields() {
        let mut services = 0;
        for integration in built_in().values() {
            for kind in &integration.kinds {
                for rule in &kind.sends {
                    services += 1;
                    let place = format!("{}/{} {:?}", integration.name, kind.name, rule.service);
                    let of_service = kind.sends.iter().filter(|one| one.service == rule.service);
                    assert_eq!(of_service.count(), 1, "{place}");
                    for field in rule.fields() {
                        let found = kind.sent_field(field);
                        // Of a minted kind nothing is opened but what a step could get.
                        let public = find_field(kind, field).filter(|rule| !rule.sensitive);
                        let is_open = found.is_some_and(|rule| !rule.root) || public.is_some();
                        assert!(is_open, "{place}: {field}");
                    }
                    let addresses = rule.base_url.iter().flat_map(|text| super::parts(text));
                    for part in addresses {
                        let super::TextPart::Reference(name) = part else { continue };
                        let field = find_field(kind, name.trim()).unwrap();
                        assert!(!field.sensitive && field.destination, "{place}: {name}");
                    }
                    let last = rule.base_url.last().unwrap();
                    assert!(last.starts_with("https://") || last.starts_with("{{"), "{place}");
                    let is_own = rule.own_parts || rule.client_certificate;
                    assert!(is_own || rule.basic.is_some() || !rule.headers.is_empty(), "{place}");
                }
            }
        }
        assert!(services > 30, "{services}");
    }
}
