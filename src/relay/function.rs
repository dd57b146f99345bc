//! Relay's functions, by `!Fn.NAME` or in an expression, on arguments that are all known.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::expression::parse;
use super::operator::equal;
use super::path::{apply, plain};

/// Arguments that have names.
pub type Named = BTreeMap<String, Json>;

/// What a function made of its arguments; nothing if there is no such function here.
///
/// # Errors
/// What it expected. It shows none of the arguments.
pub fn call(name: &str, arguments: Vec<Json>, named: &Named) -> Result<Option<Json>, String> {
    let one = |what: &str| match arguments.as_slice() {
        [value] => Ok(value),
        _ => Err(format!("{name} wants {what}")),
    };
    let answer = match name {
        "append" => match arguments.as_slice() {
            [Json::Array(list), added @ ..] => Json::from([list, added].concat()),
            _ => return Err("append wants a list first".to_owned()),
        },
        "concat" => Json::from(arguments.iter().map(text).collect::<String>()),
        "equals" | "notEquals" => match arguments.as_slice() {
            [left, right] => Json::Bool(equal(left, right) == (name == "equals")),
            _ => return Err(format!("{name} wants two arguments")),
        },
        "jsonMarshal" => Json::from(one("one argument")?.to_string()),
        "jsonUnmarshal" => match one("one text")? {
            // What serde_json says of a text is of no use to whoever asked for a value.
            Json::String(text) => {
                serde_json::from_str(text).map_err(|_| "jsonUnmarshal wants JSON".to_owned())?
            }
            _ => return Err("jsonUnmarshal wants one text".to_owned()),
        },
        "merge" => {
            let is_deep = named.get("mode").is_none_or(|mode| mode != "shallow");
            match named.get("objects") {
                Some(Json::Array(objects)) => merge(objects.clone(), is_deep)?,
                Some(_) => return Err("merge wants a list of mappings".to_owned()),
                None => merge(arguments, is_deep)?,
            }
        }
        "path" => {
            let of = |name: &str, place: usize| named.get(name).or_else(|| arguments.get(place));
            let (Some(object), Some(Json::String(query))) = (of("object", 0), of("query", 1))
            else {
                return Err("path wants an object and a query".to_owned());
            };
            let path = parse(query).ok().and_then(|expression| plain(&expression));
            let path = path.ok_or("path wants a query of names and numbers")?;
            match (apply(object.clone(), &path), of("default", 2)) {
                (Ok(found), _) => found,
                (Err(_), Some(default)) => default.clone(),
                (Err(_), None) => return Err("path leads nowhere".to_owned()),
            }
        }
        "toString" => Json::from(text(one("one argument")?)),
        _ => return Ok(None),
    };
    Ok(Some(answer))
}

/// A value as part of a text: a text as it is, anything else as JSON, indented with tabs as Relay's is.
pub fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Object(_) | Json::Array(_) => {
            let mut written = Vec::new();
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
            let mut writer = serde_json::Serializer::with_formatter(&mut written, formatter);
            match serde::Serialize::serialize(value, &mut writer) {
                Ok(()) => String::from_utf8(written).unwrap_or_default(),
                Err(_) => value.to_string(),
            }
        }
        plain => plain.to_string(),
    }
}

/// Maps in one; of two values under one key the later wins, or if both are maps and it is deep, they are merged.
fn merge(arguments: Vec<Json>, is_deep: bool) -> Result<Json, String> {
    let mut merged = Map::new();
    for argument in arguments {
        match argument {
            Json::Object(map) if is_deep => merge_into(&mut merged, map),
            Json::Object(map) => merged.extend(map),
            _ => return Err("merge wants mappings".to_owned()),
        }
    }
    Ok(Json::Object(merged))
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
            call(name, arguments, &Named::new())
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
            assert!(!answer(name, bad).unwrap_err().contains("canary"));
        }
        assert_eq!(text(&json!({"a": [1]})), "{\n\t\"a\": [\n\t\t1\n\t]\n}");
    }
}
