//! Identifier tags: `env:prod`.
//!
//! Datadog, "Work with identifier tags": tags "must follow the `tag:value` format. Additional colons are
//! not allowed", "must start with a letter", after which they may hold "Alphanumerics, Underscores,
//! Minuses, Slashes, Exactly one colon", and "`default` is reserved and can't be used as a stand-alone
//! tag key or as a tag value". Datadog's tags are converted to lower case and have at most 200
//! characters.
//!
//! This one parser checks and folds stored tags, group identifiers and requests. If they were folded differently, they would
//! never match.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::name::Invalid;
use crate::model::compact_map::CompactMap;
use crate::model::text::read_from_text;

/// The longest tag, colon included, in characters.
pub const MAX_TAG_CHARACTERS: usize = 200;
/// The most tags on one connection.
pub const MAX_TAGS: usize = 64;

const RESERVED: &str = "default";
const RULE: &str = "KEY:VALUE in at most 200 letters, digits or _ - /, the key starting with a letter; default is \
                    reserved";

/// A key or a value in lower case; `None` if the text breaks the rules.
fn folded(text: &str) -> Option<Arc<str>> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-/".contains(&byte);
    // The other part has at least one character, and the colon is one more.
    let fits = !text.is_empty() && text.len() + 2 <= MAX_TAG_CHARACTERS;
    let is_admitted = fits && text.bytes().all(is_allowed) && !text.eq_ignore_ascii_case(RESERVED);
    is_admitted.then(|| {
        let mut folded = Arc::<str>::from(text);
        Arc::make_mut(&mut folded).make_ascii_lowercase();
        folded
    })
}

/// The key of a tag. Identifiers of a group are keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct TagKey(Arc<str>);

/// The value of a tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct TagValue(Arc<str>);

impl TagKey {
    /// Folds and parses a key.
    ///
    /// # Errors
    /// If it breaks a rule of tags.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match folded(text) {
            Some(key) if key.starts_with(|first: char| first.is_ascii_lowercase()) => Ok(Self(key)),
            _ => Err(Invalid::new("identifier", text, RULE)),
        }
    }

    /// The folded key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TagValue {
    /// Folds and parses a value.
    ///
    /// # Errors
    /// If it breaks a rule of tags.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        folded(text).map(Self).ok_or_else(|| Invalid::new("identifier value", text, RULE))
    }

    /// The folded value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! as_text {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        read_from_text!($type, Self::parse);

        impl From<$type> for String {
            fn from(this: $type) -> Self {
                this.0.as_ref().to_owned()
            }
        }
    };
}

as_text!(TagKey);
as_text!(TagValue);

/// One tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The part before the colon.
    pub key: TagKey,
    /// The part after the colon.
    pub value: TagValue,
}

impl FromStr for Tag {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |_| Invalid::new("identifier tag", text, RULE);
        let (key, value) =
            text.split_once(':').ok_or_else(|| Invalid::new("identifier tag", text, RULE))?;
        let tag = Self {
            key: TagKey::parse(key).map_err(invalid)?,
            value: TagValue::parse(value).map_err(invalid)?,
        };
        if tag.key.0.len() + 1 + tag.value.0.len() > MAX_TAG_CHARACTERS {
            return Err(Invalid::new("identifier tag", text, RULE));
        }
        Ok(tag)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key, self.value)
    }
}

/// The tags of one connection: one value for each key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tags(#[serde(with = "crate::model::compact_map")] CompactMap<TagKey, TagValue>);

impl Tags {
    /// Parses a list of tags. The same tag twice, after folding, is one.
    ///
    /// # Errors
    /// If a text is not a tag, a key has two values, or there are too many.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, Invalid> {
        let mut tags = Self::default();
        for text in texts {
            let Tag { key, value } = text.parse()?;
            if tags.insert(key, value.clone())?.is_some_and(|old| old != value) {
                return Err(Invalid::new("identifier tag", text, "one value for each key"));
            }
        }
        Ok(tags)
    }

    /// The value of a key; `None` if there is no such tag.
    pub fn value(&self, key: &TagKey) -> Option<&TagValue> {
        self.0.get(key)
    }

    /// Adds a tag, and returns the value that its key had.
    ///
    /// # Errors
    /// If there are too many then. A reader of a list must stop: every further tag takes longer.
    pub fn insert(&mut self, key: TagKey, value: TagValue) -> Result<Option<TagValue>, Invalid> {
        let old = self.0.insert(key, value);
        self.check_count()?;
        Ok(old)
    }

    /// These tags and others; the others win for equal keys.
    ///
    /// # Errors
    /// If they are too many together.
    pub fn with(&self, others: &Self) -> Result<Self, Invalid> {
        let mut tags = self.clone();
        tags.0.extend(others.0.iter().map(|(key, value)| (key.clone(), value.clone())));
        tags.check_count()?;
        Ok(tags)
    }

    fn check_count(&self) -> Result<(), Invalid> {
        if self.0.len() > MAX_TAGS {
            return Err(Invalid::new("list of identifier tags", "", "at most 64 tags"));
        }
        Ok(())
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &TagKey> {
        self.0.keys()
    }

    /// Every key with its value, by key.
    pub fn pairs(&self) -> impl Iterator<Item = (&TagKey, &TagValue)> {
        self.0.iter()
    }

    /// Every tag, by key.
    pub fn iter(&self) -> impl Iterator<Item = Tag> {
        self.0.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() })
    }
}

/// The tag keys that select within a group: one to three, all different.
///
/// Datadog: "a set of up to three Identifier Tags"; "these can never be empty, but they can be completely
/// replaced".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Identifiers(Vec<TagKey>);

impl Identifiers {
    /// Parses the keys; the order does not matter.
    ///
    /// # Errors
    /// If a text is not a key, or there are not one to three different keys.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, Invalid> {
        let mut keys = Vec::new();
        for text in texts {
            let key = TagKey::parse(text)?;
            if keys.contains(&key) {
                return Err(Invalid::new("identifier", text, "the identifiers of a group differ"));
            }
            keys.push(key);
        }
        keys.sort_unstable();
        if (1..=3).contains(&keys.len()) {
            Ok(Self(keys))
        } else {
            let given = keys.iter().map(TagKey::as_str).collect::<Vec<_>>().join(", ");
            Err(Invalid::new("list of identifiers", &given, "a group has one to three identifiers"))
        }
    }

    /// The keys, in order.
    pub fn iter(&self) -> impl Iterator<Item = &TagKey> {
        self.0.iter()
    }

    /// The values of the identifiers among these tags, in order.
    ///
    /// # Errors
    /// The first key that the tags do not have.
    pub fn select(&self, tags: &Tags) -> Result<Vec<TagValue>, TagKey> {
        let value = |key: &TagKey| tags.value(key).cloned().ok_or_else(|| key.clone());
        self.0.iter().map(value).collect()
    }
}

impl TryFrom<Vec<String>> for Identifiers {
    type Error = Invalid;

    fn try_from(texts: Vec<String>) -> Result<Self, Invalid> {
        Self::parse(texts.iter().map(String::as_str))
    }
}

impl From<Identifiers> for Vec<String> {
    fn from(identifiers: Identifiers) -> Self {
        identifiers.0.into_iter().map(String::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of Datadog's page, and the edges of its rules.
    #[test]
    fn tags_follow_the_documents_rules() {
        for good in [
            "env:prod",
            "ENV:Prod",
            "account_id:123456789",
            "team/sub:x-y_z/1",
            "default_x:y",
            "env:default-eu",
            "e:-_/",
            &format!("k:{}", "v".repeat(198)),
        ] {
            let tag: Tag = good.parse().unwrap_or_else(|error| panic!("{good}: {error}"));
            assert_eq!(tag.to_string(), good.to_ascii_lowercase());
            assert_eq!(
                tag.to_string().parse::<Tag>().unwrap(),
                tag,
                "the stored form is a fixed point"
            );
        }
        for bad in [
            "env",
            "env:",
            ":prod",
            "env:staging:east",
            "1env:x",
            "_env:x",
            "env:a.b",
            "env:a b",
            "default:yes",
            "aws:default",
            "Default:yes",
            "aws:DEFAULT",
            "",
            ":",
            "é:x",
            "k:é",
            "\u{212A}:x",
            &format!("k:{}", "v".repeat(199)),
        ] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_has_one_value_and_the_same_tag_twice_is_one() {
        assert_eq!(Tags::parse(["env:prod", "ENV:PROD"]).unwrap().iter().count(), 1);
        assert!(Tags::parse(["env:prod", "env:staging"]).is_err());
    }

    #[test]
    fn a_list_of_too_many_tags_is_read_no_further() {
        let texts: Vec<_> = (0..1000).map(|n| format!("k{n}:v")).collect();
        let mut read = 0;
        let counted = texts.iter().map(|text| {
            read += 1;
            text.as_str()
        });
        assert!(Tags::parse(counted).is_err());
        assert_eq!(read, MAX_TAGS + 1);
    }

    #[test]
    fn stored_tags_are_a_map_in_any_order() {
        let read = |json| serde_json::from_str::<Tags>(json);
        let tags = read(r#"{"region": "eu", "env": "prod"}"#).unwrap();
        assert_eq!(tags, Tags::parse(["env:prod", "region:eu"]).unwrap());
        assert!(read(r#"[["env", "prod"]]"#).is_err());
    }
}
