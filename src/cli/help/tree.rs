//! The whole command line for clap, with what the commands themselves do not define.

use clap::{Arg, Args as _, Command, CommandFactory as _};

use crate::cli::{Cli, Common};

/// Options of every command that some commands ignore.
const STATE: &str = "state";
const CONTEXT: &str = "context";
const OUTPUT: &str = "output";

/// The commands that accept these options and do not show them: they have no broker elsewhere, no state directory, or no
/// form of output.
const UNUSED: &[(&str, &[&str])] = &[
    ("completion", &[CONTEXT, STATE, OUTPUT]),
    ("config", &[CONTEXT, OUTPUT]),
    ("connection delete", &[OUTPUT]),
    ("context", &[CONTEXT, STATE]),
    ("dev", &[CONTEXT, STATE, OUTPUT]),
    ("doctor", &[CONTEXT]),
    ("exec", &[CONTEXT, STATE, OUTPUT]),
    ("get", &[CONTEXT, STATE]),
    ("group delete", &[OUTPUT]),
    ("healthcheck", &[OUTPUT]),
    ("helper", &[CONTEXT, STATE, OUTPUT]),
    ("init", &[CONTEXT]),
    ("inject", &[CONTEXT, STATE]),
    ("man", &[CONTEXT, STATE, OUTPUT]),
    ("secret delete", &[OUTPUT]),
    ("send", &[CONTEXT, STATE, OUTPUT]),
    ("serve", &[CONTEXT, OUTPUT]),
    ("step close", &[CONTEXT]),
    ("step open", &[CONTEXT]),
    ("step renew", &[CONTEXT]),
    ("step run", &[CONTEXT, OUTPUT]),
    ("token", &[CONTEXT, STATE]),
];

/// The exit codes. docs/steps.md lists them, too.
pub(super) const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "done"),
    ("1", "refused, or failed; check and diff: something was found"),
    ("2", "the command line or an input file is wrong"),
    ("3", "the broker cannot be reached"),
    ("4", "journal verify: nothing is wrong, and whose the journal is was not proven"),
    ("125", "exec, step run, dev: failed before the command ran"),
    ("126", "exec, step run, dev: the command cannot be executed"),
    ("127", "exec, step run, dev: the command was not found"),
    ("other", "exec, step run, dev: the command's own; 128 + N if signal N ended it"),
];

/// The examples of every command: a paragraph each, of its words and of indented lines.
const EXAMPLES: &str = include_str!("examples.txt");

/// The words of each command, and its lines.
pub(super) fn examples() -> impl Iterator<Item = (&'static str, &'static str)> {
    EXAMPLES.trim_end().split("\n\n").filter_map(|paragraph| paragraph.split_once('\n'))
}

/// Every command, with its examples below its help.
pub(crate) fn with_help() -> Command {
    let mut tree = tree();
    for (words, lines) in examples() {
        tree = at(tree, words, |command| command.after_help(format!("Examples:\n{lines}")));
    }
    let codes = EXIT_STATUS.iter().map(|(code, meaning)| format!("\n  {code:<5}  {meaning}"));
    tree.after_long_help(format!("Exit status:{}", codes.collect::<String>()))
}

/// Every command.
pub(crate) fn tree() -> Command {
    UNUSED.iter().fold(Cli::command(), |tree, (words, ids)| {
        at(tree, words, |command| ids.iter().fold(command, |command, id| command.arg(unused(id))))
    })
}

/// A hidden argument in place of the one that would be shown.
fn unused(id: &'static str) -> Arg {
    let common = Common::augment_args(Command::new(""));
    let found = common.get_arguments().find(|argument| argument.get_id() == id);
    found.cloned().unwrap_or_else(|| Arg::new(id)).hide(true)
}

/// Changes the command of these words. Does nothing if there is none, where clap would panic.
fn at(tree: Command, words: &str, change: impl FnOnce(Command) -> Command) -> Command {
    let (first, rest) = words.split_once(' ').unwrap_or((words, ""));
    match first {
        "" => change(tree),
        first if tree.find_subcommand(first).is_none() => tree,
        // The box keeps this one function at every depth.
        first => {
            let change: Box<dyn FnOnce(Command) -> Command + '_> = Box::new(change);
            tree.mut_subcommand(first, |command| at(command, rest, change))
        }
    }
}

/// Removes from a usage the options that variables give. clap shows them as if they had to be written.
pub(crate) fn usage_of_words(usage: &str) -> String {
    fn strip(command: &Command, usage: &mut String) {
        let set = |argument: &&Arg| {
            argument.get_env().is_some_and(|name| std::env::var_os(name).is_some())
        };
        for argument in command.get_arguments().filter(set) {
            let (Some(long), Some([value])) = (argument.get_long(), argument.get_value_names())
            else {
                continue;
            };
            *usage = usage.replace(&format!(" --{long} <{value}>"), "");
        }
        command.get_subcommands().for_each(|below| strip(below, usage));
    }
    let mut usage = usage.to_owned();
    strip(&Cli::command(), &mut usage);
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_a_valid_command_line() {
        for (words, lines) in examples() {
            for example in lines.replace("\\\n", "").lines() {
                let example = example.trim_start().split(" > ").next().unwrap();
                let line = shell_words::split(example).unwrap();
                let begin = format!("keyhatch {words}");
                assert!(example.starts_with(&begin), "{example}");
                let parsed = tree().try_get_matches_from(&line);
                assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn hidden_options_are_accepted() {
        for (words, _) in UNUSED {
            let mut line = vec!["keyhatch"];
            line.extend(["--state", "x", "-o", "json"]);
            line.extend(words.split(' '));
            line.push("--help");
            let help = with_help().try_get_matches_from(line).unwrap_err();
            assert_eq!(help.kind(), clap::error::ErrorKind::DisplayHelp, "{words}");
        }
    }
}
