//! Paths to parts of a spec: keys and indices.

use serde_json::Value as Json;

use super::evaluate::error::EvaluationError;
use super::expression::Expression;

/// One segment of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A key of a mapping.
    Key(String),
    /// An index of a list.
    Index(usize),
}

impl Segment {
    /// The segment of a literal; `None` if it is neither a text nor an index.
    pub fn from_json(value: &Json) -> Option<Self> {
        match value {
            Json::String(key) => Some(Self::Key(key.clone())),
            Json::Number(number) => number.as_u64()?.try_into().ok().map(Self::Index),
            _ => None,
        }
    }

    /// The segment as a key.
    pub fn key(&self) -> String {
        match self {
            Self::Key(key) => key.clone(),
            Self::Index(index) => index.to_string(),
        }
    }

    /// The segment as an index; `None` if it is not a number.
    pub fn index(&self) -> Option<usize> {
        match self {
            Self::Key(key) => key.parse().ok(),
            Self::Index(index) => Some(*index),
        }
    }
}

/// The path of an expression of names and literal keys; `None` for any other. A leading `$` is everything.
pub fn plain(expression: &Expression) -> Option<Vec<Segment>> {
    match expression {
        Expression::Root => Some(Vec::new()),
        Expression::Name(name) => Some(vec![Segment::Key(name.clone())]),
        Expression::Member(of, key) => {
            let Expression::Literal(key) = key.as_ref() else { return None };
            let mut path = plain(of)?;
            path.push(Segment::from_json(key)?);
            Some(path)
        }
        _ => None,
    }
}

/// The part of a value at a path.
///
/// # Errors
/// If the path leads nowhere.
pub fn apply(value: Json, path: &[Segment]) -> Result<Json, EvaluationError> {
    let Some((first, rest)) = path.split_first() else { return Ok(value) };
    let found = match value {
        Json::Object(mut map) => map.remove(&first.key()),
        Json::Array(mut list) => {
            let index = first.index().filter(|index| *index < list.len());
            index.map(|index| list.swap_remove(index))
        }
        _ => None,
    };
    let found = found.ok_or_else(|| EvaluationError::unknown_key(&first.key()))?;
    apply(found, rest).map_err(|error| error.under(first.key()))
}
