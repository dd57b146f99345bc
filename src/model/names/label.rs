//! Labels, which operators write on resources to find them again. They have no meaning for the broker.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::name::Invalid;

/// The most labels on one resource.
const MAX_LABELS: usize = 64;
/// The longest key, in bytes.
const MAX_KEY_BYTES: usize = 63;
/// The longest value, in bytes.
const MAX_LABEL_BYTES: usize = 256;

/// The labels of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Checks labels.
    ///
    /// # Errors
    /// If there are too many, or a key or value is not well formed.
    pub fn parse(given: BTreeMap<String, String>) -> Result<Self, Invalid> {
        for (key, value) in &given {
            let is_key = (1..=MAX_KEY_BYTES).contains(&key.len())
                && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
            if !is_key {
                let rule = "a key is 1 to 63 letters, digits or . _ - /";
                return Err(Invalid::new("label", key, rule));
            }
            if value.len() > MAX_LABEL_BYTES || value.chars().any(char::is_control) {
                let rule = "a value has at most 256 bytes and no control characters";
                return Err(Invalid::new("label", key, rule));
            }
        }
        if given.len() > MAX_LABELS {
            return Err(Invalid::new("set of labels", "", "at most 64 labels"));
        }
        Ok(Self(given))
    }

    /// These labels and others; the others win for equal keys.
    ///
    /// # Errors
    /// If they are too many together.
    pub fn with(&self, others: &Self) -> Result<Self, Invalid> {
        let mut labels = self.0.clone();
        labels.extend(others.0.clone());
        Self::parse(labels)
    }

    /// The value of a key; `None` if there is no such label.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All keys and values.
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}
