//! The broker, as the listener asks it.

use std::sync::Arc;
use std::time::Duration;

use crate::cli::identity::session::Session;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::say;
use crate::cli::step::credential::Credential;
use crate::cli::step::get::within;
use crate::cli::step::mask::mask_values;
use crate::mask::Masks;
use crate::model::Reference;

/// How long the broker may take. AWS SDKs wait for one or two seconds.
const BROKER_TIMEOUT: Duration = Duration::from_millis(1900);

/// A session with the broker that masks every value before the command can print it.
pub struct MaskedBroker {
    pub session: Arc<Session>,
    /// None if nothing is masked.
    pub masks: Option<Arc<Masks>>,
}

impl MaskedBroker {
    /// Resolves these fields, or all if there are none.
    pub async fn resolve(
        &self,
        reference: &Reference,
        fields: Vec<String>,
    ) -> Result<Credential, Failure> {
        let credential = within(BROKER_TIMEOUT, self.session.resolve(reference, fields)).await?;
        mask_values(self.masks.as_deref(), &credential)?;
        Ok(credential)
    }

    /// Writes a line to stderr. The line may name something that was part of a value.
    pub fn say(&self, text: &str) {
        match &self.masks {
            Some(masks) => say(&masks.masked(text)),
            None => say(text),
        }
    }
}
