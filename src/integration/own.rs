//! Checks an integration that operators have made, and reports all problems at once.

use std::collections::BTreeSet;

use super::checked::Problem;
use super::schema::{CredentialKind, FieldRule, Integration};
use crate::model::FieldName;
use crate::model::limits::MAX_FIELDS;

/// The most credential kinds of one integration.
const MAX_KINDS: usize = 16;
/// The longest title, description, example or pattern, in bytes.
const MAX_TEXT_BYTES: usize = 1024;
/// The most other names of one field.
const MAX_ALIASES: usize = 16;

/// Checks that an integration can be stored.
///
/// # Errors
/// All problems.
pub fn check_own(integration: &Integration) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    if !(1..=MAX_KINDS).contains(&integration.kinds.len()) {
        problems.push(Problem::new("kinds", format!("there are 1 to {MAX_KINDS} kinds")));
    }
    check_text("title", &integration.title, &mut problems);
    for kind in &integration.kinds {
        let place = format!("kinds.{}", kind.name);
        if !names.insert(&kind.name) {
            problems.push(Problem::new(&place, "this kind is given twice"));
        }
        check_text(&place, &kind.title, &mut problems);
        check_kind(&place, kind, &mut problems);
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn check_kind(place: &str, kind: &CredentialKind, problems: &mut Vec<Problem>) {
    if !(1..=MAX_FIELDS).contains(&kind.fields.len()) {
        problems.push(Problem::new(place, format!("a kind has 1 to {MAX_FIELDS} fields")));
    }
    let mut names = BTreeSet::new();
    for rule in &kind.fields {
        let place = format!("{place}.fields.{}", rule.name.chars().take(64).collect::<String>());
        for name in std::iter::once(&rule.name).chain(&rule.aliases) {
            if !names.insert(name) {
                problems.push(Problem::new(&place, format!("{name} is given twice")));
            }
        }
        problems.extend(check_rule(rule).map(|text| Problem::new(&place, text)));
        for text in [&rule.description, &rule.example, &rule.env] {
            check_text(&place, text, problems);
        }
    }
}

fn check_rule(rule: &FieldRule) -> Option<String> {
    // A family is a prefix with a dot and a star, or the star alone.
    let is_name = match rule.name.strip_suffix(".*") {
        Some(prefix) => FieldName::parse(prefix).is_ok(),
        None => rule.name == "*" || FieldName::parse(&rule.name).is_ok(),
    };
    if !is_name {
        return Some("a field is named NAME, NAME.* or *".to_owned());
    }
    if rule.description.is_empty() {
        return Some("describe the field".to_owned());
    }
    if rule.sensitive && rule.template {
        return Some("a sensitive value cannot be a template, whose errors are shown".to_owned());
    }
    if rule.aliases.len() > MAX_ALIASES
        || rule.aliases.iter().any(|alias| FieldName::parse(alias).is_err())
    {
        return Some(format!("aliases are field names, at most {MAX_ALIASES}"));
    }
    if rule.family().is_some() && !rule.aliases.is_empty() {
        return Some("a family has no aliases".to_owned());
    }
    let is_long = rule.pattern.as_ref().is_some_and(|pattern| pattern.len() > MAX_TEXT_BYTES);
    if is_long || rule.pattern().is_err() {
        return Some(
            "its pattern is not a regular expression that this broker supports".to_owned(),
        );
    }
    let is_variable = |c: char| c == '_' || c.is_ascii_alphanumeric();
    if !rule.env.chars().all(is_variable) || rule.env.starts_with(|c: char| c.is_ascii_digit()) {
        return Some("env is the name of an environment variable".to_owned());
    }
    None
}

fn check_text(place: &str, text: &str, problems: &mut Vec<Problem>) {
    if text.len() > MAX_TEXT_BYTES || text.chars().any(char::is_control) {
        let rule = format!("texts have at most {MAX_TEXT_BYTES} bytes and no control characters");
        problems.push(Problem::new(place, rule));
    }
}
