//! Filters on connections: a part of AIP-160.
//!
//! ```text
//! filter = term { " AND " term }
//! term   = field ("=" | "!=") value
//! field  = name | integration | kind | disabled | default | release | mintable | reauthorize |
//!          updated_by | tags.KEY | labels.KEY
//! value  = text without spaces, or any text in double quotes; a * at the end stands for anything
//! ```

use super::record::ConnectionMetadata;
use crate::model::{Invalid, Release, TagKey};

/// A filter on connections. The empty filter admits all.
#[derive(Clone, Debug, Default)]
pub struct ConnectionFilter(Vec<Term>);

#[derive(Clone, Debug)]
struct Term {
    field: FilterField,
    /// `!=`
    is_negated: bool,
    value: String,
    /// True if the value ended in a star, which is not part of it.
    is_prefix: bool,
}

#[derive(Clone, Debug)]
enum FilterField {
    Default,
    Disabled,
    Integration,
    Kind,
    Label(String),
    Mintable,
    Name,
    Reauthorize,
    Release,
    Tag(TagKey),
    UpdatedBy,
}

const MAX_FILTER_BYTES: usize = 4096;
const MAX_TERMS: usize = 32;
const RULE: &str = "write terms such as kind = access_key, tags.env != prod or labels.team = a*, with AND \
                    between them; fields: name, integration, kind, disabled, default, release, mintable, \
                    reauthorize, updated_by, tags.KEY, labels.KEY";

impl ConnectionFilter {
    /// Parses a filter.
    ///
    /// # Errors
    /// If it is malformed, or names an unknown field.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("filter", text, RULE);
        if text.len() > MAX_FILTER_BYTES {
            return Err(Invalid::new("filter", text, "at most 4096 bytes"));
        }
        let mut terms = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if !terms.is_empty() {
                rest = rest.strip_prefix("AND ").ok_or_else(invalid)?.trim_start();
            }
            let (field, after) = rest.split_once('=').ok_or_else(invalid)?;
            let (field, is_negated) = match field.strip_suffix('!') {
                Some(field) => (field, true),
                None => (field, false),
            };
            if terms.len() == MAX_TERMS {
                return Err(Invalid::new("filter", text, "at most 32 terms"));
            }
            let field = FilterField::parse(field.trim()).ok_or_else(invalid)?;
            let (value, after) = value(after.trim_start()).ok_or_else(invalid)?;
            let (value, is_prefix) = match value.strip_suffix('*') {
                Some(prefix) => (prefix, true),
                None => (value, false),
            };
            // Tags are folded to lower case, so the value is, too.
            let value = match field {
                FilterField::Tag(_) => value.to_ascii_lowercase(),
                _ => value.to_owned(),
            };
            terms.push(Term { field, is_negated, value, is_prefix });
            rest = after.trim_start();
        }
        Ok(Self(terms))
    }

    /// Restricts the filter to connections of this integration.
    pub fn of_integration(&mut self, integration: &str) {
        let value = integration.to_owned();
        let field = FilterField::Integration;
        self.0.push(Term { field, is_negated: false, value, is_prefix: false });
    }

    /// True if the filter admits a connection.
    pub fn admits(&self, connection: &ConnectionMetadata) -> bool {
        self.0.iter().all(|term| term.admits(connection))
    }
}

/// The value that a text starts with, and what follows it.
fn value(text: &str) -> Option<(&str, &str)> {
    match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"'),
        None => {
            let end = text.find(char::is_whitespace).unwrap_or(text.len());
            text.split_at_checked(end)
                .filter(|(value, _)| !value.is_empty() && !value.contains('"'))
        }
    }
}

impl FilterField {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "default" => Some(Self::Default),
            "disabled" => Some(Self::Disabled),
            "integration" => Some(Self::Integration),
            "kind" => Some(Self::Kind),
            "mintable" => Some(Self::Mintable),
            "name" => Some(Self::Name),
            "reauthorize" => Some(Self::Reauthorize),
            "release" => Some(Self::Release),
            "updated_by" => Some(Self::UpdatedBy),
            _ => match text.split_once('.')? {
                ("labels", key) => Some(Self::Label(key.to_owned())),
                ("tags", key) => TagKey::parse(key).ok().map(Self::Tag),
                _ => None,
            },
        }
    }

    /// A connection's text in this field; `None` for a missing tag or label.
    fn of<'a>(&self, connection: &'a ConnectionMetadata) -> Option<&'a str> {
        let truth = |is: bool| if is { "true" } else { "false" };
        match self {
            Self::Default => Some(truth(connection.is_default)),
            Self::Disabled => Some(truth(connection.disabled)),
            Self::Integration => Some(connection.integration.as_str()),
            Self::Kind => Some(connection.kind.as_str()),
            Self::Label(key) => connection.labels.value(key),
            Self::Mintable => Some(truth(connection.is_mintable())),
            Self::Name => Some(connection.name.as_str()),
            Self::Reauthorize => Some(truth(connection.unusable().is_some())),
            Self::Release => Some(match connection.release {
                Release::Minted => "minted",
                Release::Stored => "stored",
            }),
            Self::Tag(key) => connection.tags.value(key).map(crate::model::TagValue::as_str),
            Self::UpdatedBy => Some(&connection.updated_by),
        }
    }
}

impl Term {
    fn admits(&self, connection: &ConnectionMetadata) -> bool {
        let fits = self.field.of(connection).is_some_and(|has| match self.is_prefix {
            true => has.starts_with(self.value.as_str()),
            false => has == self.value,
        });
        fits != self.is_negated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_terms_with_and_between() {
        for (text, terms) in [
            ("", 0),
            ("kind = access_key", 1),
            ("kind=access_key AND tags.env!=prod", 2),
            (r#"name = "a b" AND labels.team = *"#, 2),
            (r#"name="a AND b""#, 1),
        ] {
            assert_eq!(ConnectionFilter::parse(text).unwrap().0.len(), terms, "{text}");
        }
        for bad in [
            "kind",
            "kind =",
            "nonsense = x",
            "tags.1 = x",
            "kind = a kind = b",
            "kind = a OR kind = b",
            "kind = a AND",
            r#"name = "a"#,
            r#"name = a"b"#,
            "= a",
        ] {
            assert!(ConnectionFilter::parse(bad).is_err(), "{bad}");
        }
    }
}
