//! Texts for people: tables, properties, and names that a terminal shows as they are.

use std::io::IsTerminal as _;
use std::path::Path;

use comfy_table::{ContentArrangement, Table, presets};

use crate::model::is_unseen;
use crate::sys::input::is_stdin;

/// The narrowest terminal that a table is fitted to: below it no column can be read.
const LEAST_WIDTH: u16 = 40;

/// A text with escapes for the characters that a terminal obeys or does not show.
pub fn printable(text: &str) -> String {
    let escape =
        |c: char| if is_unseen(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// A resource's name without its collection: `aws/prod` of `connections/aws/prod`.
pub fn short_name(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, short)| short)
}

/// The last part of a resource's name: `token` of `workflows/deploy/secrets/token`.
pub fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or_default()
}

/// A file as messages call it: its path, or `stdin` for `-`.
pub fn file_label(path: &Path) -> String {
    if is_stdin(path) { "stdin".to_owned() } else { path.display().to_string() }
}

/// A command of this program, in words that a shell reads as they are.
pub fn command_line(words: &[&str]) -> String {
    // shell_words quotes more words than a shell needs.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
    let word = |word: &&str| match word.chars().all(is_plain) && !word.is_empty() {
        true => (*word).to_owned(),
        false => shell_words::quote(word).into_owned(),
    };
    format!("keyhatch {}", words.iter().map(word).collect::<Vec<_>>().join(" "))
}

/// Names and values, a line each.
pub fn properties(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines =
        rows.iter().map(|(name, value)| format!("{name:<width$}  {value}").trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// A table without lines, fitted to the terminal's width. In a pipe every row is one whole line.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
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
