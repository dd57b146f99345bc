//! The schema of an integration's data file.

use regex_lite::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::send::SendRule;
use super::source::Source;
use crate::model::{FieldName, IntegrationName, KindName, Release};

/// The largest compiled pattern, in bytes: matching takes time in proportion.
const MAX_PATTERN_BYTES: usize = 64 * 1024;

/// A type of connections.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Integration {
    /// The name in connections, for example `aws`.
    pub name: IntegrationName,
    /// The name for people.
    pub title: String,
    /// True if steps may ask for it without naming a connection: Datadog "propagates" its credential.
    #[serde(default)]
    pub tile: bool,
    /// Environment variables that its tools prefer to the customary ones, or mix with them. If they were inherited, tools
    /// would use the wrong values.
    #[serde(default)]
    pub shadowing: Vec<String>,
    /// The kinds of its credentials.
    #[serde(rename = "kind")]
    pub kinds: Vec<CredentialKind>,
}

impl Integration {
    /// The kind of this name; `None` if there is no such kind.
    pub fn kind(&self, name: &str) -> Option<&CredentialKind> {
        self.kinds.iter().find(|kind| kind.name.as_str() == name)
    }
}

/// A kind of credentials.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialKind {
    /// The name, for example `access_key`.
    pub name: KindName,
    /// The name for people.
    pub title: String,
    /// How its short-lived credentials are made; `None` if its upstream makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What a connection of this kind releases unless it says otherwise. Only a kind with a source is ever minted.
    #[serde(default, skip_serializing_if = "Release::is_stored")]
    pub release: Release,
    /// The fields without which nothing can be minted, beside the required ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<String>,
    /// How its credentials are made without a stored root; `None` if its upstream takes no tokens of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_identity: Option<WebIdentity>,
    /// The rules of its fields.
    #[serde(rename = "field")]
    pub fields: Vec<FieldRule>,
    /// The fields of a minted credential; see [`super::released()`]. A required field is part of every credential.
    #[serde(default, rename = "minted", skip_serializing_if = "Vec::is_empty")]
    pub minted: Vec<FieldRule>,
    /// How the broker sends requests with its credentials: one rule for each service of the upstream. Empty if none can be
    /// sent.
    #[serde(default, rename = "send", skip_serializing_if = "Vec::is_empty")]
    pub sends: Vec<SendRule>,
}

impl CredentialKind {
    /// The rule by which requests to a service are made; `None` if there is no such service.
    pub fn send(&self, service: &str) -> Option<&SendRule> {
        self.sends.iter().find(|rule| rule.service == service)
    }

    /// The rule of a field of what is sent: of a minted credential, or else of the stored values.
    pub(super) fn sent_field(&self, name: &str) -> Option<&FieldRule> {
        best(|| self.minted.iter(), name).or_else(|| find_field(self, name))
    }
}

/// A token of the broker's own issuer in place of a root.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WebIdentity {
    /// The field that says so.
    pub field: String,
    /// How the credentials are made then.
    pub source: Source,
}

/// The rule of a field, or of a family of fields such as `tokens.*`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FieldRule {
    /// The name; `tokens.*` means `tokens.ANYTHING`, and `*` means any name.
    pub name: String,
    /// The description for operators who write the field.
    pub description: String,
    /// An example, which is never a real value.
    #[serde(default)]
    pub example: String,
    /// True if the value is write-only.
    pub sensitive: bool,
    /// True if only the broker needs it, to make credentials or to act with them. It is never released while the connection
    /// is minted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub root: bool,
    /// True if the field, or at least one of the family, is required.
    #[serde(default)]
    pub required: bool,
    /// True if the value decides where the credential is sent.
    #[serde(default)]
    pub destination: bool,
    /// True if the text may refer to tokens; see [`super::template`].
    #[serde(default)]
    pub template: bool,
    /// True if the broker makes the value; operators may not write it.
    #[serde(default)]
    pub generated: bool,
    /// Other names of the field.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The customary environment variable.
    #[serde(default)]
    pub env: String,
    /// Further variables that tools read the value from.
    #[serde(default)]
    pub also_env: Vec<String>,
    /// The form of a value, which a test of the connection checks.
    #[serde(default)]
    pub form: Option<ValueForm>,
    /// For a family: names that may not follow the dot, in lower case.
    #[serde(default)]
    pub forbidden: Vec<String>,
    /// A regular expression for the value; for a family, for the part of the name after the dot.
    #[serde(default)]
    pub pattern: Option<String>,
    /// The field that this one is a part of. If that field changes and this one is not given, this one is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<String>,
    /// The least and the greatest value, of a field that is a whole number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(u64, u64)>,
    /// The field without which this one has no meaning, and is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<String>,
    /// The field that stands in for this one. Beside that field, this one is not required, and is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless: Option<String>,
}

/// A form of values that is more than text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueForm {
    /// One certificate or a chain, PEM.
    Certificate,
    /// Claims of a token: see [`super::read_claims`].
    Claims,
    /// JSON.
    Json,
    /// A private key, PEM.
    PrivateKey,
    /// An absolute URL.
    Url,
}

impl FieldRule {
    /// True if this is the rule of a field of this name.
    pub fn covers(&self, name: &str) -> bool {
        match self.family() {
            Some(prefix) => name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()),
            None => self.name == name || self.aliases.iter().any(|alias| alias == name),
        }
    }

    /// True if there must be such a field, beside the fields that `has` knows.
    pub fn is_required(&self, has: impl Fn(&str) -> bool) -> bool {
        self.required && !self.unless.as_deref().is_some_and(has)
    }

    /// Our name for a field that this rule covers.
    pub fn canonical(&self, name: &str) -> Option<FieldName> {
        FieldName::parse(if self.family().is_some() { name } else { &self.name }).ok()
    }

    /// The prefix of a family's names, with the dot; `None` if it is a single field.
    pub fn family(&self) -> Option<&str> {
        self.name.strip_suffix('*')
    }

    /// The compiled pattern, if there is one.
    ///
    /// # Errors
    /// If it is not a regular expression.
    pub fn pattern(&self) -> Result<Option<Regex>, regex_lite::Error> {
        let build = |pattern| RegexBuilder::new(pattern).size_limit(MAX_PATTERN_BYTES).build();
        self.pattern.as_deref().map(build).transpose()
    }
}

/// The rule for a field of this name, if the kind has one.
pub fn find_field<'a>(kind: &'a CredentialKind, name: &str) -> Option<&'a FieldRule> {
    best(|| kind.fields.iter(), name)
}

/// The rule for a field of this name among others: a field before a family.
pub(super) fn best<'a, I: Iterator<Item = &'a FieldRule>>(
    rules: impl Fn() -> I,
    name: &str,
) -> Option<&'a FieldRule> {
    let exact = rules().find(|rule| rule.family().is_none() && rule.covers(name));
    exact.or_else(|| rules().find(|rule| rule.covers(name)))
}
