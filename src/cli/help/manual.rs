//! `keyhatch man`: pages for man(1), from the source of `--help`.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;

use super::tree::{EXIT_STATUS, examples, tree};
use crate::cli::io::failure::Failure;
use crate::cli::io::output;

/// Arguments of `man`.
#[derive(clap::Args)]
pub struct Manual {
    /// Write a page for each command into this directory, which is made if it is missing. Without it the page of
    /// keyhatch itself is printed.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The variables that every command reads. A page also lists those of its options.
const ENVIRONMENT: [(&str, &str); 2] = [
    (
        "KEYHATCH_DIR",
        "the directory of the identity to use: a step's, an executor's or an operator's",
    ),
    (
        "KEYHATCH_ADDR, KEYHATCH_CACERT, KEYHATCH_CLIENT_CERT, KEYHATCH_CLIENT_KEY",
        "the same as single files, where there is no KEYHATCH_DIR",
    ),
];

const FILES: [(&str, &str); 5] = [
    ("/var/lib/keyhatch", "the state directory, of root and of the packaged unit"),
    (
        "$XDG_STATE_HOME/keyhatch",
        "the state directory of other users, by default in ~/.local/state",
    ),
    ("STATE/operators/admin, STATE/executors/local", "the identities that init makes"),
    ("/run/keyhatch-broker", "the sockets of the broker; of other users below $XDG_RUNTIME_DIR"),
    ("/run/keyhatch", "the directory of a step, where a step has it mounted"),
];

impl Manual {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut command = tree().disable_help_subcommand(true);
        command.build();
        let Some(directory) = self.out else {
            return output::write(page(&command)?.as_bytes());
        };
        let written =
            std::fs::create_dir_all(&directory).and_then(|()| write_all(&command, &directory));
        written.map_err(|error| {
            Failure::usage(format!(
                "--out {}: {error}; name a directory to write to",
                directory.display()
            ))
        })
    }
}

fn write_all(command: &Command, directory: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_all(below, directory)?;
    }
    let name = Man::new(command.clone()).get_filename();
    std::fs::write(directory.join(name), page(command)?)
}

/// The page of a command, in ASCII: not every terminal has a font for more, and troff warns about it.
fn page(command: &Command) -> io::Result<String> {
    let (man, mut page) = (Man::new(command.clone()), Vec::new());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut text = String::from_utf8(page).map_err(io::Error::other)?;
    text.push_str(&examples_of(command));
    let mut variables = ENVIRONMENT.map(|(name, meaning)| (name, meaning.to_owned())).to_vec();
    let given = command.get_arguments().filter(|argument| !argument.is_hide_set());
    variables.extend(given.filter_map(|argument| {
        let name = argument.get_env()?.to_str()?;
        Some((name, format!("as --{}", argument.get_long()?)))
    }));
    let variables: Vec<_> =
        variables.iter().map(|(name, meaning)| (*name, meaning.as_str())).collect();
    text.push_str(&section("ENVIRONMENT", &variables));
    text.push_str(&section("FILES", &FILES));
    text.push_str(&section("EXIT STATUS", EXIT_STATUS));
    Ok(text.replace('…', "..."))
}

fn examples_of(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or_default();
    let name = name.trim_start_matches("keyhatch ");
    let Some((_, lines)) = examples().find(|(words, _)| *words == name) else {
        return String::new();
    };
    let lines =
        lines.lines().map(|line| format!("{}\n", troff(line.strip_prefix("  ").unwrap_or(line))));
    let lines = lines.collect::<String>();
    format!(".SH EXAMPLES\n.nf\n{lines}.fi\n")
}

fn section(title: &str, entries: &[(&str, &str)]) -> String {
    let mut text = format!(".SH \"{title}\"\n");
    for (name, meaning) in entries {
        // Writing to a text does not fail.
        let _ = writeln!(text, ".TP\n\\fB{}\\fR\n{}", troff(name), troff(meaning));
    }
    text
}

/// Escapes a text: none of its characters is a command, and its hyphens can be copied.
fn troff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if escaped.starts_with('.') { format!("\\&{escaped}") } else { escaped }
}
