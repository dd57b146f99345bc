//! What a form takes out of a credential, and how it says that it cannot.

use crate::cli::io::failure::{Failure, exit};
use crate::cli::step::credential::Credential;

/// The fields of one credential, for one form.
pub struct Picker<'a> {
    /// The credential.
    pub credential: &'a Credential,
    format: &'static str,
}

impl<'a> Picker<'a> {
    /// For the form of this name.
    pub fn new(credential: &'a Credential, format: &'static str) -> Self {
        Self { credential, format }
    }

    /// Whether the connection is of this integration and credential kind.
    pub fn is(&self, integration: &str, kind: &str) -> bool {
        self.credential.integration == integration && self.credential.kind == kind
    }

    /// The credential is not what the form is for.
    pub fn wrong_integration(&self, wanted: &str) -> Failure {
        let Credential { reference, integration, kind, .. } = self.credential;
        let is = match integration.as_str() {
            "" => "is a secret".to_owned(),
            _ => format!("is one of {integration}, of kind {kind}"),
        };
        let text = format!("{} is for {wanted}, and {reference} {is}", self.format);
        Failure::new("INTEGRATION_UNFIT", text, exit::FAILED)
    }

    /// A value that the form cannot hold.
    pub fn unfit(&self, field: &str, why: &str) -> Failure {
        let reference = &self.credential.reference;
        let text = format!(
            "{field} of {reference} {why}, which {} cannot hold; use --format json or raw",
            self.format
        );
        Failure::new("VALUE_UNFIT", text, exit::FAILED)
    }

    /// A field's value, if it is there: a text without a zero byte.
    ///
    /// # Errors
    /// If it is not.
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

    /// A field's value.
    ///
    /// # Errors
    /// If there is none, or as [`Picker::find`].
    pub fn get(&self, field: &str) -> Result<&'a str, Failure> {
        self.find(field)?.ok_or_else(|| {
            let text = format!(
                "{} needs {field}, which {} does not have",
                self.format, self.credential.reference
            );
            Failure::new("INTEGRATION_UNFIT", text, exit::FAILED)
        })
    }

    /// A field's value, for a header of HTTP: printable, and without spaces at its ends.
    ///
    /// # Errors
    /// If it is not, or as [`Picker::get`].
    pub fn get_for_header(&self, field: &str) -> Result<&'a str, Failure> {
        let value = self.get(field)?;
        let is_fit = value.trim() == value && value.chars().all(|c| matches!(c, ' '..='~'));
        match is_fit {
            true => Ok(value),
            false => Err(self.unfit(field, "holds characters that no header of HTTP may")),
        }
    }
}
