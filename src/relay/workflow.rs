//! Finds the connections, groups and secrets that a workflow file uses, with their positions.
//!
//! It searches a step's `spec`, `env` and `when`, a trigger's `source`, `binding` and `when`, and `locals`. It skips `input`,
//! `inputFile`, `command` and `args`, where a `${…}` belongs to the container's shell. A file without `steps` is searched as
//! a whole. Sources: relay-core `pkg/spec`, and the Workflow schema of Relay's API; for Datadog's workflows see `datadog`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::datadog;
use super::expression::{BinaryOperator, Expression};
use super::path::Segment;
use super::reference::{SpecReference, SpecScope};
use super::spec::{self, TemplatePart, Tree};
use super::yaml::{Content, Node};
use super::{Position, SpecError, yaml};

/// The most uses in one file, counted for each step: aliases and labels multiply.
const MAX_USES: usize = 50_000;

/// The uses of a workflow file.
#[derive(Debug, Default)]
pub struct WorkflowFile {
    /// The name of the workflow.
    pub name: Option<String>,
    /// True if it has steps; a file without may be no workflow.
    pub has_steps: bool,
    /// The names of its steps and triggers.
    pub steps: BTreeSet<String>,
    /// The uses in the order of the file, once for each step.
    pub uses: Vec<WorkflowUse>,
    /// Malformed uses.
    pub problems: Vec<SpecError>,
}

/// One use of a connection, group or secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkflowUse {
    /// The position; for an alias, that of its anchor.
    pub at: Position,
    /// The target.
    pub target: UseTarget,
    /// The field of the connection, dotted; `None` if the connection is used as a whole, or the field is computed.
    pub field: Option<String>,
    /// The step or trigger; `None` outside of steps and triggers.
    pub step: Option<String>,
    /// True if the step sends requests with it only: a broker can send them, and the step needs no value.
    pub is_sent_only: bool,
}

/// A target that a workflow file can use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UseTarget {
    /// A target whose name is made at run time.
    Computed(SpecScope),
    /// A connection.
    Connection {
        /// Its type, which is an integration's name.
        kind: String,
        /// Its name.
        name: String,
    },
    /// A member of a group.
    Group {
        /// The group.
        name: String,
        /// The identifiers; a value is `None` if it is made at run time.
        identifiers: BTreeMap<String, Option<String>>,
    },
    /// A secret.
    Secret {
        /// Its name.
        name: String,
    },
}

/// Finds all uses in a file.
///
/// # Errors
/// Where the text is not YAML.
pub fn find_uses(text: &str) -> Result<WorkflowFile, SpecError> {
    let document = yaml::parse(text)?;
    let workflow = datadog::workflow(&document).unwrap_or(&document);
    let mut finder = Finder::default();
    let parts = |key: &str| workflow.get(key).map(Node::items).unwrap_or_default();
    let has_steps = workflow.get("steps").is_some();
    if has_steps {
        for step in parts("steps") {
            finder.part(step, &["spec", "env", "when"]);
        }
        for trigger in parts("triggers") {
            finder.part(trigger, &["source", "binding", "when"]);
        }
        finder.environments(workflow);
        // An anchor in locals is reported where it is used. The rest of locals is reported here.
        let used: BTreeSet<Position> = finder.found.iter().map(|one| one.at).collect();
        let mut rest = Finder::default();
        workflow.get("locals").into_iter().for_each(|locals| rest.node(locals));
        finder.found.extend(rest.found.into_iter().filter(|one| !used.contains(&one.at)));
        finder.problems.extend(rest.problems);
    } else {
        finder.node(&document);
    }
    if finder.found.len() >= MAX_USES {
        let text = format!("it uses more than {MAX_USES} connections, groups and secrets");
        return Err(SpecError::new(document.at, text));
    }
    let named = parts("steps").into_iter().chain(parts("triggers"));
    let steps = named.filter_map(|part| part.get("name")?.text().map(ToOwned::to_owned)).collect();
    let name = workflow.get("name").or_else(|| datadog::name(&document));
    let name = name.and_then(Node::text).map(ToOwned::to_owned);
    let mut problems = finder.problems;
    problems.sort_by_key(|problem| problem.at);
    problems.dedup();
    let uses = finder.found.into_iter().collect();
    Ok(WorkflowFile { name, has_steps, steps, uses, problems })
}

#[derive(Default)]
struct Finder {
    found: BTreeSet<WorkflowUse>,
    problems: Vec<SpecError>,
    step: Option<String>,
    is_sent_only: bool,
}

impl Finder {
    /// Searches a step or trigger.
    fn part(&mut self, part: &Node, keys: &[&str]) {
        self.step = part.get("name").and_then(Node::text).map(ToOwned::to_owned);
        keys.iter().filter_map(|key| part.get(key)).for_each(|node| self.node(node));
        part.get("connectionGroup").into_iter().for_each(|group| self.group(group));
        self.step = None;
    }

    fn node(&mut self, node: &Node) {
        // Tags such as `!!str` are YAML's own.
        let tag = node.tag.as_deref().filter(|tag| !tag.starts_with("Fn."));
        match (tag, &node.content) {
            (Some(tag), _) if !tag.starts_with('!') => self.tagged(node, tag),
            (None, Content::Scalar { text, .. }) if text.contains("${") => self.text(node, text),
            (_, Content::Scalar { .. }) => {}
            (_, Content::Sequence(items)) => items.iter().for_each(|item| self.node(item)),
            (_, Content::Mapping(entries)) => self.mapping(node, entries),
        }
    }

    fn mapping(&mut self, node: &Node, entries: &[(Node, Node)]) {
        match spec::typed_reference(node) {
            Some(Ok(reference)) => return self.reference(node.at, reference, None),
            Some(Err(problem)) => return self.problems.push(problem),
            None => self.problems.extend(spec::misspelt_type(node)),
        }
        if let Some(connection) = datadog::connection(node, node) {
            self.is_sent_only = datadog::is_request(node);
            self.reference(node.at, connection, None);
            self.is_sent_only = false;
        }
        for (key, value) in entries {
            match key.text() {
                Some("connectionGroup") => self.group(value),
                Some("input" | "inputFile") => {}
                _ => self.node(value),
            }
        }
    }

    fn tagged(&mut self, node: &Node, tag: &str) {
        match spec::tagged(node, tag) {
            Ok(reference) => self.reference(node.at, reference, None),
            Err(problem) => self.problems.push(problem),
        }
    }

    fn reference(&mut self, at: Position, reference: SpecReference, field: Option<String>) {
        match reference {
            SpecReference::Connection { kind, name } => {
                self.add(at, UseTarget::Connection { kind, name }, field);
            }
            SpecReference::Secret { name } => self.add(at, UseTarget::Secret { name }, None),
            SpecReference::Answer { .. }
            | SpecReference::Data { .. }
            | SpecReference::Output { .. }
            | SpecReference::Parameter { .. }
            | SpecReference::Status { .. } => {}
        }
    }

    fn add(&mut self, at: Position, target: UseTarget, field: Option<String>) {
        if self.found.len() < MAX_USES {
            let (step, is_sent_only) = (self.step.clone(), self.is_sent_only);
            self.found.insert(WorkflowUse { at, target, field, step, is_sent_only });
        }
    }

    fn text(&mut self, node: &Node, text: &str) {
        match spec::template(text, node.at) {
            Ok(Tree::Template(template)) => {
                for part in template.parts {
                    if let TemplatePart::Expression(expression) = part {
                        self.expression(node.at, &expression);
                    }
                }
            }
            Ok(_) => {}
            Err(problem) => self.problems.push(problem),
        }
    }

    fn expression(&mut self, at: Position, expression: &Expression) {
        match expression {
            Expression::Literal(_) | Expression::Root => {}
            Expression::Name(_) | Expression::Member(..) => {
                self.member(at, expression, Vec::new());
            }
            Expression::Call(_, arguments) => {
                arguments.iter().for_each(|(_, argument)| self.expression(at, argument));
            }
            Expression::List(items) => items.iter().for_each(|item| self.expression(at, item)),
            Expression::Map(entries) => entries.iter().for_each(|(key, value)| {
                self.expression(at, key);
                self.expression(at, value);
            }),
            Expression::Not(inner) | Expression::Negative(inner) => self.expression(at, inner),
            // The name of a function follows a pipe.
            Expression::Binary(BinaryOperator::Pipe, left, _) => self.expression(at, left),
            Expression::Binary(_, left, right) => {
                self.expression(at, left);
                self.expression(at, right);
            }
        }
    }

    /// `scope.key.key`, from its end; `keys` are the keys after `expression`, the last first.
    fn member<'a>(
        &mut self,
        at: Position,
        expression: &'a Expression,
        mut keys: Vec<&'a Expression>,
    ) {
        match expression {
            Expression::Member(of, key) => {
                // A computed key may use something itself.
                self.expression(at, key);
                keys.push(key);
                self.member(at, of, keys);
            }
            Expression::Name(name) => {
                let Some(scope @ (SpecScope::Connections | SpecScope::Secrets)) =
                    SpecScope::of(name)
                else {
                    return;
                };
                keys.reverse();
                let (selecting, rest) = keys.split_at_checked(scope.keys()).unwrap_or_default();
                let selected = literals(selecting);
                match selected.and_then(|segments| SpecReference::of_scope(scope, &segments)) {
                    Some((reference, _)) => {
                        let rest = literals(rest).filter(|rest| !rest.is_empty());
                        let field = rest.map(|rest| {
                            rest.iter().map(Segment::key).collect::<Vec<_>>().join(".")
                        });
                        self.reference(at, reference, field);
                    }
                    None => self.add(at, UseTarget::Computed(scope), None),
                }
            }
            other => self.expression(at, other),
        }
    }

    /// Searches the connections that steps name by a label.
    fn environments(&mut self, workflow: &Node) {
        let mut users = HashMap::<&str, Vec<&Node>>::new();
        for step in workflow.get("steps").map(Node::items).unwrap_or_default() {
            if let Some(label) = step.get("connectionLabel").and_then(Node::text) {
                users.entry(label).or_default().push(step);
            }
        }
        let mut labels = BTreeSet::new();
        for environment in workflow.get("connectionEnvs").map(Node::items).unwrap_or_default() {
            for key in ["connectionGroups", "connections"] {
                for named in environment.get(key).map(Node::items).unwrap_or_default() {
                    let label = named.get("label").and_then(Node::text);
                    labels.extend(label);
                    let users = label.and_then(|label| users.get(label));
                    self.labelled(named, key, users.map(Vec::as_slice).unwrap_or_default());
                }
            }
        }
        for (label, users) in users {
            let nodes = users.iter().filter_map(|user| user.get("connectionLabel"));
            for node in nodes.filter(|_| !labels.contains(label)) {
                let problem = "no connectionEnvs has this connectionLabel";
                self.problems.push(SpecError::new(node.at, problem));
            }
        }
    }

    /// Adds a connection or group for each step with its label. A group that no step uses is added, too.
    fn labelled(&mut self, named: &Node, key: &str, users: &[&Node]) {
        if users.is_empty() && key == "connectionGroups" {
            self.group(named);
        }
        for user in users {
            if self.found.len() >= MAX_USES {
                return;
            }
            self.step = user.get("name").and_then(Node::text).map(ToOwned::to_owned);
            self.is_sent_only = datadog::is_request(user);
            match (key, datadog::connection(named, user)) {
                ("connectionGroups", _) => self.group(named),
                (_, Some(connection)) => self.reference(named.at, connection, None),
                (_, None) => {
                    let problem = format!(
                        "a connection wants a connectionId, and its step an actionId {}INTEGRATION.…",
                        datadog::ACTIONS
                    );
                    self.problems.push(SpecError::new(named.at, problem));
                }
            }
        }
        (self.step, self.is_sent_only) = (None, false);
    }

    fn group(&mut self, node: &Node) {
        let names = ["name", "connectionGroupId", "id"];
        let name = names.iter().find_map(|key| node.get(key)).and_then(spec::plain_text);
        let Some(name) = name else {
            let problem = "a connectionGroup wants the name of a group, as it is, and tags";
            return self.problems.push(SpecError::new(node.at, problem));
        };
        let tags = node.get("tags").or_else(|| node.get("identifiers"));
        match tags.map_or(Ok(BTreeMap::new()), identifiers) {
            Ok(identifiers) => {
                self.add(node.at, UseTarget::Group { name: name.to_owned(), identifiers }, None);
            }
            Err(problem) => self.problems.push(problem),
        }
    }
}

/// The keys, if none of them is computed.
fn literals(keys: &[&Expression]) -> Option<Vec<Segment>> {
    let literal = |key: &&Expression| match key {
        Expression::Literal(key) => Segment::from_json(key),
        _ => None,
    };
    keys.iter().map(literal).collect()
}

/// `[env:prod, …]` or `{env: prod, …}`.
fn identifiers(node: &Node) -> Result<BTreeMap<String, Option<String>>, SpecError> {
    let wrong = |node: &Node| SpecError::new(node.at, "a tag is written KEY:VALUE");
    let pair = |node: &Node| {
        let (key, value) = node.text().and_then(|text| text.split_once(':')).ok_or(wrong(node))?;
        Ok((key.trim().to_owned(), value.trim().to_owned()))
    };
    let entry = |(key, value): &(Node, Node)| match (key.text(), &value.tag, value.text()) {
        (Some(key), None, Some(text)) => Ok((key.to_owned(), text.to_owned())),
        // `env: !Parameter env`
        (Some(key), Some(_), _) => Ok((key.to_owned(), "${".to_owned())),
        _ => Err(wrong(value)),
    };
    let pairs: Vec<(String, String)> = match &node.content {
        Content::Sequence(items) => items.iter().map(pair).collect::<Result<_, _>>()?,
        Content::Mapping(entries) => entries.iter().map(entry).collect::<Result<_, _>>()?,
        Content::Scalar { .. } => return Err(wrong(node)),
    };
    // `{{ … }}` is Datadog's.
    let is_computed = |value: &String| value.contains("${") || value.contains("{{");
    let known = pairs.into_iter().map(|(key, value)| {
        let is_known = !is_computed(&value);
        (key, is_known.then_some(value))
    });
    Ok(known.collect())
}
