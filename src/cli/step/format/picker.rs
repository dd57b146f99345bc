//! The fields of a credential for one form, and the errors about them.

use crate::cli::io::failure::{Failure, exit};
use crate::cli::step::credential::Credential;

/// The fields of one credential, for one form.
pub struct Picker<'a> {
    pub credential: &'a Credential,
    format: String,
}

impl<'a> Picker<'a> {
    /// For the form of this name.
    pub fn new(credential: &'a Credential, format: impl Into<String>) -> Self {
        Self { credential, format: format.into() }
    }

    /// Whether the connection is of this integration and kind.
    pub fn is(&self, integration: &str, kind: &str) -> bool {
        self.credential.integration == integration && self.credential.kind == kind
    }

    /// Whether the connection is a login of PostgreSQL: a stored one, or a role for the step.
    pub fn is_postgres(&self) -> bool {
        self.is("postgres", "password") || self.is("postgres", "dynamic_user")
    }

    /// The failure that the form is for other credentials.
    pub fn wrong_integration(&self, expected: &str) -> Failure {
        let Credential { reference, integration, kind, .. } = self.credential;
        let is = match integration.as_str() {
            "" => "is a secret".to_owned(),
            _ => format!("is one of {integration}, of kind {kind}"),
        };
        let text = format!("{} is for {expected}, and {reference} {is}", self.format);
        Failure::new("INTEGRATION_UNFIT", text, exit::FAILED)
    }

    /// The failure that the form cannot hold a value.
    pub fn unfit(&self, field: &str, why: &str) -> Failure {
        let reference = &self.credential.reference;
        let text = format!(
            "{field} of {reference} {why}, which {} cannot hold; use --format json or raw",
            self.format
        );
        Failure::new("VALUE_UNFIT", text, exit::FAILED)
    }

    /// The value of a field, or None. Fails if the value is not a text, or has a zero byte.
    pub fn find(&self, field: &str) -> Result<Option<&'a str>, Failure> {
        let fields = self.credential.fields.iter();
        let value = fields.into_iter().find(|(name, _)| name.as_str() == field);
        let Some((_, value)) = value else { return Ok(None) };
        let text = std::str::from_utf8(value.expose());
        let text = text.map_err(|_| self.unfit(field, "is not UTF-8"))?;
        match text.contains('\0') {
            true => Err(self.unfit(field, "holds a zero byte")),
            false => Ok(Some(text)),
        }
    }

    /// The value of a field that the form needs.
    pub fn get(&self, field: &str) -> Result<&'a str, Failure> {
        self.find(field)?.ok_or_else(|| {
            let text = format!(
                "{} needs {field}, which {} does not have",
                self.format, self.credential.reference
            );
            Failure::new("INTEGRATION_UNFIT", text, exit::FAILED)
        })
    }

    /// The value of a field for an HTTP header. Fails if it is not printable ASCII, or has spaces at its ends.
    pub fn get_for_header(&self, field: &str) -> Result<&'a str, Failure> {
        let value = self.get(field)?;
        let is_fit = value.trim() == value && value.chars().all(|c| matches!(c, ' '..='~'));
        match is_fit {
            true => Ok(value),
            false => Err(self.unfit(field, "holds characters that no header of HTTP may")),
        }
    }
}
