//! Reading the journal as it grows.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::chain::file_name;
use super::line::Parts;
use super::replay::file_numbers;
use super::{Journal, Unavailable};
use crate::model::{Id, Invalid, Opening, RunName, Timestamp, WorkflowName, WorkflowPath};
use crate::seal::Keyring;

/// Which lines somebody asks for; what is unset leaves none out.
#[derive(Clone, Debug, Default)]
pub struct TailFilter {
    /// Of these events, as the lines call them.
    pub events: HashSet<String>,
    /// By this principal.
    pub principal: Option<By>,
    /// On this resource: the name as the line has it, or as a reference is written.
    pub resource: String,
    /// Of this workflow's steps.
    pub workflow: Option<WorkflowName>,
    /// Of this run's steps.
    pub run: Option<RunName>,
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Of what was refused.
    pub denied: bool,
}

/// Whose lines somebody asks for.
#[derive(Clone, Debug)]
pub enum By {
    /// An operator's or an executor's, as lines name it.
    Other(String),
    /// Those of steps.
    Steps(WorkflowPath),
}

impl By {
    /// As it is asked for: `operator:NAME`, `executor:NAME`, or what [`WorkflowPath`] is written as.
    ///
    /// # Errors
    /// If it begins as a workflow and does not go on as one.
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

/// One line of the journal.
#[derive(Clone, Debug)]
pub struct TailLine {
    /// Its decision id, "FILE.LINE".
    pub id: String,
    /// When it was written.
    pub time: Timestamp,
    /// What happened.
    pub event: String,
    /// The line, as it stands in the file.
    pub json: String,
}

/// Somebody who reads lines one after the other, from file to file.
pub struct Follower {
    directory: PathBuf,
    keyring: Arc<Keyring>,
    filter: TailFilter,
    /// The openings of the steps that are asked for.
    openings: HashSet<Id>,
    file: u64,
    offset: u64,
    /// The last line that was read: what comes again in the next file is left out.
    last: u64,
}

impl Journal {
    /// A reader that begins with the oldest line that is asked for.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn follow(&self, filter: TailFilter) -> std::io::Result<Follower> {
        let mut files = file_numbers(&self.directory)?;
        if let Some(since) = filter.since {
            while let [.., _, newer] = files.as_slice() {
                // What begins later has all of it only if nothing before is asked for.
                if first_time(&self.directory, *newer)?.is_none_or(|time| time >= since) {
                    files.pop();
                } else {
                    break;
                }
            }
            files = files.pop().into_iter().collect();
        }
        Ok(self.follow_from(files.first().copied().unwrap_or(1), filter))
    }

    /// A reader that begins with this file.
    fn follow_from(&self, file: u64, filter: TailFilter) -> Follower {
        Follower {
            directory: self.directory.clone(),
            keyring: Arc::clone(&self.keyring),
            filter,
            openings: HashSet::new(),
            file,
            offset: 0,
            last: 0,
        }
    }

    /// A reader that begins with what is written next.
    fn follow_from_end(&self, filter: TailFilter) -> std::io::Result<Follower> {
        let chain = self.lock_to_read()?;
        let records = chain.live().openings().map(|opening| opening.record());
        let is_asked_for = |one: &&Opening| {
            filter.workflow.as_ref().is_none_or(|name| *name == one.key.workflow)
                && filter.run.as_ref().is_none_or(|name| *name == one.key.run)
        };
        let openings = records.filter(is_asked_for).map(|one| one.id).collect();
        let (offset, last) = (chain.length(), chain.last().0);
        let follower = self.follow_from(chain.number(), filter);
        Ok(Follower { openings, offset, last, ..follower })
    }

    /// The last `count` lines that are asked for, and the reader that goes on after them. It looks through no
    /// more files than it must.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn last_lines(
        &self,
        count: usize,
        filter: &TailFilter,
    ) -> std::io::Result<(Vec<TailLine>, Follower)> {
        if count == 0 {
            return Ok((Vec::new(), self.follow_from_end(filter.clone())?));
        }
        let files = file_numbers(&self.directory)?;
        let mut begin = files.len().saturating_sub(1);
        loop {
            let file = files.get(begin).copied().unwrap_or(1);
            let mut follower = self.follow_from(file, filter.clone());
            let mut lines = VecDeque::new();
            follower.read(|line| {
                lines.push_back(line);
                if lines.len() > count {
                    lines.pop_front();
                }
                true
            })?;
            if lines.len() >= count || begin == 0 {
                return Ok((lines.into(), follower));
            }
            begin -= 1;
        }
    }

    /// The number of the last line: whether a reader has something to read.
    ///
    /// # Errors
    /// If the journal hangs.
    pub fn last_line(&self) -> Result<u64, Unavailable> {
        Ok(self.lock_to_look()?.last().0)
    }
}

/// When a file was begun; none if its first line is not the broker's.
fn first_time(directory: &Path, file: u64) -> std::io::Result<Option<Timestamp>> {
    let mut line = Vec::new();
    BufReader::new(File::open(directory.join(file_name(file)))?).read_until(b'\n', &mut line)?;
    let parts = Parts::split(line.strip_suffix(b"\n").unwrap_or(&line));
    Ok(parts.and_then(|parts| parts.time()))
}

impl Follower {
    /// The number of the last line that was read.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Reads on, and gives the lines that are asked for to `take`, until the end is reached or `take` wants no
    /// more. What is no line of the broker's is left out. Reads files: call it where waiting is allowed.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn read(&mut self, mut take: impl FnMut(TailLine) -> bool) -> std::io::Result<()> {
        loop {
            let mut reader = BufReader::new(File::open(self.directory.join(file_name(self.file)))?);
            reader.seek(SeekFrom::Start(self.offset))?;
            let mut line = Vec::new();
            loop {
                line.clear();
                let read = reader.read_until(b'\n', &mut line)?;
                // The end, or a line that is being written.
                let Some(text) = line.strip_suffix(b"\n") else { break };
                self.offset += read as u64;
                if let Some(found) = self.look(text)
                    && !take(found)
                {
                    return Ok(());
                }
            }
            if !self.directory.join(file_name(self.file + 1)).exists() {
                return Ok(());
            }
            (self.file, self.offset) = (self.file + 1, 0);
        }
    }

    fn look(&mut self, text: &[u8]) -> Option<TailLine> {
        let parts = Parts::split(text).filter(|parts| parts.is_tagged(&self.keyring))?;
        let value: Value = serde_json::from_slice(text).ok()?;
        let n = value.get("n")?.as_u64()?;
        let event = value.get("event")?.as_str()?.to_owned();
        // A later file's first line has the number of a line before it.
        let is_new = n > self.last || (event == "checkpoint" && n >= self.last);
        self.last = self.last.max(n);
        // Lines of a newer keyhatch are shown, too.
        let time = parts.time()?;
        // Asked of every line: openings are learned from lines that are not asked for themselves.
        let is_of_steps = self.is_of_steps(&value);
        let is_asked_for = is_new
            && is_of_steps
            && self.filter.since.is_none_or(|since| time >= since)
            && (self.filter.events.is_empty() || self.filter.events.contains(&event))
            && (!self.filter.denied || is_denial(&value))
            && self.filter.principal.as_ref().is_none_or(|by| is_by(&value, by))
            && is_on(&value, &self.filter.resource);
        let json = std::str::from_utf8(text).ok()?.to_owned();
        is_asked_for.then(|| TailLine { id: format!("{}.{n}", self.file), time, event, json })
    }

    /// Whether a line is of the workflow and run that are asked for. Many name the opening only, so those
    /// that were seen are remembered.
    fn is_of_steps(&mut self, line: &Value) -> bool {
        if self.filter.workflow.is_none() && self.filter.run.is_none() {
            return true;
        }
        let is_opened = line.get("event").and_then(Value::as_str) == Some("opened");
        let is_checkpoint = line.get("event").and_then(Value::as_str) == Some("checkpoint");
        if is_opened {
            return self.remember(line);
        }
        if is_checkpoint {
            for opening in line.get("openings").and_then(Value::as_array).into_iter().flatten() {
                self.remember(opening);
            }
            return false;
        }
        let opening = line.get("opening").and_then(Value::as_str);
        opening.and_then(|id| id.parse().ok()).is_some_and(|id| self.openings.contains(&id))
    }

    fn remember(&mut self, opening: &Value) -> bool {
        let is = |name: &str, wanted: Option<&str>| {
            wanted.is_none_or(|wanted| opening.get(name).and_then(Value::as_str) == Some(wanted))
        };
        let is_asked_for = is("workflow", self.filter.workflow.as_ref().map(|name| name.as_str()))
            && is("run", self.filter.run.as_ref().map(|name| name.as_str()));
        let id = opening.get("id").and_then(Value::as_str);
        if is_asked_for {
            self.openings.extend(id.and_then(|id| id.parse::<Id>().ok()));
        }
        is_asked_for
    }
}

/// The texts that stand under a name in a line, or in one of its changes.
fn texts<'a>(line: &'a Value, names: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let changes = line.get("changes").and_then(Value::as_array).into_iter().flatten();
    let places = std::iter::once(line).chain(changes);
    places.flat_map(move |place| names.iter().filter_map(|name| place.get(*name)?.as_str()))
}

fn is_denial(line: &Value) -> bool {
    let is = |name: &str, texts: &[&str]| {
        line.get(name).and_then(Value::as_str).is_some_and(|text| texts.contains(&text))
    };
    is("event", &["admin_refused", "rate_refused"]) || is("decision", &["refuse"])
}

fn is_by(line: &Value, by: &By) -> bool {
    texts(line, &["principal"]).any(|principal| by.is(principal))
}

fn is_on(line: &Value, resource: &str) -> bool {
    // "connections/aws/prod" is asked for as "aws/prod", too; a group's target goes on with identifiers.
    let is = |text: &str| {
        text == resource
            || text.strip_prefix("connections/") == Some(resource)
            || text.strip_prefix(resource).is_some_and(|rest| rest.starts_with(':'))
    };
    resource.is_empty() || texts(line, &["resource", "target"]).any(is)
}
