//! The check of a credential against its integration: all problems at once.

use std::collections::{BTreeMap, BTreeSet};

use super::schema::{CredentialKind, FieldRule, Integration};
use crate::model::limits::{MAX_CONNECTION_BYTES, MAX_VALUE_BYTES};
use crate::model::{FieldName, KindName, Value};

/// One thing that is wrong with one field. It never shows a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, or empty if it is about the whole.
    pub field: String,
    /// What is wrong, and what to do.
    pub description: String,
}

impl Problem {
    /// A problem with a field.
    pub fn new(field: &str, description: impl Into<String>) -> Self {
        Self { field: field.to_owned(), description: description.into() }
    }
}

/// One field that passed.
pub struct CheckedField {
    /// Write-only.
    pub sensitive: bool,
    /// Says where the credential is sent.
    pub destination: bool,
    /// The value.
    pub value: Value,
}

/// The fields that passed, by our names.
pub type Checked = BTreeMap<FieldName, CheckedField>;

/// The rule for a field of this name, if the kind has one.
pub fn find_field<'a>(kind: &'a CredentialKind, name: &str) -> Option<&'a FieldRule> {
    let exact = kind.fields.iter().find(|rule| rule.family().is_none() && rule.covers(name));
    exact.or_else(|| kind.fields.iter().find(|rule| rule.covers(name)))
}

/// The kind that is meant: the one named, or the only one that takes these field names.
///
/// # Errors
/// A problem that lists the kinds there are.
pub fn infer_kind<'a>(
    integration: &'a Integration,
    named: Option<&KindName>,
    fields: &BTreeSet<&str>,
) -> Result<&'a CredentialKind, Problem> {
    let all = || {
        let names: Vec<_> = integration.kinds.iter().map(|kind| kind.name.as_str()).collect();
        names.join(", ")
    };
    if let Some(named) = named {
        return integration.kinds.iter().find(|kind| kind.name == *named).ok_or_else(|| {
            let text = format!("{} has no kind {named}; it has: {}", integration.name, all());
            Problem::new("kind", text)
        });
    }
    if let [only] = integration.kinds.as_slice() {
        return Ok(only);
    }
    let mut fitting = integration.kinds.iter().filter(|kind| {
        fields.iter().all(|name| find_field(kind, name).is_some())
            && kind
                .fields
                .iter()
                .all(|rule| !rule.required || fields.iter().any(|f| rule.covers(f)))
    });
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only),
        _ => {
            let text = format!("the fields do not say which kind is meant; name one of: {}", all());
            Err(Problem::new("kind", text))
        }
    }
}

/// Checks the fields to be set. With `complete`, they are all there is, and required ones must be among
/// them.
///
/// # Errors
/// Every problem there is.
pub fn check(
    kind: &CredentialKind,
    fields: BTreeMap<String, Value>,
    complete: bool,
) -> Result<Checked, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut checked = Checked::new();
    let total: usize = fields.values().map(Value::len).sum();
    if total > MAX_CONNECTION_BYTES {
        let text = format!(
            "the values have {total} bytes together; at most {MAX_CONNECTION_BYTES} are allowed"
        );
        problems.push(Problem::new("", text));
    }
    for (given, value) in fields {
        let Some((rule, name)) =
            find_field(kind, &given).and_then(|rule| Some((rule, rule.canonical(&given)?)))
        else {
            problems.push(unknown(kind, &given));
            continue;
        };
        problems.extend(check_value(rule, &given, &name, &value));
        let field =
            CheckedField { sensitive: rule.sensitive, destination: rule.destination, value };
        if checked.insert(name.clone(), field).is_some() {
            problems.push(Problem::new(
                &given,
                format!("{name} is given twice, under two of its names"),
            ));
        }
    }
    if complete {
        for rule in kind.fields.iter().filter(|rule| rule.required) {
            if !checked.keys().any(|name| rule.covers(name.as_str())) {
                let text = format!("missing: {}", rule.description);
                problems.push(Problem::new(&rule.name, text));
            }
        }
    }
    if problems.is_empty() { Ok(checked) } else { Err(problems) }
}

fn unknown(kind: &CredentialKind, given: &str) -> Problem {
    let shown: String = given.chars().take(64).collect();
    if kind.fields.iter().any(|rule| rule.name == "*") {
        let rule = "a field name is 1 to 128 letters, digits or . _ -, starting with a letter or _";
        return Problem::new(&shown, rule);
    }
    let known: Vec<_> = kind.fields.iter().map(|rule| rule.name.as_str()).collect();
    Problem::new(&shown, format!("{} has no such field; it has: {}", kind.name, known.join(", ")))
}

fn check_value(rule: &FieldRule, given: &str, name: &FieldName, value: &Value) -> Option<Problem> {
    if value.len() > MAX_VALUE_BYTES {
        let text =
            format!("the value has {} bytes; at most {MAX_VALUE_BYTES} are allowed", value.len());
        return Some(Problem::new(given, text));
    }
    if value.looks_masked() {
        let text = "the value looks like a mask that some tool printed; give the real one";
        return Some(Problem::new(given, text));
    }
    let pattern = rule.pattern().ok().flatten()?;
    let matches = match rule.family() {
        Some(prefix) => {
            name.as_str().strip_prefix(prefix).is_some_and(|rest| pattern.is_match(rest))
        }
        None => std::str::from_utf8(value.expose()).is_ok_and(|text| pattern.is_match(text)),
    };
    let subject = if rule.family().is_some() { "the name after the dot" } else { "the value" };
    (!matches).then(|| Problem::new(given, format!("{subject} must match {pattern}")))
}

#[cfg(test)]
mod tests {
    use super::super::built_in;
    use super::*;
    use crate::model::IntegrationName;

    fn kind(integration: &str, kind: &str) -> &'static CredentialKind {
        let integration = &built_in()[&IntegrationName::parse(integration).unwrap()];
        integration.kinds.iter().find(|k| k.name.as_str() == kind).unwrap()
    }

    fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, Value> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), Value::new((*v).into()))).collect()
    }

    #[test]
    fn all_problems_are_reported_at_once_and_none_shows_a_value() {
        let given = values(&[
            ("access_key_id", "****"),
            ("region_name", "canary"),
            ("session_token", &"x".repeat(MAX_VALUE_BYTES + 1)),
        ]);
        let problems = check(kind("aws", "access_key"), given, true).err().unwrap();
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["access_key_id", "region_name", "session_token", "secret_access_key"]);
        assert!(problems.iter().all(|problem| !problem.description.contains("canary")));
    }

    #[test]
    fn relay_names_are_folded_into_ours_and_naming_a_field_twice_is_refused() {
        let given = values(&[("accessKeyID", "a"), ("secretAccessKey", "b")]);
        let checked = check(kind("aws", "access_key"), given, true).ok().unwrap();
        let names: Vec<_> = checked.keys().map(FieldName::as_str).collect();
        assert_eq!(names, ["access_key_id", "secret_access_key"]);

        let twice =
            values(&[("accessKeyID", "a"), ("access_key_id", "b"), ("secretAccessKey", "c")]);
        assert_eq!(check(kind("aws", "access_key"), twice, true).err().unwrap().len(), 1);
    }

    #[test]
    fn nested_names_follow_their_family() {
        let given = values(&[("base_url", "https://a.example"), ("tokens.apiKey", "t")]);
        let checked = check(kind("http", "token"), given, true).ok().unwrap();
        assert!(checked[&FieldName::parse("tokens.apiKey").unwrap()].sensitive);
        assert!(checked[&FieldName::parse("base_url").unwrap()].destination);

        let given = values(&[("base_url", "https://a.example"), ("tokens.api_key", "t")]);
        assert_eq!(check(kind("http", "token"), given, true).err().unwrap().len(), 1);
    }
}
