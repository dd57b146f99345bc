//! Texts of the command line, and filters.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::LazyLock;

use keyhatch::catalog::{ConnectionFilter, ConnectionMetadata};
use keyhatch::cli::texts;
use keyhatch::model::FieldName;
use keyhatch::relay::{
    EvaluationProgress, KnownValues, Language, LookedUp, Query, StepSpec, find_uses,
};

use super::words::text;

/// A connection to try filters on.
static CONNECTION: LazyLock<ConnectionMetadata> = LazyLock::new(|| {
    let time = "2026-11-21T10:00:00Z";
    serde_json::from_value(serde_json::json!({
        "uid": "00000000000000000000000000000001",
        "integration": "aws",
        "name": "prod",
        "kind": "access_key",
        "version": 1,
        "revision": 1,
        "fields": {},
        "access": {},
        "tags": {"env": "prod"},
        "labels": {"team": "a"},
        "create_time": time,
        "update_time": time,
        "updated_by": "operators/admin",
    }))
    .unwrap()
});

/// Filters on connections.
pub fn filters(data: &[u8]) {
    let text = text(data);
    let Ok(filter) = ConnectionFilter::parse(text) else { return };
    assert!(text.len() <= 4096);
    let admits = filter.admits(&CONNECTION);
    let trimmed = ConnectionFilter::parse(text.trim()).unwrap();
    assert_eq!(format!("{trimmed:?}"), format!("{filter:?}"));
    if !text.trim().is_empty()
        && let Ok(twice) = ConnectionFilter::parse(&format!("{text} AND {text}"))
    {
        assert_eq!(twice.admits(&CONNECTION), admits, "{text:?}");
    }
    let mut narrowed = filter;
    narrowed.of_integration("slack");
    assert!(!narrowed.admits(&CONNECTION));
}

/// Arguments, environment files, and words with placeholders.
pub fn command_line(data: &[u8]) {
    env_argument(text(data));
    placeholders(data);
    if let Ok(length) = texts::duration(text(data)) {
        // Milliseconds are how it is written, too.
        assert_eq!(texts::duration(&format!("{}ms", length.as_millis())), Ok(length));
    }
    if let Some(path) = texts::address(text(data)) {
        let written = format!("KEYHATCH_ADDR=unix://{}", path.display());
        assert_eq!(texts::address(&written), Some(path));
    }
}

fn env_argument(text: &str) {
    let Some((name, reference, fields)) = texts::env_argument(text) else { return };
    let mut written = reference.to_string();
    if !fields.is_empty() {
        assert!(name.is_some());
        written = format!("{written}:{}", fields.join(","));
    }
    if let Some(name) = &name {
        written = format!("{name}={written}");
    }
    let is_plain = fields.iter().all(|field| FieldName::parse(field).is_ok());
    let again = texts::env_argument(&written);
    assert!(!is_plain || again == Some((name, reference, fields)), "{text:?} {written:?}");
}

fn placeholders(word: &[u8]) {
    let filled = texts::filled_in(OsStr::from_bytes(word), "/DIRECTORY");
    let filled = filled.as_bytes();
    let has_none = !word.windows(7).any(|part| part == b"{mount}")
        && !word.windows(10).any(|part| part == b"{env-file}");
    assert_eq!(filled == word, has_none);
    // What is filled in is not looked at again.
    let directory = "{mount}{env-file}";
    let nested = texts::filled_in(OsStr::from_bytes(word), directory);
    assert!(nested.len() <= word.len() * 6);
}

/// A value, a zero byte, and output in which it may be.
pub fn masks(data: &[u8]) {
    let mut halves = data.splitn(2, |byte| *byte == 0);
    let (value, output) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
    let Some(whole) = texts::masked(value, &[output]) else { return };
    let bytes: Vec<&[u8]> = output.chunks(1).collect();
    assert_eq!(texts::masked(value, &bytes).as_ref(), Some(&whole), "in pieces");
    // Between masks and what is beside them, what is made of asterisks may come to be anew.
    if value.len() >= 6 && !value.contains(&b'*') {
        assert!(!whole.windows(value.len()).any(|part| part == value));
    }
}

/// A spec of Relay's, a zero byte, and a query.
pub fn relay_specs(data: &[u8]) {
    let text = text(data);
    let (spec, query) = text.split_once('\0').unwrap_or((text, ""));
    let languages = ["path", "path-template", "jsonpath", "jsonpath-template"];
    let languages = languages.map(|language| language.parse::<Language>().unwrap());
    let queries: Vec<Query> =
        languages.into_iter().filter_map(|language| Query::parse(query, language).ok()).collect();
    if let Ok(file) = find_uses(spec) {
        let places =
            file.uses.iter().map(|one| one.at).chain(file.problems.iter().map(|one| one.at));
        assert!(places.into_iter().all(|at| at.line > 0 && at.column > 0));
    }
    let step = match StepSpec::parse(spec) {
        Ok(step) => step,
        Err(error) => {
            assert!(error.at.line > 0 && error.at.column > 0, "{error}");
            return;
        }
    };
    for query in queries {
        let mut known = KnownValues::default();
        loop {
            match step.spec.evaluate(&query, &known) {
                Err(_) => break,
                Ok(EvaluationProgress::Done(evaluated)) => {
                    assert!(!evaluated.complete || evaluated.unresolvable.is_empty());
                    break;
                }
                // What it needs it did not know before, so this ends.
                Ok(EvaluationProgress::Needs(needs)) => {
                    for need in needs {
                        assert!(known.looked_up.insert(need, LookedUp::Nothing).is_none());
                    }
                }
            }
        }
    }
}
