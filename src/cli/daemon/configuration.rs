//! `keyhatch config`: a reference of the daemon's options, from the code that reads them, and units that start it.

use std::fmt::Write as _;

use clap::{Arg, Subcommand};

use super::unit::SystemdUnit;
use crate::cli::io::failure::Failure;
use crate::cli::io::output;
use crate::cli::{Common, command};
use crate::config::{default_in_words, file_keys, meaning};
use crate::model::Limits;

/// `keyhatch config …`
#[derive(Subcommand)]
pub enum Configuration {
    /// Print every flag, variable, key of the configuration file and limit of serve, in Markdown
    Reference,
    /// Print a systemd unit that starts this program with as few rights as it needs
    SystemdUnit(SystemdUnit),
}

impl Configuration {
    pub(crate) fn run(&self, common: &Common) -> Result<(), Failure> {
        match self {
            Self::Reference => output::line(&reference()),
            Self::SystemdUnit(unit) => unit.run(common.state.as_deref()),
        }
    }
}

fn reference() -> String {
    let command = command();
    let serve = command.get_subcommands().find(|below| below.get_name() == "serve");
    let arguments: Vec<&Arg> =
        serve.map(|serve| serve.get_arguments().collect()).unwrap_or_default();
    let keys = file_keys();
    let mut text = "# The options of keyhatch serve\n\n\
        A flag counts before its variable, that before the key of the configuration file (TOML, named by \
        `--config`), and that before the default.\n\n\
        | flag | variable | key | value | default | meaning |\n|---|---|---|---|---|---|\n"
        .to_owned();
    let is_of_daemon =
        |arg: &&&Arg| !["context", "output", "help", "version"].contains(&arg.get_id().as_str());
    for argument in arguments.iter().filter(is_of_daemon) {
        text.push_str(&row(argument, &keys));
    }
    let has_flag =
        |key: &&String| arguments.iter().any(|argument| is_of(key, argument.get_id().as_str()));
    for key in keys.iter().filter(|key| *key != "limits" && !has_flag(key)) {
        let default = default_in_words(key).unwrap_or_default();
        let (values, meaning) = meaning(key).unwrap_or_default();
        // Writing to a text does not fail.
        let _ = writeln!(text, "|  |  | {} | {values} | {default} | {meaning} |", code(key));
    }
    text.push_str("\n## The table `limits` of the configuration file\n\nWhole numbers from 1.\n\n");
    text.push_str("| key | default | what it bounds |\n|---|---|---|\n");
    for limit in Limits::default().all() {
        let _ =
            writeln!(text, "| {} | {} | {} |", code(limit.name), limit.value, cell(limit.bounds));
    }
    text.trim_end().to_owned()
}

/// Whether a key of the file belongs to the argument of this id: `kek.file` to `kek_file`.
fn is_of(key: &str, id: &str) -> bool {
    key.replace('.', "_") == id
}

fn row(argument: &Arg, keys: &[String]) -> String {
    let id = argument.get_id().as_str();
    let key = keys.iter().find(|key| is_of(key, id));
    let flag = argument.get_long().map(|long| code(&format!("--{long}")));
    let variable = argument.get_env().map(|name| code(&name.to_string_lossy()));
    let mut values: Vec<String> =
        argument.get_possible_values().iter().map(|value| code(value.get_name())).collect();
    if values.is_empty() {
        values
            .extend(argument.get_value_names().unwrap_or_default().iter().map(ToString::to_string));
    }
    let defaults = argument.get_default_values().iter().map(|value| code(&value.to_string_lossy()));
    let default = default_in_words(id).filter(|_| key.is_some());
    let default = default.or_else(|| defaults.reduce(|all, one| format!("{all} {one}")));
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let cells = [
        flag.unwrap_or_default(),
        variable.unwrap_or_default(),
        key.map(|key| code(key)).unwrap_or_default(),
        values.join(", "),
        default.unwrap_or_default(),
        cell(&help),
    ];
    format!("| {} |\n", cells.join(" | "))
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// A text as one cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
