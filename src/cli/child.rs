//! A command that runs as a step: its environment, its signals, its exit code.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::tcgetpgrp;
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
        let text = name.to_string_lossy();
        // What a helper answers is no identity.
        if text.starts_with("KEYHATCH_") && !text.starts_with("KEYHATCH_HELPER_") {
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
    run_with(command, &mut Signals::listen()?).await
}

/// The same, where signals are listened for already.
///
/// # Errors
/// If it cannot be started.
pub async fn run_with(command: Command, signals: &mut Signals) -> Result<u8, Failure> {
    let program = command.get_program().to_owned();
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

/// The signals that are passed on. Listening is for the rest of this process's life: who gets none of them from
/// here any more must end by itself.
pub struct Signals {
    /// Whoever started this may have said that some are to be ignored, as nohup does; the command ignores them, too.
    listened: Vec<(Signal, SignalStream)>,
}

/// What is passed on. What a keyboard sends is last.
const PASSED_ON: [Signal; 6] =
    [Signal::HUP, Signal::TERM, Signal::USR1, Signal::USR2, Signal::INT, Signal::QUIT];

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn listen() -> std::io::Result<Self> {
        let ignored = ignored_signals();
        // A terminal gives these to the whole group in its foreground; passing them on would double them.
        let is_in_foreground = is_in_foreground();
        let from_terminal =
            |signal| is_in_foreground && [Signal::INT, Signal::QUIT].contains(&signal);
        let mut listened = Vec::new();
        for passed_on in PASSED_ON {
            let number = passed_on.as_raw();
            let is_ignored = ignored.checked_shr(number.unsigned_abs() - 1).unwrap_or(0) & 1 == 1;
            if is_ignored {
                continue;
            }
            let stream = signal(SignalKind::from_raw(number))?;
            if !from_terminal(passed_on) {
                listened.push((passed_on, stream));
            }
        }
        Ok(Self { listened })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            let mut streams = self.listened.iter_mut();
            let found = streams.find_map(|(signal, stream)| {
                stream.poll_recv(context).is_ready().then_some(*signal)
            });
            found.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }
}

/// The signals that this process has inherited as ignored: SigIgn of proc(5), a bit each.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Whether a terminal's keyboard is for this process's group.
fn is_in_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty");
    let group = terminal.ok().and_then(|terminal| tcgetpgrp(terminal).ok());
    group == Some(rustix::process::getpgrp())
}
