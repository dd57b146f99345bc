//! Relay's functions, called with arguments that are all known.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::error::{EvaluationError, Result};
use super::meter::Meter;
use super::operator::equal;
use crate::relay::expression::parse;
use crate::relay::path::{apply, plain};

/// Arguments by name.
pub type NamedArguments = BTreeMap<String, Json>;

/// Calls a function. `None` if it does not exist here.
///
/// # Errors
/// The expectation of the function, or that the budget is spent. An error shows no argument.
pub fn call(
    name: &str,
    arguments: Vec<Json>,
    named: &NamedArguments,
    meter: &mut Meter,
) -> Result<Option<Json>> {
    let wants = |what: &str| EvaluationError::new(format!("{name} wants {what}"));
    let one = |what: &str| match arguments.as_slice() {
        [value] => Ok(value),
        _ => Err(wants(what)),
    };
    let answer = match name {
        "append" => match arguments.as_slice() {
            [Json::Array(list), added @ ..] => meter.made(Json::from([list, added].concat()))?,
            _ => return Err(wants("a list first")),
        },
        "concat" => {
            let texts = arguments.iter().map(|value| meter.text(value));
            Json::from(texts.collect::<Result<String>>()?)
        }
        "equals" | "notEquals" => match arguments.as_slice() {
            [left, right] => Json::Bool(equal(left, right, meter)? == (name == "equals")),
            _ => return Err(wants("two arguments")),
        },
        "jsonMarshal" => Json::from(meter.json(one("one argument")?)?),
        "jsonUnmarshal" => match one("one text")? {
            // The parser's message is not shown: the text may be secret.
            Json::String(text) => {
                meter.made(serde_json::from_str(text).map_err(|_| wants("JSON"))?)?
            }
            _ => return Err(wants("one text")),
        },
        "merge" => {
            let is_deep = named.get("mode").is_none_or(|mode| mode != "shallow");
            let merged = match named.get("objects") {
                Some(Json::Array(objects)) => merge(objects.clone(), is_deep),
                Some(_) => return Err(wants("a list of mappings")),
                None => merge(arguments, is_deep),
            };
            meter.made(merged.ok_or_else(|| EvaluationError::new("merge wants mappings"))?)?
        }
        "path" => part(&arguments, named, meter)?,
        "toString" => Json::from(meter.text(one("one argument")?)?),
        _ => return Ok(None),
    };
    Ok(Some(answer))
}

/// The part of an object at a path, or the default.
fn part(arguments: &[Json], named: &NamedArguments, meter: &mut Meter) -> Result<Json> {
    let wants = |what: &str| EvaluationError::new(format!("path wants {what}"));
    let of = |name: &str, place: usize| named.get(name).or_else(|| arguments.get(place));
    let (Some(object), Some(Json::String(query))) = (of("object", 0), of("query", 1)) else {
        return Err(wants("an object and a query"));
    };
    let path = parse(query).ok().and_then(|expression| plain(&expression));
    let path = path.ok_or_else(|| wants("a query of names and numbers"))?;
    match (apply(meter.copy(object)?, &path), of("default", 2)) {
        (Ok(found), _) => Ok(found),
        (Err(_), Some(default)) => meter.copy(default),
        (Err(_), None) => Err(EvaluationError::new("path leads nowhere")),
    }
}

/// Merges maps; `None` if an argument is not a map. The later value of a key wins; two maps are merged if `is_deep`.
fn merge(arguments: Vec<Json>, is_deep: bool) -> Option<Json> {
    let mut merged = Map::new();
    for argument in arguments {
        match argument {
            Json::Object(map) if is_deep => merge_into(&mut merged, map),
            Json::Object(map) => merged.extend(map),
            _ => return None,
        }
    }
    Some(Json::Object(merged))
}

fn merge_into(merged: &mut Map<String, Json>, added: Map<String, Json>) {
    for (key, value) in added {
        match (merged.get_mut(&key), value) {
            (Some(Json::Object(old)), Json::Object(new)) => merge_into(old, new),
            (_, value) => {
                merged.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn functions_answer_or_say_what_they_want() {
        let answer = |name, arguments: Json| {
            let Json::Array(arguments) = arguments else { panic!() };
            call(name, arguments, &NamedArguments::new(), &mut Meter::new())
        };
        assert_eq!(answer("concat", json!(["a", 1, "b"])), Ok(Some(json!("a1b"))));
        assert_eq!(answer("equals", json!(["a", "a"])), Ok(Some(json!(true))));
        assert_eq!(answer("notEquals", json!(["a", "a"])), Ok(Some(json!(false))));
        assert_eq!(answer("append", json!([["a"], "b", "c"])), Ok(Some(json!(["a", "b", "c"]))));
        assert_eq!(answer("jsonUnmarshal", json!(["{\"a\": 1}"])), Ok(Some(json!({"a": 1}))));
        assert_eq!(
            answer("merge", json!([{"a": {"x": 1, "y": 1}}, {"a": {"y": 2}}])),
            Ok(Some(json!({"a": {"x": 1, "y": 2}})))
        );
        assert_eq!(answer("convertMarkdown", json!(["a"])), Ok(None));
        for (name, bad) in
            [("append", json!(["a"])), ("jsonUnmarshal", json!(["{canary"])), ("merge", json!([1]))]
        {
            assert!(!answer(name, bad).unwrap_err().to_string().contains("canary"));
        }
        let text = Meter::new().text(&json!({"a": [1]})).unwrap();
        assert_eq!(text, "{\n\t\"a\": [\n\t\t1\n\t]\n}");
    }
}
