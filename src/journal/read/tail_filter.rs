//! The filter of a tail.

use std::collections::{HashMap, HashSet};

use serde::Deserialize as _;
use serde_json::Value;

use crate::journal::write::line::Parts;
use crate::model::{Id, Invalid, RunName, Timestamp, WorkflowName, WorkflowPath};
use crate::seal::Keyring;

/// Which lines pass; unset fields admit every line.
#[derive(Clone, Debug, Default)]
pub struct TailFilter {
    /// The names of events; all if empty.
    pub events: HashSet<String>,
    /// The principal.
    pub principal: Option<PrincipalFilter>,
    /// The full name of the resource, or a reference to it; all if empty.
    pub resource: String,
    /// The workflow of the steps.
    pub workflow: Option<WorkflowName>,
    /// The run of the steps.
    pub run: Option<RunName>,
    /// Lines from this time on.
    pub since: Option<Timestamp>,
    /// Refusals only.
    pub denied: bool,
}

/// The principal of a line.
#[derive(Clone, Debug)]
pub enum PrincipalFilter {
    /// An operator or executor, as lines name it.
    Other(String),
    /// A step, or all steps of a run or workflow.
    Steps(WorkflowPath),
}

impl PrincipalFilter {
    /// Parses `operator:NAME`, `executor:NAME`, or a [`WorkflowPath`].
    ///
    /// # Errors
    /// If the text begins like a workflow and is not a path.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match text.starts_with("workflow:") {
            true => text.parse().map(Self::Steps),
            false => Ok(Self::Other(text.to_owned())),
        }
    }

    fn is(&self, principal: &str) -> bool {
        match self {
            Self::Other(name) => name == principal,
            Self::Steps(path) => principal.parse().is_ok_and(|of| path.includes(&of)),
        }
    }
}

/// One line of the journal, for a client.
#[derive(Clone, Debug)]
pub struct TailLine {
    /// The place, "FILE.LINE".
    pub id: String,
    /// When it was written.
    pub time: Timestamp,
    /// The name of the event.
    pub event: String,
    /// The line as it is in the file.
    pub json: String,
}

/// A line that the broker has written, parsed as far as filters need it.
pub(crate) struct ReadLine {
    pub(crate) n: u64,
    pub(crate) time: Timestamp,
    pub(crate) event: String,
    text: String,
    body: Value,
}

impl ReadLine {
    /// Parses a line, without its newline; `None` if the broker has not written it.
    pub(crate) fn parse(text: &[u8], keyring: &Keyring) -> Option<Self> {
        Parts::tagged(text, keyring)?;
        let body: Value = serde_json::from_slice(text).ok()?;
        Some(Self {
            n: body.get("n")?.as_u64()?,
            time: Timestamp::deserialize(body.get("time")?).ok()?,
            event: body.get("event")?.as_str()?.to_owned(),
            text: std::str::from_utf8(text).ok()?.to_owned(),
            body,
        })
    }

    /// The line for a client, as a line of this file.
    pub(crate) fn into_tail_line(self, file: u64) -> TailLine {
        let id = format!("{file}.{}", self.n);
        TailLine { id, time: self.time, event: self.event, json: self.text }
    }

    /// The opening that the line contains.
    pub(crate) fn opening(&self) -> Option<Id> {
        let name = if self.event == "opened" { "id" } else { "opening" };
        self.body.get(name)?.as_str()?.parse().ok()
    }

    /// The steps that an operator's line has ended, or whose leases, and the run or step that the line is about.
    fn ended_steps(&self) -> impl Iterator<Item = &str> {
        let list = |name: &str| self.body.get(name).and_then(Value::as_array).into_iter().flatten();
        let ended = list("revoked").chain(list("closed"));
        let target = self.body.get("target").and_then(Value::as_str);
        ended.filter_map(|one| one.get("step")?.as_str()).chain(target)
    }
}

/// Whether a line belongs to the steps of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OfSteps {
    Yes,
    No,
    /// The line contains an opening that is not known yet.
    Unknown(Id),
}

/// The known openings, and whether they belong to the steps of the filter. Many lines contain the opening only.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownSteps(HashMap<Id, bool>);

impl KnownSteps {
    /// Notes an opening that does.
    pub(crate) fn insert(&mut self, opening: Id) {
        self.0.insert(opening, true);
    }

    /// Whether this opening does; `None` if it is not known.
    pub(crate) fn get(&self, opening: Id) -> Option<bool> {
        self.0.get(&opening).copied()
    }

    /// Learns the openings in a line; those that do not belong to the filter's steps only with `others`.
    pub(crate) fn learn(&mut self, filter: &TailFilter, line: &ReadLine, others: bool) {
        if !filter.has_steps() {
            return;
        }
        let openings = line.body.get("openings").and_then(Value::as_array);
        for opening in openings.into_iter().flatten().filter(|_| line.event == "checkpoint") {
            let id = opening.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok());
            let known = id.map(|id| (id, filter.is_of_steps(opening)));
            self.0.extend(known.filter(|(_, is_one)| others || *is_one));
        }
        let is_one = match line.event.as_str() {
            "opened" => Some(filter.is_of_steps(&line.body)),
            _ => line
                .body
                .get("principal")
                .and_then(Value::as_str)
                .and_then(|principal| filter.is_of_path(principal)),
        };
        let known = line.opening().zip(is_one);
        self.0.extend(known.filter(|(_, is_one)| others || *is_one));
    }

    /// Forgets all openings.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl TailFilter {
    /// Whether the filter asks for steps.
    pub(crate) fn has_steps(&self) -> bool {
        self.workflow.is_some() || self.run.is_some()
    }

    /// Whether a line passes, apart from its step.
    pub(crate) fn admits(&self, line: &ReadLine) -> bool {
        self.since.is_none_or(|since| line.time >= since)
            && (self.events.is_empty() || self.events.contains(&line.event))
            && (!self.denied || is_denial(line))
            && self.principal.as_ref().is_none_or(|by| is_by(&line.body, by))
            && is_on(&line.body, &self.resource)
    }

    /// Whether a line belongs to the steps of the filter.
    pub(crate) fn steps(&self, line: &ReadLine, known: &KnownSteps) -> OfSteps {
        if !self.has_steps() {
            return OfSteps::Yes;
        }
        match line.opening() {
            None if line.ended_steps().any(|step| self.is_of_path(step) == Some(true)) => {
                OfSteps::Yes
            }
            None => OfSteps::No,
            Some(opening) => match known.get(opening) {
                Some(true) => OfSteps::Yes,
                Some(false) => OfSteps::No,
                None => OfSteps::Unknown(opening),
            },
        }
    }

    /// Whether the filter asks for steps of this workflow and run.
    pub(crate) fn is_of(&self, workflow: &str, run: &str) -> bool {
        self.workflow.as_ref().is_none_or(|name| name.as_str() == workflow)
            && self.run.as_ref().is_none_or(|name| name.as_str() == run)
    }

    /// Whether the filter asks for a step, as lines name it; `None` if the text is no step.
    fn is_of_path(&self, step: &str) -> Option<bool> {
        let (workflow, rest) = step.strip_prefix("workflow:")?.split_once("/run:")?;
        Some(self.is_of(workflow, rest.split_once("/step:").map_or(rest, |(run, _)| run)))
    }

    fn is_of_steps(&self, opening: &Value) -> bool {
        let text = |name: &str| opening.get(name).and_then(Value::as_str).unwrap_or_default();
        self.is_of(text("workflow"), text("run"))
    }
}

/// The texts under these names in a line and in its changes.
fn texts<'a>(line: &'a Value, names: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let changes = line.get("changes").and_then(Value::as_array).into_iter().flatten();
    let places = std::iter::once(line).chain(changes);
    places.flat_map(move |place| names.iter().filter_map(|name| place.get(*name)?.as_str()))
}

fn is_denial(line: &ReadLine) -> bool {
    matches!(line.event.as_str(), "admin_refused" | "mint_failed" | "rate_refused")
        || line.body.get("decision").and_then(Value::as_str) == Some("refuse")
}

fn is_by(line: &Value, by: &PrincipalFilter) -> bool {
    texts(line, &["principal"]).any(|principal| by.is(principal))
}

fn is_on(line: &Value, resource: &str) -> bool {
    // "aws/prod" also finds "connections/aws/prod"; a group's target continues with identifiers.
    let is = |text: &str| {
        text == resource
            || text.strip_prefix("connections/") == Some(resource)
            || text.strip_prefix(resource).is_some_and(|rest| rest.starts_with(':'))
    };
    resource.is_empty() || texts(line, &["resource", "target"]).any(is)
}
