//! Calls of functions, by `!Fn.NAME` or in an expression.

use serde_json::{Value as Json, json};

use super::error::Result;
use super::function::{NamedArguments, call};
use super::{Evaluator, TreeValue};
use crate::relay::expression::Expression;
use crate::relay::path::{Segment, apply};
use crate::relay::spec::{Arguments, Tree};

/// An argument of a call.
#[derive(Clone, Copy)]
enum Argument<'a> {
    Tree(&'a Tree),
    Expression(&'a Expression),
}

/// The result of a call.
enum Called {
    Value(Json),
    /// An argument could not be resolved, or the function does not exist here.
    Unresolved(Vec<Json>, NamedArguments),
}

impl Evaluator<'_> {
    /// The value of a call in an expression; `None` if it could not be resolved.
    pub(super) fn call_expression(
        &mut self,
        name: &str,
        arguments: &[(Option<String>, Expression)],
    ) -> Result<Option<Json>> {
        let positional = arguments.iter().filter(|(name, _)| name.is_none());
        let positional: Vec<_> = positional.map(|(_, value)| Argument::Expression(value)).collect();
        let named = arguments.iter();
        let named =
            named.filter_map(|(name, value)| Some((name.as_deref()?, Argument::Expression(value))));
        match self.function(name, &positional, &named.collect::<Vec<_>>())? {
            Called::Value(value) => Ok(Some(value)),
            Called::Unresolved(..) => Ok(None),
        }
    }

    /// The value of a `!Fn.NAME`.
    pub(super) fn call(
        &mut self,
        name: &str,
        arguments: &Arguments,
        path: &[Segment],
    ) -> Result<TreeValue> {
        let (items, named): (Vec<_>, Vec<_>) = match arguments {
            Arguments::Positional(items) => {
                (items.iter().map(Argument::Tree).collect(), Vec::new())
            }
            Arguments::Named(entries) => {
                let named =
                    entries.iter().map(|(name, tree)| (name.as_str(), Argument::Tree(tree)));
                (Vec::new(), named.collect())
            }
        };
        match self.function(name, &items, &named)? {
            Called::Value(value) => apply(value, path).map(TreeValue::Complete),
            Called::Unresolved(items, named) => {
                let written = match arguments {
                    Arguments::Positional(_) => Json::from(items),
                    Arguments::Named(_) => Json::Object(named.into_iter().collect()),
                };
                Ok(TreeValue::Unresolved(json!({ format!("$fn.{name}"): written })))
            }
        }
    }

    fn function(
        &mut self,
        name: &str,
        arguments: &[Argument<'_>],
        named: &[(&str, Argument<'_>)],
    ) -> Result<Called> {
        match (name, arguments) {
            ("coalesce", arguments) => return self.coalesce(arguments),
            ("exists", [argument]) => {
                return match self.argument(*argument) {
                    Ok(TreeValue::Complete(_)) => Ok(Called::Value(json!(true))),
                    Ok(outcome) => Ok(Called::Unresolved(
                        vec![outcome.into_json(&mut true)],
                        NamedArguments::new(),
                    )),
                    Err(error) if error.is_absence => Ok(Called::Value(json!(false))),
                    Err(error) => Err(error),
                };
            }
            _ => {}
        }
        let mut complete = true;
        let mut values = Vec::new();
        for argument in arguments {
            values.push(self.argument(*argument)?.into_json(&mut complete));
        }
        let mut by_name = NamedArguments::new();
        for (name, argument) in named {
            let value = self.argument(*argument)?.into_json(&mut complete);
            by_name.insert((*name).to_owned(), value);
        }
        let called = match complete {
            true => call(name, values.clone(), &by_name, &mut self.meter)?,
            false => None,
        };
        Ok(called.map_or_else(|| Called::Unresolved(values, by_name), Called::Value))
    }

    /// The first argument that is not null. Arguments before it do not count as unresolvable.
    fn coalesce(&mut self, arguments: &[Argument<'_>]) -> Result<Called> {
        for argument in arguments {
            self.meter.pay(self.unresolvable.len())?;
            let (needs, unresolvable) = (self.needs.len(), self.unresolvable.clone());
            match self.argument(*argument) {
                Ok(TreeValue::Complete(value)) if !value.is_null() => {
                    return Ok(Called::Value(value));
                }
                Ok(_) => {}
                Err(error) if error.is_absence => {}
                Err(error) => return Err(error),
            }
            // The argument may have a value once it is looked up; later arguments are not looked up before.
            if self.needs.len() > needs {
                return Ok(Called::Unresolved(Vec::new(), NamedArguments::new()));
            }
            self.unresolvable = unresolvable;
        }
        Ok(Called::Value(Json::Null))
    }

    fn argument(&mut self, argument: Argument<'_>) -> Result<TreeValue> {
        match argument {
            Argument::Tree(tree) => self.tree(tree, &[]),
            Argument::Expression(expression) => {
                let value = self.expression(expression, &[])?;
                Ok(value.map_or(TreeValue::Unresolved(Json::Null), TreeValue::Complete))
            }
        }
    }
}
