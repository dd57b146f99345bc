//! The form of an integration's data file.

use regex_lite::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::model::{FieldName, IntegrationName, KindName};

/// How large a pattern may become when it is compiled: matching takes time in proportion.
const MAX_PATTERN_BYTES: usize = 64 * 1024;

/// A type of connections.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Integration {
    /// As connections name it, for example `aws`.
    pub name: IntegrationName,
    /// As people call it.
    pub title: String,
    /// Steps may ask for it without naming a connection: Datadog "propagates" its credential.
    #[serde(default)]
    pub tile: bool,
    /// Environment variables that its tools prefer to the customary ones, or mix with them: inherited, they
    /// would stand in the way.
    #[serde(default)]
    pub shadowing: Vec<String>,
    /// The ways to hold its credentials.
    #[serde(rename = "kind")]
    pub kinds: Vec<CredentialKind>,
}

impl Integration {
    /// The kind of this name.
    pub fn kind(&self, name: &str) -> Option<&CredentialKind> {
        self.kinds.iter().find(|kind| kind.name.as_str() == name)
    }
}

/// One way to hold credentials.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialKind {
    /// For example `access_key`.
    pub name: KindName,
    /// As people call it.
    pub title: String,
    /// Its fields.
    #[serde(rename = "field")]
    pub fields: Vec<FieldRule>,
}

/// The rule of one field, or of a family of fields such as `tokens.*`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FieldRule {
    /// Its name; `tokens.*` stands for `tokens.ANYTHING`, and `*` for any name.
    pub name: String,
    /// What it is, for whoever has to fill it in.
    pub description: String,
    /// A value that shows the form. Never a real one.
    #[serde(default)]
    pub example: String,
    /// Write-only.
    pub sensitive: bool,
    /// Whether it (of a family: at least one) must be there.
    #[serde(default)]
    pub required: bool,
    /// Says where the credential is sent.
    #[serde(default)]
    pub destination: bool,
    /// Its text may refer to tokens: see [`super::template`].
    #[serde(default)]
    pub template: bool,
    /// The broker makes the value itself; nobody else may.
    #[serde(default)]
    pub generated: bool,
    /// Other names for it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The customary environment variable.
    #[serde(default)]
    pub env: String,
    /// Further variables by which tools look for the same.
    #[serde(default)]
    pub also_env: Vec<String>,
    /// What a value looks like that is well formed; a test of the connection looks.
    #[serde(default)]
    pub form: Option<ValueForm>,
    /// Of a family: names that may not follow the dot, in lower case.
    #[serde(default)]
    pub forbidden: Vec<String>,
    /// A regular expression that the value must match; of a family, the part of the name after the dot.
    #[serde(default)]
    pub pattern: Option<String>,
    /// The field whose value this one goes with: it is removed when that one changes and it is not given itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<String>,
}

/// The form of a value that is more than a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueForm {
    /// One certificate or a chain, PEM.
    Certificate,
    /// JSON.
    Json,
    /// A private key, PEM.
    PrivateKey,
    /// An absolute URL.
    Url,
}

impl FieldRule {
    /// Whether this is the rule for a field of this name.
    pub fn covers(&self, name: &str) -> bool {
        match self.family() {
            Some(prefix) => name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()),
            None => self.name == name || self.aliases.iter().any(|alias| alias == name),
        }
    }

    /// Our name for a field that this rule covers.
    pub fn canonical(&self, name: &str) -> Option<FieldName> {
        FieldName::parse(if self.family().is_some() { name } else { &self.name }).ok()
    }

    /// For a family, what its names start with, dot included.
    pub fn family(&self) -> Option<&str> {
        self.name.strip_suffix('*')
    }

    /// The compiled pattern, if there is one.
    ///
    /// # Errors
    /// If it is no regular expression.
    pub fn pattern(&self) -> Result<Option<Regex>, regex_lite::Error> {
        let build = |pattern| RegexBuilder::new(pattern).size_limit(MAX_PATTERN_BYTES).build();
        self.pattern.as_deref().map(build).transpose()
    }
}
