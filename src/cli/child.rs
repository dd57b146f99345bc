//! A command that runs as a step: its environment, its signals, its exit code.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

use super::failure::{Failure, exit};

/// The command's first word and its arguments.
///
/// # Errors
/// If there is no first word.
pub fn command(words: &[OsString]) -> Result<Command, Failure> {
    let (program, arguments) =
        words.split_first().ok_or_else(|| Failure::usage("no command: write it after --"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Makes the command see one identity and no other: inherited `KEYHATCH_*` go, the step's come, and this
/// program's own directory is on the PATH so that `keyhatch get` is found.
pub fn become_step<'a>(
    command: &mut Command,
    directory: &str,
    env: impl Iterator<Item = (&'a String, &'a String)>,
) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KEYHATCH_") {
            command.env_remove(name);
        }
    }
    command.env("KEYHATCH_DIR", directory).envs(env);
    let own = std::env::current_exe().ok().and_then(|path| path.parent().map(ToOwned::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let joined = std::env::join_paths(std::env::split_paths(&path).chain(own));
    if let Ok(joined) = joined {
        command.env("PATH", joined);
    }
}

/// Why the command could not be run, with the exit code that shells use.
pub fn not_run(error: &std::io::Error, program: &std::ffi::OsStr) -> Failure {
    let text = format!("{}: {error}", program.to_string_lossy());
    match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new("COMMAND_NOT_FOUND", text, exit::NOT_FOUND),
        _ => Failure::new("COMMAND_NOT_EXECUTABLE", text, exit::NOT_EXECUTABLE),
    }
}

/// Runs the command to its end and returns its exit code, 128 + N if signal N ended it. Signals that
/// this process gets are passed on.
///
/// # Errors
/// If it cannot be started.
pub async fn run(command: Command) -> Result<u8, Failure> {
    let program = command.get_program().to_owned();
    let mut signals = Signals::listen()?;
    let mut child = tokio::process::Command::from(command)
        .spawn()
        .map_err(|error| not_run(&error, &program))?;
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            signal = signals.next() => {
                if let Some(pid) = pid {
                    // It may have ended by itself meanwhile.
                    let _ = kill_process(pid, signal);
                }
            }
        }
    };
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::FAILED))
}

/// The signals that are passed on.
struct Signals {
    hangup: SignalStream,
    interrupt: SignalStream,
    quit: SignalStream,
    terminate: SignalStream,
    user1: SignalStream,
    user2: SignalStream,
    /// On a terminal the kernel gives these to the child too; passing them on would double them.
    from_terminal: bool,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            from_terminal: std::io::stdin().is_terminal(),
        })
    }

    async fn next(&mut self) -> Signal {
        loop {
            let (signal, is_keyboard) = tokio::select! {
                _ = self.hangup.recv() => (Signal::HUP, false),
                _ = self.interrupt.recv() => (Signal::INT, true),
                _ = self.quit.recv() => (Signal::QUIT, true),
                _ = self.terminate.recv() => (Signal::TERM, false),
                _ = self.user1.recv() => (Signal::USR1, false),
                _ = self.user2.recv() => (Signal::USR2, false),
            };
            if !(is_keyboard && self.from_terminal) {
                return signal;
            }
        }
    }
}
