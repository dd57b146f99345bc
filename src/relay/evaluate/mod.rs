//! Evaluates the requested part of a spec, and nothing else.
//!
//! A reference that cannot be resolved is no error: it stays as it was written, is listed, and makes the answer incomplete
//! (relay-core `pkg/spec`, its evaluator). Only a path that leads nowhere is an error.

mod calls;
pub(super) mod error;
mod function;
mod meter;
mod operator;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use self::error::{EvaluationError, Result};
use self::meter::Meter;
use self::operator::{arithmetic, compare, equal, matches, truth};
use crate::relay::expression::{BinaryOperator, Expression};
use crate::relay::path::{Segment, apply};
use crate::relay::query::{Query, QueryPiece};
use crate::relay::reference::{SpecReference, SpecScope};
use crate::relay::spec::{SpecTemplate, TemplatePart, Tree};

/// A value that only the broker has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A connection.
    Connection {
        /// Its type, which is an integration's name.
        kind: String,
        /// Its name.
        name: String,
        /// Only this field, by any of its names; all fields if `None`.
        field: Option<String>,
    },
    /// A secret of the workflow.
    Secret {
        /// Its name.
        name: String,
    },
}

/// The result of a look-up.
#[derive(Clone)]
pub enum LookedUp {
    /// The connection as a map, a field or a secret.
    Value(Json),
    /// It does not exist, or this step may not have it.
    Nothing,
    /// The connection has no such field.
    NoSuchField,
}

impl LookedUp {
    fn value(&self) -> Option<&Json> {
        match self {
            Self::Value(value) => Some(value),
            Self::Nothing | Self::NoSuchField => None,
        }
    }
}

/// The values that are known when an evaluation begins.
#[derive(Clone, Default)]
pub struct KnownValues {
    /// The results of look-ups.
    pub looked_up: BTreeMap<Need, LookedUp>,
    /// The run's parameters.
    pub parameters: BTreeMap<String, Json>,
    /// The outputs of steps, by step and name.
    pub outputs: BTreeMap<(String, String), Json>,
}

/// References that could not be resolved.
pub type Unresolvable = BTreeSet<SpecReference>;

/// The state of an evaluation.
pub enum EvaluationProgress {
    /// It is done.
    Done(Evaluated),
    /// It needs these look-ups; evaluate again then.
    Needs(BTreeSet<Need>),
}

/// The result of an evaluation.
pub struct Evaluated {
    /// The value. Parts that could not be resolved are as they were written.
    pub value: Json,
    /// True if all parts could be resolved.
    pub complete: bool,
    /// The references that could not be resolved.
    pub unresolvable: Unresolvable,
}

/// The value of a part of a tree.
pub(super) enum TreeValue {
    Complete(Json),
    /// A list or map with a part that could not be resolved.
    Incomplete(Json),
    /// It could not be resolved; this is as it was written.
    Unresolved(Json),
}

impl Tree {
    /// Evaluates the part that a query asks for. Evaluate again with the look-ups that it needs, until it is done.
    ///
    /// # Errors
    /// A path that leads nowhere, a wrong call of a function, or an answer beyond the budget of 4 MiB.
    pub fn evaluate(&self, query: &Query, known: &KnownValues) -> Result<EvaluationProgress> {
        let mut evaluator = Evaluator {
            known,
            meter: Meter::new(),
            needs: BTreeSet::new(),
            unresolvable: Unresolvable::new(),
        };
        let outcome = evaluator.query(self, query);
        let Evaluator { needs, unresolvable, .. } = evaluator;
        // A missing look-up may have caused the error.
        if !needs.is_empty() {
            return Ok(EvaluationProgress::Needs(needs));
        }
        let (value, complete) = outcome?;
        Ok(EvaluationProgress::Done(Evaluated { value, complete, unresolvable }))
    }
}

pub(super) struct Evaluator<'a> {
    known: &'a KnownValues,
    pub(super) meter: Meter,
    pub(super) needs: BTreeSet<Need>,
    pub(super) unresolvable: Unresolvable,
}

impl<'a> Evaluator<'a> {
    /// The value, and true if it is complete.
    fn query(&mut self, tree: &Tree, query: &Query) -> Result<(Json, bool)> {
        Ok(match query {
            Query::Path(path) => match self.tree(tree, path)? {
                TreeValue::Complete(value) => (value, true),
                TreeValue::Incomplete(value) => (value, false),
                TreeValue::Unresolved(value) if path.is_empty() => (value, false),
                TreeValue::Unresolved(_) => (Json::Null, false),
            },
            Query::Text(pieces) => match self.pieces(tree, pieces)? {
                Some(text) => (Json::from(text), true),
                None => (Json::Null, false),
            },
        })
    }

    /// The text; `None` if a part could not be resolved.
    fn pieces(&mut self, tree: &Tree, pieces: &[QueryPiece]) -> Result<Option<String>> {
        let mut written = Some(String::new());
        for piece in pieces {
            let value = match piece {
                QueryPiece::Text(text) => Some(text.clone()),
                QueryPiece::Path(path) => match self.tree(tree, path)? {
                    TreeValue::Complete(value) => Some(self.meter.text(&value)?),
                    TreeValue::Incomplete(_) | TreeValue::Unresolved(_) => None,
                },
            };
            written = written.zip(value).map(|(written, value)| written + &value);
        }
        Ok(written)
    }

    pub(super) fn tree(&mut self, tree: &Tree, path: &[Segment]) -> Result<TreeValue> {
        match tree {
            Tree::Plain(value) => apply(self.meter.copy(value)?, path).map(TreeValue::Complete),
            Tree::Map(entries) => self.map(entries, path),
            Tree::List(items) => self.list(items, path),
            Tree::Reference(reference) => match self.reference(reference, path)? {
                Some(value) => Ok(TreeValue::Complete(value)),
                None => self.meter.made(reference.to_json()).map(TreeValue::Unresolved),
            },
            Tree::Call { name, arguments } => self.call(name, arguments, path),
            Tree::Template(template) => match self.template(template, path)? {
                Some(value) => Ok(TreeValue::Complete(value)),
                None => {
                    let source = Json::from(template.source.clone());
                    self.meter.made(source).map(TreeValue::Unresolved)
                }
            },
        }
    }

    fn map(&mut self, entries: &BTreeMap<String, Tree>, path: &[Segment]) -> Result<TreeValue> {
        if let Some((first, rest)) = path.split_first() {
            let key = first.key();
            let tree = entries.get(&key).ok_or_else(|| EvaluationError::unknown_key(&key))?;
            return self.tree(tree, rest).map_err(|error| error.under(first.key()));
        }
        let mut map = Map::new();
        let mut complete = true;
        for (key, tree) in entries {
            self.meter.pay(key.len())?;
            let part = self.tree(tree, &[]);
            let part = part.map_err(|error| error.under(key.clone()))?;
            map.insert(key.clone(), part.into_json(&mut complete));
        }
        Ok(TreeValue::container(Json::Object(map), complete))
    }

    fn list(&mut self, items: &[Tree], path: &[Segment]) -> Result<TreeValue> {
        if let Some((first, rest)) = path.split_first() {
            let tree = first.index().and_then(|index| items.get(index));
            let tree = tree.ok_or_else(|| EvaluationError::unknown_key(&first.key()))?;
            return self.tree(tree, rest).map_err(|error| error.under(first.key()));
        }
        let mut list = Vec::new();
        let mut complete = true;
        for (index, tree) in items.iter().enumerate() {
            let part = self.tree(tree, &[]);
            let part = part.map_err(|error| error.under(index.to_string()))?;
            list.push(part.into_json(&mut complete));
        }
        Ok(TreeValue::container(Json::Array(list), complete))
    }

    /// The value; `None` if a part could not be resolved.
    fn template(&mut self, template: &SpecTemplate, path: &[Segment]) -> Result<Option<Json>> {
        // A single expression keeps its type.
        if let [TemplatePart::Expression(only)] = template.parts.as_slice() {
            return self.expression(only, path);
        }
        let mut written = Some(String::new());
        for part in &template.parts {
            let value = match part {
                TemplatePart::Text(text) => {
                    self.meter.pay(text.len())?;
                    Some(text.clone())
                }
                TemplatePart::Expression(expression) => {
                    let value = self.expression(expression, &[])?;
                    value.map(|value| self.meter.text(&value)).transpose()?
                }
            };
            written = written.zip(value).map(|(written, value)| written + &value);
        }
        written.map(|written| apply(Json::from(written), path)).transpose()
    }

    /// The value of a reference; `None` if it could not be resolved.
    fn reference(&mut self, reference: &SpecReference, path: &[Segment]) -> Result<Option<Json>> {
        let (found, rest) = match reference {
            SpecReference::Connection { kind, name } => {
                let (field, rest) = match path.split_first() {
                    Some((field, rest)) => (Some(field.key()), rest),
                    None => (None, path),
                };
                let (kind, name) = (kind.clone(), name.clone());
                let need = Need::Connection { kind, name, field: field.clone() };
                match (self.look_up(need), field) {
                    (Some(LookedUp::NoSuchField), Some(field)) => {
                        return Err(EvaluationError::unknown_key(&field));
                    }
                    (found, _) => (found.and_then(LookedUp::value), rest),
                }
            }
            SpecReference::Secret { name } => {
                let found = self.look_up(Need::Secret { name: name.clone() });
                (found.and_then(LookedUp::value), path)
            }
            SpecReference::Parameter { name } => (self.known.parameters.get(name), path),
            SpecReference::Output { from, name } => {
                (self.known.outputs.get(&(from.clone(), name.clone())), path)
            }
            // Events, questions and other steps do not exist here.
            SpecReference::Answer { .. }
            | SpecReference::Data { .. }
            | SpecReference::Status { .. } => (None, path),
        };
        match found {
            Some(value) => apply(self.meter.copy(value)?, rest).map(Some),
            None => {
                self.unresolvable.insert(reference.clone());
                Ok(None)
            }
        }
    }

    fn look_up(&mut self, need: Need) -> Option<&'a LookedUp> {
        let found = self.known.looked_up.get(&need);
        if found.is_none() {
            self.needs.insert(need);
        }
        found
    }

    /// The part of an expression's value at a path; `None` if the expression could not be resolved.
    pub(super) fn expression(
        &mut self,
        expression: &Expression,
        path: &[Segment],
    ) -> Result<Option<Json>> {
        let value = match expression {
            Expression::Literal(value) => Some(self.meter.copy(value)?),
            // The spec's reader lets neither through.
            Expression::Root | Expression::Name(_) => None,
            Expression::Member(..) => return self.member(expression, path),
            Expression::Call(name, arguments) => self.call_expression(name, arguments)?,
            Expression::List(items) => {
                let items = items.iter().map(|item| self.expression(item, &[]));
                items.collect::<Result<Option<Vec<_>>>>()?.map(Json::from)
            }
            Expression::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let (key, value) = (self.expression(key, &[])?, self.expression(value, &[])?);
                    let Some((key, value)) = key.zip(value) else { return Ok(None) };
                    map.insert(self.meter.text(&key)?, value);
                }
                Some(Json::Object(map))
            }
            Expression::Not(inner) => match self.expression(inner, &[])? {
                Some(value) => Some(Json::Bool(!truth(&value)?)),
                None => None,
            },
            Expression::Negative(inner) => match self.expression(inner, &[])? {
                Some(value) => {
                    let zero = json!(0);
                    Some(arithmetic(BinaryOperator::Subtract, &zero, &value, &mut self.meter)?)
                }
                None => None,
            },
            Expression::Binary(operator, left, right) => self.binary(*operator, left, right)?,
        };
        value.map(|value| apply(value, path)).transpose()
    }

    /// `base.key.key`: evaluates the keys, then the value at them.
    fn member(&mut self, expression: &Expression, path: &[Segment]) -> Result<Option<Json>> {
        let mut base = expression;
        let mut keys = Vec::new();
        let mut is_computed = false;
        while let Expression::Member(of, key) = base {
            is_computed |= key.is_made_of_values();
            let Some(key) = self.expression(key, &[])? else { return Ok(None) };
            let segment = Segment::from_json(&key);
            keys.push(segment.ok_or_else(|| EvaluationError::new("a key is a text or a number"))?);
            base = of;
        }
        keys.reverse();
        keys.extend_from_slice(path);
        let found = match base {
            Expression::Name(name) => {
                let selected =
                    SpecScope::of(name).and_then(|scope| SpecReference::of_scope(scope, &keys));
                let Some((reference, count)) = selected else { return Ok(None) };
                self.reference(&reference, keys.get(count..).unwrap_or_default())
            }
            base => self.expression(base, &keys),
        };
        found.map_err(|error| if is_computed { error.without_keys() } else { error })
    }

    fn binary(
        &mut self,
        operator: BinaryOperator,
        left: &Expression,
        right: &Expression,
    ) -> Result<Option<Json>> {
        let Some(left) = self.expression(left, &[])? else { return Ok(None) };
        match operator {
            BinaryOperator::Or if truth(&left)? => return Ok(Some(json!(true))),
            BinaryOperator::And if !truth(&left)? => return Ok(Some(json!(false))),
            _ => {}
        }
        let Some(right) = self.expression(right, &[])? else { return Ok(None) };
        let value = match operator {
            BinaryOperator::Or | BinaryOperator::And => Json::Bool(truth(&right)?),
            BinaryOperator::Equal => Json::Bool(equal(&left, &right, &mut self.meter)?),
            BinaryOperator::NotEqual => Json::Bool(!equal(&left, &right, &mut self.meter)?),
            BinaryOperator::Less
            | BinaryOperator::LessOrEqual
            | BinaryOperator::Greater
            | BinaryOperator::GreaterOrEqual => {
                Json::Bool(compare(operator, &left, &right, &mut self.meter)?)
            }
            BinaryOperator::Matches | BinaryOperator::MatchesNot => {
                let matches = matches(&left, &right, &mut self.meter)?;
                Json::Bool(matches == (operator == BinaryOperator::Matches))
            }
            BinaryOperator::Pipe => return Ok(None),
            operator => arithmetic(operator, &left, &right, &mut self.meter)?,
        };
        Ok(Some(value))
    }
}

impl TreeValue {
    fn container(value: Json, complete: bool) -> Self {
        if complete { Self::Complete(value) } else { Self::Incomplete(value) }
    }

    /// The value. Sets `complete` to false if the value is not complete.
    pub(super) fn into_json(self, complete: &mut bool) -> Json {
        match self {
            Self::Complete(value) => value,
            Self::Incomplete(value) | Self::Unresolved(value) => {
                *complete = false;
                value
            }
        }
    }
}
