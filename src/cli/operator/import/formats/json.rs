//! JSON objects that repeat no name: serde_json takes the last value, and other readers the first.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use crate::cli::operator::import::extracted::at_line;

/// An object that repeats no name.
pub struct Once<T>(pub BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Once<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(OnceVisitor(PhantomData))
    }
}

struct OnceVisitor<T>(PhantomData<T>);

/// The text of serde's own error for a field that is repeated.
const TWICE: &str = "duplicate field `";

impl<'de, T: Deserialize<'de>> Visitor<'de> for OnceVisitor<T> {
    type Value = Once<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once<T>, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(de::Error::custom(format!("{TWICE}{name}`")));
            }
            members.insert(name, map.next_value()?);
        }
        Ok(Once(members))
    }
}

/// The position of an error in JSON that begins so many lines below the beginning of its file. The text of serde_json's
/// error may show a value, so it is not repeated.
pub fn not_json(error: &serde_json::Error, above: usize) -> String {
    let line = above + error.line();
    let said = error.to_string();
    let twice = said.strip_prefix(TWICE).and_then(|rest| rest.rsplit_once("` at line "));
    if let Some((name, _)) = twice {
        return at_line(line as u64, &format!("{name} is there twice"));
    }
    let what = if error.is_data() { "not the form expected" } else { "not JSON" };
    format!("line {line}, column {}: this is {what}", error.column())
}
