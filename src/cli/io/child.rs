//! Commands that run as a step: starting them, and their environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;

use super::failure::{Failure, exit};
use crate::sys::OtherUser;

/// The prefix of the variables that configure a helper. They are no identity.
const HELPERS: &str = "KEYHATCH_HELPER_";
/// Variables for language and terminal: none holds a credential.
const PLAIN: [&str; 6] = ["CI", "COLORTERM", "LANG", "LANGUAGE", "TERM", "TZ"];
/// The search path of systemd.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts a command with `start`, such as `Command::spawn`. As shells and execvp(3) do, it gives a file of a format that
/// the kernel does not know to sh.
///
/// # Errors
/// If there is no first word, or the command cannot be started.
pub fn start<T>(
    words: &[OsString],
    set_up: impl Fn(&mut Command) -> std::io::Result<()>,
    start: impl Fn(&mut Command) -> std::io::Result<T>,
) -> Result<T, Failure> {
    let (program, arguments) =
        words.split_first().ok_or_else(|| Failure::usage("no command: write it after --"))?;
    let started = |command: &mut Command| {
        set_up(command)?;
        // With a PATH of its own, std forks before it searches for the program. Otherwise it uses posix_spawn(3), and
        // the program ignores the two signals that the C library reserves for threads. A program that is named by its
        // path still does: there is no other safe code that forks.
        let has_path = command.get_envs().any(|(name, _)| name == "PATH");
        if let (false, Some(path)) = (has_path, std::env::var_os("PATH")) {
            command.env("PATH", path);
        }
        start(command)
    };
    let mut command = Command::new(program);
    let outcome = match started(command.args(arguments)) {
        Err(error) if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
            let script = located(&command);
            started(Command::new("/bin/sh").arg(script).args(arguments))
        }
        outcome => outcome,
    };
    outcome.map_err(|error| not_run(&error, program))
}

/// The file that a command executes.
fn located(command: &Command) -> PathBuf {
    let program = Path::new(command.get_program());
    let path = path_of(command);
    let is_executable = |file: &PathBuf| {
        file.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let searched = match program.components().count() {
        1 => std::env::split_paths(&path).map(|folder| folder.join(program)).find(is_executable),
        _ => None,
    };
    searched.unwrap_or_else(|| program.to_owned())
}

/// The search path of a command.
fn path_of(command: &Command) -> OsString {
    let own = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path);
    own.map(ToOwned::to_owned).or_else(|| std::env::var_os("PATH")).unwrap_or_default()
}

/// Gives the command the environment of another user. From the environment of this process it keeps only variables that
/// hold no credential, and those in `preserved`.
pub fn become_user(command: &mut Command, user: &OtherUser, preserved: &[OsString]) {
    command.env_clear().env("PATH", DEFAULT_PATH).envs(user.variables());
    let is_kept = |name: &OsString| {
        let text = name.to_string_lossy();
        let is_plain = PLAIN.contains(&text.as_ref())
            || ["LC_", HELPERS].iter().any(|prefix| text.starts_with(prefix));
        is_plain || preserved.contains(name)
    };
    command.envs(std::env::vars_os().filter(|(name, _)| is_kept(name)));
}

/// Gives the command the identity of a step and no other: removes inherited `KEYHATCH_*` variables, sets those of the
/// step, and appends the directory of this program to the PATH so that `keyhatch get` is found.
pub fn become_step<'a>(
    command: &mut Command,
    directory: &str,
    env: impl Iterator<Item = (&'a String, &'a String)>,
) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("KEYHATCH_") && !text.starts_with(HELPERS) {
            command.env_remove(name);
        }
    }
    command.env("KEYHATCH_DIR", directory).envs(env);
    let own = std::env::current_exe().ok().and_then(|path| path.parent().map(ToOwned::to_owned));
    let path = path_of(command);
    let joined = std::env::join_paths(std::env::split_paths(&path).chain(own));
    if let Ok(joined) = joined {
        command.env("PATH", joined);
    }
}

/// The failure of a command that could not be started, with the exit code that shells use.
fn not_run(error: &std::io::Error, program: &OsStr) -> Failure {
    let text = format!("{}: {error}", program.to_string_lossy());
    match error.kind() {
        std::io::ErrorKind::ArgumentListTooLong => {
            let text = format!(
                "{text}; its arguments and environment are too large together: pass large values with --file"
            );
            Failure::new("COMMAND_NOT_EXECUTABLE", text, exit::NOT_EXECUTABLE)
        }
        std::io::ErrorKind::NotFound => Failure::new("COMMAND_NOT_FOUND", text, exit::NOT_FOUND),
        _ => Failure::new("COMMAND_NOT_EXECUTABLE", text, exit::NOT_EXECUTABLE),
    }
}
