//! The output of commands: stdout has the answer, stderr everything else.

use std::io::Write as _;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value as Json;

use super::failure::{Failure, exit};
use super::text::{properties, table};

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

/// Writes bytes to stdout. A closed pipe is no failure.
///
/// # Errors
/// If stdout cannot be written.
pub fn write(bytes: &[u8]) -> Result<(), Failure> {
    write_if_open(bytes).map(|_| ())
}

/// Writes bytes to stdout. Returns false if it is a closed pipe.
///
/// # Errors
/// If stdout cannot be written.
pub fn write_if_open(bytes: &[u8]) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        outcome => Ok(outcome.map(|()| true)?),
    }
}

/// Writes a line to stdout.
///
/// # Errors
/// If stdout cannot be written.
pub fn line(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Writes a line to stderr.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints one answer in the form asked for. Keys of JSON and YAML are sorted.
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
        Output::Json => line(&json(&value(answer)?)?),
        Output::Yaml => write(yaml(&value(answer)?)?.as_bytes()),
        // An empty list has no line: scripts count them.
        Output::Name => match name() {
            nothing if nothing.is_empty() => Ok(()),
            names => line(&names),
        },
    }
}

/// Columns of a table, or properties: the title, and the key of an answer's JSON that it shows. Several keys, with
/// spaces between, are booleans: the keys of those that are true are shown.
pub type Titles<'a> = &'a [(&'a str, &'a str)];

/// Prints a list: a table with a row for each, an array in JSON and YAML, or the value at the key `name` of each. A
/// table without rows is the text `empty`.
///
/// # Errors
/// If it cannot be written.
pub fn list<T: Serialize>(
    output: Output,
    rows: &[T],
    name: &str,
    columns: Titles<'_>,
    empty: &str,
) -> Result<(), Failure> {
    let rows: Vec<Json> = rows.iter().map(value).collect::<Result<_, _>>()?;
    let text = || {
        let titles: Vec<_> = columns.iter().map(|(title, _)| *title).collect();
        let cells = |row: &Json| columns.iter().map(|(_, keys)| cell(row, keys)).collect();
        match rows.is_empty() {
            true => empty.to_owned(),
            false => table(&titles, rows.iter().map(cells).collect()),
        }
    };
    let names = || rows.iter().map(|row| cell(row, name)).collect::<Vec<_>>().join("\n");
    print(output, &rows, text, names)
}

/// Prints one thing: its properties, its JSON or YAML, or the value at the key `name`.
///
/// # Errors
/// If it cannot be written.
pub fn show<T: Serialize>(
    output: Output,
    answer: &T,
    name: &str,
    titles: Titles<'_>,
) -> Result<(), Failure> {
    let answer = value(answer)?;
    let rows = || titles.iter().map(|(title, keys)| (*title, cell(&answer, keys)));
    print(output, &answer, || properties(&rows().collect::<Vec<_>>()), || cell(&answer, name))
}

/// The values of an answer at these keys, for people.
fn cell(answer: &Json, keys: &str) -> String {
    let texts = keys.split(' ').map(|key| match answer.get(key) {
        Some(Json::Bool(is_so)) => if *is_so { key } else { "" }.to_owned(),
        Some(value) => text_of(value),
        None => String::new(),
    });
    texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ")
}

fn text_of(value: &Json) -> String {
    match value {
        // Only moments are null.
        Json::Null => "never".to_owned(),
        Json::String(text) => text.clone(),
        Json::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(", "),
        Json::Object(_) | Json::Bool(_) | Json::Number(_) => value.to_string(),
    }
}

fn value<T: Serialize>(answer: &T) -> Result<Json, Failure> {
    serde_json::to_value(answer).map_err(|error| unprintable(&error))
}

/// Adds a key to an answer if that is an object.
pub fn extend(answer: &mut Json, key: &str, value: Json) {
    if let Some(answer) = answer.as_object_mut() {
        answer.insert(key.to_owned(), value);
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
