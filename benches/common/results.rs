//! Results: rows that compare two servers, single figures, and the file that keeps those of each machine.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Spread;
use super::machine::Machine;
use super::measure::{Rounds, Sample};
use super::tables;

/// The goal of a row.
#[derive(Clone, Copy)]
pub enum Goal {
    /// At most this multiple of the bar's CPU.
    AtMost(f64),
    /// At most this multiple of the bar's CPU, or this many microseconds more.
    AtMostOr(f64, f64),
    /// At least this multiple of the bar's calls a second.
    RateAtLeast(f64),
}

/// A load at both servers, in pairs of rounds.
#[derive(Serialize, Deserialize)]
pub struct Row {
    pub what: String,
    pub ours: Vec<Sample>,
    pub bar: Vec<Sample>,
    #[serde(skip)]
    pub goal: Option<Goal>,
}

/// A single number, of which less is better.
#[derive(Serialize, Deserialize)]
pub struct Figure {
    pub what: String,
    pub value: f64,
    pub unit: String,
    #[serde(skip)]
    pub goal: Option<f64>,
}

/// All results of a run.
#[derive(Serialize, Deserialize)]
pub struct Run {
    pub machine: Machine,
    pub date: String,
    /// The servers: the threads that worked, or their versions.
    pub servers: String,
    pub rows: Vec<Row>,
    pub figures: Vec<Figure>,
}

impl Row {
    pub fn new(what: &str, rounds: Rounds, goal: Option<Goal>) -> Self {
        let row = Self { what: what.to_owned(), ours: rounds.ours, bar: rounds.bar, goal };
        println!("{what}: {}; {}", tables::sides(&row), tables::beside(&row, goal));
        row
    }

    /// Of each pair of rounds: CPU a call, or calls a second if that is the goal.
    pub fn ratios(&self, goal: Option<Goal>) -> Vec<f64> {
        match goal {
            Some(Goal::RateAtLeast(_)) => self.pairs(|ours, bar| ours.rate / bar.rate),
            _ => self.pairs(|ours, bar| ours.cpu / bar.cpu),
        }
    }

    /// The median ratio.
    pub fn ratio(&self) -> f64 {
        middle(&self.ratios(self.goal))
    }

    /// How much more CPU a call costs than at the bar, in microseconds: the median of the pairs.
    pub fn difference(&self) -> f64 {
        middle(&self.pairs(|ours, bar| ours.cpu - bar.cpu))
    }

    fn pairs(&self, of: impl Fn(&Sample, &Sample) -> f64) -> Vec<f64> {
        self.ours.iter().zip(&self.bar).map(|(ours, bar)| of(ours, bar)).collect()
    }
}

impl Figure {
    pub fn new(what: &str, value: f64, unit: &str, goal: Option<f64>) -> Self {
        let figure = Self { what: what.to_owned(), value, unit: unit.to_owned(), goal };
        println!("{what}: {}", tables::figure(&figure, goal));
        figure
    }
}

impl Run {
    /// An empty run on this machine, today.
    pub fn here() -> Self {
        let now = keyhatch::model::Clock::system().now().to_string();
        let machine = Machine::this();
        println!("{}, Linux {}, {}", machine.label, machine.kernel, machine.flags);
        Self {
            machine,
            date: now.chars().take(10).collect(),
            servers: String::new(),
            rows: Vec::new(),
            figures: Vec::new(),
        }
    }

    /// Puts this run into a file in place of the last one of such a machine. Runs of other machines stay, without what
    /// this run does not measure. Returns all runs, this one first.
    pub fn keep_in(self, file: &Path) -> Vec<Self> {
        let text = std::fs::read_to_string(file).unwrap_or_else(|_| "[]".to_owned());
        let mut runs: Vec<Self> = serde_json::from_str(&text).unwrap();
        runs.retain(|run| run.machine.label != self.machine.label);
        for run in &mut runs {
            run.rows.retain(|row| self.rows.iter().any(|own| own.what == row.what));
            run.figures.retain(|figure| self.figures.iter().any(|own| own.what == figure.what));
        }
        runs.insert(0, self);
        let texts: Vec<_> = runs.iter().map(Self::json).collect();
        std::fs::write(file, format!("[{}]\n", texts.join(", "))).unwrap();
        runs
    }

    /// JSON with a line for each row, so that a difference shows by row.
    fn json(&self) -> String {
        let head = [serde_json::json!(self.machine).to_string(), self.date.clone()];
        let ([machine, date], servers) = (head, serde_json::json!(self.servers));
        let [rows, figures] = [lines(&self.rows), lines(&self.figures)];
        format!(
            "{{\"machine\": {machine}, \"date\": \"{date}\", \"servers\": {servers}, \"rows\": [\n{rows}\n], \
             \"figures\": [\n{figures}\n]}}"
        )
    }
}

fn lines(items: &[impl Serialize]) -> String {
    let lines: Vec<_> = items.iter().map(|item| serde_json::to_string(item).unwrap()).collect();
    lines.join(",\n")
}

/// The median.
pub fn middle(values: &[f64]) -> f64 {
    Spread::of(values.to_vec(), "").middle
}
