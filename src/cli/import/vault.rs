//! `--from vault-kv-json`: what `vault kv get -format=json PATH` prints, of either version of the KV engine.
//!
//! The answers' form: <https://developer.hashicorp.com/vault/api-docs/secret/kv>. A number or a yes is taken as it
//! stands in the JSON where that is one text only: integers and booleans.

use serde_json::{Map, Value as Json};

use super::fit::{By, Named};
use super::found::{Found, not_json};
use super::place::place;
use super::wanted::Wanted;

/// What the file becomes.
pub fn read(bytes: &[u8], wanted: &Wanted) -> Found {
    let answer: Json = match serde_json::from_slice(bytes) {
        Ok(answer) => answer,
        Err(error) => return Found::problem(not_json(&error)),
    };
    if wanted.integration.is_none() && wanted.workflow.is_none() {
        let text = "say what its values are: --integration NAME --name NAME, or --workflow NAME";
        return Found::problem(text);
    }
    let values = match data(&answer) {
        Ok(data) => data.iter().map(|(name, value)| (name, text_of(value))),
        Err(problem) => return Found::problem(problem),
    };
    let (mut named, mut problems) = (Vec::new(), Vec::new());
    for (name, value) in values {
        match value {
            Ok(value) => named.push(Named { name: name.clone(), value, line: None }),
            Err(is) => problems.push(format!("{name} is {is}: put it as a text (NAME=@FILE)")),
        }
    }
    match problems.is_empty() {
        true => place(named, By::AnyName, None, wanted),
        false => Found { problems, ..Found::default() },
    }
}

/// The values: `data` of version 1; `data.data` of version 2, beside `data.metadata`.
fn data(answer: &Json) -> Result<&Map<String, Json>, &'static str> {
    let no_answer = "this is not what vault kv get -format=json prints";
    let outer = answer.get("data").and_then(Json::as_object).ok_or(no_answer)?;
    match (outer.get("data"), outer.get("metadata")) {
        (Some(Json::Object(inner)), Some(Json::Object(_))) => Ok(inner),
        (Some(Json::Null) | None, Some(Json::Object(metadata)))
            if metadata.contains_key("version") =>
        {
            Err("this version is deleted: name another with -version")
        }
        _ => Ok(outer),
    }
}

fn text_of(value: &Json) -> Result<Vec<u8>, &'static str> {
    match value {
        Json::String(text) => Ok(text.clone().into_bytes()),
        Json::Bool(_) => Ok(value.to_string().into_bytes()),
        Json::Number(number) if !number.is_f64() => Ok(number.to_string().into_bytes()),
        Json::Number(_) => Err("a number with a fraction or exponent"),
        Json::Null => Err("null"),
        Json::Array(_) => Err("a list"),
        Json::Object(_) => Err("an object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Found {
        let wanted = Wanted { workflow: Some("w".to_owned()), ..Wanted::default() };
        read(text.as_bytes(), &wanted)
    }

    #[test]
    fn both_versions_are_read_and_a_secret_of_version_1_may_have_any_keys() {
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
    fn what_is_no_text_is_named_and_no_value_is_shown() {
        let problems = found(
            r#"{"data": {"a": 1.50, "b": null, "c": ["canary"], "d": {"x": "canary"}, "e": 1e3}}"#,
        )
        .problems;
        assert_eq!(problems.len(), 5, "{problems:?}");
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
        let nobody = read(br#"{"data": {"a": "1"}}"#, &Wanted::default());
        assert!(nobody.problems[0].contains("--workflow"));
    }
}
