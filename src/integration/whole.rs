//! Checks the fields of a connection together, as they are after a write.

use std::collections::BTreeMap;

use super::checked::{Checked, PresentFields, Problem};
use super::released::missing_roots;
use super::schema::{CredentialKind, find_field};
use super::source::Source;
use super::template::references;
use crate::model::limits::{MAX_CONNECTION_BYTES, MAX_FIELDS};
use crate::model::{FieldName, Release};

/// The token that an http two_step connection fetches with its first request, by its name in Datadog's HTTP connections.
const FETCHED_TOKEN: &str = "accessToken";

/// Checks all fields together, those that stay included.
pub(super) fn check_whole(
    kind: &CredentialKind,
    checked: &Checked,
    present: Option<&PresentFields>,
    release: Release,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    // The fields after the write: their sizes, and their values as far as they are known.
    let mut after: BTreeMap<&FieldName, (usize, &[u8])> = BTreeMap::new();
    for (name, field) in present.into_iter().flatten() {
        after.insert(name, (field.room, &field.value));
    }
    for (name, field) in checked {
        after.insert(name, (field.value.len(), field.value.expose()));
    }
    let total: usize = after.values().map(|(room, _)| room).sum();
    // A write without values cannot exceed the limit. Neither the sum nor its parts are shown: some are stored secrets.
    if total > MAX_CONNECTION_BYTES && !checked.is_empty() {
        let text = format!(
            "at most {MAX_CONNECTION_BYTES} bytes are allowed together; a sensitive value that stays counts as \
             the next size of 2, 4, 8, 16, 32 and 64 KiB, so give such values again, or shorter ones"
        );
        problems.push(Problem::new("", text));
    }
    if after.len() > MAX_FIELDS {
        let text = format!("there are {} fields; at most {MAX_FIELDS} are allowed", after.len());
        problems.push(Problem::new("", text));
    }
    problems.extend(check_templates(kind, &after, release));
    let is_set = |name: &str| after.keys().any(|set| set.as_str() == name);
    for rule in kind.fields.iter().filter(|rule| is_set(&rule.name)) {
        if let Some(whole) = rule.with.as_deref().filter(|whole| !is_set(whole)) {
            let text = format!("it has a meaning only with {whole}; give both, or leave it out");
            problems.push(Problem::new(&rule.name, text));
        }
    }
    problems.extend(check_stand_ins(kind, is_set));
    match release {
        Release::Minted => problems.extend(check_minted(kind, is_set)),
        Release::Stored if kind.source == Some(Source::OidcIssuer) => {
            let text = "the broker makes each token for one step, so there is nothing to store; leave it out";
            problems.push(Problem::new("release", text));
        }
        Release::Stored => {}
    }
    problems
}

/// The problems of fields that another field may stand in for.
fn check_stand_ins(kind: &CredentialKind, is_set: impl Fn(&str) -> bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    for rule in &kind.fields {
        let Some(other) = rule.unless.as_deref() else { continue };
        let text = match (is_set(&rule.name), is_set(other)) {
            (true, true) => format!("{other} stands in for it; remove one of them"),
            (false, false) if rule.required => {
                format!("missing: {}; or give {other} in its place", rule.description)
            }
            _ => continue,
        };
        problems.push(Problem::new(&rule.name, text));
    }
    problems
}

/// The problems of a connection from which nothing can be minted.
fn check_minted(kind: &CredentialKind, is_set: impl Fn(&str) -> bool) -> Vec<Problem> {
    if kind.source.is_none() {
        let text =
            format!("the broker cannot mint credentials of kind {}; leave it out", kind.name);
        return vec![Problem::new("release", text)];
    }
    let missing = missing_roots(kind, |rule| is_set(&rule.name));
    let text = "missing: a minted connection needs it; give it, or let the connection be stored";
    missing.map(|rule| Problem::new(&rule.name, text)).collect()
}

/// Checks that every token that a text refers to exists after the write.
fn check_templates(
    kind: &CredentialKind,
    after: &BTreeMap<&FieldName, (usize, &[u8])>,
    release: Release,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, (_, value)) in after {
        let rule = find_field(kind, name.as_str()).filter(|rule| rule.template);
        let (Some(rule), Ok(text)) = (rule, std::str::from_utf8(value)) else { continue };
        // The text is released with the token in its place.
        let is_released = release == Release::Minted && !rule.root;
        // A two_step connection uses the token that it fetches first in its second request.
        let is_fetched = kind.name.as_str() == "two_step" && !name.as_str().starts_with("request_");
        let has_token = |token: &str| {
            if is_fetched && token == FETCHED_TOKEN {
                return true;
            }
            let token = format!("tokens.{token}");
            after.keys().any(|name| name.as_str() == token)
        };
        match references(text) {
            Err(problem) => problems.push(Problem::new(name.as_str(), problem)),
            Ok(names) => {
                for token in names {
                    let text = match has_token(token) {
                        true if is_released && token != FETCHED_TOKEN => format!(
                            "{{{{ {token} }}}} would hand a token for the first request to the step; refer to \
                             {{{{ {FETCHED_TOKEN} }}}}, or let the connection be stored"
                        ),
                        true => continue,
                        false => format!("{{{{ {token} }}}} is not a token of this connection"),
                    };
                    problems.push(Problem::new(name.as_str(), text));
                }
            }
        }
    }
    problems
}
