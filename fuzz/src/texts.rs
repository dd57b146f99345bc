//! Targets for texts of the command line, and for filters.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::LazyLock;

use keyhatch::catalog::{Catalog, ConnectionMetadata, Filter, FilterField};
use keyhatch::cli::parsers::{
    EnvArgument, Masks, Unmasked, address_in_text, fill_in, parse_duration,
};
use keyhatch::identity::{BrokerAddress, RemoteBroker};
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
    type ConnectionFilter = Filter<ConnectionMetadata>;
    let Ok(filter) = ConnectionFilter::parse(text) else { return };
    assert!(text.len() <= 4096);
    let catalog = Catalog::default();
    let is_admitted = |filter: &ConnectionFilter| filter.bind(&catalog).admits(&CONNECTION);
    let admits = is_admitted(&filter);
    let trimmed = ConnectionFilter::parse(text.trim()).unwrap();
    assert_eq!(format!("{trimmed:?}"), format!("{filter:?}"));
    if !text.trim().is_empty()
        && let Ok(twice) = ConnectionFilter::parse(&format!("{text} AND {text}"))
    {
        assert_eq!(is_admitted(&twice), admits, "{text:?}");
    }
    let mut narrowed = filter;
    narrowed.with(FilterField::Integration, "slack");
    assert!(!is_admitted(&narrowed));
}

/// Arguments, environment files, and words with placeholders.
pub fn command_line(data: &[u8]) {
    env_argument(text(data));
    placeholders(data);
    if let Ok(length) = parse_duration(text(data)) {
        // A duration can also be written in milliseconds.
        assert_eq!(parse_duration(&format!("{}ms", length.as_millis())), Ok(length));
    }
    if let Some(address) = address_in_text(text(data)) {
        let written = match &address {
            BrokerAddress::Socket(path) => format!("KEYHATCH_ADDR=unix://{}", path.display()),
            BrokerAddress::Remote(RemoteBroker { address, id }) => {
                format!("KEYHATCH_ADDR={address}\nKEYHATCH_BROKER={id}")
            }
        };
        assert_eq!(address_in_text(&written), Some(address));
    }
}

fn env_argument(text: &str) {
    let Ok(argument) = EnvArgument::parse(text) else { return };
    let EnvArgument { name, reference, fields, .. } = &argument;
    let mut written = reference.to_string();
    if !fields.is_empty() {
        assert!(name.is_some());
        written = format!("{written}:{}", fields.join(","));
    }
    if let Some(name) = name {
        written = format!("{name}={written}");
    }
    let is_plain = fields.iter().all(|field| FieldName::parse(field).is_ok());
    let again = EnvArgument::parse(&written).ok();
    assert!(!is_plain || again == Some(argument), "{text:?} {written:?}");
}

fn placeholders(word: &[u8]) {
    let filled = fill_in(OsStr::from_bytes(word), "/DIRECTORY");
    let filled = filled.as_bytes();
    let has_none = !word.windows(7).any(|part| part == b"{mount}")
        && !word.windows(10).any(|part| part == b"{env-file}");
    assert_eq!(filled == word, has_none);
    // A filled-in value is not expanded again.
    let directory = "{mount}{env-file}";
    let nested = fill_in(OsStr::from_bytes(word), directory);
    assert!(nested.len() <= word.len() * 6);
}

/// A value, a zero byte, and output in which it may be.
pub fn masks(data: &[u8]) {
    let mut halves = data.splitn(2, |byte| *byte == 0);
    let (value, output) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
    let Some(whole) = masked(value, &[output]) else { return };
    let bytes: Vec<&[u8]> = output.chunks(1).collect();
    assert_eq!(masked(value, &bytes).as_ref(), Some(&whole), "in pieces");
    // A mask beside its context can form a new value of asterisks.
    if value.len() >= 6 && !value.contains(&b'*') {
        assert!(!whole.windows(value.len()).any(|part| part == value));
    }
}

/// Output in pieces with a masked value. `None` if the value is too short or too common to mask.
fn masked(value: &[u8], pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let masks = Masks::default();
    let unmasked = masks.add(value).ok()?;
    let is_masked = unmasked.is_none_or(|why| why == Unmasked::Parts);
    is_masked.then(|| masks.masked_pieces(pieces))
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
                // Each need is new, so the loop ends.
                Ok(EvaluationProgress::Needs(needs)) => {
                    for need in needs {
                        assert!(known.looked_up.insert(need, LookedUp::Nothing).is_none());
                    }
                }
            }
        }
    }
}
