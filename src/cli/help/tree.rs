//! The command line as clap takes it: what the commands themselves leave open.

use clap::{Arg, Args as _, Command, CommandFactory as _};

use super::examples::EXAMPLES;
use crate::cli::{Cli, Common};

/// What every command takes, and some have no use for.
const STATE: &str = "state";
const OUTPUT: &str = "output";

/// Where it is taken and not shown: those have no state directory to be told of, or answer in no form of ours.
const UNUSED: &[(&str, &[&str])] = &[
    ("completion", &[STATE, OUTPUT]),
    ("config", &[OUTPUT]),
    ("connection delete", &[OUTPUT]),
    ("dev", &[STATE, OUTPUT]),
    ("exec", &[STATE, OUTPUT]),
    ("get", &[STATE]),
    ("group delete", &[OUTPUT]),
    ("healthcheck", &[OUTPUT]),
    ("helper", &[STATE, OUTPUT]),
    ("inject", &[STATE]),
    ("man", &[STATE, OUTPUT]),
    ("secret delete", &[OUTPUT]),
    ("serve", &[OUTPUT]),
    ("step run", &[OUTPUT]),
    ("whoami", &[STATE]),
];

/// The exit codes, which README.md lists, too.
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

/// Every command, with what is said below its help.
pub(crate) fn with_help() -> Command {
    let mut tree = tree();
    for (words, examples) in EXAMPLES {
        let lines = examples.iter().map(|example| format!("\n  {example}"));
        let text = format!("Examples:{}", lines.collect::<String>());
        tree = at(tree, words, |command| command.after_help(text));
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

/// An argument of every command in place of the one that would be shown.
fn unused(id: &'static str) -> Arg {
    let common = Common::augment_args(Command::new(""));
    let found = common.get_arguments().find(|argument| argument.get_id() == id);
    found.cloned().unwrap_or_else(|| Arg::new(id)).hide(true)
}

/// Changes the command of these words, if there is one: clap panics where there is none.
fn at(tree: Command, words: &str, change: impl FnOnce(Command) -> Command) -> Command {
    let (first, rest) = words.split_once(' ').unwrap_or((words, ""));
    match first {
        "" => change(tree),
        first if tree.find_subcommand(first).is_none() => tree,
        // Boxed, so that this is one function however deep it goes.
        first => {
            let change: Box<dyn FnOnce(Command) -> Command + '_> = Box::new(change);
            tree.mut_subcommand(first, |command| at(command, rest, change))
        }
    }
}

/// A usage without what the environment says: clap takes it for written, and so for something to write.
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
    fn every_example_is_a_command_line_that_is_taken() {
        for (words, examples) in EXAMPLES {
            assert!(!examples.is_empty());
            for example in *examples {
                let example = example.split(" > ").next().unwrap();
                let line = shell_words::split(&example.replace("\\\n", "")).unwrap();
                let begin = format!("keyhatch {words}");
                assert!(example.starts_with(&begin), "{example}");
                let parsed = tree().try_get_matches_from(&line);
                assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn what_is_not_shown_is_taken_all_the_same() {
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
