//! What commands print: stdout is the answer, stderr the talk.

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::failure::{Failure, exit};
use crate::model::{Timestamp, is_unseen};

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
    /// Names only, a line each.
    Name,
}

/// Writes bytes to stdout. A reader that went away is no failure.
///
/// # Errors
/// If stdout cannot be written.
pub fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Writes a line to stdout.
///
/// # Errors
/// If stdout cannot be written.
pub fn line(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Writes a line of talk to stderr.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints one answer in the form asked for.
///
/// # Errors
/// If it cannot be written.
pub fn print<T: Serialize>(
    output: Output,
    answer: &T,
    table: impl FnOnce() -> String,
    name: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match output {
        Output::Table => line(&table()),
        Output::Json => line(&json(answer)?),
        Output::Yaml => write(yaml(answer)?.as_bytes()),
        // A list that is empty has no line: scripts count them.
        Output::Name => match name() {
            nothing if nothing.is_empty() => Ok(()),
            names => line(&names),
        },
    }
}

/// Pretty JSON.
///
/// # Errors
/// If the answer cannot be written as JSON.
pub fn json<T: Serialize>(answer: &T) -> Result<String, Failure> {
    serde_json::to_string_pretty(answer).map_err(|error| unprintable(&error))
}

/// YAML, with a newline at its end.
///
/// # Errors
/// If the answer cannot be written as YAML.
pub fn yaml<T: Serialize>(answer: &T) -> Result<String, Failure> {
    serde_saphyr::to_string(answer).map_err(|error| unprintable(&error))
}

fn unprintable(error: &dyn std::fmt::Display) -> Failure {
    Failure::new("OUTPUT", format!("the answer cannot be printed: {error}"), exit::FAILED)
}

/// Narrower than this, a table is not to be read anyway.
const LEAST_WIDTH: u16 = 40;

/// A table without lines, as wide as the terminal.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    // Whoever reads a pipe wants whole lines; a terminal of no width has not said how wide it is.
    if !std::io::stdout().is_terminal() || table.width().is_none_or(|width| width < LEAST_WIDTH) {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(header.iter().map(|title| title.to_uppercase()));
    table.add_rows(rows.into_iter().map(|row| row.into_iter().map(|cell| printable(&cell))));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// A text without what a terminal would obey or nobody would see: such characters are written as escapes.
pub fn printable(text: &str) -> String {
    let escape =
        |c: char| if is_unseen(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Names and values, a line each.
pub fn properties(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines =
        rows.iter().map(|(name, value)| format!("{name:<width$}  {value}").trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// A moment of the API as text.
pub fn moment(given: Option<&prost_types::Timestamp>) -> String {
    given.map_or_else(String::new, |given| {
        let millis = given.seconds.saturating_mul(1000) + i64::from(given.nanos / 1_000_000);
        Timestamp::from_millis(millis).to_string()
    })
}

/// A moment of the API to the second, for tables.
pub fn second(given: Option<&prost_types::Timestamp>) -> String {
    let whole = given.map(|given| prost_types::Timestamp { nanos: 0, ..*given });
    moment(whole.as_ref())
}
