//! Results as Markdown. The columns of each server are rounded to the nearest; ratios, differences and figures are rounded
//! against keyhatch, so that no goal is reached by rounding.

use std::fmt::Write as _;
use std::path::Path;

use super::measure::Sample;
use super::results::{Figure, Goal, Row, Run, middle};

/// Writes the tables of runs between the generated marks of this name in a file.
pub fn write(file: &Path, name: &str, runs: &[Run]) {
    let text = std::fs::read_to_string(file).unwrap();
    let begin = format!("<!-- {name} (generated) -->\n");
    let end = format!("<!-- END OF {name} -->");
    let (before, rest) = text.split_once(&begin).unwrap();
    let (_, after) = rest.split_once(&end).unwrap();
    let text = format!("{before}{begin}{}{end}{after}", tables(runs));
    std::fs::write(file, text).unwrap();
}

/// The first run decides which rows and figures there are, and their goals.
fn tables(runs: &[Run]) -> String {
    let Some(first) = runs.first() else { return String::new() };
    let mut text = machines(runs);
    text += &heads("the ratio (least to most), the difference in CPU a call", "---", runs);
    for row in &first.rows {
        let goal = row.goal;
        let of = |run: &Run| {
            let found = run.rows.iter().find(|one| one.what == row.what);
            found.map(|row| beside(row, goal)).unwrap_or_default()
        };
        let _ = writeln!(text, "| {} | {} | {} |", row.what, goal_of(goal), cells(runs, of));
    }
    if !first.figures.is_empty() {
        text += &heads("figure", "--:", runs);
    }
    for figure in &first.figures {
        let goal = figure.goal;
        let of = |run: &Run| {
            let found = run.figures.iter().find(|one| one.what == figure.what);
            found.map(|one| self::figure(one, goal)).unwrap_or_default()
        };
        let goal = goal.map(|goal| format!("≤ {goal}{}", figure.unit)).unwrap_or_default();
        let _ = writeln!(text, "| {} | {goal} | {} |", figure.what, cells(runs, of));
    }
    for run in runs {
        text += &details(run);
    }
    text
}

/// The machines, and when they were measured.
fn machines(runs: &[Run]) -> String {
    let mut text = "| machine | measured | Linux | its processor has | servers |\n\
                    |---|---|---|---|---|\n"
        .to_owned();
    for Run { machine, date, servers, .. } in runs {
        let (label, kernel, flags) = (&machine.label, &machine.kernel, &machine.flags);
        let _ = writeln!(text, "| {label} | {date} | {kernel} | {flags} | {servers} |");
    }
    text
}

/// The first lines of a table with a column for each machine.
fn heads(what: &str, alignment: &str, runs: &[Run]) -> String {
    let labels = cells(runs, |run| run.machine.label.clone());
    let lines = cells(runs, |_| alignment.to_owned());
    format!("\n| {what} | goal | {labels} |\n|---|---|{}|\n", lines.replace(' ', ""))
}

fn cells(runs: &[Run], of: impl Fn(&Run) -> String) -> String {
    runs.iter().map(of).collect::<Vec<_>>().join(" | ")
}

/// Both servers of each row of a run.
fn details(run: &Run) -> String {
    let mut text = format!(
        "\n{}: keyhatch, and the other\n\n| row | calls/s | p50 | p99 | CPU a call | the other's calls/s | p50 | p99 | \
         CPU a call |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        run.machine.label
    );
    for row in &run.rows {
        let [ours, bar] = [&row.ours, &row.bar].map(|samples| columns(samples).join(" | "));
        let _ = writeln!(text, "| {} | {ours} | {bar} |", row.what);
    }
    text
}

/// Both servers of a row in words.
pub fn sides(row: &Row) -> String {
    let words = |samples| {
        let [rate, p50, p99, cpu] = columns(samples);
        format!("{rate}/s, p50 {p50}, p99 {p99}, CPU {cpu}")
    };
    format!("{}; the other {}", words(&row.ours), words(&row.bar))
}

fn columns(samples: &[Sample]) -> [String; 4] {
    let of = |part: fn(&Sample) -> f64| middle(&samples.iter().map(part).collect::<Vec<_>>());
    let time = |part| micros(of(part));
    let rate = thousands(of(|one| one.rate));
    [rate, time(|one| one.p50), time(|one| one.p99), time(|one| one.cpu)]
}

/// The ratio and the difference of a row, and whether its goal is missed.
pub fn beside(row: &Row, goal: Option<Goal>) -> String {
    let ratios = row.ratios(goal);
    let (ratio, difference) = (middle(&ratios), row.difference());
    let is_reached = match goal {
        Some(Goal::AtMost(times)) => ratio <= times,
        Some(Goal::AtMostOr(times, micros)) => ratio <= times || difference <= micros,
        Some(Goal::RateAtLeast(times)) => ratio >= times,
        None => true,
    };
    let (ratio, of) = match goal {
        Some(Goal::RateAtLeast(_)) => (-up(-ratio, 3), " the rate"),
        _ => (up(ratio, 3), ""),
    };
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    let missed = if is_reached { "" } else { ", **missed**" };
    let difference = up(difference, 1);
    format!("{ratio:.3} ×{of} ({least:.2} to {most:.2}), {difference:+.1} µs{missed}")
}

pub fn goal_of(goal: Option<Goal>) -> String {
    match goal {
        Some(Goal::AtMost(most)) => format!("≤ {most} ×"),
        Some(Goal::AtMostOr(most, micros)) => format!("≤ {most} × or {micros:+} µs"),
        Some(Goal::RateAtLeast(least)) => format!("≥ {least} × the rate"),
        None => String::new(),
    }
}

/// A figure, and whether its goal is missed.
pub fn figure(figure: &Figure, goal: Option<f64>) -> String {
    let digits: u8 = if figure.value < 100.0 { 2 } else { 0 };
    let missed = if goal.is_some_and(|goal| figure.value > goal) { ", **missed**" } else { "" };
    let value = up(figure.value, digits);
    format!("{value:.0$}{1}{missed}", usize::from(digits), figure.unit)
}

/// Rounds up to this many decimals.
fn up(value: f64, decimals: u8) -> f64 {
    let scale = 10_f64.powi(decimals.into());
    // Without the noise of the last binary digits, 1.3 stays 1.3.
    ((value * scale) - 1e-6).ceil() / scale
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
