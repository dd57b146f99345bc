//! `keyhatch check`: whether workflow files will get what they ask for, before they run.
//!
//! ```text
//! file ─ relay::find_uses ─ each use ─ judge ─ Finding ─ a line, what to do about it
//!                                      └ known: what the broker says, asked once
//! ```

mod group;
mod judge;
mod known;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::json;

pub use self::judge::{ANY_STEP, command};
use self::judge::{Judge, Verdict};
use self::known::Known;
use super::seed::{files_in, say_passed_over};
use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{Output, print, say};
use crate::cli::io::text::printable;
use crate::relay::{MAX_FILE_BYTES, Position, WorkflowFile, WorkflowUse, find_uses};
use crate::sys::input;

/// Something will not work.
const FOUND: u8 = 1;
/// What of a directory is read.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
/// Where a file begins.
const START: Position = Position { line: 1, column: 1 };
const NO_WORKFLOW: &str = "it has no steps: is it a workflow of Relay or Datadog?";

/// Arguments of `check`.
#[derive(clap::Args)]
pub struct Check {
    /// Workflow files, - for stdin, or directories of *.yaml, *.yml and *.json files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The workflow that the files are; by default what a file calls itself, or its name without its ending.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// Only what this step asks for.
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    /// On whose behalf it will run, such as user:alice; may be given more than once.
    #[arg(long, value_name = "PRINCIPAL")]
    run_as: Vec<String>,
    /// Only list what the files ask for; no broker is asked.
    #[arg(long)]
    offline: bool,
    /// Say nothing of what is fine.
    #[arg(long)]
    quiet: bool,
}

/// What is said of one place.
struct Finding {
    file: String,
    at: Position,
    /// Who asks.
    steps: Vec<String>,
    /// What is asked for, as people write it; nothing if that is not well formed.
    reference: String,
    verdict: Verdict,
}

impl Check {
    pub(crate) async fn run(self, common: &Common) -> Result<u8, Failure> {
        let files = self.paths()?;
        let mut known = match self.offline {
            true => None,
            false => Some(Known::new(common.operator().await?)),
        };
        let (mut findings, mut steps) = (Vec::new(), BTreeSet::new());
        for path in &files {
            let file = match input::is_stdin(path) {
                true => "stdin".to_owned(),
                false => path.display().to_string(),
            };
            match read(path) {
                Ok(workflow) if is_something_else(&workflow) => match self.files.contains(path) {
                    true => findings.push(malformed(file, START, NO_WORKFLOW.to_owned())),
                    // Beside workflows there is much else.
                    false => say(&format!("note: {}: {NO_WORKFLOW}", printable(&file))),
                },
                Ok(workflow) => {
                    steps.extend(workflow.steps.iter().cloned());
                    findings.extend(self.findings(&file, path, workflow, &mut known).await?);
                }
                Err((at, problem)) => findings.push(malformed(file, at, problem)),
            }
        }
        if let Some(step) = self.step.as_ref().filter(|step| !steps.contains(*step)) {
            let there = steps.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!("there is no step {step} in it; steps: {there}")));
        }
        let bad = findings.iter().filter(|finding| !finding.verdict.is_fine()).count();
        self.print(common.output, &findings)?;
        let asked = findings.iter().filter(|one| !one.reference.is_empty()).count();
        say(&format!("{} file(s), {asked} reference(s), {bad} problem(s)", files.len()));
        Ok(if bad == 0 { 0 } else { FOUND })
    }

    /// The files, those of directories by name.
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
        known: &mut Option<Known>,
    ) -> Result<Vec<Finding>, Failure> {
        let WorkflowFile { name, uses, problems, .. } = found;
        let workflow = self.workflow.clone().or(name);
        if workflow.is_none() && input::is_stdin(path) && known.is_some() {
            return Err(Failure::usage("stdin does not name its workflow: say --workflow NAME"));
        }
        let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let workflow = workflow.unwrap_or_else(stem);
        let problems = problems.into_iter();
        let mut findings: Vec<Finding> =
            problems.map(|one| malformed(file.to_owned(), one.at, one.problem)).collect();
        for (one, steps) in by_place(uses, self.step.as_deref()) {
            let verdict = match known {
                Some(known) => {
                    let run_as = &self.run_as;
                    let mut judge = Judge { workflow: &workflow, steps: &steps, run_as, known };
                    judge.judge(&one.target).await?
                }
                None => Verdict::fine(""),
            };
            let reference = judge::shown(&one.target);
            findings.push(Finding { file: file.to_owned(), at: one.at, steps, reference, verdict });
        }
        findings.sort_by_key(|finding| finding.at);
        Ok(findings)
    }

    fn print(&self, output: Output, findings: &[Finding]) -> Result<(), Failure> {
        let told = findings.iter().filter(|one| !self.quiet || !one.verdict.is_fine());
        let told: Vec<&Finding> = told.collect();
        let answer: Vec<_> = told.iter().map(|one| one.to_json()).collect();
        let lines = || {
            // A command is shown once: what it makes is there the second time.
            let mut shown = BTreeSet::new();
            told.iter().map(|one| one.describe(&mut shown)).collect::<Vec<_>>().join("\n")
        };
        let names = || {
            let references = told.iter().filter(|one| !one.reference.is_empty());
            references.map(|one| printable(&one.reference)).collect::<Vec<_>>().join("\n")
        };
        if told.is_empty() && output == Output::Table {
            return Ok(());
        }
        print(output, &answer, lines, names)
    }
}

impl Finding {
    fn describe<'a>(&'a self, shown: &mut BTreeSet<&'a str>) -> String {
        let Self { file, at, reference, verdict, .. } = self;
        let what = [reference.as_str(), verdict.sentence.as_str()];
        let what = what.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
        // Whoever wrote the file does not write on this terminal.
        let (file, what) = (printable(file), printable(&what));
        let commands = verdict.commands.iter().filter(|command| shown.insert(command.as_str()));
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
            "state": self.verdict.state.word(),
            "message": self.verdict.sentence,
            "suggestions": self.verdict.suggestions,
            "commands": self.verdict.commands,
        })
    }
}

/// Whether a file has neither steps nor anything that a workflow asks for.
fn is_something_else(file: &WorkflowFile) -> bool {
    !file.has_steps && file.uses.is_empty() && file.problems.is_empty()
}

fn malformed(file: String, at: Position, problem: String) -> Finding {
    let (steps, reference) = (Vec::new(), String::new());
    Finding { file, at, steps, reference, verdict: Verdict::malformed(problem) }
}

/// Reads a workflow file.
fn read(path: &Path) -> Result<WorkflowFile, (Position, String)> {
    let nowhere = |problem: String| (START, problem);
    let read = input::named(path, MAX_FILE_BYTES).and_then(input::text);
    let text = read.map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => {
            nowhere(format!("the file has more bytes; at most {MAX_FILE_BYTES} are read"))
        }
        _ => nowhere(error.to_string()),
    })?;
    find_uses(&text).map_err(|error| (error.at, error.problem))
}

/// The uses, one for each place and thing, with every step that has it.
fn by_place(uses: Vec<WorkflowUse>, only: Option<&str>) -> Vec<(WorkflowUse, Vec<String>)> {
    let mut places = BTreeMap::<(Position, String), (WorkflowUse, Vec<String>)>::new();
    for one in uses {
        if only.is_some_and(|only| one.step.as_deref() != Some(only)) {
            continue;
        }
        let key = (one.at, judge::shown(&one.target));
        let (_, steps) = places.entry(key).or_insert_with(|| (one.clone(), Vec::new()));
        steps.extend(one.step);
    }
    places.into_values().collect()
}
