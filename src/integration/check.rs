//! Checks a credential against its integration, and reports all problems at once.

use std::collections::{BTreeMap, BTreeSet};

use super::checked::{Checked, CheckedField, PresentFields, Problem};
use super::claims::read_claims;
use super::misplaced::misplaced;
use super::pem::with_last_newline;
use super::schema::{CredentialKind, FieldRule, Integration, ValueForm, find_field};
use super::whole::check_whole;
use crate::model::limits::MAX_VALUE_BYTES;
use crate::model::{FieldName, KindName, Release, Value};

/// The longest value of a field that has a pattern, in bytes.
const MAX_PATTERN_TEXT_BYTES: usize = 4096;

/// The kind of a credential: the named kind, or the only kind that has all these fields.
///
/// # Errors
/// A problem that lists the kinds.
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
        return integration.kind(named.as_str()).ok_or_else(|| {
            let text = format!("{} has no kind {named}; it has: {}", integration.name, all());
            Problem::new("kind", text)
        });
    }
    if let [only] = integration.kinds.as_slice() {
        return Ok(only);
    }
    if let Some(problem) = unknown_to_all(integration, fields) {
        return Err(problem);
    }
    let knows_all =
        |kind: &&CredentialKind| fields.iter().all(|name| find_field(kind, name).is_some());
    let is_whole = |kind: &&CredentialKind| {
        let has = |name: &str| fields.contains(name);
        let mut needed = kind.fields.iter().filter(|rule| rule.is_required(has));
        needed.all(|rule| fields.iter().any(|name| rule.covers(name)))
    };
    let knowing: Vec<&CredentialKind> = integration.kinds.iter().filter(knows_all).collect();
    let whole: Vec<&CredentialKind> = knowing.iter().copied().filter(is_whole).collect();
    match (whole.as_slice(), knowing.as_slice()) {
        ([only], _) | ([], [only]) => Ok(only),
        (_, []) => {
            let fields = fields_by_kind(integration);
            Err(Problem::new("kind", format!("no kind has all of these fields; {fields}")))
        }
        _ => {
            let text = format!("the fields do not say which kind is meant; name one of: {}", all());
            Err(Problem::new("kind", text))
        }
    }
}

/// A problem if no kind has some of the fields: they are misspelt, or are names of kinds.
fn unknown_to_all(integration: &Integration, fields: &BTreeSet<&str>) -> Option<Problem> {
    let is_known =
        |name: &&&str| integration.kinds.iter().any(|kind| find_field(kind, name).is_some());
    let unknown: Vec<&str> = fields.iter().filter(|name| !is_known(name)).copied().collect();
    let first = unknown.first()?;
    let shown: Vec<String> = unknown.iter().map(|name| name.chars().take(64).collect()).collect();
    let text = match integration.kind(first) {
        Some(kind) => {
            let fields: Vec<_> = kind.fields.iter().map(|rule| rule.name.as_str()).collect();
            format!("{first} is a kind, whose fields are: {}", fields.join(", "))
        }
        None => {
            let (names, fields) = (shown.join(", "), fields_by_kind(integration));
            format!("there is no field {names}; {fields}")
        }
    };
    Some(Problem::new(shown.first()?, text))
}

fn fields_by_kind(integration: &Integration) -> String {
    let of_kind = |kind: &CredentialKind| {
        let fields: Vec<_> = kind.fields.iter().map(|rule| rule.name.as_str()).collect();
        format!("{} has: {}", kind.name, fields.join(", "))
    };
    integration.kinds.iter().map(of_kind).collect::<Vec<_>>().join("; ")
}

/// Checks the fields of a write: all fields of a new connection, or changes to the fields that are `present`. After the
/// write the connection is minted or stored, as `release` says.
///
/// # Errors
/// All problems.
pub fn check(
    kind: &CredentialKind,
    fields: BTreeMap<String, Value>,
    present: Option<&PresentFields>,
    release: Release,
) -> Result<Checked, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut checked = Checked::new();
    for (given, value) in fields {
        let rule = find_field(kind, &given);
        let Some((rule, name)) = rule.and_then(|rule| Some((rule, rule.canonical(&given)?))) else {
            problems.push(unknown(kind, &given));
            continue;
        };
        problems.extend(check_value(rule, &given, &name, &value));
        let (value, is_mended) = with_last_newline(value);
        let (sensitive, destination) = (rule.sensitive, rule.destination);
        let field = CheckedField { sensitive, destination, value, is_mended };
        if checked.insert(name.clone(), field).is_some() {
            problems.push(Problem::new(
                &given,
                format!("{name} is given twice, under two of its names"),
            ));
        }
    }
    if present.is_none() {
        // A field that another may stand in for is checked together with that.
        for rule in kind.fields.iter().filter(|rule| rule.required && rule.unless.is_none()) {
            if !checked.keys().any(|name| rule.covers(name.as_str())) {
                let text = format!("missing: {}", rule.description);
                problems.push(Problem::new(&rule.name, text));
            }
        }
    }
    problems.extend(check_whole(kind, &checked, present, release));
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

/// The problem of a value of any field: it is too long, or a mask.
pub fn value_problem(given: &str, value: &Value) -> Option<Problem> {
    if value.len() > MAX_VALUE_BYTES {
        let text =
            format!("the value has {} bytes; at most {MAX_VALUE_BYTES} are allowed", value.len());
        return Some(Problem::new(given, text));
    }
    let text = "the value looks like a mask that some tool printed; give the real value";
    value.looks_masked().then(|| Problem::new(given, text))
}

fn check_value(rule: &FieldRule, given: &str, name: &FieldName, value: &Value) -> Option<Problem> {
    if let Some(problem) = value_problem(given, value) {
        return Some(problem);
    }
    if let Some(text) = misplaced(rule, value) {
        return Some(Problem::new(given, text));
    }
    if rule.generated {
        let text = "the broker makes this value itself; leave it out";
        return Some(Problem::new(given, text));
    }
    if rule.form == Some(ValueForm::Claims) {
        let text = std::str::from_utf8(value.expose()).unwrap_or_default();
        return read_claims(text).err().map(|fault| Problem::new(given, fault));
    }
    // A value for a header, an address or a name must not begin a new line.
    let is_line = if rule.family().is_some() { rule.template } else { rule.pattern.is_some() };
    if is_line && value.expose().iter().any(u8::is_ascii_control) {
        return Some(Problem::new(given, "the value must not hold control characters"));
    }
    let after_dot = rule.family().and_then(|prefix| name.as_str().strip_prefix(prefix));
    if after_dot.is_some_and(|rest| rule.forbidden.contains(&rest.to_ascii_lowercase())) {
        return Some(Problem::new(
            given,
            "the client sets this one itself; it says where requests go",
        ));
    }
    // Checked before a pattern is matched, which takes time in proportion to the text.
    if rule.pattern.is_some() && rule.family().is_none() && value.len() > MAX_PATTERN_TEXT_BYTES {
        let text = format!("the value has more than {MAX_PATTERN_TEXT_BYTES} bytes");
        return Some(Problem::new(given, text));
    }
    if let Some((least, most)) = rule.range {
        let text = std::str::from_utf8(value.expose()).ok();
        let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = digits.and_then(|text| text.parse::<u64>().ok());
        let is_within = number.is_some_and(|number| (least..=most).contains(&number));
        let text = || format!("the value must be a whole number from {least} to {most}");
        return (!is_within).then(|| Problem::new(given, text()));
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
        let problems =
            check(kind("aws", "access_key"), given, None, Release::Stored).err().unwrap();
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["access_key_id", "region_name", "session_token", "secret_access_key"]);
        assert!(problems.iter().all(|problem| !problem.description.contains("canary")));
    }

    #[test]
    fn relay_names_fold_into_ours_and_repeats_are_refused() {
        let given = values(&[("accessKeyID", "a"), ("secretAccessKey", "b")]);
        let checked = check(kind("aws", "access_key"), given, None, Release::Stored).ok().unwrap();
        let names: Vec<_> = checked.keys().map(FieldName::as_str).collect();
        assert_eq!(names, ["access_key_id", "secret_access_key"]);

        let twice =
            values(&[("accessKeyID", "a"), ("access_key_id", "b"), ("secretAccessKey", "c")]);
        assert_eq!(
            check(kind("aws", "access_key"), twice, None, Release::Stored).err().unwrap().len(),
            1
        );
    }

    #[test]
    fn nested_names_follow_their_family() {
        let given = values(&[("base_url", "https://a.example"), ("tokens.apiKey", "t")]);
        let checked = check(kind("http", "token"), given, None, Release::Stored).ok().unwrap();
        assert!(checked[&FieldName::parse("tokens.apiKey").unwrap()].sensitive);
        assert!(checked[&FieldName::parse("base_url").unwrap()].destination);

        let given = values(&[("base_url", "https://a.example"), ("tokens.api_key", "t")]);
        assert_eq!(
            check(kind("http", "token"), given, None, Release::Stored).err().unwrap().len(),
            1
        );
    }
}
