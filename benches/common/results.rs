//! The results of the rows: a table, a machine-readable file, and whether each goal was reached.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::common::Spread;
use crate::measure::{Rounds, Sample};
use crate::picture;

/// The goal of a row.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// At most this multiple of the bar's CPU.
    AtMost(f64),
    /// At least this multiple of the bar's calls a second.
    RateAtLeast(f64),
}

/// A load at both servers.
#[derive(Serialize)]
pub struct Row {
    pub what: String,
    pub ours: Vec<Sample>,
    pub bar: Vec<Sample>,
    /// The ratio of each round: CPU for each call, or calls a second if that is the goal.
    pub ratios: Vec<f64>,
    pub goal: Option<Goal>,
}

/// A single number.
#[derive(Serialize)]
pub struct Figure {
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
    pub goal: Option<f64>,
}

/// All results of a run.
#[derive(Default)]
pub struct Results {
    pub date: String,
    pub machine: String,
    pub rows: Vec<Row>,
    pub figures: Vec<Figure>,
}

impl Row {
    pub fn new(what: &str, rounds: Rounds, goal: Option<Goal>) -> Self {
        let Rounds { ours, bar } = rounds;
        let by_rate = matches!(goal, Some(Goal::RateAtLeast(_)));
        let of = |sample: &Sample| if by_rate { sample.rate } else { sample.cpu };
        let ratios = ours.iter().zip(&bar).map(|(ours, bar)| of(ours) / of(bar)).collect();
        let row = Self { what: what.to_owned(), ours, bar, ratios, goal };
        println!("{}", row.text());
        row
    }

    /// The median ratio.
    pub fn ratio(&self) -> f64 {
        middle(&self.ratios)
    }

    fn text(&self) -> String {
        let side = |samples: &[Sample]| {
            let of = |part: fn(&Sample) -> f64| samples.iter().map(part).collect::<Vec<_>>();
            let time = |part| micros(middle(&of(part)));
            let [p50, p99, cpu] = [time(|one| one.p50), time(|one| one.p99), time(|one| one.cpu)];
            format!("{} | {p50} | {p99} | {cpu}", thousands(middle(&of(|one| one.rate))))
        };
        let goal = match self.goal {
            Some(Goal::AtMost(most)) => format!("≤ {most} ×"),
            Some(Goal::RateAtLeast(least)) => format!("≥ {least} × the rate"),
            None => String::new(),
        };
        let ratio = Spread::of(self.ratios.clone(), " ×");
        format!("| {} | {} | {} | {ratio} | {goal} |", self.what, side(&self.ours), side(&self.bar))
    }
}

impl Figure {
    pub fn new(what: &str, value: f64, unit: &'static str, goal: Option<f64>) -> Self {
        let figure = Self { what: what.to_owned(), value, unit, goal };
        println!("{}", figure.text());
        figure
    }

    fn text(&self) -> String {
        let goal = self.goal.map(|goal| format!("≤ {goal}{}", self.unit)).unwrap_or_default();
        let digits = if self.value < 100.0 { 2 } else { 0 };
        format!("| {} | {:.digits$}{} | {goal} |", self.what, self.value, self.unit)
    }
}

impl Results {
    /// Both tables, as Markdown.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "| keyhatch, and the bar | calls/s | p50 | p99 | CPU a call | the bar: calls/s | p50 | p99 | CPU a call | \
             ratio (least to most) | goal |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|---|---|"
        );
        for row in &self.rows {
            let _ = writeln!(text, "{}", row.text());
        }
        let _ = writeln!(text, "\n| figure | | goal |\n|---|--:|---|");
        for figure in &self.figures {
            let _ = writeln!(text, "{}", figure.text());
        }
        text
    }
}

/// The lines around the generated tables in RESULTS.md.
const MARKS: [&str; 2] = ["<!-- BENCH RESULTS (generated) -->", "<!-- END OF BENCH RESULTS -->"];

impl Results {
    /// Writes the machine-readable file, the picture, and the tables into RESULTS.md.
    pub fn write(&self, repository: &Path) {
        let benches = repository.join("benches");
        std::fs::write(benches.join("results.json"), self.json()).unwrap();
        picture::draw(&benches.join("results.svg"), &self.rows).unwrap();
        let results = benches.join("RESULTS.md");
        let text = std::fs::read_to_string(&results).unwrap();
        let [begin, end] = MARKS;
        let (before, rest) = text.split_once(begin).unwrap();
        let (_, after) = rest.split_once(end).unwrap();
        let Self { date, machine, .. } = self;
        let tables = self.tables();
        let text = format!(
            "{before}{begin}\n{date}, a virtual machine with {machine}:\n\n{tables}{end}{after}"
        );
        std::fs::write(results, text).unwrap();
    }

    /// The results as JSON with a line for each row, so that a difference shows by row.
    fn json(&self) -> String {
        let [date, machine] = [&self.date, &self.machine].map(|text| serde_json::json!(text));
        let [rows, figures] = [lines(&self.rows), lines(&self.figures)];
        format!(
            "{{\"date\": {date}, \"machine\": {machine}, \"rows\": [\n{rows}\n], \"figures\": [\n{figures}\n]}}\n"
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

fn micros(micros: f64) -> String {
    match micros {
        long if long >= 10_000.0 => format!("{:.1} ms", long / 1000.0),
        long if long >= 1_000.0 => format!("{:.2} ms", long / 1000.0),
        short => format!("{short:.1} µs"),
    }
}

fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let cut = digits.len().saturating_sub(3);
    match digits.split_at(cut) {
        ("", rest) => rest.to_owned(),
        (thousands, rest) => format!("{thousands},{rest}"),
    }
}
