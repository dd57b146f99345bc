//! `keyhatch check`: whether workflow files will get what they ask for, before they run.
//!
//! ```text
//! file ─ relay::find_uses ─ each use ─ checker, group ─ CheckFinding ─ a line, and commands that repair it
//!                                      └ cache: what the broker answers, each question asked once
//! ```

mod cache;
mod checker;
mod group;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::json;

use self::cache::BrokerCache;
pub use self::checker::ANY_STEP;
use self::checker::{CheckResult, Checker, shown};
use super::seed::{files_in, say_passed_over};
use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{Output, print, say};
use crate::cli::io::text::{file_label, printable};
use crate::relay::{MAX_FILE_BYTES, Position, WorkflowFile, WorkflowUse, find_uses};
use crate::sys::input;

/// The exit code if something will not work.
const FOUND: u8 = 1;
/// The endings of the files of a directory that are read.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
/// The beginning of a file.
const START: Position = Position { line: 1, column: 1 };
const NO_WORKFLOW: &str = "it has no steps: is it a workflow of Relay or Datadog?";

#[derive(clap::Args)]
pub struct Check {
    /// Workflow files, - for stdin, or directories of *.yaml, *.yml and *.json files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The name of the workflow; by default the name in the file, or the file's name without its ending.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// Check only what this step asks for.
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    /// A principal that the steps will run as, such as user:alice; may be given more than once.
    #[arg(long, value_name = "PRINCIPAL")]
    run_as: Vec<String>,
    /// Only list what the files ask for, without a broker.
    #[arg(long)]
    offline: bool,
    /// Leave out what is fine.
    #[arg(long)]
    quiet: bool,
}

/// The result for one use in a file.
struct CheckFinding {
    file: String,
    at: Position,
    /// The steps that ask.
    steps: Vec<String>,
    /// The thing that is asked for, as people write it; empty if it is not well formed.
    reference: String,
    result: CheckResult,
}

impl Check {
    pub(crate) async fn run(self, common: &Common) -> Result<u8, Failure> {
        let files = self.paths()?;
        let mut cache = match self.offline {
            true => None,
            false => Some(BrokerCache::new(common.operator().await?)),
        };
        let (mut findings, mut steps) = (Vec::new(), BTreeSet::new());
        for path in &files {
            let file = file_label(path);
            match read(path) {
                Ok(workflow) if is_something_else(&workflow) => match self.files.contains(path) {
                    true => findings.push(malformed(file, START, NO_WORKFLOW.to_owned())),
                    // A directory may hold more than workflows.
                    false => say(&format!("note: {}: {NO_WORKFLOW}", printable(&file))),
                },
                Ok(workflow) => {
                    steps.extend(workflow.steps.iter().cloned());
                    findings.extend(self.findings(&file, path, workflow, &mut cache).await?);
                }
                Err((at, problem)) => findings.push(malformed(file, at, problem)),
            }
        }
        if let Some(step) = self.step.as_ref().filter(|step| !steps.contains(*step)) {
            let there = steps.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!("there is no step {step} in it; steps: {there}")));
        }
        let bad = findings.iter().filter(|finding| !finding.result.is_fine()).count();
        self.print(common.output, &findings)?;
        let asked = findings.iter().filter(|one| !one.reference.is_empty()).count();
        say(&format!("{} file(s), {asked} reference(s), {bad} problem(s)", files.len()));
        Ok(if bad == 0 { 0 } else { FOUND })
    }

    /// The files in the order of the arguments, those of a directory by name.
    fn paths(&self) -> Result<Vec<PathBuf>, Failure> {
        say_passed_over(&self.files, &ENDINGS);
        let mut paths = Vec::new();
        for path in &self.files {
            if !path.is_dir() {
                let there = || std::fs::metadata(path).map(drop);
                let there = if input::is_stdin(path) { Ok(()) } else { there() };
                there.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
                paths.push(path.clone());
                continue;
            }
            let files = files_in(path, &ENDINGS)?;
            if files.is_empty() {
                let text =
                    "holds no *.yaml, *.yml or *.json file; directories in it are not looked into";
                return Err(Failure::usage(format!("{} {text}", path.display())));
            }
            paths.extend(files);
        }
        Ok(paths)
    }

    async fn findings(
        &self,
        file: &str,
        path: &Path,
        found: WorkflowFile,
        cache: &mut Option<BrokerCache>,
    ) -> Result<Vec<CheckFinding>, Failure> {
        let WorkflowFile { name, uses, problems, .. } = found;
        let workflow = self.workflow.clone().or(name);
        if workflow.is_none() && input::is_stdin(path) && cache.is_some() {
            return Err(Failure::usage("stdin does not name its workflow: give --workflow NAME"));
        }
        let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let workflow = workflow.unwrap_or_else(stem);
        let problems = problems.into_iter();
        let mut findings: Vec<CheckFinding> =
            problems.map(|one| malformed(file.to_owned(), one.at, one.problem)).collect();
        for UseAtPlace { one, fields, steps, is_sent_only } in by_place(uses, self.step.as_deref())
        {
            let result = match cache {
                Some(cache) => {
                    let run_as = &self.run_as;
                    let (workflow, steps, fields) = (&workflow, &steps, &fields);
                    let mut checker =
                        Checker { workflow, steps, run_as, fields, is_sent_only, cache };
                    checker.check(&one.target).await?
                }
                None => CheckResult::fine(""),
            };
            let reference = shown(&one.target);
            findings.push(CheckFinding {
                file: file.to_owned(),
                at: one.at,
                steps,
                reference,
                result,
            });
        }
        findings.sort_by_key(|finding| finding.at);
        Ok(findings)
    }

    fn print(&self, output: Output, findings: &[CheckFinding]) -> Result<(), Failure> {
        let listed = findings.iter().filter(|one| !self.quiet || !one.result.is_fine());
        let listed: Vec<&CheckFinding> = listed.collect();
        let answer: Vec<_> = listed.iter().map(|one| one.to_json()).collect();
        let lines = || {
            // Each command is shown once: after it has run, the thing exists.
            let mut shown = BTreeSet::new();
            listed.iter().map(|one| one.describe(&mut shown)).collect::<Vec<_>>().join("\n")
        };
        let names = || {
            let references = listed.iter().filter(|one| !one.reference.is_empty());
            references.map(|one| printable(&one.reference)).collect::<Vec<_>>().join("\n")
        };
        if listed.is_empty() && output == Output::Table {
            return Ok(());
        }
        print(output, &answer, lines, names)
    }
}

impl CheckFinding {
    fn describe<'a>(&'a self, shown: &mut BTreeSet<&'a str>) -> String {
        let Self { file, at, reference, result, .. } = self;
        let what = [reference.as_str(), result.sentence.as_str()];
        let what = what.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
        // The text of the file must not control the terminal.
        let (file, what) = (printable(file), printable(&what));
        let commands = result.commands.iter().filter(|command| shown.insert(command.as_str()));
        let commands = commands.map(|command| format!("\n    {command}"));
        format!("{file}:{}:{}: {what}{}", at.line, at.column, commands.collect::<String>())
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "file": self.file,
            "line": self.at.line,
            "column": self.at.column,
            "steps": self.steps,
            "reference": self.reference,
            "state": self.result.state.word(),
            "message": self.result.sentence,
            "suggestions": self.result.suggestions,
            "commands": self.result.commands,
        })
    }
}

/// True if a file has neither steps nor uses.
fn is_something_else(file: &WorkflowFile) -> bool {
    !file.has_steps && file.uses.is_empty() && file.problems.is_empty()
}

fn malformed(file: String, at: Position, problem: String) -> CheckFinding {
    let (steps, reference) = (Vec::new(), String::new());
    CheckFinding { file, at, steps, reference, result: CheckResult::malformed(problem) }
}

/// Reads a workflow file.
fn read(path: &Path) -> Result<WorkflowFile, (Position, String)> {
    let text = input::named(path, MAX_FILE_BYTES).and_then(input::text);
    let text = text.map_err(|error| (START, error.to_string()))?;
    find_uses(&text).map_err(|error| (error.at, error.problem))
}

/// A thing that is used at one position.
struct UseAtPlace {
    one: WorkflowUse,
    /// The fields that are used of it.
    fields: BTreeSet<String>,
    /// Every step that uses it.
    steps: Vec<String>,
    /// True if every step sends requests with it only.
    is_sent_only: bool,
}

/// The uses, one for each position and thing.
fn by_place(uses: Vec<WorkflowUse>, only: Option<&str>) -> Vec<UseAtPlace> {
    let mut places = BTreeMap::<(Position, String), UseAtPlace>::new();
    for one in uses {
        if only.is_some_and(|only| one.step.as_deref() != Some(only)) {
            continue;
        }
        let key = (one.at, shown(&one.target));
        let place = places.entry(key).or_insert_with(|| UseAtPlace {
            one: one.clone(),
            fields: BTreeSet::new(),
            steps: Vec::new(),
            is_sent_only: true,
        });
        place.is_sent_only &= one.is_sent_only;
        place.fields.extend(one.field);
        place.steps.extend(one.step.filter(|step| !place.steps.contains(step)));
    }
    places.into_values().collect()
}
