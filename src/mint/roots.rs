//! The fields that a credential is made from.

use crate::egress::{Headers, MAX_REPLY_BYTES, Request};
use crate::model::{FieldName, Fields, Value};

use super::failure::Failure;

/// The fields of a connection, read as a protocol needs them. An empty value counts as a missing one.
#[derive(Clone, Copy)]
pub struct Roots<'a>(pub &'a Fields);

impl<'a> Roots<'a> {
    /// The value of a field; `None` if it is missing or empty.
    pub fn value(self, name: &str) -> Option<&'a Value> {
        let found = self.0.iter().find(|(field, _)| field.as_str() == name);
        found.map(|(_, value)| value).filter(|value| !value.is_empty())
    }

    /// A copy of the value of a field; `None` if it is missing or empty.
    pub fn copy(self, name: &str) -> Option<Value> {
        self.value(name).map(|value| Value::new(value.expose().to_vec()))
    }

    /// The bytes of a field that there must be.
    ///
    /// # Errors
    /// If it is missing.
    pub fn bytes(self, name: &str) -> Result<&'a [u8], Failure> {
        self.value(name).map(Value::expose).ok_or_else(|| Failure::field(name, "is missing"))
    }

    /// The text of a field that there must be.
    ///
    /// # Errors
    /// If it is missing, or no text.
    pub fn text(self, name: &str) -> Result<&'a str, Failure> {
        self.optional(name)?.ok_or_else(|| Failure::field(name, "is missing"))
    }

    /// The text of a field; `None` if it is missing or empty.
    ///
    /// # Errors
    /// If it is no text.
    pub fn optional(self, name: &str) -> Result<Option<&'a str>, Failure> {
        let text = self.value(name).map(|value| std::str::from_utf8(value.expose()));
        text.transpose().map_err(|_| Failure::field(name, "is not UTF-8 text"))
    }

    /// The text of a field that must be of some form, as `is_right` says; `form` describes it.
    ///
    /// # Errors
    /// If it is no text, or of another form.
    pub fn checked(
        self,
        name: &str,
        form: &str,
        is_right: impl FnOnce(&str) -> bool,
    ) -> Result<Option<&'a str>, Failure> {
        match self.optional(name)? {
            Some(text) if !is_right(text) => Err(Failure::field(name, &format!("is not {form}"))),
            found => Ok(found),
        }
    }

    /// The fields of a family, by the part of the name after `prefix`.
    pub fn family(
        self,
        prefix: &'static str,
    ) -> impl Iterator<Item = (&'a FieldName, &'a str, &'a Value)> {
        self.0.iter().filter_map(move |(name, value)| {
            name.as_str().strip_prefix(prefix).map(|rest| (name, rest, value))
        })
    }

    /// A request to the connection's upstream, which its `ca_certificate` vouches for if it has one.
    pub fn request(
        self,
        method: &'static str,
        url: Value,
        headers: Headers,
        body: Value,
    ) -> Request {
        let ca_certificate = self.value("ca_certificate").map(|pem| pem.expose().to_vec());
        Request {
            method,
            url,
            headers,
            body,
            ca_certificate,
            is_private_denied: false,
            max_reply_bytes: MAX_REPLY_BYTES,
        }
    }

    /// A form to be sent to the connection's upstream.
    pub fn form(self, url: &str, mut headers: Headers, form: String) -> Request {
        headers.push(header("content-type", "application/x-www-form-urlencoded"));
        headers.push(header("accept", "application/json"));
        self.request("POST", text_value(url), headers, Value::new(form.into_bytes()))
    }
}

/// A header.
pub fn header(name: &str, value: &str) -> (String, Value) {
    (name.to_owned(), text_value(value))
}

/// A text as a value.
pub fn text_value(text: &str) -> Value {
    Value::new(text.as_bytes().to_vec())
}

/// True for text of these ASCII letters, digits and signs, at least one.
pub fn is_of(text: &str, signs: &str) -> bool {
    let admits = |c: char| c.is_ascii_alphanumeric() || signs.contains(c);
    !text.is_empty() && text.chars().all(admits)
}
