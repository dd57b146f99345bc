//! `--from vault-kv-json`: the output of `vault kv get -format=json PATH`, for both versions of the KV engine.
//!
//! The format: <https://developer.hashicorp.com/vault/api-docs/secret/kv>. An integer or a boolean is taken as it is
//! written, because it can be written in one way only.

use serde_json::value::RawValue;

use super::json::{Once, not_json};
use super::text::decoded;
use crate::cli::operator::import::assign::assign;
use crate::cli::operator::import::extracted::Extracted;
use crate::cli::operator::import::fit::{MatchBy, NamedValue};
use crate::cli::operator::import::options::ImportOptions;

/// An object with the text of its values, so that no number is rounded.
type RawObject<'a> = Once<&'a RawValue>;

/// Reads a file.
pub fn read(bytes: &[u8], wanted: &ImportOptions) -> Extracted {
    let parsed = decoded(bytes).and_then(|text| {
        let answer = serde_json::from_str::<RawObject<'_>>(text);
        Ok((text, answer.map_err(|error| not_json(&error, 0))?))
    });
    let (text, answer) = match parsed {
        Ok(parsed) => parsed,
        Err(problem) => return Extracted::problem(problem),
    };
    if wanted.integration.is_none() && wanted.workflow.is_none() {
        let text = "say what its values are: --integration NAME --name NAME, or --workflow NAME";
        return Extracted::problem(text);
    }
    let Once(values) = match data(text, &answer) {
        Ok(values) => values,
        Err(problem) => return Extracted::problem(problem),
    };
    let (mut named, mut left_out) = (Vec::new(), Extracted::default());
    for (name, value) in values {
        match text_of(value.get()) {
            Ok(value) => named.push(NamedValue { name, value, line: None }),
            Err("null") => left_out.skip(name, "it is null"),
            Err(is) => left_out.skip(name, format!("it is {is}; put it as a text (NAME=@FILE)")),
        }
    }
    let mut found = assign(named, MatchBy::AnyName, None, wanted);
    found.add(left_out);
    found
}

/// The values: `data` in version 1; `data.data` in version 2, which has `data.metadata`, too.
fn data<'a>(text: &str, answer: &RawObject<'a>) -> Result<RawObject<'a>, String> {
    let outer = object(text, answer, "data")?;
    let outer = outer.ok_or("this is not what vault kv get -format=json prints")?;
    let is_absent = outer.0.get("data").is_none_or(|inner| inner.get() == "null");
    match (object(text, &outer, "data")?, object(text, &outer, "metadata")?) {
        (Some(inner), Some(_)) => Ok(inner),
        (None, Some(metadata)) if is_absent && metadata.0.contains_key("version") => {
            Err("this version is deleted: name another with -version".to_owned())
        }
        _ => Ok(outer),
    }
}

/// The object at this name; `None` if it is missing or no object.
fn object<'a>(text: &str, of: &RawObject<'a>, name: &str) -> Result<Option<RawObject<'a>>, String> {
    let Some(json) = of.0.get(name).map(|value| value.get()).filter(|json| json.starts_with('{'))
    else {
        return Ok(None);
    };
    // A raw value is a slice of the text.
    let begin = (json.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let above = text.get(..begin).unwrap_or_default().matches('\n').count();
    serde_json::from_str(json).map(Some).map_err(|error| not_json(&error, above))
}

/// A string, an integer of any size or a boolean, as it is written.
fn text_of(json: &str) -> Result<Vec<u8>, &'static str> {
    match json.bytes().next() {
        Some(b'"') => {
            let text = serde_json::from_str::<String>(json);
            text.map(String::into_bytes).map_err(|_| "no text of Unicode")
        }
        Some(b't' | b'f') => Ok(json.as_bytes().to_vec()),
        Some(b'n') => Err("null"),
        Some(b'[') => Err("a list"),
        Some(b'{') => Err("an object"),
        _ if json.contains(['.', 'e', 'E']) => Err("a number with a fraction or exponent"),
        _ => Ok(json.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Extracted {
        let wanted = ImportOptions { workflow: Some("w".to_owned()), ..ImportOptions::default() };
        read(text.as_bytes(), &wanted)
    }

    #[test]
    fn both_versions_are_read_and_version_1_may_have_any_keys() {
        for (text, names) in [
            (r#"{"request_id": "x", "data": {"a": "1", "b": true, "c": -5}}"#, "a b c"),
            (r#"{"data": {"data": {"a": "1"}, "metadata": {"version": 2}}}"#, "a"),
            (r#"{"data": {"data": "1", "metadata": "2"}}"#, "data metadata"),
        ] {
            let found = found(text);
            let from: Vec<_> = found.entries.iter().map(|entry| entry.from.as_str()).collect();
            assert_eq!(from.join(" "), names, "{:?}", found.problems);
        }
    }

    #[test]
    fn what_is_no_text_is_left_out_by_name_and_no_value_is_shown() {
        let found_of = found(
            r#"{"data": {"a": 1.50, "b": null, "c": ["canary"], "d": {"x": "canary"}, "e": 1e3,
                "f": 123456789012345678901234567890, "g": -7}}"#,
        );
        let becomes: Vec<_> = found_of.entries.iter().map(|entry| entry.from.as_str()).collect();
        assert_eq!((becomes.join(" "), found_of.problems), ("f g".to_owned(), Vec::new()));
        let skipped: Vec<_> = found_of.skipped.iter().map(|one| one.what.as_str()).collect();
        assert_eq!(skipped.join(" "), "a b c d e");
        assert!(found_of.skipped.iter().all(|one| !one.why.contains("canary")));
        for text in [
            "canary",
            "\"canary\"",
            r#"["canary"]"#,
            r#"{"data": "canary"}"#,
            r#"{"data": {"data": null, "metadata": {"version": 3, "deletion_time": "canary"}}}"#,
        ] {
            let problems = found(text).problems;
            assert_eq!(problems.len(), 1, "{text}");
            assert!(!problems[0].contains("canary"), "{problems:?}");
        }
        let nobody = read(br#"{"data": {"a": "1"}}"#, &ImportOptions::default());
        assert!(nobody.problems[0].contains("--workflow"));
    }
}
