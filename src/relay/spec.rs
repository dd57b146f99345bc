//! A spec as a tree that can be evaluated.
//!
//! Tags (`!Connection {type: aws, name: prod}`), their `$type` maps and `${…}` are three ways to write a reference; the tree
//! has one form for all. Source: relay-core `pkg/spec`, relay docs `reference/relay-expressions.md`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::expression::{BinaryOperator, Expression, parse_braced};
use super::reference::{SpecReference, SpecScope};
use super::yaml::{Content, Node};
use super::{Position, SpecError, scalar, yaml};

/// A part of a spec.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// A scalar.
    Plain(Json),
    /// A list.
    List(Vec<Tree>),
    /// A mapping.
    Map(BTreeMap<String, Tree>),
    /// A reference to another value.
    Reference(SpecReference),
    /// `!Fn.NAME`
    Call {
        /// `NAME`
        name: String,
        /// The arguments.
        arguments: Arguments,
    },
    /// A text with `${…}` in it.
    Template(SpecTemplate),
}

impl Tree {
    /// True if it is a mapping with this key.
    pub fn has_key(&self, key: &str) -> bool {
        matches!(self, Self::Map(entries) if entries.contains_key(key))
    }
}

/// The arguments of a function.
#[derive(Clone, Debug, PartialEq)]
pub enum Arguments {
    /// In order.
    Positional(Vec<Tree>),
    /// By name.
    Named(BTreeMap<String, Tree>),
}

/// A text with expressions in it.
#[derive(Clone, Debug, PartialEq)]
pub struct SpecTemplate {
    /// The text as it was written.
    pub source: String,
    /// The parts, in order.
    pub parts: Vec<TemplatePart>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub enum TemplatePart {
    /// Plain text.
    Text(String),
    /// `${…}`
    Expression(Expression),
}

/// The inputs of a step, as a workflow file has them.
#[derive(Clone, Debug)]
pub struct StepSpec {
    /// `spec`
    pub spec: Tree,
    /// `env`
    pub env: Tree,
    /// `when`: the conditions of the step.
    pub when: Tree,
}

/// The keys of a step in a workflow file.
const STEP_KEYS: [&str; 11] = [
    "args",
    "command",
    "dependsOn",
    "env",
    "image",
    "input",
    "inputFile",
    "name",
    "spec",
    "type",
    "when",
];

impl StepSpec {
    /// Parses a file that holds a spec, or a whole step: a mapping with `spec` and only keys of steps.
    ///
    /// # Errors
    /// Where the text is not YAML or not a spec.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let document = yaml::parse(text)?;
        let Content::Mapping(entries) = &document.content else {
            return Err(SpecError::new(document.at, "a spec is a mapping"));
        };
        let is_key = |key: &Node| key.text().is_some_and(|key| STEP_KEYS.contains(&key));
        let is_step = document.get("spec").is_some() && entries.iter().all(|(key, _)| is_key(key));
        if !is_step {
            let empty = || Tree::Map(BTreeMap::new());
            return Ok(Self { spec: tree(&document)?, env: empty(), when: Tree::List(Vec::new()) });
        }
        let part = |key: &str| document.get(key).map(tree).transpose();
        let when = match part("when")? {
            None => Vec::new(),
            Some(Tree::List(conditions)) => conditions,
            Some(condition) => vec![condition],
        };
        Ok(Self {
            spec: part("spec")?.unwrap_or(Tree::Plain(Json::Null)),
            env: part("env")?.unwrap_or(Tree::Map(BTreeMap::new())),
            when: Tree::List(when),
        })
    }
}

/// The tree of a node.
fn tree(node: &Node) -> Result<Tree, SpecError> {
    match node.tag.as_deref() {
        None => untagged(node),
        Some("!str") => Ok(Tree::Plain(Json::from(text_of(node)?))),
        Some("!binary") => {
            let text: String = text_of(node)?.split_whitespace().collect();
            let decoded = STANDARD.decode(text);
            let bytes = decoded.map_err(|_| SpecError::new(node.at, "!!binary wants Base64"))?;
            Ok(Tree::Plain(scalar::bytes(&bytes)))
        }
        Some("!bool" | "!int" | "!float" | "!null") => {
            Ok(Tree::Plain(scalar::plain(text_of(node)?)))
        }
        Some("!map" | "!seq") => untagged(node),
        Some(tag) => match tag.strip_prefix("Fn.") {
            Some(function) => Ok(Tree::Call {
                name: function.to_owned(),
                arguments: match &node.content {
                    Content::Mapping(entries) => Arguments::Named(map(entries)?),
                    Content::Sequence(items) => Arguments::Positional(list(items)?),
                    Content::Scalar { .. } => Arguments::Positional(vec![untagged(node)?]),
                },
            }),
            None => tagged(node, tag).map(Tree::Reference),
        },
    }
}

fn text_of(node: &Node) -> Result<&str, SpecError> {
    node.text().ok_or_else(|| SpecError::new(node.at, "a text is expected"))
}

fn list(items: &[Node]) -> Result<Vec<Tree>, SpecError> {
    items.iter().map(tree).collect()
}

fn map(entries: &[(Node, Node)]) -> Result<BTreeMap<String, Tree>, SpecError> {
    let entry = |(key, value): &(Node, Node)| Ok((text_of(key)?.to_owned(), tree(value)?));
    entries.iter().map(entry).collect()
}

fn untagged(node: &Node) -> Result<Tree, SpecError> {
    match &node.content {
        Content::Scalar { text, .. } if text.contains("${") => template(text, node.at),
        Content::Scalar { text, is_plain: true } => Ok(Tree::Plain(scalar::plain(text))),
        Content::Scalar { text, is_plain: false } => Ok(Tree::Plain(Json::from(text.clone()))),
        Content::Sequence(items) => list(items).map(Tree::List),
        Content::Mapping(entries) => match entries.as_slice() {
            [(key, value)] if key.text().is_some_and(|key| key.starts_with("$fn.")) => {
                let name = key.text().unwrap_or_default().trim_start_matches("$fn.").to_owned();
                let arguments = match tree(value)? {
                    Tree::List(items) => Arguments::Positional(items),
                    Tree::Map(entries) => Arguments::Named(entries),
                    other => Arguments::Positional(vec![other]),
                };
                Ok(Tree::Call { name, arguments })
            }
            _ => typed(node, entries),
        },
    }
}

/// A mapping; it is a reference if its `$type` is the type of one.
fn typed(node: &Node, entries: &[(Node, Node)]) -> Result<Tree, SpecError> {
    match typed_reference(node) {
        Some(reference) => reference.map(Tree::Reference),
        None => map(entries).map(Tree::Map),
    }
}

/// The reference of a mapping with a known `$type`; `None` for any other node.
pub(super) fn typed_reference(node: &Node) -> Option<Result<SpecReference, SpecError>> {
    let kind = node.get("$type").and_then(Node::text)?;
    let form = SpecReference::forms().into_iter().find(|(name, _)| *name == kind)?;
    Some(of_form(node, form))
}

/// The error of an unknown `$type` that looks like a misspelt reference.
pub(super) fn misspelt_type(node: &Node) -> Option<SpecError> {
    let kind = node.get("$type")?;
    let meant = misspelt(kind.text()?, &["Connection", "Secret"])?;
    let problem = format!("unknown $type {:?}; is {meant} meant?", kind.text()?);
    Some(SpecError::new(kind.at, problem))
}

/// The known word that differs from a word by one letter or by case.
pub(super) fn misspelt<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let distance = |one: &&str| strsim::damerau_levenshtein(&word, &one.to_lowercase());
    known.iter().find(|one| distance(one) <= 1).copied()
}

fn of_form(node: &Node, form: (&str, &[&str])) -> Result<SpecReference, SpecError> {
    let (kind, keys) = form;
    let mut values = Vec::new();
    for key in keys {
        // Older workflows have taskName instead of `from`.
        let legacy = (*key == "from").then(|| node.get("taskName")).flatten();
        let value = node.get(key).or(legacy).ok_or_else(|| {
            SpecError::new(node.at, format!("the required field {key:?} of this {kind} is missing"))
        })?;
        let text = plain_text(value).ok_or_else(|| {
            SpecError::new(value.at, format!("{key:?} of a {kind} must be a text as it is"))
        })?;
        values.push(text.to_owned());
    }
    SpecReference::new(kind, values).ok_or_else(|| SpecError::new(node.at, "not a reference"))
}

/// The text of a node without a tag or expression: names in references are not evaluated.
pub(super) fn plain_text(node: &Node) -> Option<&str> {
    node.text().filter(|text| node.tag.is_none() && !text.contains("${"))
}

/// The reference of a tag such as `!Connection` or `!Secret`, in one of its forms.
pub(super) fn tagged(node: &Node, tag: &str) -> Result<SpecReference, SpecError> {
    let wrong = |problem: String| SpecError::new(node.at, problem);
    let form = SpecReference::forms().into_iter().find(|(name, _)| *name == tag);
    let (kind, keys) = form.ok_or_else(|| wrong(format!("unknown tag \"!{tag}\"")))?;
    let shown = keys.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>().join(" and ");
    let as_it_is = |part: &Node| plain_text(part).map(ToOwned::to_owned);
    let values: Option<Vec<String>> = match &node.content {
        Content::Scalar { text, .. } if keys.len() == 1 && !text.contains("${") => {
            Some(vec![text.clone()])
        }
        Content::Scalar { .. } => None,
        Content::Sequence(items) if items.len() == keys.len() => {
            items.iter().map(as_it_is).collect()
        }
        Content::Mapping(entries) if entries.len() == keys.len() => {
            keys.iter().map(|key| as_it_is(node.get(key)?)).collect()
        }
        Content::Sequence(_) | Content::Mapping(_) => None,
    };
    let values = values.ok_or_else(|| {
        let sequence = match keys.len() {
            1 => "a text",
            _ => "a list of them in this order",
        };
        wrong(format!("!{kind} wants a mapping of exactly {shown}, or {sequence}"))
    })?;
    if values.iter().any(String::is_empty) {
        return Err(wrong(format!("!{kind} wants {shown}, and one is empty")));
    }
    SpecReference::new(kind, values).ok_or_else(|| wrong(format!("!{kind} wants {shown}")))
}

/// A text with expressions in it.
pub(super) fn template(source: &str, at: Position) -> Result<Tree, SpecError> {
    let parts = parts(source).map_err(|problem| SpecError::new(at, problem))?;
    for part in &parts {
        if let TemplatePart::Expression(expression) = part {
            check(expression).map_err(|problem| SpecError::new(at, problem))?;
        }
    }
    Ok(Tree::Template(SpecTemplate { source: source.to_owned(), parts }))
}

/// The parts of a text with `${…}` in it.
///
/// # Errors
/// The error of an expression.
pub fn parts(source: &str) -> Result<Vec<TemplatePart>, String> {
    let mut parts = Vec::new();
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("${") {
        if !before.is_empty() {
            parts.push(TemplatePart::Text(before.to_owned()));
        }
        let (expression, length) = parse_braced(after)?;
        parts.push(TemplatePart::Expression(expression));
        rest = after.get(length..).unwrap_or_default();
    }
    if !rest.is_empty() {
        parts.push(TemplatePart::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// Checks that names are known, and that no expression gives all connections or secrets at once. A step needs only what it
/// names, and a log that prints a spec would print them all.
fn check(expression: &Expression) -> Result<(), String> {
    match expression {
        Expression::Literal(_) => Ok(()),
        Expression::Root => {
            Err("$ means everything, secrets too; name the values that the step needs".to_owned())
        }
        Expression::Name(_) | Expression::Member(..) => check_member(expression, 0),
        Expression::Call(_, arguments) => {
            arguments.iter().try_for_each(|(_, argument)| check(argument))
        }
        Expression::List(items) => items.iter().try_for_each(check),
        Expression::Map(entries) => {
            entries.iter().try_for_each(|(key, value)| check(key).and_then(|()| check(value)))
        }
        Expression::Not(inner) | Expression::Negative(inner) => check(inner),
        // The name of a function follows a pipe.
        Expression::Binary(BinaryOperator::Pipe, left, _) => check(left),
        Expression::Binary(_, left, right) => check(left).and_then(|()| check(right)),
    }
}

fn check_member(expression: &Expression, keys: usize) -> Result<(), String> {
    match expression {
        Expression::Member(of, key) => {
            if !matches!(key.as_ref(), Expression::Literal(_)) {
                check(key)?;
            }
            check_member(of, keys + 1)
        }
        Expression::Name(name) => match SpecScope::of(name) {
            None => Err(format!(
                "{name} is not a name that a spec can use; it can use connections, secrets, parameters, outputs, steps and \
                 event"
            )),
            Some(scope) if keys < scope.keys() => Err(format!(
                "{name} without a name after it means all of them at once; name the one that the step needs"
            )),
            Some(_) => Ok(()),
        },
        other => check(other),
    }
}
