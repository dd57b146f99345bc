//! Filters of lists: a part of AIP-160.
//!
//! ```text
//! filter = term { " AND " term }
//! term   = field ("=" | "!=" | ":") value
//! value  = text without spaces, or any text in double quotes; after = and !=, a * at the end stands for anything
//! ```
//!
//! `:` asks whether the field contains the value, whatever the case of its ASCII letters. The field `text` stands for the name, the
//! tags and the labels together, and takes only `:`. [`Filtered`] says which fields a resource has.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use super::text::TextTest;
use crate::access::{Bindings, Pattern};
use crate::catalog::Catalog;
use crate::model::{Id, Invalid, TagKey};

const MAX_FILTER_BYTES: usize = 4096;
const MAX_TERMS: usize = 32;

/// A resource that a list filters.
pub trait Filtered {
    /// Says how to write a filter of such resources, with all of its fields.
    const RULE: &'static str;

    /// The field of this name; `None` if it has no such field.
    fn field(name: &str) -> Option<Field>;

    /// Whether one of its texts in this field passes the test. `scratch` is room for a text that is put together.
    fn any(&self, field: &Field, scratch: &mut String, test: impl FnMut(&str) -> bool) -> bool;

    /// Who is bound on it; `None` if nobody can be.
    fn access(&self) -> Option<&Bindings> {
        None
    }

    /// The groups that it is a member of; `None` if it can be in no group.
    fn groups(&self) -> Option<&BTreeSet<Id>> {
        None
    }
}

/// A field of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// Whether it is the default of its integration.
    Default,
    /// Whether a step was refused something.
    Denied,
    /// Whether every Resolve is refused.
    Disabled,
    /// The executor of a run.
    Executor,
    /// The names of its groups.
    Group,
    /// The tag keys that tell a group's members apart.
    Identifier,
    /// The type.
    Integration,
    /// The credential kind.
    Kind,
    /// A label.
    Label(String),
    /// Whether the broker can mint from it.
    Mintable,
    /// The name.
    Name,
    /// Whether a step is open.
    Open,
    /// The principals that are bound on it.
    Principal,
    /// Whether its refresh token is of no use.
    Reauthorize,
    /// What a step gets of it.
    Release,
    /// Whether a step holds an older version.
    Stale,
    /// An identifier tag.
    Tag(TagKey),
    /// Name, tags and labels.
    Text,
    /// Who changed it last.
    UpdatedBy,
    /// The workflow of a secret or a run.
    Workflow,
}

impl Field {
    fn is_truth(&self) -> bool {
        matches!(
            self,
            Self::Default
                | Self::Denied
                | Self::Disabled
                | Self::Mintable
                | Self::Open
                | Self::Reauthorize
                | Self::Stale
        )
    }
}

/// The operator of a term.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Is,
    IsNot,
    Contains,
}

#[derive(Clone, Debug)]
struct Term {
    field: Field,
    is_negated: bool,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    /// A text of the field passes.
    Text(TextTest),
    /// A principal is bound on it that admits this one, or steps of it.
    Admits(Pattern),
}

/// A filter of resources of one type. The empty filter admits all.
pub struct Filter<R> {
    terms: Vec<Term>,
    is_stale: Option<bool>,
    of: PhantomData<fn(R)>,
}

impl<R> fmt::Debug for Filter<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (&self.terms, self.is_stale).fmt(f)
    }
}

impl<R> Default for Filter<R> {
    fn default() -> Self {
        Self { terms: Vec::new(), is_stale: None, of: PhantomData }
    }
}

impl<R: Filtered> Filter<R> {
    /// Parses a filter.
    ///
    /// # Errors
    /// If it is malformed, names an unknown field, or a value that the field cannot have.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("filter", text, R::RULE);
        if text.len() > MAX_FILTER_BYTES {
            return Err(Invalid::new("filter", text, "at most 4096 bytes"));
        }
        let mut filter = Self::default();
        let mut rest = text.trim();
        let mut count = 0;
        while !rest.is_empty() {
            if count > 0 {
                rest = rest.strip_prefix("AND ").ok_or_else(invalid)?.trim_start();
            }
            count += 1;
            if count > MAX_TERMS {
                return Err(Invalid::new("filter", text, "at most 32 terms"));
            }
            let (name, operator, after) = operator(rest).ok_or_else(invalid)?;
            let field =
                R::field(name).ok_or_else(|| Invalid::new("filter field", name, R::RULE))?;
            let (value, after) = value(after.trim_start()).ok_or_else(invalid)?;
            filter.add(field, operator, value)?;
            rest = after.trim_start();
        }
        Ok(filter)
    }

    fn add(&mut self, field: Field, operator: Operator, value: &str) -> Result<(), Invalid> {
        let is_negated = operator == Operator::IsNot;
        if field.is_truth() {
            let is_so = match (operator, value) {
                (Operator::Is | Operator::IsNot, "true") => !is_negated,
                (Operator::Is | Operator::IsNot, "false") => is_negated,
                _ => return Err(Invalid::new("filter value", value, "it is true or false")),
            };
            if field == Field::Stale {
                let before = self.is_stale.replace(is_so);
                return match before.is_some_and(|before| before != is_so) {
                    true => {
                        Err(Invalid::new("filter value", value, "stale is both true and false"))
                    }
                    false => Ok(()),
                };
            }
        }
        let is_text = field == Field::Text;
        if is_text && operator != Operator::Contains {
            return Err(Invalid::new("filter field", "text", "write text : PART, without ="));
        }
        let test = match (&field, operator, value.strip_suffix('*')) {
            (_, Operator::Contains, Some("")) if !is_text => {
                TextTest::StartsWith(String::new()).into()
            }
            (_, Operator::Contains, _) => TextTest::contains(value).into(),
            // Tags are folded to lower case, so the value is, too.
            (Field::Tag(_), _, Some(start)) => {
                TextTest::StartsWith(start.to_ascii_lowercase()).into()
            }
            (Field::Tag(_), _, None) => TextTest::Is(value.to_ascii_lowercase()).into(),
            (_, _, Some(start)) => TextTest::StartsWith(start.to_owned()).into(),
            (Field::Principal, _, None) => Test::Admits(value.parse()?),
            (_, _, None) => TextTest::Is(value.to_owned()).into(),
        };
        self.terms.push(Term { field, is_negated, test });
        Ok(())
    }

    /// Restricts the filter to resources whose field is this text.
    pub fn with(&mut self, field: Field, text: &str) {
        let test = TextTest::Is(text.to_owned()).into();
        self.terms.push(Term { field, is_negated: false, test });
    }

    /// True if it admits all.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty() && self.is_stale.is_none()
    }

    /// Whether it admits only connections of which a step holds an older version, or only others. Only the journal knows.
    pub fn is_stale(&self) -> Option<bool> {
        self.is_stale
    }

    /// The filter for the resources of one catalogue.
    pub fn bind(&self, catalog: &Catalog) -> BoundFilter<'_, R> {
        let groups = |term: &Term| match (&term.field, &term.test) {
            (Field::Group, Test::Text(test)) => {
                let all = catalog.groups_after(None);
                let named = all.filter(|group| test.admits(group.metadata.name.as_str()));
                named.map(|group| group.uid()).collect()
            }
            _ => BTreeSet::new(),
        };
        let terms = self.terms.iter().map(|term| (term, groups(term))).collect();
        BoundFilter { terms, scratch: String::new(), of: PhantomData }
    }
}

impl From<TextTest> for Test {
    fn from(test: TextTest) -> Self {
        Self::Text(test)
    }
}

/// A filter for the resources of one catalogue.
pub struct BoundFilter<'f, R> {
    /// Each with the groups that it names.
    terms: Vec<(&'f Term, BTreeSet<Id>)>,
    scratch: String,
    of: PhantomData<fn(R)>,
}

impl<R: Filtered> BoundFilter<'_, R> {
    /// True if the filter admits a resource.
    pub fn admits(&mut self, resource: &R) -> bool {
        let Self { terms, scratch, .. } = self;
        terms.iter().all(|(Term { field, is_negated, test }, groups)| {
            let fits = match (field, test) {
                (Field::Group, _) => {
                    let own = resource.groups().into_iter().flatten();
                    own.into_iter().any(|uid| groups.contains(uid))
                }
                (_, Test::Text(test)) => resource.any(field, scratch, |text| test.admits(text)),
                (_, Test::Admits(named)) => resource.access().is_some_and(|access| {
                    access.iter().any(|(_, mut bound)| bound.any(|one| one.concerns(named)))
                }),
            };
            fits != *is_negated
        })
    }
}

/// The field that a text starts with, the operator, and what follows.
fn operator(text: &str) -> Option<(&str, Operator, &str)> {
    let at = text.find(['=', ':'])?;
    let (field, rest) = text.split_at_checked(at)?;
    let (field, operator) = match (field.strip_suffix('!'), rest.starts_with(':')) {
        (None, true) => (field, Operator::Contains),
        (None, false) => (field, Operator::Is),
        (Some(field), false) => (field, Operator::IsNot),
        (Some(_), true) => return None,
    };
    Some((field.trim(), operator, rest.get(1..)?))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{ConnectionMetadata, GroupMetadata, SecretMetadata};

    #[test]
    fn filters_are_terms_with_and_between() {
        for (text, terms) in [
            ("", 0),
            ("kind = access_key", 1),
            ("kind=access_key AND tags.env!=prod", 2),
            (r#"name = "a b" AND labels.team = *"#, 2),
            (r#"name="a AND b""#, 1),
            ("text : prod AND updated_by:ann AND labels.a:*", 3),
            ("principal = workflow:deploy AND group != g", 2),
            ("stale = true AND stale != false", 0),
        ] {
            let filter = Filter::<ConnectionMetadata>::parse(text).unwrap();
            assert_eq!(filter.terms.len(), terms, "{text}");
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
            "text = prod",
            "name !: a",
            "disabled = yes",
            "disabled : true",
            "stale = true AND stale = false",
            "principal = nobody",
            "workflow = w",
        ] {
            assert!(Filter::<ConnectionMetadata>::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_resource_has_fields_of_its_own() {
        assert!(Filter::<GroupMetadata>::parse("identifier = env AND labels.team = a").is_ok());
        assert!(Filter::<GroupMetadata>::parse("kind = a").is_err());
        assert!(Filter::<SecretMetadata>::parse("workflow = w AND text : token").is_ok());
        assert!(Filter::<SecretMetadata>::parse("principal = workflow:w").is_err());
    }
}
