//! Seed documents as they are in a file.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::origin::ValueOrigin;
use super::reach::Reach;
use crate::cli::io::failure::Failure;

/// A document of either form: ours has the first four keys, that of Relay's tools the others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDocument {
    #[serde(rename = "apiVersion")]
    pub(super) api_version: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) metadata: Option<RawMetadata>,
    pub(super) spec: Option<RawSpec>,
    /// By INTEGRATION/NAME.
    pub connections: Option<BTreeMap<String, Spanned<BTreeMap<String, FieldSource>>>>,
    /// By name.
    pub secrets: Option<BTreeMap<String, Spanned<FieldSource>>>,
    /// The simulated runs of Relay's tools.
    pub runs: Option<IgnoredAny>,
}

impl RawDocument {
    /// True if it has a key of our own form.
    pub fn is_ours(&self) -> bool {
        let Self { api_version, kind, metadata, spec, .. } = self;
        api_version.is_some() || kind.is_some() || metadata.is_some() || spec.is_some()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMetadata {
    pub(super) name: String,
    #[serde(default)]
    pub(super) tags: TagList,
    pub(super) workflow: Option<String>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
}

/// Identifier tags as they are sent: KEY:VALUE.
#[derive(Default)]
pub(super) struct TagList(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for TagList {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TagListVisitor)
    }
}

struct TagListVisitor;

impl<'de> Visitor<'de> for TagListVisitor {
    type Value = TagList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tags as KEY: VALUE, or as a list of KEY:VALUE")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TagList, A::Error> {
        let mut tags = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let TagText(value) = map.next_value()?;
            tags.push(format!("{key}:{value}"));
        }
        Ok(TagList(tags))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TagList, A::Error> {
        let mut tags = Vec::new();
        while let Some(TagText(tag)) = list.next_element()? {
            tags.push(tag);
        }
        Ok(TagList(tags))
    }
}

/// A tag, or its value: a text. A number would become a text by the way that it is written: 0123 and 1e3 differ from
/// their values.
struct TagText(String);

impl<'de> Deserialize<'de> for TagText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TagTextVisitor)
    }
}

struct TagTextVisitor;

impl Visitor<'_> for TagTextVisitor {
    type Value = TagText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a text for a tag: write what looks like a number or a yes in quotes, such as account_id: \"111122223333\"",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TagText, E> {
        Ok(TagText(text.to_owned()))
    }
}

/// The keys of the specs of all kinds; [`RawSpec::only`] refuses those that the kind of a document does not have.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSpec {
    pub(super) access: Option<RawAccess>,
    pub(super) default: Option<bool>,
    pub(super) disabled: Option<bool>,
    pub(super) expires: Option<String>,
    pub(super) fields: Option<BTreeMap<String, FieldSource>>,
    pub(super) identifiers: Option<Vec<String>>,
    pub(super) integration: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) kinds: Option<Vec<RawKind>>,
    #[serde(rename = "maxTtl")]
    pub(super) max_ttl: Option<String>,
    pub(super) members: Option<Vec<String>>,
    pub(super) release: Option<String>,
    pub(super) send: Option<RawSend>,
    pub(super) title: Option<String>,
    pub(super) value: Option<FieldSource>,
}

impl RawSpec {
    /// Refuses any key but these.
    pub(super) fn only(&self, keys: &[&str]) -> Result<(), Failure> {
        let set = [
            ("access", self.access.is_some()),
            ("default", self.default.is_some()),
            ("disabled", self.disabled.is_some()),
            ("expires", self.expires.is_some()),
            ("fields", self.fields.is_some()),
            ("identifiers", self.identifiers.is_some()),
            ("integration", self.integration.is_some()),
            ("kind", self.kind.is_some()),
            ("kinds", self.kinds.is_some()),
            ("maxTtl", self.max_ttl.is_some()),
            ("members", self.members.is_some()),
            ("release", self.release.is_some()),
            ("send", self.send.is_some()),
            ("title", self.title.is_some()),
            ("value", self.value.is_some()),
        ];
        match set.iter().find(|(key, is_set)| *is_set && !keys.contains(key)) {
            Some((key, _)) => {
                let keys = keys.join(", ");
                Err(Failure::usage(format!("its spec has no {key}; it has: {keys}")))
            }
            None => Ok(()),
        }
    }
}

/// The requests that a connection admits.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub(super) struct RawSend {
    pub(super) methods: Vec<String>,
    pub(super) paths: Vec<String>,
}

/// A credential kind of an operator's own integration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKind {
    pub(super) name: String,
    #[serde(default)]
    pub(super) title: String,
    pub(super) fields: Vec<RawField>,
    /// Only built-in integrations have these.
    pub(super) source: Option<IgnoredAny>,
    pub(super) release: Option<IgnoredAny>,
    pub(super) minted: Option<IgnoredAny>,
}

/// One of its fields.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawField {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) example: String,
    /// Required for each field: without it a secret could become readable because somebody forgot a word.
    pub(super) sensitive: Option<bool>,
    pub(super) required: bool,
    pub(super) destination: bool,
    pub(super) template: bool,
    pub(super) aliases: Vec<String>,
    pub(super) env: String,
    pub(super) pattern: String,
    pub(super) form: Option<RawForm>,
}

/// The form of a valid value.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawForm {
    Certificate,
    Json,
    PrivateKey,
    Url,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAccess {
    pub(super) viewer: Option<Vec<String>>,
    pub(super) user: Option<Vec<String>>,
    pub(super) resolver: Option<Vec<String>>,
    pub(super) editor: Option<Vec<String>>,
}

/// Where a value comes from.
pub enum FieldSource {
    /// `{fromEnv: NAME}`
    Environment(String),
    /// `{fromFile: PATH}`
    File(String),
    /// `{keep: true}`: the stored value stays.
    Kept,
    /// The value itself.
    Text(String),
}

impl FieldSource {
    /// Reads the value, and says where it comes from; `None` if the stored value stays.
    pub(super) fn read(self, reach: &Reach<'_>) -> Result<(Option<Vec<u8>>, ValueOrigin), Failure> {
        Ok(match self {
            Self::Environment(variable) => {
                (Some(reach.variable(&variable)?), ValueOrigin::Environment(variable))
            }
            Self::File(path) => (Some(reach.file(&path)?), ValueOrigin::File(path)),
            Self::Kept => (None, ValueOrigin::Kept),
            Self::Text(text) => (Some(text.into_bytes()), ValueOrigin::Text),
        })
    }
}

impl<'de> Deserialize<'de> for FieldSource {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(FieldSourceVisitor)
    }
}

struct FieldSourceVisitor;

/// The error for a value in any other form. It does not show the value.
const EXPECTED: &str = "a text, in quotes if it looks like a number or a yes, or {fromEnv: NAME}, {fromFile: PATH} or {keep: true}";

impl<'de> Visitor<'de> for FieldSourceVisitor {
    type Value = FieldSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<FieldSource, E> {
        Ok(FieldSource::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldSource, A::Error> {
        let expected = || de::Error::custom(format!("expected {EXPECTED}"));
        let Some(key) = map.next_key::<String>()? else { return Err(expected()) };
        let source = match key.as_str() {
            "fromEnv" => FieldSource::Environment(map.next_value()?),
            "fromFile" => FieldSource::File(map.next_value()?),
            "keep" if map.next_value()? => FieldSource::Kept,
            _ => return Err(expected()),
        };
        if map.next_key::<IgnoredAny>()?.is_some() { Err(expected()) } else { Ok(source) }
    }
}
